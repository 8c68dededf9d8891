/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/limits.h"
#include "policy/policy.h"

/* Dists and modules of these tests share numbers: dist NUMPY has the modules NUMPY..NUMPY+9. */
enum { NUMPY = 10, PANDAS = 20, REQUESTS = 30, SIMPLEJSON = 40 };

#define SET(...)                                                      \
	((struct policy_set){ .v = (const uint32_t[]){ __VA_ARGS__ }, \
			      .n = sizeof((const uint32_t[]){ __VA_ARGS__ }) / sizeof(uint32_t) })
#define NONE ((struct policy_set){ 0 })

static struct policy_node root_node(void)
{
	return (struct policy_node){ .parent = -1, .root = 1, .asleep = true, .pinned = true };
}

static struct policy_node child_node(int32_t parent, struct policy_set dists,
				     struct policy_set modules)
{
	return (struct policy_node){
		.parent = parent, .root = 1, .dists = dists, .modules = modules, .asleep = true
	};
}

static const uint64_t pandas_us[] = { 50000, 3000, 150000, 4000 };

/* Loads numpy and pandas; has requests in its closure but was never seen loading it. */
static struct policy_function pandas_function(void)
{
	static const uint32_t closure[] = { NUMPY, PANDAS, REQUESTS }, seen[] = { NUMPY, PANDAS },
			      modules[] = { NUMPY, NUMPY + 1, PANDAS, PANDAS + 1 };

	return (struct policy_function){
		.root = 1,
		.closure = 77,
		.dists = { closure, 3 },
		.seen_dists = { seen, 2 },
		.modules = { modules, 4 },
		.self_us = pandas_us,
	};
}

static void test_set_has(void **state)
{
	struct policy_set s = SET(1, 3, 5, UINT32_MAX);

	assert_false(policy_set_has(NONE, 0));
	assert_true(policy_set_has(s, 1));
	assert_true(policy_set_has(s, 3));
	assert_true(policy_set_has(s, 5));
	assert_true(policy_set_has(s, UINT32_MAX));
	assert_false(policy_set_has(s, 0));
	assert_false(policy_set_has(s, 2));
	assert_false(policy_set_has(s, 4));
	assert_false(policy_set_has(s, 6));
}

static void test_set_within(void **state)
{
	assert_true(policy_set_within(NONE, NONE));
	assert_true(policy_set_within(NONE, SET(1)));
	assert_false(policy_set_within(SET(1), NONE));
	assert_true(policy_set_within(SET(1, 9), SET(1, 5, 9)));
	assert_true(policy_set_within(SET(1, 5, 9), SET(1, 5, 9)));
	assert_false(policy_set_within(SET(1, 6), SET(1, 5, 9)));
	assert_false(policy_set_within(SET(0, 1), SET(1, 5, 9)));
	assert_false(policy_set_within(SET(9, 10), SET(1, 5, 9)));
	assert_false(policy_set_within(SET(1, 5, 9), SET(1, 9)));
}

/* Every pair of subsets of {0..4}, against bit masks. */
static void test_sets_against_masks(void **state)
{
	uint32_t a[5], b[5];

	for (unsigned int i = 0; i < 32; i++) {
		for (unsigned int j = 0; j < 32; j++) {
			struct policy_set sa = { a, 0 }, sb = { b, 0 };

			for (uint32_t bit = 0; bit < 5; bit++) {
				if (i & 1u << bit)
					a[sa.n++] = bit;
				if (j & 1u << bit)
					b[sb.n++] = bit;
			}
			assert_int_equal(policy_set_within(sa, sb), (i & ~j) == 0);
			for (uint32_t bit = 0; bit < 5; bit++)
				assert_int_equal(policy_set_has(sa, bit), (i >> bit) & 1);
		}
	}
}

static void test_a_root_admits_everybody_of_its_interpreter(void **state)
{
	struct policy_node root = root_node();
	struct policy_function f = pandas_function(), bare = { .root = 1 };

	assert_true(policy_admits(&root, &f));
	assert_true(policy_admits(&root, &bare));
	f.root = 2;
	assert_false(policy_admits(&root, &f));
}

static void test_s2_only_dists_of_the_closure(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node node = child_node(0, SET(NUMPY), SET(NUMPY));

	assert_true(policy_admits(&node, &f));
	node.dists = SET(NUMPY, SIMPLEJSON);
	assert_false(policy_admits(&node, &f));
	/* Seen is what a profile says, and a profile comes out of a sandbox: it does not make up
	 * for the closure. */
	f.seen_dists = SET(NUMPY, PANDAS, SIMPLEJSON);
	assert_false(policy_admits(&node, &f));
}

