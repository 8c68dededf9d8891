/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/pressure.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"

/* Without CAP_SYS_RESOURCE a window is a multiple of 2 s (Linux 6.5; before, only root may ask). */
static const char trigger[] = "some 200000 2000000";

/* A number of bytes in a file of the own cgroup; 0: none, or "max". */
static uint64_t own_bytes(const struct pressure *p, const char *name)
{
	auto_free char *path = p->dir ? mem_printf("%s/%s", p->dir, name) : NULL;
	auto_buf struct buf text = { 0 };
	struct err ignored;

	if (!path || buf_read_file(&text, AT_FDCWD, path, &ignored) < 0)
		return 0;
	return strtoull(text.data, NULL, 10);
}

static uint64_t line_of(const char *text, const char *name)
{
	const char *line = strstr(text, name);

	return line ? strtoull(line + strlen(name), NULL, 10) : 0;
}

/* Whoever is at a limit of its own makes the same pressure, a function among them: the tree is only
 * to pay for it where memory is scarce for all. */
static bool is_scarce(const struct pressure *p)
{
	uint64_t max = own_bytes(p, "memory.max"), used = own_bytes(p, "memory.current");
	auto_buf struct buf text = { 0 };
	struct err ignored;

	if (max && used > max / 10 * 9)
		return true;
	return buf_read_file(&text, AT_FDCWD, "/proc/meminfo", &ignored) == 0 &&
	       line_of(text.data, "MemAvailable:") < line_of(text.data, "MemTotal:") / 10;
}

static char *own_dir(void)
{
	auto_buf struct buf text = { 0 };
	struct err ignored;
	const char *line;

	if (buf_read_file(&text, AT_FDCWD, "/proc/self/cgroup", &ignored) < 0)
		return NULL;
	line = strstr(text.data, "0::/");
	return line ? mem_printf("/sys/fs/cgroup/%.*s", (int)strcspn(line + 4, "\n"), line + 4)
		    : NULL;
}

static int ask(const char *path)
{
	int fd = path ? open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC) : -1;

	if (fd >= 0 && write(fd, trigger, sizeof(trigger)) < 0)
		fd_close(&fd);
	return fd;
}

static void on_event(uv_poll_t *poll, int status, int events)
{
	struct pressure *p = poll->data;

	if (status < 0) /* the cgroup is gone */
		uv_poll_stop(poll);
	else if ((events & UV_PRIORITIZED) && is_scarce(p))
		p->pressed(p->arg);
}

void pressure_open(struct pressure *p, uv_loop_t *loop, void (*pressed)(void *arg), void *arg)
{
	auto_free char *own = NULL;

	p->dir = own_dir();
	own = p->dir ? mem_printf("%s/memory.pressure", p->dir) : NULL;
	p->pressed = pressed;
	p->arg = arg;
	p->fd = ask(own);
	if (p->fd < 0)
		p->fd = ask("/proc/pressure/memory");
	if (p->fd < 0 || uv_poll_init(loop, &p->poll, p->fd) != 0) {
		log_debug("daemon", "memory pressure is not told here");
		fd_close(&p->fd);
		return;
	}
	p->poll.data = p;
	uv_poll_start(&p->poll, UV_PRIORITIZED, on_event);
	uv_unref((uv_handle_t *)&p->poll);
}

static void closed(uv_handle_t *handle)
{
	struct pressure *p = handle->data;

	fd_close(&p->fd);
}

void pressure_close(struct pressure *p)
{
	free(steal(p->dir));
	if (p->fd >= 0)
		uv_close((uv_handle_t *)&p->poll, closed);
}
