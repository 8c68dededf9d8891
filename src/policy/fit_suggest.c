/* SPDX-License-Identifier: Apache-2.0
 *
 * The candidates that a closure suggests when it is new: sets that might become nodes.
 */
#include "base/limits.h"
#include "base/mem.h"
#include "policy/fit_priv.h"

/* Items cheaper than this are in a node only when dearer ones need them: they save nothing, and
 * keep calls out. */
#define WORTH_US 100
#define COMPARED 512 /* closures that a new one is intersected with: of more, some by chance */
#define HEAVY 6	     /* of a call's packages are joined in pairs */

static void candidate_add(struct fit *f, struct policy_set items)
{
	struct fit_candidate c = { 0 };
	bool fresh;
	uint32_t *slot = fit_table_find(&f->by_candidate, fit_set_hash(items), &fresh);

	if (!fresh || items.n == 0)
		return;
	c.set = fit_set_of(f, items);
	fit_candidate_place(f, &c);
	c.gain = fit_gain(f, &c.set, &c.lone);
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

/* With some of the demands up to this one, itself among them. */
static void suggest_common(struct fit *f, uint32_t demand)
{
	const struct fit_set *a = &f->demands[demand].set;
	auto_free uint32_t *common = mem_zero(a->n + 1, sizeof(*common));

	for (uint32_t k = 0; k <= demand && k < COMPARED; k++) {
		uint32_t d = demand < COMPARED ? k : fit_random(f, demand + 1);
		const struct fit_set *b = &f->demands[d].set;
		uint32_t n = 0, i = 0, j = 0;

		while (i < a->n && j < b->n) {
			if (a->v[i] == b->v[j])
				common[n++] = a->v[i];
			if (a->v[i] <= b->v[j])
				i++;
			else
				j++;
		}
		suggest(f, (struct policy_set){ common, n });
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

	for (; f->nsuggested < f->ndemands && f->ncandidates < end; f->nsuggested++) {
		struct fit_set set = f->demands[f->nsuggested].set;

		suggest(f, fit_set_plain(&set));
		suggest_common(f, f->nsuggested);
		suggest_parts(f, &set);
	}
}
