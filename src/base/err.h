/* SPDX-License-Identifier: Apache-2.0
 * Runs in: every process.
 *
 * The one error type. It lives on the caller's stack and is the last argument of every function
 * that can fail; such a function returns 0 or a positive value on success and -1 on failure, and
 * fills *err only on failure. Each room wraps an error once at its border with err_wrap(), so the
 * text reads from the outermost intention to the innermost cause:
 *     "installing numpy: unpacking wheel: open 'x': No such file or directory"
 * Rooms return errors; whoever owns the operation logs it, once.
 */
#pragma once

#include <stdarg.h>

enum err_kind {
	ERR_NONE = 0,
	ERR_USAGE,     /* the caller asked for something malformed */
	ERR_NOT_FOUND, /* the thing named does not exist */
	ERR_CONFLICT,  /* requirements or states that exclude each other */
	ERR_BUSY,      /* a queue is full; try again */
	ERR_LIMIT,     /* a ceiling (size, memory, count) was reached */
	ERR_DENIED,    /* a permission or token is missing */
	ERR_CORRUPT,   /* data failed its check: hash, format, protocol */
	ERR_UPSTREAM,  /* an index or another server failed */
	ERR_TIMEOUT,   /* a deadline passed */
	ERR_SYSTEM,    /* the kernel or this program failed */
	ERR_HANDLER,   /* a function's handler raised */
	ERR_DIED,      /* an instance died while it had a call */
	ERR_START,     /* an instance could not be started */
	ERR_TOO_BIG,   /* a request body above its ceiling */
	ERR_KINDS
};

struct err {
	enum err_kind kind;
	int sys; /* errno at the failure, or 0 */
	char text[1024];
};

#define ERR_INIT ((struct err){ .kind = ERR_NONE })

/* Fill *err (NULL is allowed) and return -1, so that "return err_set(...)" reads well. */
int err_set(struct err *err, enum err_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Like err_set(), with kind chosen from errno `sys` and ": strerror" appended. */
int err_sys(struct err *err, int sys, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put "what: " before the text. Returns -1. */
int err_wrap(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The one table from kind to the world: HTTP status, process exit code, wire name. */
int err_http_status(enum err_kind kind);
int err_exit_code(enum err_kind kind);
const char *err_kind_name(enum err_kind kind);
/* ERR_SYSTEM for an unknown name: names come from another process. */
enum err_kind err_kind_parse(const char *name);

#define warn_unused __attribute__((warn_unused_result))
