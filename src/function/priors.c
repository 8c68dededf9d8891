/* SPDX-License-Identifier: Apache-2.0
 *
 * A tree that somebody else fitted (`pipsqueak fit`), to start from: each of its nodes counts as
 * one call of a subject of its own, as soon as a deployed function's lock has its dists in their
 * versions. What these import is a guess until their node has done it.
 */
#include <jansson.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "function/knowledge.h"
#include "function/priv.h"

#define GUESS_US 20000 /* of a dist's import, until a node has done it */

/* "NAME==VERSION" of all that the node holds, its parents' too. */
struct prior {
	char **dists;
	size_t n;
};

static void prior_add(struct prior *p, const char *dist)
{
	p->dists = mem_resize(p->dists, (p->n + 1) * sizeof(char *));
	p->dists[p->n++] = mem_strdup(dist);
}

/* jansson bounds how deep a file may be nested. */
static int read_node(struct functions *f, const json_t *node, const struct prior *above,
		     struct err *err)
{
	const json_t *packages = json_object_get(node, "packages"), *v;
	const json_t *children = json_object_get(node, "children");
	struct prior own = { 0 };
	uint32_t at;
	size_t i;

	if (!json_is_array(packages) || !json_is_array(children))
		return err_set(err, ERR_CORRUPT, "a node has no list of packages or of children");
	if (f->opt.npriors == LIMIT_NODES)
		return err_set(err, ERR_LIMIT, "it has more than %d nodes", LIMIT_NODES);
	f->opt.priors = mem_resize(f->opt.priors, (f->opt.npriors + 1) * sizeof(own));
	at = f->opt.npriors++;
	f->opt.priors[at] = own;
	for (i = 0; above && i < above->n; i++)
		prior_add(&f->opt.priors[at], above->dists[i]);
	json_array_foreach(packages, i, v)
	{
		if (!json_is_string(v) || !strstr(json_string_value(v), "=="))
			return err_set(err, ERR_CORRUPT, "a package is not NAME==VERSION");
		prior_add(&f->opt.priors[at], json_string_value(v));
	}
	json_array_foreach(children, i, v)
	{
		own = f->opt.priors[at]; /* the list moves while it grows */
		if (read_node(f, v, &own, err) < 0)
			return -1;
	}
	return 0;
}

int priors_open(struct functions *f, const char *text, struct err *err)
{
	json_error_t at;
	json_t *root = text ? json_loads(text, 0, &at) : NULL;
	int rc = 0;

	if (text && !root)
		rc = err_set(err, ERR_CORRUPT, "line %d: %s", at.line, at.text);
	else if (root)
		rc = read_node(f, root, NULL, err);
	json_decref(root);
	if (rc == 0 && f->opt.npriors)
		log_info("function", "a tree of %u nodes to start from", f->opt.npriors);
	return rc < 0 ? err_wrap(err, "the tree to start from") : 0;
}

/* "NAME==VERSION", or another item of the same ("#2": history.c). */
static const struct lock_dist *find(const struct lock *lock, const char *dist)
{
	const char *eq = strstr(dist, "==");
	auto_free char *name = mem_strndup(dist, (size_t)(eq - dist));
	auto_free char *version = mem_strndup(eq + 2, strcspn(eq + 2, "#"));
	const struct lock_dist *d = lock_find(lock, name);

	return d && strcmp(d->version, version) == 0 ? d : NULL;
}

/* What of the dist was ever seen loading, else all that it has at the top. */
static void guess_modules(struct subject *s, const struct lock_dist *d)
{
	struct functions *f = s->f;
	auto_buf struct buf text = { 0 };
	size_t dist = (size_t)(d - s->lock->dists), n = 1;
	char *save = NULL;

	if (!functions_loads(f, d->name, d->version, &text) || !text.len) {
		subject_assume_top(s, dist, GUESS_US);
		return;
	}
	for (const char *c = text.data; *c; c++)
		n += *c == '\n';
	for (char *m = strtok_r(text.data, "\n", &save); m; m = strtok_r(NULL, "\n", &save))
		subject_assume(s, dist, m, GUESS_US / n + 1);
}

static void begin(struct functions *f, const struct prior *p, const char *key,
		  const struct subject *like)
{
	struct subject *s = subject_new(f, key, like->interp, lock_copy(like->lock));
	double now = clock_wall_s();

	s->env_path = like->env_path;
	s->assumed = true;
	subject_needs(s);
	for (size_t i = 0; i < p->n; i++)
		guess_modules(s, find(s->lock, p->dists[i]));
	subject_assumed(s);
	demand_load(f, s);
	if (!s->demand)
		demand_add(s, 1, now);
	s->next = f->opt.prior_subjects;
	f->opt.prior_subjects = s;
	f->opt.nbegun++;
	optimise_anew(f);
}

void priors_match(struct functions *f, const struct subject *s)
{
	for (uint32_t k = 0;
	     k < f->opt.npriors && !s->tenant && !s->interp->tenant && f->opt.nbegun < LIMIT_PRIORS;
	     k++) {
		const struct prior *p = &f->opt.priors[k];
		auto_free char *key = mem_printf("tree %u of %u", k, s->interp->id);
		bool fits = p->n > 0;

		for (const struct subject *o = f->opt.prior_subjects; o && fits; o = o->next)
			fits = strcmp(o->key, key) != 0;
		for (size_t i = 0; i < p->n && fits; i++)
			fits = find(s->lock, p->dists[i]) != NULL;
		if (fits)
			begin(f, p, key, s);
	}
	if (f->opt.anew)
		optimise_kick(f);
}

void priors_close(struct functions *f)
{
	for (uint32_t k = 0; k < f->opt.npriors; k++) {
		for (size_t i = 0; i < f->opt.priors[k].n; i++)
			free(f->opt.priors[k].dists[i]);
		free(f->opt.priors[k].dists);
	}
	free(f->opt.priors);
	f->opt.npriors = 0;
	while (f->opt.prior_subjects) {
		struct subject *s = f->opt.prior_subjects;

		f->opt.prior_subjects = s->next;
		subject_unref(s);
	}
}
