/* SPDX-License-Identifier: Apache-2.0
 *
 * What is remembered of calls: how much each closure is asked for, the views of it that the value
 * is measured by, and the candidates that it suggests.
 */
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "policy/fit_priv.h"

/* Items cheaper than this are in a node only when dearer ones need them: they save nothing, and
 * keep calls out. */
#define WORTH_US 100
/* Of a call's weight so much is on so many copies, which lose each package with this chance. Chosen
 * by the six splits of docs/TREE.md together; their neighbours differ by less than 3 %. */
#define LEFT_OUT 0.5
#define COPIES 8
#define LOSES_PERCENT 30
#define FEW 3	     /* calls: up to then what others suggest may change; then it is known */
#define COMPARED 512 /* closures that a new one is intersected with: of more, some by chance */
#define HEAVY 6	     /* of a call's packages are joined in pairs */

void fit_item(struct fit *f, uint32_t item, uint64_t us, uint64_t bytes)
{
	if (item >= f->nitems) {
		f->items = mem_resize(f->items, (item + 1) * sizeof(*f->items));
		memset(f->items + f->nitems, 0, (item + 1 - f->nitems) * sizeof(*f->items));
		f->nitems = item + 1;
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

/* The item's largest known closure that lies in the set; false: it cannot be imported there. */
static bool closure_in(const struct fit *f, uint32_t item, const struct fit_set *set,
		       struct policy_set *out)
{
	const struct fit_item *i = &f->items[item];
	const struct fit_set *best = NULL;

	for (uint32_t k = 0; k < i->nclosures; k++)
		if ((!best || i->closures[k].n > best->n) && fit_set_within(&i->closures[k], set))
			best = &i->closures[k];
	if (best)
		*out = fit_set_plain(best);
	return best;
}

/* A set under construction: marks by item, and the list. */
struct pile {
	uint32_t *v, n;
	uint8_t *has;
};

static void pile_init(struct pile *p, const struct fit *f)
{
	p->v = mem_zero(f->nitems + 1, sizeof(*p->v));
	p->has = mem_zero(f->nitems + 1, 1);
	p->n = 0;
}

static void pile_done(struct pile *p)
{
	free(p->v);
	free(p->has);
}

static void pile_put(struct pile *p, struct policy_set s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!p->has[s.v[i]]) {
			p->has[s.v[i]] = 1;
			p->v[p->n++] = s.v[i];
		}
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* As a set, valid until the next pile_put(); the pile is empty again. */
static struct policy_set pile_take(struct pile *p)
{
	struct policy_set s = { p->v, p->n };

	qsort(p->v, p->n, sizeof(*p->v), by_number);
	for (uint32_t i = 0; i < p->n; i++)
		p->has[p->v[i]] = 0;
	p->n = 0;
	return s;
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
	c.gain = fit_gain(f, &c.set, &c.lone);
	f->candidates = fit_more(f->candidates, f->ncandidates, sizeof(c));
	*slot = f->ncandidates;
	f->candidates[f->ncandidates++] = c;
}

/* What of the set can be imported and is worth it, as a candidate. */
static void suggest(struct fit *f, struct pile *p, struct policy_set raw)
{
	bool fresh;
	struct fit_set set;

	fit_table_find(&f->by_raw, fit_set_hash(raw), &fresh);
	if (!fresh || raw.n == 0)
		return;
	set = fit_set_of(f, raw);
	for (uint32_t i = 0; i < set.n; i++) {
		struct policy_set c;

		if (f->items[set.v[i]].us >= WORTH_US && closure_in(f, set.v[i], &set, &c))
			pile_put(p, c);
	}
	candidate_add(f, pile_take(p));
	fit_set_done(&set);
}

static uint32_t random_below(struct fit *f, uint32_t n)
{
	f->seed = f->seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((f->seed >> 33) * (uint64_t)n >> 31);
}

static void suggest_common(struct fit *f, struct pile *p, const struct fit_set *a)
{
	uint32_t *common = mem_zero(a->n + 1, sizeof(*common));

	for (uint32_t k = 0; k < f->ndemands && k < COMPARED; k++) {
		uint32_t d = f->ndemands <= COMPARED ? k : random_below(f, f->ndemands);
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
		suggest(f, p, (struct policy_set){ common, n });
	}
	free(common);
}

/* The closures of its items, and pairs of the heaviest. */
static void suggest_parts(struct fit *f, struct pile *p, const struct fit_set *set)
{
	struct fit_set heavy[HEAVY + 1];
	uint32_t n = 0;

	for (uint32_t i = 0; i < set->n; i++) {
		struct policy_set c;
		struct fit_set part;
		uint32_t at;

		if (f->items[set->v[i]].us < WORTH_US || !closure_in(f, set->v[i], set, &c))
			continue;
		suggest(f, p, c);
		part = fit_set_of(f, c);
		for (at = n; at > 0 && heavy[at - 1].us < part.us; at--)
			heavy[at] = heavy[at - 1];
		heavy[at] = part;
		if (++n > HEAVY)
			fit_set_done(&heavy[--n]);
	}
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t j = 0; j < i; j++) {
			struct policy_set both;

			pile_put(p, fit_set_plain(&heavy[i]));
			pile_put(p, fit_set_plain(&heavy[j]));
			both = pile_take(p);
			candidate_add(f, both);
		}
	for (uint32_t i = 0; i < n; i++)
		fit_set_done(&heavy[i]);
}

void fit_view_index(struct fit *f, uint32_t view)
{
	const struct fit_set *set = &f->views[view].set;

	for (uint32_t i = 0; i < set->n; i++) {
		struct fit_item *item = &f->items[set->v[i]];

		item->views = fit_more(item->views, item->nviews, sizeof(*item->views));
		item->views[item->nviews++] = view;
	}
}

static void view_add(struct fit *f, struct policy_set items, bool left_out)
{
	struct fit_view v = { .set = fit_set_of(f, items),
			      .demand = f->ndemands - 1,
			      .left_out = left_out };

	f->views = fit_more(f->views, f->nviews, sizeof(v));
	f->views[f->nviews++] = v;
	fit_view_index(f, f->nviews - 1);
	fit_view_refresh(f, f->nviews - 1);
}

/* The items that no other of the set needs, their number returned. */
static uint32_t tops(const struct fit *f, const struct fit_set *set, uint32_t *out)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < set->n; i++) {
		bool needed = false;

		for (uint32_t j = 0; j < set->n && !needed; j++) {
			struct policy_set c;

			needed = i != j && closure_in(f, set->v[j], set, &c) &&
				 policy_set_has(c, set->v[i]);
		}
		if (!needed)
			out[n++] = set->v[i];
	}
	return n;
}

