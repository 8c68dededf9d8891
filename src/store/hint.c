/* SPDX-License-Identifier: Apache-2.0
 *
 * Which modules will a first import load? Those that were seen loading before; and of a dist that
 * nobody saw, what import statements tell: its own (compile_wheel.py follows them), and those of
 * the lock's other wheels, which the installer noted (imports.c).
 */
#include <fcntl.h>
#include <string.h>

#include "base/limits.h"
#include "store/store_priv.h"

static void read_fact_of(const struct store *s, const char *sha256, const char *name,
			 struct buf *out)
{
	auto_free char *entry = store_entry_path(s, sha256);
	auto_free char *path = mem_printf("%s/%s", entry, name);

	if (buf_read_file(out, AT_FDCWD, path, &(struct err){ 0 }) < 0)
		buf_reset(out); /* not there yet, or made by an older version */
}

static bool has_line(const char *text, const char *line, size_t len)
{
	for (; *text; text += strcspn(text, "\n") + 1) {
		if (strncmp(text, line, len) == 0 && text[len] == '\n')
			return true;
		if (!strchr(text, '\n'))
			break;
	}
	return false;
}

/* What does not fit is left out: it only orders work. */
static bool put_lines(const char *word, const char *text, const char *top_level, struct buf *out)
{
	while (*text) {
		size_t len = strcspn(text, "\n");

		if (!top_level || has_line(top_level, text, strcspn(text, ".\n")))
			if (buf_putf(out, &(struct err){ 0 }, "%s %.*s\n", word, (int)len, text) <
			    0)
				return false;
		text += len + (text[len] == '\n');
	}
	return true;
}

static bool loads(const struct store *s, const struct lock_dist *dist, struct buf *out)
{
	return s->asks.loads && s->asks.loads(s->asks.ctx, dist->name, dist->version, out);
}

void hint_make(const struct store *s, const struct code_want *want, struct buf *out)
{
	auto_buf struct buf known = BUF_MAX(LIMIT_HINT_BYTES);
	auto_buf struct buf top_level = BUF_MAX(LIMIT_HINT_BYTES);
	bool same = loads(s, want->dist, &known);

	if (known.len && !put_lines("known", known.data, NULL, out))
		return;
	if (!same && buf_puts(out, "guess\n", &(struct err){ 0 }) < 0)
		return;
	read_fact_of(s, want->dist->sha256, "top-level", &top_level);
	for (size_t i = 0; i < want->lock->ndists && top_level.len; i++) {
		const struct lock_dist *other = &want->lock->dists[i];
		auto_buf struct buf imports = BUF_MAX(LIMIT_HINT_BYTES);

		/* What a dist that was seen imports was seen, too. */
		buf_reset(&known);
		if (other == want->dist || (same && loads(s, other, &known)))
			continue;
		read_fact_of(s, other->sha256, "imports", &imports);
		if (imports.len && !put_lines("import", imports.data, top_level.data, out))
			return;
	}
}
