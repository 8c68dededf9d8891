/* SPDX-License-Identifier: Apache-2.0
 *
 * The optimiser: properties on made-up workloads, and small cases by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/limits.h"
#include "policy/fit.h"
#include "sim/workload.h"

#define MB 1000000u
#define SET(...)                                                      \
	((struct policy_set){ .v = (const uint32_t[]){ __VA_ARGS__ }, \
			      .n = sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t) })

enum { NUMPY, PANDAS, REQUESTS, FLASK, ITEMS };

/* 100 ms and 10 MB each, a node 1 MB, the root 5 MB. */
static struct fit *small(uint64_t budget_mb, double half_life, bool on_paper)
{
	struct fit_rules rules = { .budget_bytes = budget_mb * MB,
				   .root_bytes = 5 * MB,
				   .node_bytes = 1 * MB,
				   .half_life = half_life,
				   .on_paper = on_paper };
	struct fit *f = fit_new(&rules);

	for (uint32_t i = 0; i < ITEMS; i++)
		fit_item(f, i, 100000, 10 * MB);
	fit_closure(f, NUMPY, SET(NUMPY));
	fit_closure(f, PANDAS, SET(NUMPY, PANDAS));
	fit_closure(f, REQUESTS, SET(REQUESTS));
	fit_closure(f, FLASK, SET(FLASK));
	return f;
}

/* All changes that are worth making; the number of them. */
static int settle(struct fit *f)
{
	for (int n = 0; n < 1000; n++) {
		struct fit_step step = fit_plan(f);

		if (step.action == FIT_NOTHING && !fit_is_behind(f))
			return n;
		if (step.action == FIT_DROP)
			fit_drop(f, step.node);
		if (step.action == FIT_MAKE)
			fit_make(f, step.items, step.parent);
	}
	fail_msg("changes without end");
	return -1;
}

static struct fit *of_workload(const struct workload *w, uint64_t budget, double half_life,
			       bool on_paper)
{
	struct fit_rules rules = { .budget_bytes = budget,
				   .root_bytes = SIM_ROOT_BYTES,
				   .node_bytes = SIM_NODE_BYTES,
				   .half_life = half_life,
				   .on_paper = on_paper };
	struct fit *f = fit_new(&rules);

	workload_teach_items(w, f);
	return f;
}

static uint64_t bytes_of(const struct workload *w, struct policy_set items)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < items.n; i++)
		sum += w->items[items.v[i]].bytes;
	return sum;
}

/* Memory is what the model says of the nodes that there are; each holds all that its parent holds,
 * and whole closures only; none is too deep. */
static void check_tree(const struct fit *f, const struct workload *w)
{
	uint64_t sum = SIM_ROOT_BYTES;
	struct fit_node n, parent;

	for (int i = 0; i < fit_nodes(f); i++) {
		int depth = 0;

		if (!fit_node(f, i, &n))
			continue;
		sum += SIM_NODE_BYTES + bytes_of(w, n.items);
		if (n.parent >= 0) {
			assert_true(fit_node(f, n.parent, &parent));
			assert_true(policy_set_within(parent.items, n.items));
			assert_true(parent.items.n < n.items.n);
			sum -= bytes_of(w, parent.items);
		}
		for (size_t k = 0; k < n.items.n; k++)
			assert_true(policy_set_within(w->items[n.items.v[k]].closures[0], n.items));
		for (struct fit_node up = n; up.parent >= 0; depth++)
			assert_true(fit_node(f, up.parent, &up));
		assert_true(depth < LIMIT_TREE_DEPTH);
	}
	assert_int_equal(sum, fit_bytes(f));
}

static void check_choice(const struct fit *f, const struct workload *w, struct policy_set items)
{
	uint64_t saved = 0, best = 0;
	struct fit_node n;
	int node = fit_choose(f, items, &saved);

	for (int i = 0; i < fit_nodes(f); i++)
		if (fit_node(f, i, &n) && policy_set_within(n.items, items) && n.us > best)
			best = n.us;
	assert_int_equal(saved, best);
	if (node < 0)
		return;
	assert_true(fit_node(f, node, &n));
	assert_true(policy_set_within(n.items, items));
	assert_int_equal(n.us, saved);
}

