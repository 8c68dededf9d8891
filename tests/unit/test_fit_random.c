/* SPDX-License-Identifier: Apache-2.0
 *
 * The optimiser under random sequences of calls, changes of memory, uses, nodes that others made or
 * dropped, and steps that were planned but not taken: what must hold after each of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/mem.h"
#include "policy/fit_priv.h"
#include "sim/workload.h"

#define MB 1000000u
/* Small against what is imported: then it often matters what is shared. */
#define NODE_BYTES 400000u
enum { SEEDS = 24, STEPS = 250, FUNCTIONS = 60 };

struct run {
	struct workload w;
	struct sim_random r;
	struct fit *f;
	double now;
	uint64_t budget;
	uint32_t drops, makes,
		refused; /* planned; refused: nothing could be done for what is used */
};

static struct fit *fit_of(const struct workload *w, uint64_t budget, double half_life, bool paper)
{
	struct fit_rules rules = { .budget_bytes = budget,
				   .root_bytes = SIM_ROOT_BYTES,
				   .node_bytes = NODE_BYTES,
				   .half_life = half_life,
				   .on_paper = paper };
	struct fit *f = fit_new(&rules);

	workload_teach_items(w, f);
	return f;
}

static struct policy_set some_function(struct run *x)
{
	/* the second half comes later */
	uint32_t from = x->now > 500 ? FUNCTIONS / 2 : 0;

	return x->w.functions[from + sim_random_below(&x->r, FUNCTIONS / 2)].items;
}

static bool is_used(const struct fit *f, int node)
{
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive && f->nodes[i].in_use && fit_is_above(f, node, (int32_t)i))
			return true;
	return false;
}

static uint64_t used_bytes(const struct fit *f)
{
	uint64_t sum = f->rules.root_bytes;
	struct fit_node n;

	for (int i = 0; i < fit_nodes(f); i++)
		if (fit_node(f, i, &n) && is_used(f, i))
			sum += n.own_bytes;
	return sum;
}

/* One planned step, taken or left; what is in use stays, and memory is kept to. */
static void plan(struct run *x)
{
	struct fit_step step = fit_plan(x->f);
	uint64_t bytes = fit_bytes(x->f);
	bool over = bytes > x->budget;

	if (step.action == FIT_NOTHING && over) {
		assert_true(used_bytes(x->f) == bytes);
		x->refused++;
	}
	if (step.action == FIT_DROP)
		assert_false(is_used(x->f, step.node));
	if (over)
		assert_true(step.action != FIT_MAKE);
	if (sim_random_below(&x->r, 8) == 0)
		return;
	if (step.action == FIT_DROP) {
		fit_drop(x->f, step.node);
		x->drops++;
	}
	if (step.action == FIT_MAKE) {
		fit_make(x->f, step.items, step.parent);
		assert_true(fit_bytes(x->f) <= x->budget);
		x->makes++;
	}
}

/* What another may do: use, make, drop. */
static void interfere(struct run *x)
{
	struct fit_node n;
	int node = fit_nodes(x->f) ? (int)sim_random_below(&x->r, (uint32_t)fit_nodes(x->f)) : 0;
	uint32_t what = sim_random_below(&x->r, 4);

	if (!fit_node(x->f, node, &n))
		return;
	if (what == 0)
		fit_use(x->f, node, true);
	else if (what == 1)
		fit_use(x->f, node, false);
	else if (what == 2 && !is_used(x->f, node))
		fit_drop(x->f, node);
}

static void make_own(struct run *x)
{
	struct policy_set items = some_function(x);
	uint64_t saved;
	struct fit_node n = { 0 };
	int parent = fit_choose(x->f, items, &saved);

	(void)fit_node(x->f, parent, &n);
	if (items.n > n.items.n && fit_depth(x->f, parent) < LIMIT_TREE_DEPTH)
		fit_make(x->f, items, parent);
}

static void check_choice(struct run *x)
{
	struct policy_set items = some_function(x);
	uint64_t saved, most = 0;
	struct fit_node n;
	int node = fit_choose(x->f, items, &saved);

	for (int i = 0; i < fit_nodes(x->f); i++)
		if (fit_node(x->f, i, &n) && policy_set_within(n.items, items) && n.us > most)
			most = n.us;
	assert_int_equal(saved, most);
	if (fit_node(x->f, node, &n))
		assert_true(policy_set_within(n.items, items));
	else
		assert_int_equal(saved, 0);
}

static void check_tree(const struct run *x)
{
	const struct fit *f = x->f;
	uint64_t sum = SIM_ROOT_BYTES;
	struct fit_node n, parent;

	for (int i = 0; i < fit_nodes(f); i++) {
		if (!fit_node(f, i, &n))
			continue;
		sum += NODE_BYTES;
		parent = (struct fit_node){ 0 };
		if (n.parent >= 0)
			assert_true(fit_node(f, n.parent, &parent));
		for (size_t k = 0; k < n.items.n; k++)
			if (!policy_set_has(parent.items, n.items.v[k]))
				sum += x->w.items[n.items.v[k]].bytes;
		assert_true(parent.items.n < n.items.n && policy_set_within(parent.items, n.items));
		assert_true(fit_depth(f, i) <= LIMIT_TREE_DEPTH);
	}
	assert_int_equal(sum, fit_bytes(f));
}

