/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	int http, exit;
} kinds[ERR_KINDS] = {
	[ERR_NONE] = { "none", 200, 0 },	   [ERR_USAGE] = { "usage", 400, 2 },
	[ERR_NOT_FOUND] = { "not_found", 404, 3 }, [ERR_CONFLICT] = { "conflict", 409, 4 },
	[ERR_BUSY] = { "busy", 429, 5 },	   [ERR_LIMIT] = { "limit", 507, 6 },
	[ERR_DENIED] = { "denied", 403, 7 },	   [ERR_CORRUPT] = { "corrupt", 502, 8 },
	[ERR_UPSTREAM] = { "upstream", 502, 9 },   [ERR_TIMEOUT] = { "timeout", 504, 10 },
	[ERR_SYSTEM] = { "system", 500, 11 },	   [ERR_HANDLER] = { "handler", 500, 1 },
	[ERR_DIED] = { "died", 502, 12 },	   [ERR_START] = { "start", 503, 13 },
	[ERR_TOO_BIG] = { "too_big", 413, 14 },
};

static enum err_kind kind_of_errno(int sys)
{
	switch (sys) {
	case ENOENT:
		return ERR_NOT_FOUND;
	case EACCES:
	case EPERM:
		return ERR_DENIED;
	case ENOSPC:
	case EDQUOT:
	case EMFILE:
	case ENFILE:
		return ERR_LIMIT;
	case ETIMEDOUT:
		return ERR_TIMEOUT;
	default:
		return ERR_SYSTEM;
	}
}

int err_set(struct err *err, enum err_kind kind, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return -1;
	err->kind = kind;
	err->sys = 0;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	return -1;
}

int err_sys(struct err *err, int sys, const char *fmt, ...)
{
	va_list ap;
	size_t n;

	if (!err)
		return -1;
	err->kind = kind_of_errno(sys);
	err->sys = sys;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	n = strlen(err->text);
	snprintf(err->text + n, sizeof(err->text) - n, ": %s", strerror(sys));
	return -1;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
	char what[sizeof(err->text)], whole[sizeof(err->text)];
	va_list ap;
	size_t n;

	if (!err)
		return -1;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	n = (size_t)snprintf(whole, sizeof(whole), "%s: ", what);
	if (n < sizeof(whole)) {
		size_t left = sizeof(whole) - n - 1;
		size_t have = strlen(err->text);

		if (have > left)
			have = left;
		memcpy(whole + n, err->text, have);
		whole[n + have] = '\0';
	}
	memcpy(err->text, whole, sizeof(whole));
	return -1;
}

int err_http_status(enum err_kind kind)
{
	return kind < ERR_KINDS ? kinds[kind].http : 500;
}

int err_exit_code(enum err_kind kind)
{
	return kind < ERR_KINDS ? kinds[kind].exit : 11;
}

const char *err_kind_name(enum err_kind kind)
{
	return kind < ERR_KINDS ? kinds[kind].name : "system";
}

enum err_kind err_kind_parse(const char *name)
{
	for (int i = 0; i < ERR_KINDS; i++)
		if (strcmp(kinds[i].name, name) == 0)
			return (enum err_kind)i;
	return ERR_SYSTEM;
}
