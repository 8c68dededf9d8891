/* SPDX-License-Identifier: Apache-2.0 */
#include "function/json_check.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/limits.h"

struct scan {
	const char *p, *end;
};

static bool skip_space(struct scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
		s->p++;
	return s->p < s->end;
}

static bool take(struct scan *s, char c)
{
	if (s->p >= s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

static bool digits(struct scan *s)
{
	const char *from = s->p;

	while (s->p < s->end && isdigit((unsigned char)*s->p))
		s->p++;
	return s->p > from;
}

static bool number(struct scan *s)
{
	take(s, '-');
	if (!take(s, '0') && !digits(s))
		return false;
	if (take(s, '.') && !digits(s))
		return false;
	if (take(s, 'e') || take(s, 'E')) {
		if (!take(s, '+'))
			take(s, '-');
		return digits(s);
	}
	return true;
}

static bool escape(struct scan *s)
{
	char c = s->p < s->end ? *s->p++ : '\0';

	if (c != 'u')
		return c && strchr("\"\\/bfnrt", c);
	if (s->end - s->p < 4)
		return false;
	for (int i = 0; i < 4; i++)
		if (!isxdigit((unsigned char)*s->p++))
			return false;
	return true;
}

static bool string(struct scan *s)
{
	if (!take(s, '"'))
		return false;
	while (s->p < s->end) {
		unsigned char c = (unsigned char)*s->p++;

		if (c == '"')
			return true;
		if (c < 0x20 || (c == '\\' && !escape(s)))
			return false;
	}
	return false;
}

static bool word(struct scan *s, const char *text)
{
	size_t len = strlen(text);

	if ((size_t)(s->end - s->p) < len || memcmp(s->p, text, len) != 0)
		return false;
	s->p += len;
	return true;
}

static bool scalar(struct scan *s)
{
	switch (*s->p) {
	case '"':
		return string(s);
	case 't':
		return word(s, "true");
	case 'f':
		return word(s, "false");
	case 'n':
		return word(s, "null");
	default:
		return number(s);
	}
}

/* After '{' or ',' of an object: the key and its colon. */
static bool key(struct scan *s)
{
	return skip_space(s) && string(s) && skip_space(s) && take(s, ':');
}

/* Opens containers until a scalar or an empty container has been read. */
static bool descend(struct scan *s, char *stack, size_t *depth)
{
	for (;;) {
		char c;

		if (!skip_space(s))
			return false;
		c = *s->p;
		if (c != '{' && c != '[')
			return scalar(s);
		s->p++;
		if (*depth == LIMIT_JSON_DEPTH || !skip_space(s))
			return false;
		if (take(s, c == '{' ? '}' : ']'))
			return true;
		stack[(*depth)++] = c;
		if (c == '{' && !key(s))
			return false;
	}
}

/* After a value: closes containers; false when a further value must follow (or on error). */
static bool ascend(struct scan *s, const char *stack, size_t *depth, bool *out_bad)
{
	while (*depth) {
		char c = stack[*depth - 1];

		if (!skip_space(s)) {
			*out_bad = true;
			return false;
		}
		if (take(s, c == '{' ? '}' : ']')) {
			(*depth)--;
			continue;
		}
		*out_bad = !take(s, ',') || (c == '{' && !key(s));
		return false;
	}
	return true;
}

/* Bytes that follow this first byte of a character, or -1: it cannot begin one. */
static int follow(unsigned char c)
{
	if (c < 0x80)
		return 0;
	if (c < 0xc2 || c > 0xf4)
		return -1;
	return c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
}

/* Overlong, a surrogate, or beyond Unicode. */
static bool bad_character(uint32_t c, int n)
{
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };

	return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000);
}

/* Python's json.loads() decodes as UTF-8 first: what is not UTF-8 would fail there, too late. */
static const char *bad_utf8(const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text, *end = p + len;

	while (p < end) {
		const unsigned char *from = p++;
		int n = follow(*from);
		uint32_t c = n > 0 ? *from & (0x3fu >> n) : *from;

		if (n < 0 || end - p < n)
			return (const char *)from;
		for (int i = 0; i < n; i++, p++) {
			if ((*p & 0xc0) != 0x80)
				return (const char *)from;
			c = c << 6 | (*p & 0x3fu);
		}
		if (n && bad_character(c, n))
			return (const char *)from;
	}
	return NULL;
}

int json_check(const char *text, size_t len, struct err *err)
{
	char stack[LIMIT_JSON_DEPTH];
	struct scan s = { text, text + len };
	const char *broken = bad_utf8(text, len);
	size_t depth = 0;
	bool bad = false, done = false;

	if (broken)
		return err_set(err, ERR_USAGE, "the event is not UTF-8 (at byte %zu)",
			       (size_t)(broken - text));
	while (!done && !bad) {
		bad = !descend(&s, stack, &depth);
		if (!bad)
			done = ascend(&s, stack, &depth, &bad);
	}
	if (bad || skip_space(&s))
		return err_set(err, ERR_USAGE,
			       len ? "the event is not valid JSON (at byte %zu)"
				   : "the event is empty; send JSON, e.g. {}",
			       (size_t)(s.p - text));
	return 0;
}
