/* SPDX-License-Identifier: Apache-2.0
 *
 * The policies of others that work as a cache does: a call that does not find exactly its set has a
 * node of it made, and something goes when memory is short.
 *
 * SOCK (Oakes and others, USENIX ATC 2018): the tree is descended by the first child that fits; a
 * subtree goes as a whole. FaasCache (Fuerst and Sharma, ASPLOS 2021): GreedyDual-Size-Frequency
 * (Cherkasova, HP Labs 1998), priority = L + calls x start cost / size, with L the priority of what
 * went last. Cost and size are here what the node adds to the one that it was forked from.
 */
#include <string.h>

#include "base/mem.h"
#include "sim/replay_priv.h"

static struct replay_meta *meta_of(struct replay *r, int node)
{
	while (r->nmeta <= (uint32_t)node) {
		r->meta = mem_resize(r->meta, (r->nmeta + 1) * sizeof(*r->meta));
		r->meta[r->nmeta++] = (struct replay_meta){ 0 };
	}
	return &r->meta[node];
}

static void touch(struct replay *r, int node)
{
	struct fit_node n, parent = { 0 };
	struct replay_meta *m;

	if (node < 0)
		return;
	must(fit_node(r->fit, node, &n));
	(void)fit_node(r->fit, n.parent, &parent);
	m = meta_of(r, node);
	m->last = r->now;
	m->calls++;
	m->priority = r->inflation + m->calls * (double)(n.us - parent.us) / (double)n.own_bytes;
}

static bool is_above(const struct fit *f, int upper, int node)
{
	struct fit_node n;

	while (node != upper && fit_node(f, node, &n))
		node = n.parent;
	return node == upper;
}

static bool is_leaf(const struct fit *f, int node)
{
	struct fit_node n;

	for (int i = 0; i < fit_nodes(f); i++)
		if (fit_node(f, i, &n) && n.parent == node)
			return false;
	return true;
}

static int victim(struct replay *r, int keep)
{
	enum sim_kind kind = r->run->policy->kind;
	struct fit_node n;
	double least = 0;
	int best = -1;

	for (int i = 0; i < fit_nodes(r->fit); i++) {
		const struct replay_meta *m;
		double x;

		if (!fit_node(r->fit, i, &n) || is_above(r->fit, i, keep))
			continue;
		m = meta_of(r, i);
		x = kind == SIM_GDSF ? m->priority : m->last;
		if ((best < 0 || x < least) && (kind == SIM_SOCK || is_leaf(r->fit, i))) {
			best = i;
			least = x;
		}
	}
	if (best >= 0 && kind == SIM_GDSF)
		r->inflation = least;
	return best;
}

void replay_learn_cache(struct replay *r, struct policy_set items, int node)
{
	struct fit_node from = { 0 };
	uint64_t bytes = SIM_NODE_BYTES;
	int made;

	touch(r, node);
	(void)fit_node(r->fit, node, &from);
	if (from.items.n == items.n)
		return;
	for (size_t i = 0; i < items.n; i++)
		if (!policy_set_has(from.items, items.v[i]))
			bytes += r->run->work->items[items.v[i]].bytes;
	while (fit_bytes(r->fit) + bytes > r->run->memory_bytes) {
		int out = victim(r, node);

		if (out < 0)
			return;
		fit_drop(r->fit, out);
	}
	made = fit_make(r->fit, items, node);
	*meta_of(r, made) = (struct replay_meta){ 0 };
	touch(r, made);
	replay_made(r, made);
}
