/* SPDX-License-Identifier: Apache-2.0
 *
 * What is remembered of calls: how much each closure is asked for, and the views of it that the
 * value is measured by.
 */
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "policy/fit_worth.h"

/* Of a call's weight so much is on so many copies, which lose each package with this chance. Chosen
 * by the six splits of docs/TREE.md together; their neighbours differ by less than 3 %. */
#define LEFT_OUT 0.5
#define COPIES 16
#define ALL_COPIES 8000 /* each closure has fewer when there are many: they add up all the same */
#define LOSES_PERCENT 30
#define GONE 0.05 /* the chance that a closure does not come again, before anything is known */
#define FEW 3	  /* calls: up to then what others suggest may change; then it is known */

void fit_item(struct fit *f, uint32_t item, uint64_t us, uint64_t bytes)
{
	while (item >= f->nitems) {
		f->items = fit_more(f->items, f->nitems, sizeof(*f->items));
		f->pile.v = fit_more(f->pile.v, f->nitems, sizeof(*f->pile.v));
		f->piled = fit_more(f->piled, f->nitems, 1);
		f->piled[f->nitems] = 0;
		f->items[f->nitems++] = (struct fit_item){ 0 };
	}
	f->items[item].us = us;
	f->items[item].bytes = bytes;
}

void fit_closure(struct fit *f, uint32_t item, struct policy_set closure)
{
	struct fit_item *i = &f->items[item];

	must(item < f->nitems && policy_set_has(closure, item));
	i->closures = fit_more(i->closures, i->nclosures, sizeof(*i->closures));
	i->closures[i->nclosures++] = fit_set_of(f, closure);
}

/* The item's largest known closure that lies in the set; NULL: it cannot be imported there. */
static const struct fit_set *closure_in(const struct fit *f, uint32_t item,
					const struct fit_set *set)
{
	const struct fit_item *i = &f->items[item];
	const struct fit_set *best = NULL;

	for (uint32_t k = 0; k < i->nclosures; k++)
		if ((!best || i->closures[k].n > best->n) && fit_set_within(&i->closures[k], set))
			best = &i->closures[k];
	return best;
}

const struct fit_set **fit_closures_in(const struct fit *f, const struct fit_set *set)
{
	const struct fit_set **out = mem_zero(set->n + 1, sizeof(struct fit_set *));

	for (uint32_t i = 0; i < set->n; i++)
		out[i] = closure_in(f, set->v[i], set);
	return out;
}

void fit_view_index(struct fit *f, uint32_t view)
{
	const struct fit_set *set = &f->views[view].set;

	for (uint32_t i = 0; i < set->n; i++)
		fit_list_put(&f->items[set->v[i]].views, view);
}

static void view_add(struct fit *f, struct policy_set items, bool left_out)
{
	struct fit_view v = { .set = fit_set_of(f, items),
			      .demand = f->ndemands - 1,
			      .left_out = left_out };
	struct fit_walk w = fit_walk_candidates(&v.set);
	uint32_t i;

	while (fit_walk_next(f, &w, &i))
		if (fit_set_within(&f->candidates[i].set, &v.set))
			fit_rising_put(&f->candidates[i].views, f->nviews);
	f->views = fit_more(f->views, f->nviews, sizeof(v));
	f->views[f->nviews++] = v;
	fit_view_index(f, f->nviews - 1);
	fit_view_refresh(f, f->nviews - 1);
}

/* Marks the items that another of the set needs. */
static uint8_t *needed(struct fit *f, const struct fit_set *set, const struct fit_set *const *own)
{
	uint8_t *out = mem_zero(set->n + 1, 1);

	for (uint32_t j = 0; j < set->n; j++)
		for (uint32_t i = 0, k = 0; own[j] && i < set->n && k < own[j]->n; i++)
			if (set->v[i] == own[j]->v[k]) {
				out[i] |= i != j;
				k++;
			}
	return out;
}

/* The call as it might have been. */
static void view_varied(struct fit *f, const struct fit_set *set, const struct fit_set *const *own,
			const uint8_t *is_needed)
{
	for (uint32_t i = 0; i < set->n; i++)
		if (!is_needed[i] && fit_random(f, 100) >= LOSES_PERCENT && own[i])
			fit_pile_put(f, own[i]);
	if (f->ndemands > 1) {
		const struct fit_set *other = &f->demands[fit_random(f, f->ndemands - 1)].set, *c;

		c = other->n ? closure_in(f, other->v[fit_random(f, other->n)], other) : NULL;
		if (c)
			fit_pile_put(f, c);
	}
	view_add(f, fit_pile_take(f), true);
}

static struct fit_demand *demand_add(struct fit *f, struct policy_set items)
{
	struct fit_demand d = { .set = fit_set_of(f, items), .first_view = f->nviews };
	auto_free const struct fit_set **own = fit_closures_in(f, &d.set);
	auto_free uint8_t *is_needed = needed(f, &d.set, own);
	uint32_t copies;

