/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void must_fail(const char *what, const char *file, int line)
{
	fprintf(stderr, "pipsqueak: bug: %s:%d: must(%s)\n", file, line, what);
	abort();
}

void *mem_zero(size_t count, size_t size)
{
	void *p = calloc(count ? count : 1, size ? size : 1);

	if (!p)
		must_fail("memory", __FILE__, __LINE__);
	return p;
}

void *mem_resize(void *p, size_t size)
{
	p = realloc(p, size ? size : 1);
	if (!p)
		must_fail("memory", __FILE__, __LINE__);
	return p;
}

char *mem_strndup(const char *s, size_t len)
{
	char *copy = mem_zero(len + 1, 1);

	memcpy(copy, s, len);
	return copy;
}

char *mem_strdup(const char *s)
{
	return s ? mem_strndup(s, strlen(s)) : NULL;
}

char *mem_printf(const char *fmt, ...)
{
	va_list ap;
	char *out = NULL;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&out, fmt, ap);
	va_end(ap);
	if (n < 0)
		must_fail("memory", __FILE__, __LINE__);
	return out;
}