static void refused(const struct policy_node *node, const struct policy_function *f,
		    enum policy_rule rule, uint32_t which)
{
	struct policy_reason r[4];

	assert_false(policy_admits(node, f));
	assert_int_equal(policy_refuses(node, f, r, 4), 1);
	assert_int_equal(r[0].rule, rule);
	assert_int_equal(r[0].which, which);
}

/* Each rule by itself, and the thing that it is about. */
static void test_why_a_node_is_refused(void **state)
{
	struct policy_function f = pandas_function();
	const struct policy_node good = child_node(0, SET(NUMPY, PANDAS), SET(NUMPY));
	struct policy_reason none;
	struct policy_node node = good;

	f.provides = SET(60, 61);
	f.env = SET(70, 71);
	assert_int_equal(policy_refuses(&good, &f, &none, 1), 0);
	assert_true(policy_admits(&good, &f));
	node.asleep = false;
	refused(&node, &f, POLICY_ASLEEP, 0);
	node = good;
	node.root = 9;
	refused(&node, &f, POLICY_ROOT, 9);
	node = good;
	node.tenant = 5;
	refused(&node, &f, POLICY_TENANT, 5);
	node = good;
	node.dists = SET(NUMPY, PANDAS, SIMPLEJSON);
	refused(&node, &f, POLICY_CLOSURE, SIMPLEJSON);
	node.dists = SET(NUMPY, REQUESTS);
	refused(&node, &f, POLICY_LOADED, REQUESTS);
	node = good;
	node.reads = SET(NUMPY, SIMPLEJSON);
	refused(&node, &f, POLICY_METADATA, SIMPLEJSON);
	node = good;
	node.everything = 78;
	refused(&node, &f, POLICY_LISTED, 78);
	node.everything = f.closure;
	assert_true(policy_admits(&node, &f));
	node = good;
	node.absent = SET(1, 61, 99);
	refused(&node, &f, POLICY_ABSENT, 61);
	node = good;
	node.env = SET(2, 70);
	refused(&node, &f, POLICY_VARIABLE, 70);
	f.tenant = 5;
	refused(&good, &f, POLICY_TENANT, 0);
}

static void test_all_reasons_in_order(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node node = {
		.parent = 0,
		.root = 2,
		.dists = SET(NUMPY, REQUESTS, SIMPLEJSON, SIMPLEJSON + 1),
		.reads = SET(SIMPLEJSON),
		.absent = SET(60, 61),
		.env = SET(70),
		.tenant = 5,
		.everything = 78,
	};
	static const struct policy_reason want[] = {
		{ POLICY_ASLEEP, 0 },
		{ POLICY_ROOT, 2 },
		{ POLICY_TENANT, 5 },
		{ POLICY_CLOSURE, SIMPLEJSON },
		{ POLICY_CLOSURE, SIMPLEJSON + 1 },
		{ POLICY_LOADED, REQUESTS },
		{ POLICY_METADATA, SIMPLEJSON },
		{ POLICY_LISTED, 78 },
		{ POLICY_ABSENT, 60 },
		{ POLICY_ABSENT, 61 },
		{ POLICY_VARIABLE, 70 },
	};
	const size_t all = sizeof(want) / sizeof(want[0]);

	f.provides = SET(60, 61);
	f.env = SET(70);
	for (size_t max = 0; max <= all + 1; max++) {
		struct policy_reason got[sizeof(want) / sizeof(want[0]) + 1];
		size_t n = policy_refuses(&node, &f, got, max);

		assert_int_equal(n, max < all ? max : all);
		for (size_t i = 0; i < n; i++) {
			assert_int_equal(got[i].rule, want[i].rule);
			assert_int_equal(got[i].which, want[i].which);
		}
	}
}

static void test_saving(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node node = child_node(0, SET(SIMPLEJSON), SET(NUMPY, NUMPY + 1, 99));

	assert_int_equal(policy_saving(&node, &f), 53000); /* whether it may be used or not */
	node.modules = NONE;
	assert_int_equal(policy_saving(&node, &f), 0);
}

static void test_s3_only_dists_that_were_seen_loading(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node node = child_node(0, SET(NUMPY, PANDAS), NONE);

	assert_true(policy_admits(&node, &f));
	node.dists = SET(REQUESTS); /* in the closure, never loaded */
	assert_false(policy_admits(&node, &f));
	node.dists = SET(NUMPY, REQUESTS);
	assert_false(policy_admits(&node, &f));
}