static void test_live_tree_keeps_its_promises(void **state)
{
	for (uint64_t seed = 0; seed < 6; seed++) {
		struct workload w;
		struct sim_random r;
		struct fit *f;
		struct fit_node n;
		int used = -1, drops = 0;

		workload_generate(&w, 60, seed);
		sim_random_seed(&r, seed);
		f = of_workload(&w, 150 * MB, 40, false);
		for (uint32_t i = 0; i < 300; i++) {
			struct policy_set items =
				w.functions[sim_random_below(&r, 30) + (i > 150 ? 30 : 0)].items;
			uint64_t saved;

			check_choice(f, &w, items);
			if (used >= 0)
				fit_use(f, used, false);
			used = fit_choose(f, items, &saved);
			if (used >= 0)
				fit_use(f, used, true);
			fit_call(f, items, 1, i);
			if (i % 50 == 49)
				fit_budget(f, (100 + sim_random_below(&r, 100)) * MB);
			for (int k = 0; k < 3; k++) {
				struct fit_step step = fit_plan(f);

				if (step.action == FIT_MAKE)
					fit_make(f, step.items, step.parent);
				if (step.action != FIT_DROP)
					continue;
				/* neither it nor what is below it is in use */
				for (int at = used; at >= 0; at = n.parent) {
					assert_int_not_equal(at, step.node);
					assert_true(fit_node(f, at, &n));
				}
				fit_drop(f, step.node);
				drops++;
			}
			check_tree(f, &w);
		}
		assert_true(drops > 0);
		if (used >= 0)
			fit_use(f, used, false);
		settle(f);
		check_tree(f, &w);
		fit_free(f);
		workload_done(&w);
	}
}

static void test_never_over_budget(void **state)
{
	for (uint64_t seed = 0; seed < 6; seed++) {
		struct workload w;
		struct fit *live, *paper;
		uint64_t budget = (90 + 40 * seed) * MB;

		workload_generate(&w, 80, seed);
		live = of_workload(&w, budget, 100, false);
		paper = of_workload(&w, budget, 0, true);
		for (uint32_t i = 0; i < w.nfunctions; i++) {
			struct fit_step step;

			fit_call(live, w.functions[i].items, 1, i);
			fit_call(paper, w.functions[i].items, 1, i);
			while ((step = fit_plan(live)).action == FIT_DROP)
				fit_drop(live, step.node);
			if (step.action == FIT_MAKE)
				fit_make(live, step.items, step.parent);
			assert_true(fit_bytes(live) <= budget);
		}
		fit_solve(paper);
		assert_true(fit_bytes(paper) <= budget);
		assert_true(fit_value(paper) > 0);
		check_tree(paper, &w);
		fit_free(live);
		fit_free(paper);
		workload_done(&w);
	}
}

static void test_value_never_falls_when_memory_grows(void **state)
{
	for (uint64_t seed = 0; seed < 6; seed++) {
		struct workload w;
		double before = 0, live_before = 0;
		struct fit *live;

		workload_generate(&w, 80, seed);
		live = of_workload(&w, 80 * MB, 0, false);
		for (uint32_t i = 0; i < w.nfunctions; i++)
			fit_call(live, w.functions[i].items, 1, i);
		for (uint64_t mb = 80; mb <= 1280; mb *= 2) {
			struct fit *f = of_workload(&w, mb * MB, 0, true);

			for (uint32_t i = 0; i < w.nfunctions; i++)
				fit_call(f, w.functions[i].items, 1, i);
			fit_solve(f);
			assert_true(fit_value(f) >= before);
			before = fit_value(f);
			fit_free(f);
			fit_budget(live, mb * MB);
			settle(live);
			assert_true(fit_value(live) >= live_before);
			live_before = fit_value(live);
		}
		assert_true(before > 0 && live_before > 0);
		fit_free(live);
		workload_done(&w);
	}
}

static void test_a_smaller_budget_is_kept_to(void **state)
{
	struct fit *f = small(100, 0, false);

	for (int i = 0; i < 5; i++) {
		fit_call(f, SET(NUMPY, PANDAS), 1, i);
		fit_call(f, SET(REQUESTS), 1, i);
	}
	settle(f);
	assert_true(fit_bytes(f) > 20 * MB);
	fit_budget(f, 20 * MB);
	settle(f);
	assert_true(fit_bytes(f) <= 20 * MB);
	fit_budget(f, 1); /* less than the root: all that can go, goes */
	settle(f);
	assert_int_equal(fit_bytes(f), 5 * MB);
	fit_free(f);
}

static void test_what_saves_more_per_byte_is_held(void **state)
{
	struct fit *f = small(17, 0, true); /* room for one item */
	uint64_t saved;

	for (int i = 0; i < 9; i++)
		fit_call(f, i % 3 ? SET(FLASK) : SET(REQUESTS), 1, i);
	fit_solve(f);
	assert_true(fit_choose(f, SET(FLASK), &saved) >= 0);
	assert_int_equal(saved, 100000);
	assert_int_equal(fit_choose(f, SET(REQUESTS), &saved), -1);
	assert_int_equal(saved, 0);
	fit_free(f);
}

