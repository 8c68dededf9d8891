/* SPDX-License-Identifier: Apache-2.0
 *
 * The candidates that a closure suggests when it is new: sets that might become nodes.
 */
#include "base/limits.h"
#include "base/mem.h"
#include "policy/fit_worth.h"

/* Items cheaper than this are in a node only when dearer ones need them: they save nothing, and
 * keep calls out. */
#define WORTH_US 100
#define COMPARED 512 /* closures that a new one is intersected with: of more, some by chance */
#define RAWS 65536   /* sets that were tried already are remembered */
#define TAKEN 64     /* of what it has in common with them so many kinds */
#define HEAVY 6	     /* of a call's packages are joined in pairs */

static void find_views(const struct fit *f, struct fit_candidate *c)
{
	const struct fit_list *views = &fit_rarest(f, &c->set)->views;

	for (uint32_t i = 0; i < views->n; i++)
		if (fit_set_within(&c->set, &f->views[views->v[i]].set))
			fit_rising_put(&c->views, views->v[i]);
}

static void candidate_add(struct fit *f, struct policy_set items)
{
	struct fit_candidate c = { 0 };
	bool fresh;
	uint32_t *slot = fit_table_find(&f->by_candidate, fit_set_hash(items), &fresh);

	if (!fresh || items.n == 0)
		return;
	c.set = fit_set_of(f, items);
	fit_candidate_place(f, &c);
	find_views(f, &c);
	fit_judge(f, &c);
	f->candidates = fit_more(f->candidates, f->ncandidates, sizeof(c));
	*slot = f->ncandidates;
	fit_list_put(&f->items[fit_key(f, &c.set)].candidates, f->ncandidates);
	f->candidates[f->ncandidates++] = c;
}

/* What of the set can be imported and is worth it, as a candidate. */
static void suggest(struct fit *f, struct policy_set raw)
{
	auto_free const struct fit_set **own = NULL;
	struct fit_set set;
	bool fresh;

	fit_table_find(&f->by_raw, fit_set_hash(raw), &fresh);
	if (!fresh || raw.n == 0)
		return;
	set = fit_set_of(f, raw);
	own = fit_closures_in(f, &set);
	for (uint32_t i = 0; i < set.n; i++)
		if (own[i] && f->items[set.v[i]].us >= WORTH_US)
			fit_pile_put(f, own[i]);
	candidate_add(f, fit_pile_take(f));
	fit_set_done(&set);
}

/* What two closures have in common. */
struct common {
	uint64_t hash, us;
	uint32_t *v, n;
	uint32_t times;
};

static struct common common_of(const struct fit *f, const struct fit_set *a,
			       const struct fit_set *b)
{
	struct common c = { .v = mem_zero(a->n + 1, sizeof(*c.v)), .times = 1 };

	for (uint32_t i = 0, j = 0; i < a->n && j < b->n;) {
		if (a->v[i] == b->v[j]) {
			c.us += f->items[a->v[i]].us;
			c.v[c.n++] = a->v[i];
		}
		if (a->v[i] <= b->v[j])
			i++;
		else
			j++;
	}
	c.hash = fit_set_hash((struct policy_set){ c.v, c.n });
	return c;
}

static int by_hash(const void *a, const void *b)
{
	uint64_t x = ((const struct common *)a)->hash, y = ((const struct common *)b)->hash;

	return (x > y) - (x < y);
}

static int by_promise(const void *a, const void *b)
{
	const struct common *x = a, *y = b;
	uint64_t p = x->us * x->times, q = y->us * y->times;

	return p == q ? by_hash(a, b) : (p < q) - (p > q);
}

/* With some of the demands up to this one, itself among them: those that promise most. */
static void suggest_common(struct fit *f, uint32_t demand)
{
	const struct fit_set *a = &f->demands[demand].set;
	uint32_t n = demand < COMPARED ? demand + 1 : COMPARED, kinds = 0;
	auto_free struct common *all = mem_zero(n, sizeof(*all));

	for (uint32_t k = 0; k < n; k++) {
		uint32_t d = demand < COMPARED ? k : fit_random(f, demand + 1);

		all[k] = common_of(f, a, &f->demands[d].set);
	}
	qsort(all, n, sizeof(*all), by_hash);
	for (uint32_t k = 0; k < n; k++) {
		if (kinds && all[kinds - 1].hash == all[k].hash)
			all[kinds - 1].times++;
		else if (all[k].us < WORTH_US || fit_table_get(&f->by_raw, all[k].hash))
			;
		else {
			struct common x = all[kinds];

			all[kinds++] = all[k];
			all[k] = x;
		}
	}
	qsort(all, kinds, sizeof(*all), by_promise);
	for (uint32_t k = 0; k < n; k++) {
		if (k < kinds && k < TAKEN)
			suggest(f, (struct policy_set){ all[k].v, all[k].n });
		free(all[k].v);
	}
}

/* The closures of its items, and pairs of the heaviest. */
static void suggest_parts(struct fit *f, const struct fit_set *set)
{
	auto_free const struct fit_set **own = fit_closures_in(f, set);
	const struct fit_set *heavy[HEAVY + 1];
	uint32_t n = 0;

	for (uint32_t i = 0; i < set->n; i++) {
		uint32_t at;

		if (f->items[set->v[i]].us < WORTH_US || !own[i])
			continue;
		suggest(f, fit_set_plain(own[i]));
		for (at = n; at > 0 && heavy[at - 1]->us < own[i]->us; at--)
			heavy[at] = heavy[at - 1];
		heavy[at] = own[i];
		if (++n > HEAVY)
			n--;
	}
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < i; j++) {
			fit_pile_put(f, heavy[i]);
			fit_pile_put(f, heavy[j]);
			candidate_add(f, fit_pile_take(f));
		}
}

void fit_suggest(struct fit *f, uint32_t most)
{
	uint32_t end = f->ncandidates + most;

	if (f->by_raw.n > RAWS)
		fit_table_done(&f->by_raw);

	for (; f->nsuggested < f->ndemands && f->ncandidates < end; f->nsuggested++) {
		struct fit_set set = f->demands[f->nsuggested].set;

		suggest(f, fit_set_plain(&set));
		suggest_common(f, f->nsuggested);
		suggest_parts(f, &set);
	}
}
