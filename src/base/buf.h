/* SPDX-License-Identifier: Apache-2.0
 * Runs in: every process.
 *
 * A growing byte buffer with a ceiling. data[len] is always '\0' once anything was written, so a
 * buffer of text can be read as a C string. Growing beyond max fails with ERR_LIMIT; running out
 * of memory below the ceiling aborts (state on disk is safe at any moment).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct buf {
	char *data;
	size_t len, cap;
	size_t max; /* bytes; 0 means LIMIT_BUF_DEFAULT */
};

#define BUF_MAX(m) ((struct buf){ .max = (m) })

void buf_done(struct buf *b);
void buf_reset(struct buf *b); /* empties, keeps memory */
warn_unused int buf_put(struct buf *b, const void *data, size_t len, struct err *err);
warn_unused int buf_puts(struct buf *b, const char *text, struct err *err);
warn_unused int buf_putf(struct buf *b, struct err *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Make room for len more bytes and return where they go; commit with buf_grew(). NULL: limit. */
char *buf_room(struct buf *b, size_t len, struct err *err);
void buf_grew(struct buf *b, size_t len);
void buf_consume(struct buf *b, size_t len); /* drop len bytes from the front */
char *buf_steal(struct buf *b);		     /* the caller frees; never NULL */
/* Read a whole file; more than max bytes is ERR_LIMIT. */
warn_unused int buf_read_file(struct buf *b, int dirfd, const char *path, struct err *err);
warn_unused int buf_read_fd(struct buf *b, int fd, struct err *err);

#define auto_buf __attribute__((cleanup(buf_done)))
