/* SPDX-License-Identifier: Apache-2.0
 *
 * Orders of calls, and functions that are made up.
 */
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "sim/workload.h"

void workload_split(struct workload *w, uint64_t seed, uint32_t nwarm)
{
	struct sim_random r;

	sim_random_seed(&r, seed);
	w->ncalls = w->nfunctions;
	w->calls = mem_resize(w->calls, w->ncalls * sizeof(*w->calls));
	for (uint32_t i = 0; i < w->ncalls; i++)
		w->calls[i] = i;
	sim_random_shuffle(&r, w->calls, w->ncalls);
	w->nwarm = nwarm < w->ncalls ? nwarm : w->ncalls;
}

static double root(double x)
{
	double y = x > 1 ? x : 1;

	for (int i = 0; i < 60; i++)
		y = (y + x / y) / 2;
	return y;
}

/* x^-e for x >= 1, e >= 0. By hand: with libm every start of `pipsqueak run` would pay for it. */
static double to_minus(double x, double e)
{
	double y = 1;

	for (; e >= 1; e -= 1)
		y /= x;
	for (int bit = 0; bit < 24 && e > 0; bit++) {
		x = root(x);
		e *= 2;
		if (e >= 1) {
			y /= x;
			e -= 1;
		}
	}
	return y;
}

/* Ranks with sums of their popularity, to draw from. */
struct ranks {
	double *sums;
	uint32_t n;
};

static struct ranks ranks_new(uint32_t n, double zipf)
{
	struct ranks r = { .sums = mem_zero(n, sizeof(double)), .n = n };

	for (uint32_t i = 0; i < n; i++)
		r.sums[i] = (i ? r.sums[i - 1] : 0) + to_minus(i + 1, zipf);
	return r;
}

static uint32_t ranks_draw(const struct ranks *r, struct sim_random *random)
{
	double x = sim_random_unit(random) * r->sums[r->n - 1];
	uint32_t low = 0, high = r->n - 1;

	while (low < high) {
		uint32_t mid = (low + high) / 2;

		if (r->sums[mid] > x)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

/* order: functions by rank, then those of which none is called yet. */
static void change(uint32_t *order, uint32_t active, uint32_t all, struct sim_random *r)
{
	uint32_t *ranks = mem_zero(active, sizeof(*ranks));

	for (uint32_t i = 0; i < active; i++)
		ranks[i] = i;
	sim_random_shuffle(r, ranks, active);
	for (uint32_t i = 0; active + i < all && i < active; i++) {
		uint32_t x = order[ranks[i]];

		order[ranks[i]] = order[active + i];
		order[active + i] = x;
	}
	free(ranks);
}

void workload_mix(struct workload *w, const struct sim_mix *mix, double **out_after)
{
	uint32_t n = w->nfunctions, once = (uint32_t)(mix->one_shot * n / 2), *order;
	uint32_t all = n - once, active = (uint32_t)(all / (1 + mix->drift));
	double *after = mem_zero(n, sizeof(*after));
	struct sim_random r;
	struct ranks ranks;

	active = active ? active : 1;
	order = mem_zero(n, sizeof(*order));
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	sim_random_seed(&r, mix->seed);
	sim_random_shuffle(&r, order, n);
	ranks = ranks_new(active, mix->zipf);
	w->ncalls = mix->ncalls;
	w->calls = mem_resize(w->calls, (w->ncalls + 1) * sizeof(*w->calls));
	for (uint32_t i = 0; i < w->ncalls; i++) {
		if (i == w->ncalls / 2)
			change(order, active, all, &r);
		if (i > 0 && sim_random_unit(&r) < mix->burst)
			w->calls[i] = w->calls[i - 1];
		else if (once > 0 && sim_random_unit(&r) < mix->one_shot)
			w->calls[i] = order[n - once--];
		else
			w->calls[i] = order[ranks_draw(&ranks, &r)];
	}
	for (uint32_t i = 0; i < active; i++)
		after[order[i]] = to_minus(i + 1, mix->zipf) / ranks.sums[active - 1];
	*out_after = after;
	free(ranks.sums);
	free(order);
}

/* Adds the item and, by its closure, what it needs. */
static void put_closure(const struct workload *w, uint32_t item, uint8_t *has)
{
	struct policy_set c = w->items[item].closures[0];

	for (size_t i = 0; i < c.n; i++)
		has[c.v[i]] = 1;
}

static struct policy_set set_of_marks(uint8_t *has, uint32_t n)
{
	uint32_t *v = mem_zero(n + 1, sizeof(*v));
	size_t count = 0;

	for (uint32_t i = 0; i < n; i++)
		if (has[i])
			v[count++] = i;
	memset(has, 0, n);
	return (struct policy_set){ mem_resize(v, (count + 1) * sizeof(*v)), count };
}

static void generate_item(struct workload *w, struct sim_random *r, uint8_t *has)
{
	uint32_t n = w->nitems, needs = n ? sim_random_below(r, 4) : 0;
	/* most take next to nothing, a few a third of a second */
	double ms = 0.3 / (0.001 + sim_random_unit(r));
	struct sim_item *item = &w->items[n];

	*item = (struct sim_item){ .name = mem_printf("dist%u==1", n),
				   .us = (uint64_t)(ms * 1000),
				   .bytes = (uint64_t)(ms * 4e4 * (0.5 + sim_random_unit(r))),
				   .closures = mem_zero(1, sizeof(*item->closures)),
				   .nclosures = 1 };
	for (uint32_t i = 0; i < needs; i++)
		put_closure(w, sim_random_below(r, n), has);
	has[n] = 1;
	item->closures[0] = set_of_marks(has, n + 1);
	w->nitems++;
}

void workload_generate(struct workload *out, uint32_t n, uint64_t seed)
{
	struct workload w = { .nfunctions = n, .ncalls = n };
	uint32_t nitems = 20 + n / 3;
	struct sim_random r;
	struct ranks ranks = ranks_new(nitems, 1);
	uint8_t *has = mem_zero(nitems, 1);

	sim_random_seed(&r, seed);
	w.items = mem_zero(nitems, sizeof(*w.items));
	while (w.nitems < nitems)
		generate_item(&w, &r, has);
	w.functions = mem_zero(n, sizeof(*w.functions));
	w.calls = mem_zero(n, sizeof(*w.calls));
	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t k = sim_random_below(&r, 6) + 1; k > 0; k--)
			put_closure(&w, ranks_draw(&ranks, &r), has);
		w.functions[i].name = mem_printf("f%u", i);
		w.functions[i].items = set_of_marks(has, nitems);
		w.calls[i] = i;
	}
	free(ranks.sums);
	free(has);
	*out = w;
}
