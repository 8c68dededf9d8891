/* SPDX-License-Identifier: Apache-2.0
 *
 * As much of HTTP/1.1 (RFC 9112) as the daemon speaks: one request a connection, Content-Length or
 * chunked answers, or lines as they come. By hand because an HTTP library's start-up would double
 * the command's.
 */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/view.h"

#define MAX_HEAD (64 * KIB)
#define MAX_BODY (64 * MIB)
#define STREAM_TYPE "application/x-ndjson"
#define ANSWER "{\"event\":\"answer\"" /* how the last line of a stream begins */

void http_reply_done(struct http_reply *r)
{
	buf_done(&r->body);
}

static int send_request(int fd, const struct http_ask *ask, struct err *err)
{
	const struct buf *body = ask->body;
	auto_buf struct buf head = BUF_MAX(MIB);

	if (buf_putf(&head, err,
		     "%s %s HTTP/1.%d\r\nHost: localhost\r\nConnection: close\r\n%s%s"
		     "Content-Length: %zu\r\n\r\n",
		     ask->method, ask->path, ask->view ? 0 : 1,
		     ask->view ? "Accept: " STREAM_TYPE "\r\n" : "",
		     ask->headers ? ask->headers : "", body ? body->len : 0) < 0)
		return -1;
	if (fd_write_all(fd, head.data, head.len, err) < 0)
		return -1;
	if (body && body->len && fd_write_all(fd, body->data, body->len, err) < 0) {
		/* An early refusal (too big) may already be there to be read. */
		if (err->sys != EPIPE && err->sys != ECONNRESET)
			return -1;
	}
	return 0;
}

static const char *header(const char *head, const char *name)
{
	size_t n = strlen(name);

	for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
		if (strncasecmp(line + 2, name, n) == 0 && line[2 + n] == ':')
			return line + 3 + n + strspn(line + 3 + n, " \t");
	return NULL;
}

static int unchunk(const char *p, size_t len, struct buf *out, struct err *err)
{
	const char *end = p + len;

	for (;;) {
		char *after;
		unsigned long n;

		if (p >= end || !isxdigit((unsigned char)*p))
			return err_set(err, ERR_CORRUPT, "the daemon's answer was cut off");
		n = strtoul(p, &after, 16);
		while (after < end && *after != '\n')
			after++;
		p = after + 1;
		if (n == 0)
			return 0;
		if (p > end || n > (size_t)(end - p))
			return err_set(err, ERR_CORRUPT, "the daemon's answer was cut off");
		if (buf_put(out, p, n, err) < 0)
			return -1;
		p += n + 2;
	}
}

static int parse(const struct buf *raw, struct http_reply *out, struct err *err)
{
	char *blank = raw->data ? memmem(raw->data, raw->len, "\r\n\r\n", 4) : NULL;
	const char *value, *body;
	size_t rest;

	if (!blank || (size_t)(blank - raw->data) > MAX_HEAD ||
	    sscanf(raw->data, "HTTP/1.%*d %d", &out->status) != 1)
		return err_set(err, ERR_CORRUPT, "the daemon gave no HTTP answer");
	blank[2] = '\0';
	body = blank + 4;
	rest = raw->len - (size_t)(body - raw->data);
	if ((value = header(raw->data, "Server-Timing")))
		snprintf(out->timing, sizeof(out->timing), "%.*s", (int)strcspn(value, "\r"),
			 value);
	value = header(raw->data, "Transfer-Encoding");
	if (value && strncasecmp(value, "chunked", 7) == 0)
		return unchunk(body, rest, &out->body, err);
	value = header(raw->data, "Content-Length");
	if (value && strtoull(value, NULL, 10) > rest)
		return err_set(err, ERR_CORRUPT, "the daemon's answer was cut off");
	return buf_put(&out->body, body, value ? strtoull(value, NULL, 10) : rest, err);
}

