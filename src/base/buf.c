/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"

#define READ_CHUNK 16384UL

void buf_done(struct buf *b)
{
	free(b->data);
	b->data = NULL;
	b->len = b->cap = 0;
}

void buf_reset(struct buf *b)
{
	b->len = 0;
	if (b->data)
		b->data[0] = '\0';
}

char *buf_room(struct buf *b, size_t len, struct err *err)
{
	size_t max = b->max ? b->max : LIMIT_BUF_DEFAULT;
	size_t want, cap;

	if (len > max || b->len > max - len) {
		err_set(err, ERR_LIMIT, "more than %zu bytes", max);
		return NULL;
	}
	want = b->len + len + 1;
	if (want > b->cap) {
		cap = b->cap ? b->cap : 128;
		while (cap < want)
			cap *= 2;
		b->data = mem_resize(b->data, cap);
		b->cap = cap;
	}
	return b->data + b->len;
}

void buf_grew(struct buf *b, size_t len)
{
	b->len += len;
	b->data[b->len] = '\0';
}

int buf_put(struct buf *b, const void *data, size_t len, struct err *err)
{
	char *to = buf_room(b, len, err);

	if (!to)
		return -1;
	if (len)
		memcpy(to, data, len);
	buf_grew(b, len);
	return 0;
}

int buf_puts(struct buf *b, const char *text, struct err *err)
{
	return buf_put(b, text, strlen(text), err);
}

int buf_putf(struct buf *b, struct err *err, const char *fmt, ...)
{
	va_list ap, again;
	char *to;
	int n;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	to = n < 0 ? NULL : buf_room(b, (size_t)n, err);
	if (to) {
		vsnprintf(to, (size_t)n + 1, fmt, again);
		buf_grew(b, (size_t)n);
	}
	va_end(again);
	return to ? 0 : -1;
}

void buf_consume(struct buf *b, size_t len)
{
	if (!len)
		return;
	memmove(b->data, b->data + len, b->len - len);
	b->len -= len;
	b->data[b->len] = '\0';
}

char *buf_steal(struct buf *b)
{
	char *data = b->data ? b->data : mem_zero(1, 1);

	b->data = NULL;
	b->len = b->cap = 0;
	return data;
}

int buf_read_fd(struct buf *b, int fd, struct err *err)
{
	size_t max = b->max ? b->max : LIMIT_BUF_DEFAULT;

	for (;;) {
		size_t left = max - b->len, chunk = left < READ_CHUNK ? left : READ_CHUNK;
		char *to = buf_room(b, chunk ? chunk : 1, err); /* full: is there one byte more? */
		ssize_t n;

		if (!to) {
			char more;

			do
				n = read(fd, &more, 1);
			while (n < 0 && errno == EINTR);
			return n == 0 ? 0 : -1;
		}
		n = read(fd, to, chunk);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, errno, "read");
		if (n == 0)
			break;
		buf_grew(b, (size_t)n);
	}
	b->data[b->len] = '\0';
	return 0;
}

int buf_read_file(struct buf *b, int dirfd, const char *path, struct err *err)
{
	auto_close int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return err_sys(err, errno, "open '%s'", path);
	if (buf_read_fd(b, fd, err) < 0)
		return err_wrap(err, "reading '%s'", path);
	return 0;
}
