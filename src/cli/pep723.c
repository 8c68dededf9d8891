/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli.h"

struct line {
	const char *text;
	size_t len; /* without the end of line */
};

static bool next_line(const char **p, const char *end, struct line *out)
{
	const char *nl;

	if (*p >= end)
		return false;
	nl = memchr(*p, '\n', (size_t)(end - *p));
	out->text = *p;
	out->len = (size_t)((nl ? nl : end) - *p);
	*p = nl ? nl + 1 : end;
	if (out->len && out->text[out->len - 1] == '\r')
		out->len--;
	return true;
}

static bool is(const struct line *l, const char *text)
{
	return l->len == strlen(text) && memcmp(l->text, text, l->len) == 0;
}

/* A line of a block: "#" alone, or "# " and anything. */
static bool is_content(const struct line *l)
{
	return l->len >= 1 && l->text[0] == '#' && (l->len == 1 || l->text[1] == ' ');
}

/* From behind "# /// script" to the last "# ///" of the unbroken comment. Not closed: no block. */
static bool read_block(const char **p, const char *end, struct buf *out, struct err *err)
{
	size_t closed = 0;
	bool found = false;
	const char *after = *p;
	struct line l;

	while (next_line(p, end, &l) && is_content(&l)) {
		if (is(&l, "# ///")) {
			closed = out->len;
			after = *p;
			found = true;
		}
		if ((l.len > 2 && buf_put(out, l.text + 2, l.len - 2, err) < 0) ||
		    buf_put(out, "\n", 1, err) < 0)
			return false;
	}
	if (found) {
		out->len = closed;
		if (out->data)
			out->data[closed] = '\0';
		*p = after;
	}
	return found;
}

int pep723_extract(const char *script, size_t len, char **out, struct err *err)
{
	const char *p = script, *end = script + len;
	auto_buf struct buf block = BUF_MAX(LIMIT_REQUIREMENTS_BYTES);
	bool have = false;
	struct line l;

	*out = NULL;
	err->kind = ERR_NONE;
	while (next_line(&p, end, &l)) {
		auto_buf struct buf one = BUF_MAX(LIMIT_REQUIREMENTS_BYTES);
		const char *start = p;

		if (!is(&l, "# /// script"))
			continue;
		if (!read_block(&p, end, &one, err)) {
			if (err->kind)
				return err_wrap(err, "the script's '# /// script' block");
			p = start;
			continue;
		}
		if (have)
			return err_set(err, ERR_USAGE,
				       "the script has more than one '# /// script' block");
		have = true;
		if (buf_put(&block, one.data ? one.data : "", one.len, err) < 0)
			return -1;
	}
	if (have)
		*out = buf_steal(&block);
	return 0;
}
