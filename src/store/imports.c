/* SPDX-License-Identifier: Apache-2.0
 *
 * What a wheel's modules import of other wheels, by the import statements at the beginning of a
 * line: a glance, not a parser. It decides which bytecode of those wheels is made first (hint.c),
 * never what is right.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "store/installer_priv.h"

#define MAX_NAME 200 /* bytes of a dotted name */

struct reader {
	const char *at, *end;
	struct imports *to;
};

static bool is_name(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '.';
}

static void skip(struct reader *r, const char *what)
{
	while (r->at < r->end && *r->at && strchr(what, *r->at))
		r->at++;
}

/* 0: there is none here, or one that is too long. */
static size_t read_name(struct reader *r, char *out)
{
	size_t n = 0;

	while (r->at + n < r->end && is_name(r->at[n]))
		n++;
	if (n < MAX_NAME)
		memcpy(out, r->at, n);
	out[n < MAX_NAME ? n : 0] = '\0';
	r->at += n;
	return n < MAX_NAME ? n : 0;
}

static void note(struct imports *to, const char *name)
{
	auto_free char *top = mem_strndup(name, strcspn(name, "."));

	if (*top && json_object_size(to->names) < LIMIT_IMPORTS && !json_object_get(to->own, top))
		json_object_set_new(to->names, name, json_true());
}

/* "import a.b as c, d" */
static void read_import(struct reader *r)
{
	char name[MAX_NAME], alias[MAX_NAME];

	do {
		skip(r, " \t,");
		if (!read_name(r, name))
			return;
		note(r->to, name);
		skip(r, " \t");
		if (r->end - r->at > 3 && strncmp(r->at, "as ", 3) == 0) {
			r->at += 3;
			skip(r, " \t");
			read_name(r, alias);
			skip(r, " \t");
		}
	} while (r->at < r->end && *r->at == ',');
}

/* "from a.b import c as d, e", or in parentheses over several lines. */
static void read_from(struct reader *r)
{
	char module[MAX_NAME], name[MAX_NAME];
	const char *gap = " \t,";

	skip(r, " \t");
	if (!read_name(r, module) || *module == '.')
		return;
	note(r->to, module);
	skip(r, " \t");
	if (r->end - r->at < 7 || strncmp(r->at, "import", 6) != 0)
		return;
	r->at += 6;
	skip(r, gap);
	if (r->at < r->end && *r->at == '(') {
		r->at++;
		gap = " \t,\r\n";
	}
	for (skip(r, gap); read_name(r, name); skip(r, gap)) {
		auto_free char *whole = mem_printf("%s.%s", module, name);

		if (strcmp(name, "as") == 0) { /* what follows is no module */
			skip(r, gap);
			read_name(r, name);
		} else {
			note(r->to, whole);
		}
	}
}

void imports_read(struct imports *to, const char *text, size_t len)
{
	struct reader r = { text, text + len, to };

	while (r.at < r.end) {
		const char *line;

		if (r.end - r.at > 7 && strncmp(r.at, "import ", 7) == 0) {
			r.at += 7;
			read_import(&r);
		} else if (r.end - r.at > 5 && strncmp(r.at, "from ", 5) == 0) {
			r.at += 5;
			read_from(&r);
		}
		line = memchr(r.at, '\n', (size_t)(r.end - r.at));
		r.at = line ? line + 1 : r.end;
	}
}
