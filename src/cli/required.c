/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/inputs.h"

static int add_word(const char *verb, struct words *w, const char *word)
{
	if (w->n == CLI_WORDS)
		return usage_error(verb, "more than %d of one flag", CLI_WORDS);
	w->v[w->n++] = word;
	return 0;
}

/* --with "a,b": commas separate requirements, but not inside brackets or version sets. */
static int add_with(const char *verb, struct words *w, char *text)
{
	char *start = text;
	int depth = 0;

	for (char *p = text;; p++) {
		if (*p == '[' || *p == '(')
			depth++;
		else if (*p == ']' || *p == ')')
			depth--;
		if (*p == '\0' || (*p == ',' && depth == 0 && p[1] && !strchr("<>=!~ ", p[1]))) {
			bool end = *p == '\0';

			*p = '\0';
			if (*start && add_word(verb, w, start))
				return 2;
			start = p + 1;
			if (end)
				return 0;
		}
	}
}

static bool is_flag(const char *arg, const char *name)
{
	size_t n = strlen(name);

	return strncmp(arg, name, n) == 0 && (!arg[n] || arg[n] == '=');
}

static int set_bool(struct required *r, const char *arg)
{
	const struct {
		const char *name;
		bool *to;
	} flags[] = { { "--upgrade", &r->upgrade },
		      { "--offline", &r->offline },
		      { "--pre", &r->pre },
		      { "--allow-sdist", &r->allow_sdist },
		      { "--strict", &r->strict } };

	for (size_t i = 0; i < array_len(flags); i++)
		if (strcmp(arg, flags[i].name) == 0)
			return (*flags[i].to = true);
	return 0;
}

static int set_value(const char *verb, struct required *r, const char *flag, char *value)
{
	const struct {
		const char *name;
		const char **to;
		struct words *list;
	} flags[] = {
		{ "--with-requirements", &r->requirements_file, NULL },
		{ "--index-url", &r->index_url, NULL },
		{ "--python", &r->python, NULL },
		{ "--exclude-newer", &r->exclude_newer, NULL },
		{ "--group", NULL, &r->groups },
		{ "--extra", NULL, &r->extras },
		{ "--index", NULL, &r->indexes },
		{ "--accept-record", NULL, &r->accept },
		{ "--find-links", NULL, &r->links },
		{ "--extra-index-url", NULL, &r->extra_indexes },
	};

	if (strcmp(flag, "--with") == 0)
		return add_with(verb, &r->with, value) ? 2 : 1;
	for (size_t i = 0; i < array_len(flags); i++) {
		if (strcmp(flag, flags[i].name) != 0)
			continue;
		if (flags[i].list)
			return add_word(verb, flags[i].list, value) ? 2 : 1;
		*flags[i].to = value;
		return 1;
	}
	return 0;
}

int required_flag(const char *verb, struct required *r, int argc, char **argv, int *i)
{
	static const char *const names[] = { "--with",	 "--with-requirements", "--index-url",
					     "--python", "--exclude-newer",	"--group",
					     "--extra",	 "--find-links",	"--extra-index-url",
					     "--index",	 "--accept-record" };

	for (size_t f = 0; f < array_len(names); f++) {
		char *value = argv[*i] + strlen(names[f]);

		if (!is_flag(argv[*i], names[f]))
			continue;
		if (*value == '=') {
			value++;
		} else if (*i + 1 < argc) {
			value = argv[++*i];
		} else {
			usage_error(verb, "%s needs a value", argv[*i]);
			return 2;
		}
		return set_value(verb, r, names[f], value);
	}
	return set_bool(r, argv[*i]);
}