static void test_s3_a_new_function_gets_nodes_without_dists(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node node = child_node(0, SET(NUMPY), SET(NUMPY)), root = root_node();
	struct policy_node standard = child_node(0, NONE, SET(1, 2, 3)); /* standard library */

	f.seen_dists = NONE;
	assert_false(policy_admits(&node, &f));
	assert_true(policy_admits(&root, &f));
	assert_true(policy_admits(&standard, &f));
}

static void test_absent_things_that_the_function_has(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node node = child_node(0, SET(NUMPY), SET(NUMPY));

	node.absent = SET(500, 501);
	assert_true(policy_admits(&node, &f));
	f.provides = SET(499, 502);
	assert_true(policy_admits(&node, &f));
	f.provides = SET(501);
	assert_false(policy_admits(&node, &f));
	node.absent = NONE;
	assert_true(policy_admits(&node, &f));
}

static void test_variables_that_the_function_sets(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node node = child_node(0, SET(NUMPY), SET(NUMPY));

	node.env = SET(600, 610);
	assert_true(policy_admits(&node, &f));
	f.env = SET(605);
	assert_true(policy_admits(&node, &f));
	f.env = SET(605, 610);
	assert_false(policy_admits(&node, &f));
	/* Absent things and variables are different numberings. */
	node.env = NONE;
	node.absent = SET(610);
	assert_true(policy_admits(&node, &f));
}

static void test_a_node_that_listed_all_dists(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node node = child_node(0, SET(NUMPY), SET(NUMPY));

	node.everything = 77;
	assert_true(policy_admits(&node, &f));
	node.everything = 78;
	assert_false(policy_admits(&node, &f));
}

static void test_choose_is_best_fit_not_first_fit(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node nodes[] = {
		root_node(),
		child_node(0, SET(NUMPY), SET(NUMPY, NUMPY + 1)),
		child_node(0, SET(PANDAS), SET(PANDAS)), /* fewer modules, more time */
		child_node(1, SET(NUMPY), SET(NUMPY, NUMPY + 1, NUMPY + 2)),
	};
	uint64_t saved = 0;

	assert_int_equal(policy_choose(nodes, 4, &f, &saved), 2);
	assert_int_equal(saved, 150000);
	assert_int_equal(policy_choose(nodes, 2, &f, &saved), 1);
	assert_int_equal(saved, 53000);
	assert_int_equal(policy_choose(nodes, 1, &f, &saved), 0);
	assert_int_equal(saved, 0);
}

static void test_choose_skips_what_is_not_admitted_or_awake(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node nodes[] = {
		child_node(1, SET(NUMPY, PANDAS), SET(NUMPY, NUMPY + 1, PANDAS, PANDAS + 1)),
		root_node(),
		child_node(1, SET(NUMPY, SIMPLEJSON), SET(NUMPY, NUMPY + 1)),
		child_node(1, SET(NUMPY), SET(NUMPY)),
	};
	uint64_t saved = 0;

	assert_int_equal(policy_choose(nodes, 4, &f, &saved), 0);
	assert_int_equal(saved, 207000);
	nodes[0].asleep = false;
	assert_int_equal(policy_choose(nodes, 4, &f, &saved), 3);
	assert_int_equal(saved, 50000);
	nodes[3].asleep = false;
	assert_int_equal(policy_choose(nodes, 4, &f, &saved), 1);
	assert_int_equal(saved, 0);
}

static void test_choose_finds_nothing(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node nodes[] = { root_node(), root_node() };
	uint64_t saved = 4711;

	assert_int_equal(policy_choose(NULL, 0, &f, &saved), -1);
	nodes[0].root = 2;
	nodes[1].asleep = false;
	assert_int_equal(policy_choose(nodes, 2, &f, &saved), -1);
	assert_int_equal(saved, 4711); /* outputs are set only on success */
}

static void test_choose_ties(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node nodes[] = {
		root_node(),
		child_node(0, SET(NUMPY), SET(NUMPY)),
		child_node(1, SET(NUMPY), SET(NUMPY, NUMPY + 5)),
		child_node(0, SET(NUMPY), SET(NUMPY)),
	};
	uint64_t saved;

	/* all equal: the deepest */
	assert_int_equal(policy_choose(nodes, 4, &f, &saved), 2);
	/* less busy goes before deeper */
	nodes[1].busy = 2;
	nodes[2].busy = 1;
	assert_int_equal(policy_choose(nodes, 4, &f, &saved), 3);
	/* and a better fit before less busy */
	nodes[1].modules = SET(NUMPY, NUMPY + 1);
	assert_int_equal(policy_choose(nodes, 4, &f, &saved), 1);
	assert_int_equal(saved, 53000);
}