	f->demands = fit_more(f->demands, f->ndemands, sizeof(d));
	f->demands[f->ndemands++] = d;
	copies = f->ndemands * COPIES > ALL_COPIES ? ALL_COPIES / f->ndemands : COPIES;
	view_add(f, items, false);
	for (uint32_t i = 0; i < copies || i < 1; i++)
		view_varied(f, &d.set, own, is_needed);
	f->demands[f->ndemands - 1].nviews = f->nviews - d.first_view;
	return &f->demands[f->ndemands - 1];
}

/* 2^-x, by straight lines between the powers; with libm every start of the command line would pay
 * for loading it. */
static double halved(double x)
{
	double y = 1;

	for (; x >= 1 && y > 0; x -= 1)
		y /= 2;
	return y > 0 ? y * (1 - x / 2) : 0;
}

/* A closure that was asked for often and has stayed away for much longer than its calls were apart
 * is probably gone. It comes by chance: so often as it would have come meanwhile, so much (e to
 * that) less is its absence to be expected of one that is not. 1.44 = 1/ln 2: a steady rate r
 * weighs 1.44 r half-lives. */
static double demand_weight(const struct fit *f, const struct fit_demand *d)
{
	double missed, still;

	if (f->rules.half_life <= 0)
		return d->weight;
	missed = d->rate * (f->now - d->last) / (1.44 * f->rules.half_life);
	still = halved(1.44 * missed);
	return d->weight * still / (still + GONE * (1 - still));
}

/* Of what may be expected of others like a closure, the more often it comes as it is the less: no
 * more than for one call. How much that is in all, is told by how many closures came only once
 * (Good and Turing). */
void fit_weigh_one(const struct fit *f, struct fit_demand *d)
{
	double weight = demand_weight(f, d);
	double varied = f->left_out * (weight * f->scale > 1 ? 1 / f->scale : weight);

	d->part[false] = weight - varied;
	d->part[true] = varied / (d->nviews - 1);
}

void fit_weigh(struct fit *f)
{
	double once = 0, all = 0;

	for (uint32_t i = 0; i < f->ndemands; i++) {
		double w = f->demands[i].weight * f->scale;

		once += f->demands[i].calls == 1 ? w : 0;
		all += w < 1 ? w : 1;
	}
	f->left_out = once < LEFT_OUT * all ? once / all : LEFT_OUT;
	for (uint32_t i = 0; i < f->ndemands; i++)
		fit_weigh_one(f, &f->demands[i]);
}

double fit_weight(const struct fit *f, const struct fit_view *v)
{
	return f->demands[v->demand].part[v->left_out];
}

static void set_now(struct fit *f, double now)
{
	f->now = now;
	if (f->rules.half_life <= 0)
		return;
	f->scale = halved((now - f->epoch) / f->rules.half_life);
	if (f->scale > 1e-100)
		return;
	for (uint32_t i = 0; i < f->ndemands; i++)
		f->demands[i].weight *= f->scale;
	for (uint32_t i = 0; i < f->ncandidates; i++)
		f->candidates[i].gain *= f->scale;
	f->epoch = now;
	f->scale = 1;
	fit_weigh(f);
}

/* Bounds of what the view could use rise with its weight; what only one demand had suggested is
 * judged anew when it comes a second time, by itself or by another. */
static void bounds_rise(struct fit *f, const struct fit_view *view, double more, bool few)
{
	struct fit_walk w = fit_walk_candidates(&view->set);
	uint64_t now_us = fit_view_us(f, view->best);
	uint32_t i;

	while (fit_walk_next(f, &w, &i)) {
		struct fit_candidate *c = &f->candidates[i];

		if ((c->set.us <= now_us && !(c->lone && few)) || c->judged == f->ncalls ||
		    !fit_set_within(&c->set, &view->set))
			continue;
		if (c->lone && few) {
			fit_judge(f, c);
			c->judged = f->ncalls;
		} else {
			c->gain += more * (double)(c->set.us - now_us);
		}
	}
}

static struct fit_demand *demand_of(struct fit *f, struct policy_set items)
{
	uint64_t hash = fit_set_hash(items);
	const uint32_t *known = fit_table_get(&f->by_set, hash);
	bool fresh;

	if (known)
		return &f->demands[*known];
	fit_forget_demands(f);
	*fit_table_find(&f->by_set, hash, &fresh) = f->ndemands;
	return demand_add(f, items);
}

void fit_call(struct fit *f, struct policy_set items, double calls, double now)
{
	struct fit_demand *d;
	double before[2];

	set_now(f, now);
	f->ncalls++;
	d = demand_of(f, items);
	fit_weigh_one(f, d);
	memcpy(before, d->part, sizeof(before));
	d->weight += calls / f->scale;
	d->last = now;
	d->rate = d->weight * f->scale;
	d->calls += calls > 1 ? 2 : 1;
	fit_weigh_one(f, d);
	for (uint32_t i = 0; i < d->nviews; i++) {
		const struct fit_view *v = &f->views[d->first_view + i];

		bounds_rise(f, v, d->part[v->left_out] - before[v->left_out], d->calls <= FEW);
	}
	if (d->calls <= FEW)
		fit_support_grew(f, (uint32_t)(d - f->demands));
}