/* The call as it might have been. */
static void view_varied(struct fit *f, struct pile *p, const struct fit_set *set,
			struct policy_set top)
{
	struct policy_set c;

	for (size_t i = 0; i < top.n; i++)
		if (random_below(f, 100) >= LOSES_PERCENT && closure_in(f, top.v[i], set, &c))
			pile_put(p, c);
	if (f->ndemands > 1) {
		const struct fit_set *other = &f->demands[random_below(f, f->ndemands - 1)].set;

		if (other->n && closure_in(f, other->v[random_below(f, other->n)], other, &c))
			pile_put(p, c);
	}
	view_add(f, pile_take(p), true);
}

static void views_add(struct fit *f, struct pile *p, const struct fit_set *set)
{
	uint32_t *top = mem_zero(set->n + 1, sizeof(*top)), n = tops(f, set, top);

	view_add(f, fit_set_plain(set), false);
	for (int i = 0; i < COPIES; i++)
		view_varied(f, p, set, (struct policy_set){ top, n });
	free(top);
}

static uint32_t demand_add(struct fit *f, struct policy_set items)
{
	struct fit_demand d = { .set = fit_set_of(f, items), .first_view = f->nviews };
	struct pile p;

	pile_init(&p, f);
	f->demands = fit_more(f->demands, f->ndemands, sizeof(d));
	f->demands[f->ndemands++] = d;
	views_add(f, &p, &d.set);
	f->demands[f->ndemands - 1].nviews = f->nviews - d.first_view;
	suggest(f, &p, items);
	suggest_common(f, &p, &d.set);
	suggest_parts(f, &p, &d.set);
	pile_done(&p);
	return f->ndemands - 1;
}

static double demand_weight(const struct fit *f, const struct fit_demand *d)
{
	double expected;

	if (f->rules.half_life <= 0)
		return d->weight;
	/* A closure that was asked for often and has stayed away for much longer than its calls
	 * were apart is probably gone: its rate is at most what its absence allows. 1.44 = 1/ln 2:
	 * a steady rate r weighs 1.44 r half-lives. */
	expected = d->weight * f->scale * (f->now - d->last) / (1.44 * f->rules.half_life);
	return expected > FIT_OVERDUE ? d->weight * FIT_OVERDUE / expected : d->weight;
}

/* The more often a closure comes as it is, the less is to be expected of others like it: no more
 * than one call's half. */
static double view_part(const struct fit *f, double weight, bool left_out)
{
	double varied = LEFT_OUT * (weight * f->scale > 1 ? 1 / f->scale : weight);

	return left_out ? varied / COPIES : weight - varied;
}

double fit_weight(const struct fit *f, const struct fit_view *v)
{
	return view_part(f, demand_weight(f, &f->demands[v->demand]), v->left_out);
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
}

/* Bounds of what the demand's views could use rise with its weight; what only one demand had
 * suggested is judged anew when it comes a second time, by itself or by another. */
static void bounds_rise(struct fit *f, const struct fit_demand *d, double before)
{
	double now = demand_weight(f, d);

	for (uint32_t c = 0; c < f->ncandidates; c++) {
		struct fit_candidate *cand = &f->candidates[c];

		for (uint32_t v = d->first_view; v < d->first_view + d->nviews; v++) {
			const struct fit_view *view = &f->views[v];

			if (!fit_set_within(&cand->set, &view->set))
				continue;
			if (cand->lone && d->calls <= FEW) {
				cand->gain = fit_gain(f, &cand->set, &cand->lone);
				break;
			}
			if (cand->set.us > fit_view_us(f, view->best))
				cand->gain += (view_part(f, now, view->left_out) -
					       view_part(f, before, view->left_out)) *
					      (double)(cand->set.us - fit_view_us(f, view->best));
		}
	}
}

void fit_call(struct fit *f, struct policy_set items, double calls, double now)
{
	struct fit_demand *d;
	bool fresh;
	uint32_t *slot;
	double before;

	set_now(f, now);
	fit_forget(f);
	slot = fit_table_find(&f->by_set, fit_set_hash(items), &fresh);
	if (fresh)
		*slot = demand_add(f, items);
	d = &f->demands[*slot];
	before = demand_weight(f, d);
	d->weight += calls / f->scale;
	d->last = now;
	d->calls += calls > 1 ? 2 : 1;
	bounds_rise(f, d, before);
	if (d->calls <= FEW)
		fit_support_grew(f, *slot);
}
