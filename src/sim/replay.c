/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/replay.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "sim/replay_priv.h"

static uint64_t all_us(const struct workload *w, struct policy_set items)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < items.n; i++)
		sum += w->items[items.v[i]].us;
	return sum;
}

static struct fit *fit_for(const struct sim_run *run, bool on_paper)
{
	struct fit_rules rules = { .budget_bytes = run->memory_bytes,
				   .root_bytes = SIM_ROOT_BYTES,
				   .node_bytes = SIM_NODE_BYTES,
				   .half_life = on_paper ? 0 : run->half_life,
				   .on_paper = on_paper };
	struct fit *f = fit_new(&rules);

	workload_teach_items(run->work, f);
	return f;
}

static void start_empty(struct replay *r)
{
	r->fit = fit_for(r->run, false);
}

static void start_tree(struct replay *r)
{
	const struct sim_tree *t = &r->run->policy->tree;

	r->fit = fit_for(r->run, false);
	/* an empty optimiser numbers nodes from 0 on, as the file's are */
	for (uint32_t i = 0; i < t->n; i++)
		fit_make(r->fit, t->nodes[i].items, t->nodes[i].parent);
}

static void start_fitted(struct replay *r)
{
	const struct workload *w = r->run->work;

	r->fit = fit_for(r->run, true);
	for (uint32_t i = 0; i < (w->nwarm ? w->nwarm : w->ncalls); i++)
		fit_call(r->fit, w->functions[w->calls[i]].items, 1, 0);
	fit_solve(r->fit);
}

static int choose_none(const struct replay *r, struct policy_set items, uint64_t *out_us)
{
	*out_us = 0;
	return -1;
}

static int choose_best(const struct replay *r, struct policy_set items, uint64_t *out_us)
{
	return fit_choose(r->fit, items, out_us);
}

static int choose_first(const struct replay *r, struct policy_set items, uint64_t *out_us)
{
	struct fit_node n;
	int at = -1;

	*out_us = 0;
	for (int i = 0; i < fit_nodes(r->fit);) {
		if (fit_node(r->fit, i, &n) && n.parent == at &&
		    policy_set_within(n.items, items)) {
			at = i;
			*out_us = n.us;
			i = 0; /* a child may have a lower number */
		} else {
			i++;
		}
	}
	return at;
}

static int choose_bound(const struct replay *r, struct policy_set items, uint64_t *out_us)
{
	*out_us = all_us(r->run->work, items);
	return -1;
}

static void learn_online(struct replay *r, struct policy_set items, int node)
{
	int made = 0;

	(void)node;
	fit_call(r->fit, items, 1, r->now);
	while (made < SIM_MADE_PER_CALL) {
		struct fit_step step = fit_plan(r->fit);

		if (step.action == FIT_NOTHING)
			return;
		if (step.action == FIT_DROP) {
			fit_drop(r->fit, step.node);
			continue;
		}
		replay_made(r, fit_make(r->fit, step.items, step.parent));
		made++;
	}
}

static const struct {
	void (*start)(struct replay *r); /* NULL: there is no tree */
	int (*choose)(const struct replay *r, struct policy_set items, uint64_t *out_us);
	/* After the call, which was forked from this node; NULL: does not learn. */
	void (*learn)(struct replay *r, struct policy_set items, int node);
} kinds[] = {
	[SIM_NONE] = { NULL, choose_none, NULL },
	[SIM_ROOT] = { start_empty, choose_none, NULL },
	[SIM_SOCK] = { start_empty, choose_first, replay_learn_cache },
	[SIM_LRU] = { start_empty, choose_best, replay_learn_cache },
	[SIM_GDSF] = { start_empty, choose_best, replay_learn_cache },
	[SIM_FIRST] = { start_tree, choose_first, NULL },
	[SIM_BEST] = { start_tree, choose_best, NULL },
	[SIM_ONLINE] = { start_empty, choose_best, learn_online },
	[SIM_FITTED] = { start_fitted, choose_best, NULL },
	[SIM_BOUND] = { NULL, choose_bound, NULL },
};

