/* SPDX-License-Identifier: Apache-2.0
 *
 * On paper: the whole tree chosen for the calls that are known.
 */
#include "base/mem.h"
#include "policy/fit_worth.h"

#define ROUNDS 6

static void shrink(struct fit *f, uint64_t to_bytes)
{
	while (f->bytes > to_bytes) {
		struct fit_going *g = fit_losses(f);
		int32_t n = fit_cheapest(f, g);

		free(g);
		if (n < 0)
			return;
		fit_drop(f, n);
	}
}

static void grow(struct fit *f)
{
	const struct fit_candidate *c;

	for (;;) {
		f->look++;
		c = f->bytes < f->rules.budget_bytes ? fit_paying(f) : NULL;
		if (f->bytes < f->rules.budget_bytes && !c) {
			fit_heap_fill(f, f->rules.budget_bytes - f->bytes);
			c = fit_heap_best(f);
		}
		if (!c)
			break;
		fit_make(f, fit_set_plain(&c->set), c->parent);
	}
	/* a node that is too deep to move cost more than was thought */
	shrink(f, f->rules.budget_bytes);
}

/* A tree set aside: the sets of its nodes. */
struct kept {
	struct fit_set *sets;
	uint32_t n;
	double value;
};

static void keep_done(struct kept *k)
{
	for (uint32_t i = 0; i < k->n; i++)
		fit_set_done(&k->sets[i]);
	free(k->sets);
	*k = (struct kept){ 0 };
}

static void keep(struct fit *f, struct kept *k)
{
	double value = fit_value(f);

	if (value <= k->value)
		return;
	keep_done(k);
	k->value = value;
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive) {
			k->sets = fit_more(k->sets, k->n, sizeof(*k->sets));
			k->sets[k->n++] = fit_set_of(f, fit_set_plain(&f->nodes[i].set));
		}
}

static void drop_all(struct fit *f)
{
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive)
			fit_drop(f, (int)i);
}

static void keep_restore(struct fit *f, const struct kept *k)
{
	drop_all(f);
	for (uint32_t i = 0; i < k->n; i++) {
		struct fit_candidate c = { .set = k->sets[i] };

		fit_candidate_place(f, &c);
		fit_make(f, fit_set_plain(&c.set), c.parent);
	}
	shrink(f, f->rules.budget_bytes);
}

/* The greedy choice is improved by taking the worst of it back and choosing again: what was best
 * early on may have been made needless by what came later. Half the memory comes first, so that
 * twice the memory is never worth less. */
static void solve(struct fit *f, uint64_t budget, struct kept *best)
{
	if (budget / 2 > f->rules.root_bytes)
		solve(f, budget / 2, best);
	f->rules.budget_bytes = budget;
	drop_all(f);
	grow(f);
	keep(f, best);
	for (int round = 0; round < ROUNDS; round++) {
		shrink(f, budget / 8 * (uint64_t)(5 + round % 3));
		grow(f);
		keep(f, best);
	}
	keep_restore(f, best);
	grow(f);
	keep(f, best);
}

void fit_solve(struct fit *f)
{
	struct kept best = { 0 };

	must(f->rules.on_paper);
	fit_weigh(f);
	while (fit_is_behind(f)) {
		fit_suggest(f, FIT_SUGGESTED);
		fit_forget_candidates(f);
	}
	solve(f, f->rules.budget_bytes, &best);
	keep_restore(f, &best);
	keep_done(&best);
}
