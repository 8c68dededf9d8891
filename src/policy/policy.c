/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/policy.h"

#include "base/limits.h"

bool policy_set_has(struct policy_set set, uint32_t x)
{
	size_t low = 0, high = set.n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (set.v[mid] == x)
			return true;
		if (set.v[mid] < x)
			low = mid + 1;
		else
			high = mid;
	}
	return false;
}

bool policy_set_within(struct policy_set inner, struct policy_set outer)
{
	size_t j = 0;

	for (size_t i = 0; i < inner.n; i++) {
		while (j < outer.n && outer.v[j] < inner.v[i])
			j++;
		if (j == outer.n || outer.v[j] != inner.v[i])
			return false;
	}
	return true;
}

bool policy_set_meets(struct policy_set a, struct policy_set b)
{
	size_t i = 0, j = 0;

	while (i < a.n && j < b.n) {
		if (a.v[i] == b.v[j])
			return true;
		if (a.v[i] < b.v[j])
			i++;
		else
			j++;
	}
	return false;
}

bool policy_admits(const struct policy_node *node, const struct policy_function *f)
{
	if (node->root != f->root || (node->tenant != f->tenant && !node->pinned))
		return false;
	/* S2: nothing outside the function's closure; S3: no module of a dist it was not seen
	 * loading. */
	if (!policy_set_within(node->dists, f->dists) ||
	    !policy_set_within(node->dists, f->seen_dists) ||
	    !policy_set_within(node->reads, f->dists))
		return false;
	if (node->everything && node->everything != f->closure)
		return false;
	return !policy_set_meets(node->absent, f->provides) && !policy_set_meets(node->env, f->env);
}

/* Times come out of sandboxes: a lie may win a choice among the nodes that the liar is admitted to
 * anyway, but a sum must not wrap around. */
static uint64_t add_capped(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* Microseconds of measured import time that forking from this node spares the function. */
static uint64_t saving(const struct policy_node *node, const struct policy_function *f)
{
	uint64_t sum = 0;
	size_t j = 0;

	for (size_t i = 0; i < f->modules.n && j < node->modules.n; i++) {
		while (j < node->modules.n && node->modules.v[j] < f->modules.v[i])
			j++;
		if (j < node->modules.n && node->modules.v[j] == f->modules.v[i])
			sum = add_capped(sum, f->self_us[i]);
	}
	return sum;
}

static unsigned int depth(const struct policy_node *nodes, const struct policy_node *node)
{
	unsigned int d = 0;

	while (node->parent >= 0 && d <= LIMIT_TREE_DEPTH) {
		node = &nodes[node->parent];
		d++;
	}
	return d;
}

static bool better(const struct policy_node *nodes, const struct policy_node *a, uint64_t saved_a,
		   const struct policy_node *b, uint64_t saved_b)
{
	if (saved_a != saved_b)
		return saved_a > saved_b;
	if (a->busy != b->busy)
		return a->busy < b->busy;
	return depth(nodes, a) > depth(nodes, b);
}

int policy_choose(const struct policy_node *nodes, size_t n, const struct policy_function *f,
		  uint64_t *out_saved_us)
{
	uint64_t best_saved = 0;
	int best = -1;

	for (size_t i = 0; i < n; i++) {
		uint64_t saved;

		if (!nodes[i].asleep || !policy_admits(&nodes[i], f))
			continue;
		saved = saving(&nodes[i], f);
		if (best < 0 || better(nodes, &nodes[i], saved, &nodes[best], best_saved)) {
			best = (int)i;
			best_saved = saved;
		}
	}
	if (best >= 0)
		*out_saved_us = best_saved;
	return best;
}

bool policy_grow(const struct policy_node *nodes, size_t n, const struct policy_function *f,
		 int *out_parent)
{
	uint64_t all = 0, saved = 0;
	int parent, best;

	for (size_t i = 0; i < f->modules.n; i++)
		all = add_capped(all, f->self_us[i]);
	best = policy_choose(nodes, n, f, &saved);
	if (best < 0 || all - saved < POLICY_GROW_MIN_US)
		return false;
	/* From the best there is, or from the nearest above it that may still have children. */
	for (parent = best; parent >= 0; parent = nodes[parent].parent)
		if (nodes[parent].asleep && !nodes[parent].full &&
		    depth(nodes, &nodes[parent]) < LIMIT_TREE_DEPTH)
			break;
	if (parent < 0)
		return false;
	*out_parent = parent;
	return true;
}

int policy_evict(const struct policy_node *nodes, size_t n)
{
	int oldest = -1;

	for (size_t i = 0; i < n; i++) {
		if (nodes[i].pinned || nodes[i].busy || nodes[i].children || !nodes[i].asleep)
			continue;
		if (oldest < 0 || nodes[i].last_used_us < nodes[oldest].last_used_us)
			oldest = (int)i;
	}
	return oldest;
}
