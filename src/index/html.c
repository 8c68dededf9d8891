/* SPDX-License-Identifier: Apache-2.0 */
#include "index/html.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct cursor {
	const char *at, *end;
};

struct attribute {
	const char *name, *value;
	size_t name_len, value_len; /* value NULL: none */
};

static void skip_space(struct cursor *c)
{
	while (c->at < c->end && isspace((unsigned char)*c->at))
		c->at++;
}

static bool ends_name(char c)
{
	return isspace((unsigned char)c) || c == '=' || c == '>';
}

/* The cursor is behind '='. */
static void read_value(struct cursor *c, struct attribute *out)
{
	char quote;

	skip_space(c);
	quote = c->at < c->end && (*c->at == '"' || *c->at == '\'') ? *c->at++ : 0;
	out->value = c->at;
	while (c->at < c->end &&
	       (quote ? *c->at != quote : !isspace((unsigned char)*c->at) && *c->at != '>'))
		c->at++;
	out->value_len = (size_t)(c->at - out->value);
	if (quote && c->at < c->end)
		c->at++;
}

/* The next attribute of a tag; false at its end, with the cursor behind '>'. */
static bool next_attribute(struct cursor *c, struct attribute *out)
{
	while (c->at < c->end && (isspace((unsigned char)*c->at) || *c->at == '/'))
		c->at++;
	if (c->at >= c->end)
		return false;
	if (*c->at == '>') {
		c->at++;
		return false;
	}
	*out = (struct attribute){ .name = c->at };
	while (c->at < c->end && !ends_name(*c->at))
		c->at++;
	out->name_len = (size_t)(c->at - out->name);
	skip_space(c);
	if (c->at < c->end && *c->at == '=') {
		c->at++;
		read_value(c, out);
	}
	return true;
}

static const struct {
	const char *text;
	char is;
} entities[] = {
	{ "amp", '&' },	 { "lt", '<' },	   { "gt", '>' },
	{ "quot", '"' }, { "apos", '\'' }, { "nbsp", ' ' },
};

/* "&gt;" and "&#62;" and "&#x3e;": the character, or 0 when it is none that we know. */
static char entity(const char *s, size_t len)
{
	char number[8] = { 0 };
	long code;

	for (size_t i = 0; i < array_len(entities); i++)
		if (strlen(entities[i].text) == len && memcmp(entities[i].text, s, len) == 0)
			return entities[i].is;
	if (len < 2 || len > 6 || s[0] != '#')
		return 0;
	memcpy(number, s + 1, len - 1);
	if (number[0] == 'x' || number[0] == 'X')
		code = strtol(number + 1, NULL, 16);
	else
		code = strtol(number, NULL, 10);
	return code >= ' ' && code < 127 ? (char)code : 0;
}

#define ENTITY_BYTES                                                                 \
	8 /* none that we know is longer; a page of '&' must not take quadratic time \
	   */

static const char *entity_end(const char *s, size_t len)
{
	return memchr(s, ';', len < ENTITY_BYTES ? len : ENTITY_BYTES);
}

static char *decode(const char *s, size_t len)
{
	char *out = mem_zero(1, len + 1);
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		const char *semi = s[i] == '&' ? entity_end(s + i, len - i) : NULL;
		char c = semi ? entity(s + i + 1, (size_t)(semi - s) - i - 1) : 0;

		out[n++] = c ? c : s[i];
		if (c)
			i = (size_t)(semi - s);
	}
	out[n] = '\0';
	return out;
}

static bool is_name(const struct attribute *a, const char *name)
{
	return a->name_len == strlen(name) && strncasecmp(a->name, name, a->name_len) == 0;
}

static void keep(char **to, const struct attribute *a)
{
	if (!*to)
		*to = decode(a->value ? a->value : "", a->value_len);
}

static void read_attributes(struct cursor *c, struct html_anchor *out)
{
	struct attribute a;

	while (next_attribute(c, &a)) {
		if (is_name(&a, "href"))
			keep(&out->href, &a);
		else if (is_name(&a, "data-requires-python"))
			keep(&out->requires_python, &a);
		else if (is_name(&a, "data-yanked"))
			keep(&out->yanked, &a);
		else if (is_name(&a, "name"))
			keep(&out->name, &a);
		else if (is_name(&a, "content"))
			keep(&out->content, &a);
		else if (is_name(&a, "data-core-metadata") ||
			 is_name(&a, "data-dist-info-metadata"))
			keep(&out->core, &a);
	}
}

static void read_text(struct cursor *c, struct html_anchor *out)
{
	const char *from, *to;

	skip_space(c);
	from = c->at;
	while (c->at < c->end && *c->at != '<')
		c->at++;
	for (to = c->at; to > from && isspace((unsigned char)to[-1]);)
		to--;
	out->text = decode(from, (size_t)(to - from));
}

static void anchor_done(struct html_anchor *a)
{
	free(a->href);
	free(a->requires_python);
	free(a->yanked);
	free(a->core);
	free(a->text);
	free(a->name);
	free(a->content);
}

static bool starts(const struct cursor *c, const char *word)
{
	size_t n = strlen(word);

	return (size_t)(c->end - c->at) > n && strncasecmp(c->at, word, n) == 0 &&
	       isspace((unsigned char)c->at[n]);
}

/* The cursor is behind a '<'. */
static int one_tag(struct cursor *c, const struct html_events *events, void *arg, struct err *err)
{
	struct html_anchor a = { 0 };
	int rc = 0;

	if (c->end - c->at >= 3 && memcmp(c->at, "!--", 3) == 0) {
		const char *to = memmem(c->at, (size_t)(c->end - c->at), "-->", 3);

		c->at = to ? to + 3 : c->end;
		return 0;
	}
	if (starts(c, "base")) {
		read_attributes(c, &a);
		if (a.href)
			events->base(arg, a.href);
	} else if (starts(c, "meta")) {
		read_attributes(c, &a);
		if (a.name && a.content)
			events->meta(arg, a.name, a.content);
	} else if (starts(c, "a")) {
		c->at++;
		read_attributes(c, &a);
		read_text(c, &a);
		if (a.href)
			rc = events->anchor(arg, &a, err);
	}
	anchor_done(&a);
	return rc;
}

int html_anchors(const char *text, size_t len, const struct html_events *events, void *arg,
		 struct err *err)
{
	struct cursor c = { text, text + len };

	while ((c.at = memchr(c.at, '<', (size_t)(c.end - c.at)))) {
		c.at++;
		if (one_tag(&c, events, arg, err) < 0)
			return -1;
	}
	return 0;
}