/* The last line of a stream: what the answer would have been without. */
static int parse_last(const char *line, struct http_reply *out, struct err *err)
{
	json_t *o = json_loads(line, 0, NULL);
	char *body = json_dumps(json_object_get(o, "body"), JSON_INDENT(2));
	int rc = 0;

	out->status = (int)json_integer_value(json_object_get(o, "status"));
	if (!body || !out->status)
		rc = err_set(err, ERR_CORRUPT, "the daemon's answer makes no sense");
	else
		rc = buf_puts(&out->body, body, err);
	free(body);
	json_decref(o);
	return rc;
}

/* The whole lines of raw, from *done on, are shown; the last one waits for the end. */
static void show_lines(struct buf *raw, size_t *done, struct view *view)
{
	char *end;

	while ((end = memchr(raw->data + *done, '\n', raw->len - *done))) {
		char *line = raw->data + *done;

		if (strncmp(line, ANSWER, strlen(ANSWER)) == 0)
			return;
		*end = '\0';
		view_take(view, line);
		*done = (size_t)(end + 1 - raw->data);
	}
}

static bool is_stream(const struct buf *raw, size_t *out_body)
{
	char *blank = memmem(raw->data, raw->len, "\r\n\r\n", 4);
	const char *type;

	type = blank ? header(raw->data, "Content-Type") : NULL;
	if (!type || type > blank || strncmp(type, STREAM_TYPE, strlen(STREAM_TYPE)) != 0)
		return false;
	*out_body = (size_t)(blank + 4 - raw->data);
	return true;
}

/* Asked for by HTTP/1.0, a stream is lines until the connection ends, and an answer of one piece
 * comes as ever. */
static int watch(int fd, struct view *view, struct http_reply *out, struct err *err)
{
	auto_buf struct buf raw = BUF_MAX(MAX_BODY + MAX_HEAD);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t done = 0;
	ssize_t n;

	for (;;) {
		if (poll(&p, 1, view_wait_ms(view)) < 0 && errno != EINTR)
			return err_sys(err, errno, "waiting for the daemon");
		view_draw(view);
		if (!p.revents)
			continue;
		if (!buf_room(&raw, 16 * KIB, err))
			return -1;
		n = read(fd, raw.data + raw.len, 16 * KIB);
		if (n < 0)
			return err_sys(err, errno, "reading from the daemon");
		if (n == 0)
			break;
		buf_grew(&raw, (size_t)n);
		if (done || is_stream(&raw, &done))
			show_lines(&raw, &done, view);
	}
	if (!done)
		return parse(&raw, out, err);
	if (done == raw.len || raw.data[raw.len - 1] != '\n')
		return err_set(err, ERR_DIED, "the daemon ended before it had answered");
	return parse_last(raw.data + done, out, err);
}

int http_request(int fd, const struct http_ask *ask, struct http_reply *out, struct err *err)
{
	auto_buf struct buf raw = BUF_MAX(MAX_BODY + MAX_HEAD);

	memset(out, 0, sizeof(*out));
	out->body.max = MAX_BODY;
	if (send_request(fd, ask, err) < 0 || (!ask->view && buf_read_fd(&raw, fd, err) < 0))
		return err_wrap(err, "talking to the daemon");
	return ask->view ? watch(fd, ask->view, out, err) : parse(&raw, out, err);
}

int http_error(const struct http_reply *r, struct err *err)
{
	json_t *o = r->body.data ? json_loadb(r->body.data, r->body.len, 0, NULL) : NULL;
	json_t *e = json_object_get(o, "error");
	const char *kind = json_string_value(json_object_get(e, "kind"));
	const char *message = json_string_value(json_object_get(e, "message"));
	const char *traceback = json_string_value(json_object_get(e, "traceback"));

	if (traceback)
		fputs(traceback, stderr);
	err_set(err, kind ? err_kind_parse(kind) : ERR_SYSTEM, "%s",
		message ? message : "the daemon refused without a reason");
	json_decref(o);
	return -1;
}

int api_call(const struct dirs *d, bool start, const char *method, const char *path,
	     struct http_reply *out, struct err *err)
{
	struct http_ask ask = { .method = method, .path = path };
	auto_close int fd = -1;

	if (connect_daemon(d, "api.sock", start, &fd, err) < 0 ||
	    http_request(fd, &ask, out, err) < 0)
		return -1;
	return out->status >= 400 ? http_error(out, err) : 0;
}
