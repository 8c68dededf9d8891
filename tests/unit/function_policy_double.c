/* SPDX-License-Identifier: Apache-2.0
 * A plain policy for this room's tests; weak, so that the real room replaces it where linked.
 */
#include "policy/policy.h"

#define WEAK __attribute__((weak))

WEAK bool policy_set_has(struct policy_set s, uint32_t x)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.v[i] == x)
			return true;
	return false;
}

WEAK bool policy_set_within(struct policy_set inner, struct policy_set outer)
{
	for (size_t i = 0; i < inner.n; i++)
		if (!policy_set_has(outer, inner.v[i]))
			return false;
	return true;
}

WEAK bool policy_set_meets(struct policy_set a, struct policy_set b)
{
	for (size_t i = 0; i < a.n; i++)
		if (policy_set_has(b, a.v[i]))
			return true;
	return false;
}

WEAK bool policy_admits(const struct policy_node *n, const struct policy_function *f)
{
	return n->root == f->root && policy_set_within(n->dists, f->dists) &&
	       policy_set_within(n->dists, f->seen_dists) &&
	       !policy_set_meets(n->absent, f->provides) && !policy_set_meets(n->env, f->env) &&
	       (!n->everything || n->everything == f->closure);
}

static uint64_t saved(const struct policy_node *n, const struct policy_function *f)
{
	uint64_t us = 0;

	for (size_t i = 0; i < f->modules.n; i++)
		if (policy_set_has(n->modules, f->modules.v[i]))
			us += f->self_us[i];
	return us;
}

WEAK int policy_choose(const struct policy_node *nodes, size_t n, const struct policy_function *f,
		       uint64_t *out)
{
	int best = -1;
	uint64_t most = 0;

	for (size_t i = 0; i < n; i++) {
		if (!nodes[i].asleep || !policy_admits(&nodes[i], f))
			continue;
		if (best < 0 || saved(&nodes[i], f) > most) {
			best = (int)i;
			most = saved(&nodes[i], f);
		}
	}
	*out = most;
	return best;
}

WEAK bool policy_grow(const struct policy_node *nodes, size_t n, const struct policy_function *f,
		      int *out_parent)
{
	uint64_t have = 0, whole = 0;

	*out_parent = policy_choose(nodes, n, f, &have);
	for (size_t i = 0; i < f->modules.n; i++)
		whole += f->self_us[i];
	return *out_parent >= 0 && whole >= have + POLICY_GROW_MIN_US;
}

WEAK int policy_evict(const struct policy_node *nodes, size_t n)
{
	int best = -1;

	for (size_t i = 0; i < n; i++)
		if (!nodes[i].pinned && !nodes[i].busy && !nodes[i].children &&
		    (best < 0 || nodes[i].last_used_us < nodes[best].last_used_us))
			best = (int)i;
	return best;
}
