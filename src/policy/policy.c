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

struct reasons {
	struct policy_reason *out;
	size_t n, max;
};

static void add_reason(struct reasons *r, enum policy_rule rule, uint32_t which)
{
	if (r->n < r->max)
		r->out[r->n++] = (struct policy_reason){ rule, which };
}

/* Those of inner that are not in outer; of these only such as `among` has, when it is given. */
static void add_outside(struct reasons *r, enum policy_rule rule, struct policy_set inner,
			struct policy_set outer, const struct policy_set *among)
{
	size_t j = 0;

	for (size_t i = 0; i < inner.n && r->n < r->max; i++) {
		while (j < outer.n && outer.v[j] < inner.v[i])
			j++;
		if (j < outer.n && outer.v[j] == inner.v[i])
			continue;
		if (!among || policy_set_has(*among, inner.v[i]))
			add_reason(r, rule, inner.v[i]);
	}
}

static void add_common(struct reasons *r, enum policy_rule rule, struct policy_set a,
		       struct policy_set b)
{
	size_t i = 0, j = 0;

	while (i < a.n && j < b.n && r->n < r->max) {
		if (a.v[i] == b.v[j])
			add_reason(r, rule, a.v[i]);
		if (a.v[i] <= b.v[j])
			i++;
		else
			j++;
	}
}

size_t policy_refuses(const struct policy_node *node, const struct policy_function *f,
		      struct policy_reason *out, size_t max)
{
	struct reasons r = { out, 0, max };

	if (!node->asleep)
		add_reason(&r, POLICY_ASLEEP, 0);
	if (node->root != f->root)
		add_reason(&r, POLICY_ROOT, node->root);
	if (node->tenant != f->tenant && !node->pinned)
		add_reason(&r, POLICY_TENANT, node->tenant);
	/* A profile comes out of a sandbox: what it says does not make up for the closure. */
	add_outside(&r, POLICY_CLOSURE, node->dists, f->dists, NULL);
	add_outside(&r, POLICY_LOADED, node->dists, f->seen_dists, &f->dists);
	add_outside(&r, POLICY_METADATA, node->reads, f->dists, NULL);
	if (node->everything && node->everything != f->closure)
		add_reason(&r, POLICY_LISTED, node->everything);
	add_common(&r, POLICY_ABSENT, node->absent, f->provides);
	add_common(&r, POLICY_VARIABLE, node->env, f->env);
	return r.n;
}

bool policy_admits(const struct policy_node *node, const struct policy_function *f)
{
	struct policy_reason first;

	return policy_refuses(node, f, &first, 1) == 0;
}

/* Times come out of sandboxes: a lie may win a choice among the nodes that the liar is admitted to
 * anyway, but a sum must not wrap around. */
static uint64_t add_capped(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

uint64_t policy_saving(const struct policy_node *node, const struct policy_function *f)
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

		if (!policy_admits(&nodes[i], f))
			continue;
		saved = policy_saving(&nodes[i], f);
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
