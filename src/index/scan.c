/* SPDX-License-Identifier: Apache-2.0 */
#include "index/scan.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"

/* The length of the UTF-8 sequence here (RFC 3629: no surrogates, none longer than needed, none
 * above U+10FFFF), or 0. */
static size_t sequence(const unsigned char *p, size_t left)
{
	static const struct {
		unsigned char first, last; /* of the first byte */
		unsigned char low, high;   /* of the second */
		size_t n;
	} forms[] = {
		{ 0x00, 0x7f, 0, 0, 1 },       { 0xc2, 0xdf, 0x80, 0xbf, 2 },
		{ 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 },
		{ 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
		{ 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 },
		{ 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};
	size_t f = 0;

	while (f < array_len(forms) && (p[0] < forms[f].first || p[0] > forms[f].last))
		f++;
	if (f == array_len(forms) || forms[f].n > left)
		return 0;
	if (forms[f].n > 1 && (p[1] < forms[f].low || p[1] > forms[f].high))
		return 0;
	for (size_t i = 2; i < forms[f].n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return forms[f].n;
}

bool scan_is_utf8(const char *text, size_t len)
{
	const unsigned char *p = (const unsigned char *)text;

	for (size_t i = 0, n; i < len; i += n) {
		uint64_t eight = 0x80;

		if (len - i >= 8)
			memcpy(&eight, p + i, 8);
		n = eight & 0x8080808080808080u ? sequence(p + i, len - i) : 8;
		if (!n)
			return false;
	}
	return true;
}

static bool fail(struct scan *s, const char *what)
{
	if (!s->bad)
		s->bad = what;
	s->at = s->end;
	return false;
}

char scan_peek(struct scan *s)
{
	while (s->at < s->end &&
	       (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
		s->at++;
	return s->at < s->end ? *s->at : '\0';
}

static bool take(struct scan *s, char c)
{
	if (scan_peek(s) != c)
		return false;
	s->at++;
	return true;
}

static bool read_string(struct scan *s, struct scan_text *out)
{
	const char *p;

	if (!take(s, '"'))
		return fail(s, "a string is missing");
	*out = (struct scan_text){ .s = s->at };
	for (p = s->at; p < s->end && *p != '"'; p++) {
		if ((unsigned char)*p < ' ')
			return fail(s, "a control character in a string");
		if (*p == '\\') {
			out->escaped = true;
			p++;
		}
	}
	if (p >= s->end)
		return fail(s, "a string without an end");
	out->len = (size_t)(p - out->s);
	s->at = p + 1;
	return true;
}

static void skip_word(struct scan *s)
{
	const char *from = s->at;

	while (s->at < s->end && (isalnum((unsigned char)*s->at) || strchr("+-.", *s->at)))
		s->at++;
	if (s->at == from)
		fail(s, "a value is missing");
}

static void skip_member(struct scan *s, const struct scan_text *key, void *arg)
{
	scan_skip(s);
}

static void skip_item(struct scan *s, void *arg)
{
	scan_skip(s);
}

void scan_skip(struct scan *s)
{
	struct scan_text text;

	switch (scan_peek(s)) {
	case '{':
		scan_object(s, skip_member, NULL);
		break;
	case '[':
		scan_array(s, skip_item, NULL);
		break;
	case '"':
		read_string(s, &text);
		break;
	default:
		skip_word(s);
	}
}

bool scan_string(struct scan *s, struct scan_text *out)
{
	if (scan_peek(s) == '"')
		return read_string(s, out);
	scan_skip(s);
	return false;
}

bool scan_true(struct scan *s)
{
	const char *from = (scan_peek(s), s->at);

	scan_skip(s);
	return !s->bad && s->at - from == 4 && memcmp(from, "true", 4) == 0;
}

unsigned long long scan_size(struct scan *s)
{
	unsigned long long n = 0;
	const char *p = (scan_peek(s), s->at), *from = p;

	scan_skip(s);
	for (; p < s->at && isdigit((unsigned char)*p) && p - from < 18; p++)
		n = n * 10 + (unsigned)(*p - '0');
	return p == s->at ? n : 0;
}

static bool enter(struct scan *s, char open)
{
	if (scan_peek(s) != open) {
		scan_skip(s);
		return false;
	}
	if (++s->depth > LIMIT_JSON_DEPTH)
		return fail(s, "nested too deeply");
	s->at++;
	return true;
}

/* Behind a member or an item: does another follow? */
static bool more(struct scan *s, char close)
{
	if (s->bad || take(s, close))
		return false;
	return take(s, ',') ? true : fail(s, "a comma or bracket is missing");
}

bool scan_object(struct scan *s,
		 void (*member)(struct scan *s, const struct scan_text *key, void *arg), void *arg)
{
	struct scan_text key;

	if (!enter(s, '{'))
		return false;
	if (!take(s, '}'))
		do {
			if (!read_string(s, &key) || !take(s, ':'))
				fail(s, "a member's name is missing");
			else
				member(s, &key, arg);
		} while (more(s, '}'));
	s->depth--;
	return !s->bad;
}

bool scan_array(struct scan *s, void (*item)(struct scan *s, void *arg), void *arg)
{
	if (!enter(s, '['))
		return false;
	if (!take(s, ']'))
		do
			item(s, arg);
		while (more(s, ']'));
	s->depth--;
	return !s->bad;
}

bool scan_end(struct scan *s)
{
	if (!s->bad && scan_peek(s))
		fail(s, "something follows its end");
	return !s->bad;
}

bool scan_is(const struct scan_text *text, const char *word)
{
	return text->len == strlen(word) && memcmp(text->s, word, text->len) == 0;
}

/* Four hex digits at p, or -1. */
static long hex4(const char *p, const char *end)
{
	char digits[5] = { 0 };

	if (end - p < 4)
		return -1;
	memcpy(digits, p, 4);
	return strspn(digits, "0123456789abcdefABCDEF") == 4 ? strtol(digits, NULL, 16) : -1;
}

static size_t put_utf8(char *out, unsigned long c)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

/* "\uXXXX", or two of them for what is beyond 16 bits; *p is behind the u. 0: broken. */
static size_t put_escaped(char *out, const char **p, const char *end)
{
	long c = hex4(*p, end), low;

	*p += 4;
	if (c <= 0 || (c >= 0xdc00 && c <= 0xdfff))
		return 0;
	if (c >= 0xd800 && c <= 0xdbff) {
		if (end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u')
			return 0;
		low = hex4(*p + 2, end);
		*p += 6;
		if (low < 0xdc00 || low > 0xdfff)
			return 0;
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	}
	return put_utf8(out, (unsigned long)c);
}

char *scan_copy(const struct scan_text *text)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *p = text->s, *end = p + text->len;
	char *out = mem_zero(1, text->len + 1);
	size_t n = 0;

	while (p < end) {
		const char *plain;
		size_t put = 1;

		if (*p != '\\') {
			out[n++] = *p++;
			continue;
		}
		p++; /* read_string() saw that something follows */
		plain = memchr(from, *p, sizeof(from) - 1);
		p++;
		if (plain)
			out[n] = to[plain - from];
		else
			put = p[-1] == 'u' ? put_escaped(out + n, &p, end) : 0;
		if (!put) {
			free(out);
			return NULL;
		}
		n += put;
	}
	return out;
}