/* What is kept up to date step by step, against a look at everything. */
static void check_candidates(const struct fit *f)
{
	for (uint32_t i = 0; i < f->ncandidates; i++) {
		const struct fit_candidate *c = &f->candidates[i];
		struct fit_candidate anew = { .set = c->set };
		uint32_t at = 0, known = 0;

		fit_candidate_place(f, &anew);
		assert_int_equal(c->credit, anew.credit);
		assert_int_equal(fit_node_bytes(f, c->parent), fit_node_bytes(f, anew.parent));
		for (uint32_t v = 0; v < f->nviews; v++)
			if (fit_set_within(&c->set, &f->views[v].set)) {
				assert_true(fit_rising_next(&c->views, &at, &known));
				assert_int_equal(known, v);
			}
		assert_false(fit_rising_next(&c->views, &at, &known));
	}
}

static void check_views(const struct fit *f)
{
	for (uint32_t i = 0; i < f->nviews; i++) {
		const struct fit_view *v = &f->views[i];
		uint64_t most = 0;

		for (uint32_t n = 0; n < f->nnodes && !v->left_out; n++)
			if (f->nodes[n].alive && f->nodes[n].set.us > most &&
			    fit_set_within(&f->nodes[n].set, &v->set))
				most = f->nodes[n].set.us;
		if (!v->left_out)
			assert_int_equal(fit_view_us(f, v->best), most);
		else if (v->best >= 0)
			assert_true(fit_set_within(&f->nodes[v->best].set, &v->set));
	}
}

static void step(struct run *x, uint32_t i)
{
	fit_call(x->f, some_function(x), 1 + sim_random_below(&x->r, 3), x->now);
	x->now += sim_random_below(&x->r, 8);
	if (i % 20 == 19) {
		x->budget = (68 + sim_random_below(&x->r, 60)) * MB;
		fit_budget(x->f, x->budget);
	}
	for (uint32_t k = sim_random_below(&x->r, 6); k > 0; k--)
		plan(x);
	interfere(x);
	if (sim_random_below(&x->r, 10) == 0)
		make_own(x);
	check_tree(x);
	check_choice(x);
	if (i % 25 == 0) {
		check_candidates(x->f);
		check_views(x->f);
	}
}

static void test_random_sequences(void **state)
{
	uint32_t drops = 0, makes = 0, refused = 0;

	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct run x = { .budget = 90 * MB };

		workload_generate(&x.w, FUNCTIONS, seed);
		sim_random_seed(&x.r, seed);
		x.f = fit_of(&x.w, x.budget, seed % 2 ? 40 : 0, false);
		for (uint32_t i = 0; i < STEPS; i++)
			step(&x, i);
		drops += x.drops;
		makes += x.makes;
		refused += x.refused;
		fit_free(x.f);
		workload_done(&x.w);
	}
	assert_true(drops > 500 && makes > 500 && refused > 5);
}

/* Without new calls the steps come to an end, and nothing takes turns. */
static int settle(struct fit *f)
{
	for (int n = 0; n < 2000; n++) {
		struct fit_step s = fit_plan(f);

		if (s.action == FIT_DROP)
			fit_drop(f, s.node);
		if (s.action == FIT_MAKE)
			fit_make(f, s.items, s.parent);
		if (s.action == FIT_NOTHING && !fit_is_behind(f))
			return n;
	}
	fail_msg("steps without end");
	return -1;
}

static void test_steps_come_to_an_end(void **state)
{
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		struct workload w;
		struct fit *f;

		workload_generate(&w, 100, seed);
		f = fit_of(&w, (75 + 10 * seed) * MB, seed % 2 ? 60 : 0, false);
		for (uint32_t i = 0; i < w.nfunctions; i++) {
			fit_call(f, w.functions[i].items, 1, i);
			if (i % 10 == 9)
				settle(f);
		}
		/* a step looks at so many candidates only: the next may find more */
		for (int i = 0; i < 10; i++)
			settle(f);
		assert_int_equal(settle(f), 0);
		fit_free(f);
		workload_done(&w);
	}
}

static double solved(const struct workload *w, uint64_t budget)
{
	struct fit *f = fit_of(w, budget, 0, true);
	double value;

	for (uint32_t i = 0; i < w->nfunctions; i++)
		fit_call(f, w->functions[i].items, 1, i);
	fit_solve(f);
	assert_true(fit_bytes(f) <= budget);
	value = fit_value(f);
	fit_free(f);
	return value;
}

/* Processes: with any more memory. On paper: with twice as much never, with a little more by no
 * more than the greedy choice may miss. */
static void test_value_when_memory_grows(void **state)
{
	for (uint64_t seed = 0; seed < 8; seed++) {
		struct workload w;
		struct sim_random r;
		struct fit *live;
		double before = 0, best = 0;

		sim_random_seed(&r, seed);
		workload_generate(&w, 80, seed);
		live = fit_of(&w, 80 * MB, 0, false);
		for (uint32_t i = 0; i < w.nfunctions; i++)
			fit_call(live, w.functions[i].items, 1, i);
		for (uint64_t mb = 80; mb < 1000; mb += 1 + sim_random_below(&r, (uint32_t)mb)) {
			double once = solved(&w, mb * MB);

			fit_budget(live, mb * MB);
			settle(live);
			assert_true(fit_value(live) >= before);
			before = fit_value(live);
			assert_true(once >= best * 0.999);
			assert_true(solved(&w, 2 * mb * MB) >= once);
			best = once > best ? once : best;
		}
		assert_true(before > 0);
		fit_free(live);
		workload_done(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_sequences),
		cmocka_unit_test(test_steps_come_to_an_end),
		cmocka_unit_test(test_value_when_memory_grows),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
