/* SPDX-License-Identifier: Apache-2.0
 *
 * What is remembered has a limit: then the half of it that matters less is forgotten.
 */
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "policy/fit_worth.h"

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* What about half of them are above. */
static double middle(const double *v, uint32_t n)
{
	double *sorted = mem_zero(n, sizeof(*sorted)), x;

	memcpy(sorted, v, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), by_size);
	x = sorted[n / 2];
	free(sorted);
	return x;
}

static void forget_candidates(struct fit *f)
{
	uint32_t n = f->ncandidates;
	double *worth = mem_zero(n, sizeof(*worth)), limit;
	bool fresh;

	for (uint32_t i = 0; i < n; i++)
		worth[i] = f->candidates[i].gain / fit_cost(f, &f->candidates[i]);
	limit = middle(worth, n);
	fit_table_done(&f->by_candidate);
	fit_table_done(&f->by_raw);
	f->ncandidates = f->nwishes = 0;
	for (uint32_t i = 0; i < f->nitems; i++)
		f->items[i].candidates.n = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct fit_candidate c = f->candidates[i];

		if (worth[i] <= limit && c.node < 0) {
			fit_set_done(&c.set);
			free(c.views.bytes);
			continue;
		}
		*fit_table_find(&f->by_candidate, fit_set_hash(fit_set_plain(&c.set)),
				&fresh) = f->ncandidates;
		fit_list_put(&f->items[fit_key(f, &c.set)].candidates, f->ncandidates);
		f->candidates[f->ncandidates++] = c;
	}
	free(worth);
}

/* now_at: where the views went. */
static void keep_views(struct fit *f, const struct fit_demand *d, uint32_t number, uint32_t *now_at)
{
	for (uint32_t v = d->first_view; v < d->first_view + d->nviews; v++) {
		f->views[f->nviews] = f->views[v];
		f->views[f->nviews].demand = number;
		now_at[v] = f->nviews;
		fit_view_index(f, f->nviews++);
	}
}

static void demand_done(struct fit *f, struct fit_demand *d, uint32_t *now_at)
{
	for (uint32_t v = d->first_view; v < d->first_view + d->nviews; v++) {
		fit_set_done(&f->views[v].set);
		now_at[v] = FIT_NOBODY;
	}
	fit_set_done(&d->set);
}

static void renumber_views(struct fit_rising *r, const uint32_t *now_at)
{
	struct fit_rising old = *r;

	*r = (struct fit_rising){ 0 };
	for (uint32_t at = 0, view = 0; fit_rising_next(&old, &at, &view);)
		if (now_at[view] != FIT_NOBODY)
			fit_rising_put(r, now_at[view]);
	free(old.bytes);
}

static void forget_demands(struct fit *f)
{
	uint32_t n = f->ndemands, suggested = 0;
	auto_free double *weight = mem_zero(n, sizeof(*weight));
	auto_free uint32_t *now_at = mem_zero(f->nviews, sizeof(*now_at));
	double limit;
	bool fresh;

	for (uint32_t i = 0; i < n; i++)
		weight[i] = f->demands[i].weight;
	limit = middle(weight, n);
	fit_table_done(&f->by_set);
	for (uint32_t i = 0; i < f->nitems; i++)
		f->items[i].views.n = 0;
	f->ndemands = f->nviews = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct fit_demand d = f->demands[i];

		/* the first half of those that are alike goes: the older */
		if (weight[i] < limit || (weight[i] == limit && i < n / 2)) {
			demand_done(f, &d, now_at);
			continue;
		}
		*fit_table_find(&f->by_set, fit_set_hash(fit_set_plain(&d.set)),
				&fresh) = f->ndemands;
		keep_views(f, &d, f->ndemands, now_at);
		d.first_view = f->nviews - d.nviews;
		suggested += i < f->nsuggested;
		f->demands[f->ndemands++] = d;
	}
	f->nsuggested = suggested;
	for (uint32_t i = 0; i < f->ncandidates; i++)
		renumber_views(&f->candidates[i].views, now_at);
	fit_support_anew(f);
}

void fit_forget_candidates(struct fit *f)
{
	if (f->ncandidates > LIMIT_CANDIDATES)
		forget_candidates(f);
}

void fit_forget_demands(struct fit *f)
{
	if (f->ndemands == LIMIT_FUNCTIONS)
		forget_demands(f);
}
