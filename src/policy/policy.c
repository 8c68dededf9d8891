/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/policy.h"

#include "base/limits.h"
#include "base/mem.h"

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

	if (inner.n > outer.n)
		return false;
	for (size_t i = 0; i < inner.n; i++) {
		size_t step = 1, low = j;

		while (j < outer.n && outer.v[j] < inner.v[i]) { /* further and further */
			low = j;
			j += step;
			step *= 2;
		}
		for (j = j < outer.n ? j : outer.n; low < j;) { /* then back into the middle */
			size_t mid = low + (j - low) / 2;

			if (outer.v[mid] < inner.v[i])
				low = mid + 1;
			else
				j = mid;
		}
		if (j == outer.n || outer.v[j] != inner.v[i])
			return false;
	}
	return true;
}

struct policy_bits policy_set_bits(struct policy_set set)
{
	struct policy_bits bits = { 0 };

	for (size_t i = 0; i < set.n; i++) {
		uint32_t bit = set.v[i] * 0x9e3779b1u >> 24;

		bits.w[bit / 64] |= 1ull << bit % 64;
	}
	return bits;
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
	if (depth(nodes, a) != depth(nodes, b))
		return depth(nodes, a) > depth(nodes, b);
	return a < b;
}

static bool may_fit(const struct policy_node *node, const struct policy_function *f)
{
	if (!node->asleep || node->root != f->root)
		return false;
	for (size_t i = 0; i < array_len(node->dist_bits.w); i++)
		if (node->dist_bits.w[i] & ~f->seen_bits.w[i])
			return false;
	return true;
}

/* It saves no more than all that the function loads of its dists. One more than that, for 0 is "not
 * to be looked at". */
static uint64_t bound(const struct policy_node *node, const struct policy_function *f)
{
	uint64_t sum = f->other_us;
	size_t j = 0;

	if (!f->dist_us)
		return UINT64_MAX;
	for (size_t i = 0; i < node->dists.n; i++) {
		while (j < f->seen_dists.n && f->seen_dists.v[j] < node->dists.v[i])
			j++;
		if (j == f->seen_dists.n || f->seen_dists.v[j] != node->dists.v[i])
			return 0;
		sum = add_capped(sum, f->dist_us[j]);
	}
	return add_capped(sum, 1);
}

static size_t highest(const uint64_t *bounds, size_t n)
{
	size_t at = 0;

	for (size_t i = 1; i < n; i++)
		if (bounds[i] > bounds[at])
			at = i;
	return at;
}

int policy_choose(const struct policy_node *nodes, size_t n, const struct policy_function *f,
		  uint64_t *out_saved_us)
{
	auto_free uint64_t *bounds = mem_zero(n + 1, sizeof(*bounds));
	uint64_t best_saved = 0;
	int best = -1;

	for (size_t i = 0; i < n; i++)
		if (may_fit(&nodes[i], f))
			bounds[i] = bound(&nodes[i], f);
	for (;;) {
		size_t i = highest(bounds, n);
		uint64_t saved;

		if (!bounds[i] || (best >= 0 && bounds[i] <= best_saved))
			break;
		bounds[i] = 0;
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