static void test_times_do_not_wrap(void **state)
{
	static const uint64_t lies[] = { UINT64_MAX, 10 };
	struct policy_function f = { .root = 1,
				     .dists = SET(NUMPY),
				     .seen_dists = SET(NUMPY),
				     .modules = SET(NUMPY, NUMPY + 1),
				     .self_us = lies };
	struct policy_node nodes[] = { root_node(),
				       child_node(0, SET(NUMPY), SET(NUMPY, NUMPY + 1)) };
	uint64_t saved = 0;

	assert_int_equal(policy_choose(nodes, 2, &f, &saved), 1);
	assert_true(saved == UINT64_MAX);
}

static void test_depth_follows_parents_not_positions(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node nodes[] = {
		child_node(2, SET(NUMPY), SET(NUMPY)),		    /* depth 2 */
		root_node(), child_node(1, SET(NUMPY), SET(NUMPY)), /* depth 1 */
	};
	uint64_t saved = 0;

	assert_int_equal(policy_choose(nodes, 3, &f, &saved), 0);
	nodes[0].parent = 1;
	nodes[2].parent = 0;
	assert_int_equal(policy_choose(nodes, 3, &f, &saved), 2);
}

static struct policy_set random_set(uint32_t *v, uint64_t *seed, uint32_t of, uint32_t percent)
{
	struct policy_set s = { v, 0 };

	for (uint32_t i = 1; i <= of; i++) {
		*seed = *seed * 6364136223846793005u + 1442695040888963407u;
		if ((*seed >> 33) % 100 < percent)
			v[s.n++] = i;
	}
	return s;
}

/* With bits and times by dist only few nodes are looked at: the choice is the same. */
static void test_a_choice_by_bounds_is_the_same(void **state)
{
	enum { NODES = 40, DISTS = 12 };
	static uint32_t sets[NODES + 1][DISTS + 1];
	uint64_t seed = 1, dist_us[DISTS], self_us[DISTS];

	for (int round = 0; round < 2000; round++) {
		struct policy_node nodes[NODES] = { 0 };
		struct policy_function plain = { .root = 1 }, told;
		uint64_t saved[2] = { 0 };
		int chosen;

		plain.dists = random_set(sets[NODES], &seed, DISTS, 70);
		plain.seen_dists = plain.modules = plain.dists; /* one module each */
		for (size_t i = 0; i < plain.dists.n; i++)
			self_us[i] = dist_us[i] = plain.dists.v[i] % 4 * 100;
		plain.self_us = self_us;
		told = plain;
		told.dist_us = dist_us;
		told.seen_bits = policy_set_bits(told.seen_dists);
		for (int i = 0; i < NODES; i++) {
			nodes[i] = (struct policy_node){ .parent = -1,
							 .root = 1 + (seed >> 40) % 7 / 6,
							 .busy = (uint32_t)(seed >> 50) % 3,
							 .asleep = (seed >> 45) % 8 != 0 };
			nodes[i].dists = random_set(sets[i], &seed, DISTS, i % 5 * 10);
			nodes[i].modules = nodes[i].dists;
			if (i % 4 == 0) /* what it imported of them may be less */
				nodes[i].modules.n /= 2;
		}
		chosen = policy_choose(nodes, NODES, &plain, &saved[0]);
		for (int i = 0; i < NODES; i++)
			nodes[i].dist_bits = policy_set_bits(nodes[i].dists);
		assert_int_equal(policy_choose(nodes, NODES, &told, &saved[1]), chosen);
		assert_true(saved[0] == saved[1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_why_a_node_is_refused),
		cmocka_unit_test(test_all_reasons_in_order),
		cmocka_unit_test(test_saving),
		cmocka_unit_test(test_set_has),
		cmocka_unit_test(test_set_within),
		cmocka_unit_test(test_sets_against_masks),
		cmocka_unit_test(test_a_root_admits_everybody_of_its_interpreter),
		cmocka_unit_test(test_s2_only_dists_of_the_closure),
		cmocka_unit_test(test_s3_only_dists_that_were_seen_loading),
		cmocka_unit_test(test_s3_a_new_function_gets_nodes_without_dists),
		cmocka_unit_test(test_absent_things_that_the_function_has),
		cmocka_unit_test(test_variables_that_the_function_sets),
		cmocka_unit_test(test_a_node_that_listed_all_dists),
		cmocka_unit_test(test_choose_is_best_fit_not_first_fit),
		cmocka_unit_test(test_choose_skips_what_is_not_admitted_or_awake),
		cmocka_unit_test(test_choose_finds_nothing),
		cmocka_unit_test(test_choose_ties),
		cmocka_unit_test(test_times_do_not_wrap),
		cmocka_unit_test(test_depth_follows_parents_not_positions),
		cmocka_unit_test(test_a_choice_by_bounds_is_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
