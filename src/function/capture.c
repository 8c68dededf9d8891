/* SPDX-License-Identifier: Apache-2.0 */
#include "function/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"

/* The job's pipes are read while it runs, so that it cannot block on a full one. */
struct stream {
	struct capture *owner;
	uv_poll_t poll;
	int fd;
	struct buf text;
	bool open, over;
};

struct capture {
	struct stream streams[2]; /* stdout, stderr */
	int handles;		  /* still to be closed by the loop */
	int status;
	bool ended;
	struct err err;
	capture_fn done;
	void *arg;
};

static void last_line(struct capture *c)
{
	struct buf *text = &c->streams[1].text;
	char *line = text->data;

	if (!line)
		line = "";
	while (text->data && text->len && strchr(" \n\r\t", text->data[text->len - 1]))
		text->data[--text->len] = '\0';
	if (strrchr(line, '\n'))
		line = strrchr(line, '\n') + 1;
	if (WIFSIGNALED(c->status))
		err_set(&c->err, ERR_SYSTEM, "ended by signal %d", WTERMSIG(c->status));
	else
		err_set(&c->err, ERR_CORRUPT, "%.500s",
			*line ? line : "it ended with a failure and no message");
}

static void finish(struct capture *c)
{
	if (!c->ended || c->handles)
		return;
	if (c->err.kind == ERR_NONE && c->status != 0)
		last_line(c);
	if (c->err.kind == ERR_NONE && c->streams[0].over)
		err_set(&c->err, ERR_LIMIT, "it printed more than %lu bytes",
			LIMIT_JOB_OUTPUT_BYTES);
	c->done(c->arg, &c->streams[0].text, c->err.kind == ERR_NONE ? NULL : &c->err);
	for (int i = 0; i < 2; i++)
		buf_done(&c->streams[i].text);
	free(c);
}

static void on_closed(uv_handle_t *handle)
{
	struct stream *s = handle->data;

	s->owner->handles--;
	finish(s->owner);
}

static void stream_close(struct stream *s)
{
	if (!s->open)
		return;
	s->open = false;
	uv_close((uv_handle_t *)&s->poll, on_closed);
	fd_close(&s->fd);
}

static void stream_read(struct stream *s)
{
	for (;;) {
		char block[4096];
		ssize_t n = read(s->fd, block, sizeof(block));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0)
			break;
		if (buf_put(&s->text, block, (size_t)n, NULL) < 0)
			s->over = true;
	}
	stream_close(s);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	stream_read(poll->data);
}

static void on_job(void *arg, int status, const struct err *err)
{
	struct capture *c = arg;

	c->ended = true;
	c->status = status;
	if (err)
		c->err = *err;
	for (int i = 0; i < 2; i++) {
		if (c->streams[i].open)
			stream_read(&c->streams[i]); /* the rest is in the pipe already */
		stream_close(&c->streams[i]);
	}
	if (!c->handles)
		finish(c);
}

static void stream_open(struct capture *c, uv_loop_t *loop, int which, int fd)
{
	struct stream *s = &c->streams[which];

	*s = (struct stream){ .owner = c, .fd = fd, .open = true };
	s->text.max = LIMIT_JOB_OUTPUT_BYTES;
	must(uv_poll_init(loop, &s->poll, fd) == 0);
	s->poll.data = s;
	must(uv_poll_start(&s->poll, UV_READABLE | UV_DISCONNECT, on_readable) == 0);
	c->handles++;
}

int capture_start(uv_loop_t *loop, struct jail *jail, struct jail_job_spec *spec, capture_fn done,
		  void *arg, struct err *err)
{
	struct capture *c;
	int ret, fds[2][2];

	if (pipe2(fds[0], O_CLOEXEC) < 0)
		return err_sys(err, errno, "making a pipe");
	if (pipe2(fds[1], O_CLOEXEC) < 0) {
		close(fds[0][0]);
		close(fds[0][1]);
		return err_sys(err, errno, "making a pipe");
	}
	c = mem_new(struct capture);
	c->done = done;
	c->arg = arg;
	spec->fds[0] = spec->nfds ? spec->fds[0] : -1;
	spec->fds[1] = fds[0][1];
	spec->fds[2] = fds[1][1];
	spec->nfds = 3;
	ret = jail_job_start(jail, spec, on_job, c, err);
	close(fds[0][1]);
	close(fds[1][1]);
	if (ret < 0 || fd_nonblock(fds[0][0], err) < 0 || fd_nonblock(fds[1][0], err) < 0) {
		close(fds[0][0]);
		close(fds[1][0]);
		must(ret < 0); /* fcntl on our own pipe does not fail */
		free(c);
		return -1;
	}
	stream_open(c, loop, 0, fds[0][0]);
	stream_open(c, loop, 1, fds[1][0]);
	return 0;
}
