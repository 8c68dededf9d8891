/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "function/logs.h"
#include "function/priv.h"

/* The pipe is one per version: its instances are one tenant, and a pipe per instance would cost
 * every cold start. */
struct log_reader {
	uv_poll_t poll; /* first: struct version holds it as a uv_poll_t */
	struct function *fn;
	int fd;
};

static void append(struct log_ring *ring, const char *text, size_t len)
{
	if (ring->text.len + len > LIMIT_LOG_BYTES) { /* forget the older half, to a line's end */
		size_t cut = ring->text.len / 2;
		char *nl = memchr(ring->text.data + cut, '\n', ring->text.len - cut);

		buf_consume(&ring->text, nl ? (size_t)(nl + 1 - ring->text.data) : ring->text.len);
	}
	if (len <= LIMIT_LOG_BYTES / 2 && buf_put(&ring->text, text, len, NULL) < 0)
		buf_reset(&ring->text);
}

static void stamp(struct log_ring *ring)
{
	char text[40];
	struct timespec ts;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	n += (size_t)snprintf(text + n, sizeof(text) - n, ".%03ldZ ", ts.tv_nsec / 1000000);
	append(ring, text, n);
}

static bool flooding(struct log_ring *ring, size_t len)
{
	uint64_t second = clock_us() / 1000000;

	if (second != ring->second) {
		ring->second = second;
		ring->in_second = 0;
		ring->dropping = false;
	}
	ring->in_second += len;
	return ring->in_second > LIMIT_LOG_BURST_BYTES;
}

void logs_add(struct function *fn, const char *text, size_t len)
{
	struct log_ring *ring = &fn->ring;

	if (flooding(ring, len)) {
		static const char note[] = "\n[output beyond 256 KiB in one second is not kept]\n";

		if (!ring->dropping)
			append(ring, note, strlen(note));
		ring->dropping = true;
		ring->mid_line = false;
		return;
	}
	while (len) {
		const char *nl = memchr(text, '\n', len);
		size_t n = nl ? (size_t)(nl - text) + 1 : len;

		if (!ring->mid_line)
			stamp(ring);
		append(ring, text, n);
		ring->mid_line = !nl;
		text += n;
		len -= n;
	}
}

void logs_note(struct function *fn, const char *fmt, ...)
{
	char line[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	n = (size_t)n > sizeof(line) - 2 ? (int)sizeof(line) - 2 : n;
	line[n] = '\n';
	if (fn->ring.mid_line)
		append(&fn->ring, "\n", 1);
	fn->ring.mid_line = false;
	logs_add(fn, line, (size_t)n + 1);
}

static void on_output(uv_poll_t *poll, int status, int events)
{
	struct log_reader *r = poll->data;
	char block[65536];

	for (int i = 0; i < 4; i++) { /* a flood does not keep the loop */
		ssize_t n = read(r->fd, block, sizeof(block));

		if (n <= 0)
			return; /* we hold the other end: it never ends */
		logs_add(r->fn, block, (size_t)n);
		if ((size_t)n < sizeof(block))
			return;
	}
}

int logs_open(struct version *v, struct err *err)
{
	struct log_reader *r;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_sys(err, errno, "making a pipe for a function's output");
	if (fd_nonblock(fds[0], err) < 0) {
		close(fds[0]);
		close(fds[1]);
		return -1;
	}
	r = mem_new(struct log_reader);
	r->fn = v->fn;
	r->fd = fds[0];
	must(uv_poll_init(v->fn->f->config.loop, &r->poll, r->fd) == 0);
	r->poll.data = r;
	must(uv_poll_start(&r->poll, UV_READABLE, on_output) == 0);
	v->log = &r->poll;
	v->log_w = fds[1];
	return 0;
}

static void free_reader(uv_handle_t *handle)
{
	free(handle->data);
}

void logs_close(struct version *v)
{
	struct log_reader *r;

	if (!v->log)
		return;
	r = v->log->data;
	on_output(v->log, 0, UV_READABLE); /* what is still in the pipe */
	uv_close((uv_handle_t *)v->log, free_reader);
	fd_close(&r->fd);
	v->log = NULL;
	fd_close(&v->log_w);
}
