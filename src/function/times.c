/* SPDX-License-Identifier: Apache-2.0 */
#include "function/times.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define DOWN 0.5 /* how much of a shorter time counts that a node or a later call says, */
#define UP 0.25	 /* and of a longer one */

/* Times by module, as somebody measured them; by number, ascending. */
struct timed {
	uint32_t module, dist;
	uint64_t us;
};

static uint64_t refine(uint64_t known_us, uint64_t us, double down, double up)
{
	double part = us < known_us ? down : up;

	return (uint64_t)((1 - part) * (double)known_us + part * (double)us + 0.5);
}

static int by_module(const void *a, const void *b)
{
	const struct timed *x = a, *y = b;

	return (x->module > y->module) - (x->module < y->module);
}

/* By place in s->modules: of which dist it is. */
static uint32_t *dists_of(const struct subject *s)
{
	uint32_t *dists = mem_zero(s->modules.n + 1, sizeof(*dists));

	for (size_t i = 0; i < s->nseen; i++)
		dists[ids_place(&s->modules, s->seen[i].module)] = s->seen[i].dist;
	return dists;
}

/* What the profile says of modules that the subject loads, but these. 0 us: nobody measured it. */
static struct timed *take(const struct subject *s, const struct zygote_profile *p,
			  struct policy_set without, size_t *out_n)
{
	struct timed *t = mem_zero(p->nmodules + 1, sizeof(*t));
	auto_free uint32_t *dists = dists_of(s);
	size_t n = 0;

	for (size_t i = 0; i < p->nmodules; i++) {
		uint32_t module = intern_find(&s->f->names, p->modules[i]);
		uint64_t us = p->self_us[i] < LIMIT_SELF_US ? p->self_us[i] : LIMIT_SELF_US;

		if (us && policy_set_has(ids_set(&s->modules), module) &&
		    !policy_set_has(without, module))
			t[n++] = (struct timed){ module, dists[ids_place(&s->modules, module)],
						 us };
	}
	qsort(t, n, sizeof(*t), by_module);
	*out_n = n;
	return t;
}

/* Of modules that it was seen loading, from the same wheel. */
static bool correct(struct subject *s, const struct timed *t, size_t n, double down, double up)
{
	bool changed = false;

	for (size_t i = 0; i < s->nseen; i++) {
		struct seen_module *m = &s->seen[i];
		const struct timed key = { .module = m->module };
		const struct timed *found = bsearch(&key, t, n, sizeof(*t), by_module);
		uint64_t us;

		if (!found || found->dist != m->dist)
			continue;
		us = refine(m->self_us, found->us, down, up);
		changed = changed || us != m->self_us;
		m->self_us = us;
	}
	if (changed)
		subject_resum(s);
	return changed;
}

bool times_due(struct version *v)
{
	uint64_t now = clock_us();

	if (++v->untimed_starts < LIMIT_TIMED_STARTS || now - v->timed_us < LIMIT_TIMED_US ||
	    v->subject->import_us <= v->subject->saved_us)
		return false;
	v->untimed_starts = 0;
	v->timed_us = now;
	return true;
}

/* Worth a write to disk? */
static bool is_news(uint64_t before_us, uint64_t us)
{
	uint64_t by = us < before_us ? before_us - us : us - before_us;

	return by > before_us / 8;
}

void times_learn(struct subject *s, const struct zygote_profile *p)
{
	/* The first call of all read files that nobody had read for long: the mean of the others
	 * counts. */
	double part = s->profiles ? 1.0 / s->profiles : 0;
	uint64_t before_us = s->import_us;
	size_t n;
	auto_free struct timed *t = take(s, p, (struct policy_set){ 0 }, &n);

	if (!s->replace && correct(s, t, n, part, part) && is_news(before_us, s->import_us))
		subject_save(s);
	subject_learn(s, p);
	items_refresh(s->f, s);
	items_alone(s->f, s);
}

void times_of_call(struct subject *s, const struct zygote_profile *p)
{
	uint64_t before_us = s->import_us;
	size_t n;
	auto_free struct timed *t = take(s, p, (struct policy_set){ 0 }, &n);

	if (!n || !correct(s, t, n, DOWN, UP))
		return;
	log_debug("function", "%s imports for %.1f ms now, %.1f before", s->key,
		  (double)s->import_us / 1e3, (double)before_us / 1e3);
	items_refresh(s->f, s);
	items_alone(s->f, s);
	if (is_news(before_us, s->import_us))
		subject_save(s);
	demand_note(s->f, s, 0);
	grow_consider(s->f, s);
}

void times_of_node(struct functions *f, const struct node *n, struct subject *s,
		   const struct zygote_profile *p)
{
	size_t count, subjects;
	auto_free struct timed *t = take(s, p, ids_set(&n->parent->modules), &count);
	auto_free struct subject **all = subjects_all(f, &subjects);

	if (!count)
		return;
	for (size_t i = 0; i < subjects; i++) {
		bool sampled = all[i]->sampled; /* its items' times come from the node */

		if (all[i]->interp != s->interp || all[i]->assumed ||
		    !policy_set_within(ids_set(&n->items), ids_set(&all[i]->items)))
			continue;
		if (correct(all[i], t, count, DOWN, UP))
			all[i]->sampled = sampled;
	}
	items_timed(f, s, n);
	if (!s->assumed)
		subject_save(s);
}