static void test_nodes_share_what_they_have_in_common(void **state)
{
	struct fit *f = small(200, 0, true);
	struct fit_node n, parent;
	uint64_t saved;

	for (int i = 0; i < 3; i++) {
		fit_call(f, SET(NUMPY, PANDAS, REQUESTS), 1, i);
		fit_call(f, SET(NUMPY, PANDAS, FLASK), 1, i);
	}
	fit_solve(f);
	assert_true(fit_node(f, fit_choose(f, SET(NUMPY, PANDAS, FLASK), &saved), &n));
	assert_int_equal(saved, 300000);
	assert_true(fit_node(f, n.parent, &parent));
	assert_true(policy_set_within(SET(NUMPY, PANDAS), parent.items));
	assert_int_equal(n.own_bytes, 11 * MB);
	fit_free(f);
}

/* pandas cannot be imported where numpy is another: no node holds it without its closure. */
static void test_only_whole_closures_are_held(void **state)
{
	struct fit *f = small(200, 0, true);
	struct fit_node n;

	for (int i = 0; i < 3; i++) {
		fit_call(f, SET(PANDAS, REQUESTS), 1, i);
		fit_call(f, SET(PANDAS, FLASK), 1, i);
	}
	fit_solve(f);
	for (int i = 0; i < fit_nodes(f); i++)
		if (fit_node(f, i, &n))
			assert_false(policy_set_has(n.items, PANDAS));
	fit_free(f);
}

static void test_demand_that_changes_is_followed(void **state)
{
	struct fit *f = small(17, 20, false);
	uint64_t saved;
	int i, changes = 0;

	for (i = 0; i < 100; i++) {
		fit_call(f, SET(REQUESTS), 1, i);
		settle(f);
	}
	assert_true(fit_choose(f, SET(REQUESTS), &saved) >= 0);
	for (; i < 200; i++) {
		fit_call(f, SET(FLASK), 1, i);
		changes += settle(f);
	}
	assert_true(fit_choose(f, SET(FLASK), &saved) >= 0);
	assert_int_equal(fit_choose(f, SET(REQUESTS), &saved), -1);
	assert_int_equal(changes, 2); /* one out, one in */
	fit_free(f);
}

static void test_nothing_flaps(void **state)
{
	struct fit *f = small(17, 50, false);
	int changes = 0;

	for (int i = 0; i < 400; i++) { /* alike: whichever is there stays */
		fit_call(f, i % 2 ? SET(FLASK) : SET(REQUESTS), 1, i);
		changes += settle(f);
	}
	assert_true(changes >= 1 && changes <= 3);
	assert_int_equal(settle(f), 0);
	fit_free(f);
}

/* A combination that one call had once is worth less than one that two calls had. */
static void test_left_out(void **state)
{
	struct fit *f = small(17, 0, false);
	uint64_t saved;

	fit_call(f, SET(REQUESTS), 1, 0);
	fit_call(f, SET(FLASK), 1, 0);
	fit_call(f, SET(FLASK), 1, 0);
	settle(f);
	assert_true(fit_choose(f, SET(FLASK), &saved) >= 0);
	fit_free(f);
}

/* More closures than are remembered: the lighter half is forgotten, the rest goes on. */
static void test_forgetting(void **state)
{
	struct fit_rules rules = { .budget_bytes = 300 * MB,
				   .root_bytes = 5 * MB,
				   .node_bytes = 1 * MB,
				   .half_life = 1e6 };
	struct fit *f = fit_new(&rules);
	uint64_t saved;
	uint32_t n = LIMIT_FUNCTIONS + 100;

	for (uint32_t i = n; i-- > 0;) {
		fit_item(f, i, 1000, 10 * MB);
	}
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t item[] = { i };

		fit_closure(f, i, (struct policy_set){ item, 1 });
		fit_call(f, (struct policy_set){ item, 1 }, i == 5 ? 50 : 1, i);
	}
	settle(f);
	assert_true(fit_choose(f, SET(5), &saved) >= 0);
	assert_true(fit_value(f) < 1000.0 * (LIMIT_FUNCTIONS + 50));
	assert_true(fit_bytes(f) <= 300 * MB);
	fit_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_live_tree_keeps_its_promises),
		cmocka_unit_test(test_never_over_budget),
		cmocka_unit_test(test_value_never_falls_when_memory_grows),
		cmocka_unit_test(test_a_smaller_budget_is_kept_to),
		cmocka_unit_test(test_what_saves_more_per_byte_is_held),
		cmocka_unit_test(test_nodes_share_what_they_have_in_common),
		cmocka_unit_test(test_only_whole_closures_are_held),
		cmocka_unit_test(test_demand_that_changes_is_followed),
		cmocka_unit_test(test_nothing_flaps),
		cmocka_unit_test(test_left_out),
		cmocka_unit_test(test_forgetting),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
