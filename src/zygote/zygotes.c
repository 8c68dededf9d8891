/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "zygote/zygote_priv.h"

/* A package that prints without end shall not fill the host's disk: what is beyond the limit in one
 * second is not kept. Each line costs more than itself. */
static void say(struct zygotes *z, const char *line)
{
	uint64_t second = clock_us() / 1000000;

	if (second != z->log_second) {
		z->log_second = second;
		z->log_bytes = 0;
	}
	if (z->log_bytes > LIMIT_LOG_BURST_BYTES)
		return;
	z->log_bytes += strlen(line) + 80;
	if (z->log_bytes > LIMIT_LOG_BURST_BYTES)
		log_info("zygote", "says more than is kept of one second");
	else
		log_info("zygote", "says: %s", line);
}

/* What zygotes print (an import that warns, say) goes to the daemon's log, line by line. */
static void on_log(uv_poll_t *poll, int status, int events)
{
	struct zygotes *z = poll->data;
	struct err err;
	char *to = buf_room(&z->log_text, 4096, &err), *end;
	ssize_t n;

	(void)status;
	(void)events;
	if (!to) {
		buf_reset(&z->log_text);
		return;
	}
	n = read(z->log_pipe[0], to, 4096);
	if (n <= 0)
		return;
	buf_grew(&z->log_text, (size_t)n);
	while ((end = memchr(z->log_text.data, '\n', z->log_text.len))) {
		*end = '\0';
		say(z, z->log_text.data);
		buf_consume(&z->log_text, (size_t)(end - z->log_text.data) + 1);
	}
}

int zygotes_open(uv_loop_t *loop, struct jail *jail, struct zygotes **out, struct err *err)
{
	struct zygotes *z = mem_new(struct zygotes);

	z->loop = loop;
	z->jail = jail;
	z->log_text.max = 64 * KIB;
	if (pipe2(z->log_pipe, O_CLOEXEC | O_NONBLOCK) < 0) {
		free(z);
		return err_sys(err, errno, "pipe");
	}
	must(uv_poll_init(loop, &z->log_poll, z->log_pipe[0]) == 0);
	z->log_poll.data = z;
	must(uv_poll_start(&z->log_poll, UV_READABLE, on_log) == 0);
	*out = z;
	return 0;
}

uint64_t zygotes_violations(const struct zygotes *z)
{
	return z->violations;
}

void zygotes_on_gone(struct zygotes *z, void (*gone)(void *ctx, struct zygote_node *node),
		     void *ctx)
{
	z->on_gone = gone;
	z->on_gone_ctx = ctx;
}

void zygotes_close(struct zygotes *z)
{
	struct err err;

	if (!z)
		return;
	z->closing = true;
	z->on_gone = NULL;
	err_set(&err, ERR_START, "shutting down");
	while (z->nodes) {
		struct zygote_node *node = z->nodes;

		if (node->pid)
			jail_unwatch(z->jail, node->pid);
		if (node->pidfd >= 0)
			syscall(SYS_pidfd_send_signal, node->pidfd, SIGKILL, NULL, 0);
		node_dead(node, &err);
	}
	child_forget_all(z);
	uv_poll_stop(&z->log_poll);
	uv_close((uv_handle_t *)&z->log_poll, NULL);
	fd_close(&z->log_pipe[0]);
	fd_close(&z->log_pipe[1]);
	buf_done(&z->log_text);
}
