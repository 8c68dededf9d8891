/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/mem.h"
#include "policy/policy.h"

/* Static: a function may return a structure that points to it. */
#define SET(...)                                                \
	({                                                      \
		static const uint32_t set_[] = { __VA_ARGS__ }; \
		(struct policy_set){ set_, array_len(set_) };   \
	})
#define NOTHING ((struct policy_set){ NULL, 0 })

enum { NUMPY = 1, PANDAS, REQUESTS, SIMPLEJSON };
enum { M_NUMPY = 10, M_PANDAS, M_REQUESTS };
enum { IMPORT_SIMPLEJSON = 20, OWN_JSON, ENV_TZ };

static const uint64_t times[] = { 50000, 200000 };

static struct policy_function pandas_function(void)
{
	return (struct policy_function){ .root = 1,
					 .closure = 100,
					 .dists = SET(NUMPY, PANDAS, REQUESTS),
					 .seen_dists = SET(NUMPY, PANDAS),
					 .modules = SET(M_NUMPY, M_PANDAS),
					 .self_us = times };
}

static struct policy_node root_node(void)
{
	return (struct policy_node){
		.id = 1, .parent = -1, .root = 1, .asleep = true, .pinned = true
	};
}

static struct policy_node numpy_node(void)
{
	return (struct policy_node){ .id = 2,
				     .parent = 0,
				     .root = 1,
				     .dists = SET(NUMPY),
				     .modules = SET(M_NUMPY),
				     .asleep = true };
}

static void test_sets(void **state)
{
	assert_true(policy_set_has(SET(1, 5, 9), 9));
	assert_false(policy_set_has(SET(1, 5, 9), 4));
	assert_false(policy_set_has(NOTHING, 1));
	assert_true(policy_set_within(NOTHING, NOTHING));
	assert_true(policy_set_within(SET(1, 9), SET(1, 5, 9)));
	assert_false(policy_set_within(SET(1, 10), SET(1, 5, 9)));
	assert_true(policy_set_meets(SET(2, 9), SET(1, 9)));
	assert_false(policy_set_meets(SET(2, 8), SET(1, 9)));
}

static void test_only_what_the_function_asked_for(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node node = numpy_node();

	assert_true(policy_admits(&node, &f));
	node.dists = SET(NUMPY, SIMPLEJSON); /* not in its closure: S2 */
	f.seen_dists = SET(NUMPY, PANDAS, SIMPLEJSON);
	assert_false(policy_admits(&node, &f));
	f = pandas_function();
	node.dists = SET(NUMPY, REQUESTS); /* in its closure, but never seen loaded: S3 */
	assert_false(policy_admits(&node, &f));
	f.seen_dists = NOTHING; /* a new function: only nodes without any dist */
	node = numpy_node();
	assert_false(policy_admits(&node, &f));
	node = root_node();
	assert_true(policy_admits(&node, &f));
	node.root = 2; /* another interpreter */
	assert_false(policy_admits(&node, &f));
}

static void test_a_fork_behaves_as_fresh(void **state)
{
	struct policy_function f = pandas_function();
	struct policy_node node = numpy_node();

	node.absent = SET(IMPORT_SIMPLEJSON);
	assert_true(policy_admits(&node, &f));
	f.provides = SET(IMPORT_SIMPLEJSON, OWN_JSON);
	assert_false(policy_admits(&node, &f));
	f.provides = NOTHING;
	node.env = SET(ENV_TZ);
	assert_true(policy_admits(&node, &f));
	f.env = SET(ENV_TZ);
	assert_false(policy_admits(&node, &f));
	f.env = NOTHING;
	node.everything = 100;
	assert_true(policy_admits(&node, &f));
	node.everything = 101;
	assert_false(policy_admits(&node, &f));
}

static void test_best_fit_not_first_fit(void **state)
{
	struct policy_node nodes[4] = { root_node(), numpy_node(), numpy_node(), numpy_node() };
	struct policy_function f = pandas_function();
	uint64_t saved = 0;

	nodes[2].dists = SET(NUMPY, PANDAS);
	nodes[2].modules = SET(M_NUMPY, M_PANDAS);
	assert_int_equal(policy_choose(nodes, 3, &f, &saved), 2);
	assert_int_equal(saved, 250000);
	nodes[2].asleep = false;
	assert_int_equal(policy_choose(nodes, 3, &f, &saved), 1);
	assert_int_equal(saved, 50000);
	/* ties: least busy, then deepest */
	nodes[1].busy = 2;
	assert_int_equal(policy_choose(nodes, 4, &f, &saved), 3);
	nodes[1].busy = 0;
	nodes[3].parent = 1;
	assert_int_equal(policy_choose(nodes, 4, &f, &saved), 3);
	f.root = 9;
	assert_int_equal(policy_choose(nodes, 4, &f, &saved), -1);
}

static void test_growing(void **state)
{
	struct policy_node nodes[LIMIT_TREE_DEPTH + 2];
	struct policy_function f = pandas_function();
	int parent = -1;

	nodes[0] = root_node();
	nodes[1] = numpy_node();
	assert_true(policy_grow(nodes, 2, &f, &parent));
	assert_int_equal(parent, 1);
	nodes[1].modules = f.modules; /* nothing left to save */
	assert_false(policy_grow(nodes, 2, &f, &parent));
	/* a chain as deep as it may be: its end has no children, so the one above is the parent */
	for (int i = 1; i <= LIMIT_TREE_DEPTH; i++) {
		nodes[i] = numpy_node();
		nodes[i].parent = i - 1;
	}
	assert_true(policy_grow(nodes, LIMIT_TREE_DEPTH + 1, &f, &parent));
	assert_int_equal(parent, LIMIT_TREE_DEPTH - 1);
	nodes[0].root = 2;
	assert_false(policy_grow(nodes, 1, &f, &parent));
}

static void test_eviction_takes_sleeping_unused_leaves(void **state)
{
	struct policy_node nodes[4] = { root_node(), numpy_node(), numpy_node(), numpy_node() };

	nodes[1].last_used_us = 5;
	nodes[1].children = 1;
	nodes[2].last_used_us = 7;
	nodes[2].busy = 1;
	nodes[3].last_used_us = 9;
	assert_int_equal(policy_evict(nodes, 4), 3);
	nodes[3].asleep = false;
	assert_int_equal(policy_evict(nodes, 4), -1);
	nodes[2].busy = 0;
	assert_int_equal(policy_evict(nodes, 4), 2);
	nodes[1].children = 0;
	assert_int_equal(policy_evict(nodes, 4), 1);
	assert_int_equal(policy_evict(nodes, 1), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sets),
		cmocka_unit_test(test_only_what_the_function_asked_for),
		cmocka_unit_test(test_a_fork_behaves_as_fresh),
		cmocka_unit_test(test_best_fit_not_first_fit),
		cmocka_unit_test(test_growing),
		cmocka_unit_test(test_eviction_takes_sleeping_unused_leaves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
