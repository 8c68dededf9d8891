/* SPDX-License-Identifier: Apache-2.0 */
#include "function/warm.h"

#include <string.h>

#include "base/log.h"
#include "function/explain.h"

/* What follows "KIND="; NULL: it is of another kind. */
static const char *said(const char *left, const char *kind)
{
	size_t len = strlen(kind);

	return strncmp(left, kind, len) == 0 && left[len] == '=' ? left + len + 1 : NULL;
}

bool warm_is_word(const char *left)
{
	return said(left, "warmed") || said(left, "unwarmed") || said(left, "asking");
}

/* Of "DIST: more" the dist, as interned, and what follows. It comes out of a sandbox: only what the
 * subject has counts. */
static uint32_t parse(const struct subject *s, const char *text, const char **out_more)
{
	auto_free char *name = mem_strndup(text, strcspn(text, ":"));
	const struct lock_dist *d = lock_find(s->lock, name);

	text += strlen(name);
	*out_more = text[0] && text[1] ? text + 2 : text;
	return d ? s->lock_ids[d - s->lock->dists] : INTERN_NONE;
}

static const struct cold_dist *find(const struct functions *f, uint32_t dist)
{
	for (uint32_t i = 0; i < f->ncold; i++)
		if (f->cold[i].dist == dist)
			return &f->cold[i];
	return NULL;
}

static bool let_cool(struct subject *s, const char *text, const char *prefix)
{
	struct functions *f = s->f;
	const char *more;
	uint32_t dist = parse(s, text, &more);

	if (dist == INTERN_NONE || find(f, dist) || f->ncold == LIMIT_COLD_DISTS)
		return false;
	f->cold = mem_resize(f->cold, (f->ncold + 1) * sizeof(*f->cold));
	f->cold[f->ncold++] = (struct cold_dist){ dist, mem_printf("%s%.300s", prefix, more) };
	log_warn("function", "no node runs the warm-up lines of %.*s any more: %s%.300s",
		 (int)strcspn(text, ":"), text, prefix, more);
	return true;
}

bool warm_spoilt(struct subject *s, char **left)
{
	bool any = false;

	for (; left && *left; left++) {
		const char *text = said(*left, "spoilt");

		any = (text && let_cool(s, text, "")) || any;
	}
	return any;
}

bool warm_asked(struct subject *s, char **left)
{
	bool any = false;

	for (; left && *left; left++) {
		const char *text = said(*left, "asking");

		any = (text && let_cool(s, text, "it asks for what a function has: ")) || any;
	}
	return any;
}

/* "numba 0.68.1: 80.2 ms", "numba 0.68.1: asks for env:X"; NULL: it is none of the subject's. */
static char *line_of(const struct subject *s, const char *text, const char *prefix)
{
	const char *more;
	uint32_t dist = parse(s, text, &more);
	auto_free char *name = dist == INTERN_NONE ? NULL : explain_dist(s->f, dist);

	return name ? mem_printf("%s: %s%.200s", name, prefix, more) : NULL;
}

void warm_stays(struct subject *s, struct node *n, char **left)
{
	size_t count = 0;

	for (; left && *left && count < LIMIT_COLD_DISTS; left++) {
		const char *failed = said(*left, "unwarmed"), *asks = said(*left, "asking");
		const char *warmed = said(*left, "warmed");
		char *line = asks     ? line_of(s, asks, "asks for ")
			     : warmed ? line_of(s, warmed, "")
				      : NULL;

		if (failed)
			let_cool(s, failed, "");
		if (!line)
			continue;
		n->warmed = mem_resize(n->warmed, (count + 2) * sizeof(char *));
		n->warmed[count++] = line;
		n->warmed[count] = NULL;
	}
}

const char **warm_cold(const struct subject *s)
{
	const char **out = mem_zero(s->lock->ndists + 1, sizeof(*out));
	size_t n = 0;

	for (size_t i = 0; i < s->lock->ndists; i++)
		if (find(s->f, s->lock_ids[i]))
			out[n++] = s->lock->dists[i].name;
	return out;
}

json_t *warm_json(const struct node *n)
{
	json_t *list = json_array();

	for (; n; n = n->parent)
		for (char **w = n->warmed; w && *w; w++)
			json_array_append_new(list, explain_text(*w));
	return list;
}

json_t *warm_cold_json(const struct subject *s)
{
	json_t *list = json_array();

	for (size_t i = 0; i < s->lock->ndists; i++) {
		const struct cold_dist *c = find(s->f, s->lock_ids[i]);

		if (c) {
			auto_free char *name = explain_dist(s->f, c->dist);
			auto_free char *text = mem_printf("%s: %s", name, c->why);

			json_array_append_new(list, explain_text(text));
		}
	}
	return list;
}

void warm_close(struct functions *f)
{
	for (uint32_t i = 0; i < f->ncold; i++)
		free(f->cold[i].why);
	free(f->cold);
}