void replay_made(struct replay *r, int node)
{
	struct fit_node n, parent = { 0 };

	must(fit_node(r->fit, node, &n));
	(void)fit_node(r->fit, n.parent, &parent);
	r->out->made++;
	r->out->made_ms += (double)(n.us - parent.us) / 1000;
}

/* What a call of the mix after the change is to expect. */
static double expected_ms(const struct replay *r)
{
	const struct workload *w = r->run->work;
	double sum = 0;

	for (uint32_t i = 0; i < w->nfunctions; i++) {
		struct policy_set items = w->functions[i].items;
		uint64_t saved;

		if (r->run->after[i] <= 0)
			continue;
		kinds[r->run->policy->kind].choose(r, items, &saved);
		sum += r->run->after[i] * (double)(all_us(w, items) - saved) / 1000;
	}
	return sum;
}

static double best_after_ms(const struct replay *r)
{
	const struct workload *w = r->run->work;
	struct sim_policy fitted = { .kind = SIM_FITTED };
	struct sim_run run = *r->run;
	struct replay ideal = { .run = &run };
	double ms;

	run.policy = &fitted;
	ideal.fit = fit_for(&run, true);
	for (uint32_t i = w->ncalls / 2; i < w->ncalls; i++)
		fit_call(ideal.fit, w->functions[w->calls[i]].items, 1, 0);
	fit_solve(ideal.fit);
	ms = expected_ms(&ideal);
	fit_free(ideal.fit);
	return ms;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void sum_up(struct sim_result *out, uint64_t *left_us, uint32_t n)
{
	uint32_t hits = 0;
	double sum = 0;

	qsort(left_us, n, sizeof(*left_us), by_size);
	for (uint32_t i = 0; i < n; i++) {
		sum += (double)left_us[i];
		hits += left_us[i] == 0;
	}
	if (n == 0)
		return;
	out->mean_ms = sum / n / 1000;
	uint32_t half = (n - 1) / 2, most = (n - 1) * 99 / 100;

	out->p50_ms = (double)left_us[half] / 1000;
	out->p99_ms = (double)left_us[most] / 1000;
	out->hits = (double)hits / n;
}

static uint64_t call(struct replay *r, const struct sim_function *fn)
{
	struct policy_set items = fn->items;
	uint64_t saved;
	int node = kinds[r->run->policy->kind].choose(r, items, &saved);

	r->now++;
	if (kinds[r->run->policy->kind].learn)
		kinds[r->run->policy->kind].learn(r, items, node);
	if (r->fit && r->out->memory_bytes < (double)fit_bytes(r->fit))
		r->out->memory_bytes = (double)fit_bytes(r->fit);
	return all_us(r->run->work, items) - saved + fn->left_us;
}

static void finish(struct replay *r)
{
	struct fit_node n;

	for (int i = 0; r->fit && i < fit_nodes(r->fit); i++)
		r->out->nodes += fit_node(r->fit, i, &n);
	if (r->out->made == 0) /* made before the calls */
		for (int i = 0; r->fit && i < fit_nodes(r->fit); i++)
			if (fit_node(r->fit, i, &n))
				replay_made(r, i);
	fit_free(r->fit);
	free(r->meta);
}

void sim_replay(const struct sim_run *run, struct sim_result *out)
{
	const struct workload *w = run->work;
	uint64_t *left_us = mem_zero(w->ncalls + 1, sizeof(*left_us));
	struct replay r = { .run = run, .out = out };
	double good_ms = run->after ? SIM_BACK * best_after_ms(&r) : 0;

	*out = (struct sim_result){ .back_calls = -1 };
	if (kinds[run->policy->kind].start)
		kinds[run->policy->kind].start(&r);
	for (uint32_t i = 0; i < w->ncalls; i++) {
		uint32_t change = w->ncalls / 2;

		if (run->after && i >= change && out->back_calls < 0 && expected_ms(&r) <= good_ms)
			out->back_calls = i - change;
		left_us[i] = call(&r, &w->functions[w->calls[i]]);
	}
	sum_up(out, left_us + w->nwarm, w->ncalls - w->nwarm);
	finish(&r);
	free(left_us);
}
