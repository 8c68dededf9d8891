/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (any thread). Private to the room.
 *
 * JSON read in one pass without a tree: an index page of 40 MB as a tree takes half a GB. The text
 * is from outside: UTF-8 is the caller's to check first (scan_is_utf8), nesting is limited to
 * LIMIT_JSON_DEPTH, and after the first mistake nothing more is read.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct scan {
	const char *at, *end;
	int depth;
	const char *bad; /* what was wrong first; NULL: nothing */
};

/* A string as it stands between its quotes. */
struct scan_text {
	const char *s;
	size_t len;
	bool escaped;
};

bool scan_is_utf8(const char *text, size_t len);

/* The first character of the value that comes next; 0: none. */
char scan_peek(struct scan *s);
/* Each consumes one value. Those that want a certain kind return false and step over another. */
void scan_skip(struct scan *s);
bool scan_string(struct scan *s, struct scan_text *out);
bool scan_true(struct scan *s);
unsigned long long scan_size(struct scan *s); /* a whole number not below 0, else 0 */
/* member() and item() must consume one value each. */
bool scan_object(struct scan *s,
		 void (*member)(struct scan *s, const struct scan_text *key, void *arg), void *arg);
bool scan_array(struct scan *s, void (*item)(struct scan *s, void *arg), void *arg);
/* Nothing but space may follow; false: s->bad says what was wrong, here or before. */
bool scan_end(struct scan *s);

bool scan_is(const struct scan_text *text, const char *word);
/* Escapes undone, a copy; NULL when it holds a NUL or half a surrogate pair. */
char *scan_copy(const struct scan_text *text);
