/* SPDX-License-Identifier: Apache-2.0
 *
 * What zygotes print (an import that warns, say) goes to the daemon's log, line by line. Each has a
 * stream of its own: a package that prints without end hides nothing of what others print, and
 * none can read what others write.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "zygote/zygote_priv.h"

#define LINE_COST 80 /* each costs more than itself */
#define READ_BYTES 4096
#define LAST_READS 16

struct says {
	struct zygote_node *node;
	int fd;
	uv_poll_t poll;
	struct buf text;
	struct says_budget budget;
};

/* True for a line that is too much; *out_first for the first of a second. */
static bool is_over(struct says_budget *b, size_t bytes, size_t max, bool *out_first)
{
	uint64_t second = clock_us() / 1000000;

	if (second != b->second)
		*b = (struct says_budget){ second, 0 };
	*out_first = b->bytes <= max;
	if (*out_first)
		b->bytes += bytes;
	return b->bytes > max;
}

/* The host's disk shall not be filled: what is beyond the limit in one second is not kept. */
static void say(struct says *s, const char *line)
{
	size_t bytes = strlen(line) + LINE_COST;
	pid_t pid = node_pid(s->node);
	bool first;

	if (is_over(&s->budget, bytes, LIMIT_SAYS_BURST_BYTES, &first) ||
	    is_over(&s->node->z->says, bytes, LIMIT_LOG_BURST_BYTES, &first)) {
		if (first)
			log_info("zygote", "node (pid %d) says more than is kept of one second",
				 pid);
		return;
	}
	log_info("zygote", "node (pid %d) says: %s", pid, line);
}

static ssize_t take(struct says *s)
{
	struct err err;
	char *to = buf_room(&s->text, READ_BYTES, &err), *end;
	ssize_t n;

	if (!to) { /* a line that does not end */
		buf_reset(&s->text);
		return READ_BYTES;
	}
	n = read(s->fd, to, READ_BYTES);
	if (n <= 0)
		return n;
	buf_grew(&s->text, (size_t)n);
	while ((end = memchr(s->text.data, '\n', s->text.len))) {
		*end = '\0';
		say(s, s->text.data);
		buf_consume(&s->text, (size_t)(end - s->text.data) + 1);
	}
	return n;
}

static void on_said(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	if (take(poll->data) == 0) /* it has closed its end */
		uv_poll_stop(poll);
}

static void on_closed(uv_handle_t *handle)
{
	struct says *s = handle->data;

	buf_done(&s->text);
	free(s);
}

int says_open(struct zygote_node *node, struct err *err)
{
	struct says *s;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return err_sys(err, errno, "socketpair");
	s = mem_new(struct says);
	*s = (struct says){ .node = node, .fd = pair[0], .text = BUF_MAX(64 * KIB) };
	s->poll.data = s;
	must(uv_poll_init(node->z->loop, &s->poll, s->fd) == 0);
	must(uv_poll_start(&s->poll, UV_READABLE, on_said) == 0);
	node->says = s;
	return pair[1];
}

void says_close(struct zygote_node *node)
{
	struct says *s = steal(node->says);

	if (!s)
		return;
	/* Its last words; somebody whom it left behind may still be talking. */
	for (int i = 0; i < LAST_READS && take(s) > 0; i++)
		;
	uv_close((uv_handle_t *)&s->poll, on_closed);
	fd_close(&s->fd);
}
