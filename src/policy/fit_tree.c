/* SPDX-License-Identifier: Apache-2.0
 *
 * The nodes that there are, what each view's best node is, and what each candidate would cost.
 */
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "policy/fit_priv.h"

#define LOSSES 512 /* views that one dropped node leaves with less */

uint64_t fit_view_us(const struct fit *f, int32_t node)
{
	return node < 0 ? 0 : f->nodes[node].set.us;
}

bool fit_better(const struct fit *f, int32_t node, int32_t than)
{
	uint64_t a = fit_view_us(f, node), b = fit_view_us(f, than);

	return a > b || (a == b && a > 0 && node < than);
}

uint64_t fit_node_bytes(const struct fit *f, int32_t node)
{
	return node < 0 ? 0 : f->nodes[node].set.bytes;
}

bool fit_is_above(const struct fit *f, int32_t upper, int32_t node)
{
	while (node >= 0 && node != upper)
		node = f->nodes[node].parent;
	return node == upper;
}

unsigned int fit_depth(const struct fit *f, int32_t node)
{
	unsigned int d = 0;

	for (; node >= 0; node = f->nodes[node].parent)
		d++;
	return d;
}

unsigned int fit_height(const struct fit *f, int32_t node)
{
	unsigned int most = 0, top = fit_depth(f, node);

	if (!f->nodes[node].children)
		return 0;
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive && fit_is_above(f, node, (int32_t)i) &&
		    fit_depth(f, (int32_t)i) - top > most)
			most = fit_depth(f, (int32_t)i) - top;
	return most;
}

int32_t fit_parent_for(const struct fit *f, const struct fit_set *set, unsigned int max_depth)
{
	struct fit_walk w = fit_walk_nodes(set);
	int32_t best = -1, n;

	while ((n = fit_next_within(f, &w, set)) >= 0) {
		uint64_t bytes = f->nodes[n].set.bytes, most = fit_node_bytes(f, best);

		if ((bytes > most || (bytes == most && bytes > 0 && n < best)) &&
		    f->nodes[n].set.n < set->n && fit_depth(f, n) <= max_depth)
			best = n;
	}
	return best;
}

uint64_t fit_saved(const struct fit *f, const struct fit_place *n, uint64_t parent_bytes)
{
	uint64_t above = fit_node_bytes(f, n->parent);
	uint64_t saved = parent_bytes > above ? parent_bytes - above : 0;

	return f->rules.on_paper || saved >= f->rules.node_bytes ? saved : 0;
}

void fit_candidate_place(const struct fit *f, struct fit_candidate *c)
{
	struct fit_walk w = fit_walk_nodes(&c->set);
	int32_t same;

	c->parent = fit_parent_for(f, &c->set, LIMIT_TREE_DEPTH - 1);
	c->node = -1;
	while ((same = fit_next_within(f, &w, &c->set)) >= 0)
		if (f->nodes[same].set.n == c->set.n) /* it was there before a call suggested it */
			c->node = same;
	c->credit = 0;
	for (uint32_t i = 0; i < f->nnodes; i++) {
		const struct fit_place *n = &f->nodes[i];

		if (n->alive && c->set.n < n->set.n && fit_set_within(&c->set, &n->set))
			c->credit += fit_saved(f, n, c->set.bytes);
	}
}

/* A node has come below this parent, or goes from there: candidates of which it holds all items. */
static void credit(struct fit *f, const struct fit_place *n, bool gone)
{
	struct fit_walk w = fit_walk_candidates(&n->set);
	uint32_t i;

	while (fit_walk_next(f, &w, &i)) {
		struct fit_candidate *c = &f->candidates[i];
		uint64_t saved = c->set.n < n->set.n ? fit_saved(f, n, c->set.bytes) : 0;

		if (!saved || !fit_set_within(&c->set, &n->set))
			continue;
		if (gone)
			c->credit -= saved;
		else
			c->credit += saved;
	}
}

static uint64_t own_bytes(const struct fit *f, int32_t node)
{
	const struct fit_place *n = &f->nodes[node];

	return f->rules.node_bytes + n->set.bytes - fit_node_bytes(f, n->parent);
}

static void attach(struct fit *f, int32_t node, int32_t parent)
{
	f->nodes[node].parent = parent;
	if (parent >= 0)
		f->nodes[parent].children++;
	f->bytes += own_bytes(f, node);
	credit(f, &f->nodes[node], false);
}

static void detach(struct fit *f, int32_t node)
{
	struct fit_place *n = &f->nodes[node];

	f->bytes -= own_bytes(f, node);
	credit(f, n, true);
	if (n->parent >= 0)
		f->nodes[n->parent].children--;
	for (node = n->parent; node >= 0; node = f->nodes[node].parent)
		f->nodes[node].may_move = true; /* it may be less high now */
}

/* Does this node, all in the view, save it anything? A left out view does not see what only its own
 * call suggests. */
static bool counts(const struct fit *f, const struct fit_view *v, const struct fit_place *n)
{
	if (!v->left_out || n->shared)
		return true;
	if (n->owner == v->demand)
		return f->demands[v->demand].calls > 1;
	return n->owner != FIT_NOBODY;
}

static bool is_aside(const struct fit *f, int32_t node, int32_t best)
{
	return f->rules.on_paper ? node != best : !fit_is_above(f, node, best);
}

void fit_view_refresh(struct fit *f, uint32_t view)
{
	struct fit_view *v = &f->views[view];

	struct fit_walk w = fit_walk_nodes(&v->set);
	int32_t n;

	v->best = v->aside = -1;
	while ((n = fit_next_within(f, &w, &v->set)) >= 0)
		if (fit_better(f, n, v->best) && counts(f, v, &f->nodes[n]))
			v->best = n;
	w = fit_walk_nodes(&v->set);
	while ((n = fit_next_within(f, &w, &v->set)) >= 0)
		if (fit_better(f, n, v->aside) && is_aside(f, n, v->best) &&
		    counts(f, v, &f->nodes[n]))
			v->aside = n;
}

static void view_joins(struct fit *f, uint32_t view, int32_t node)
{
	struct fit_view *v = &f->views[view];
	const struct fit_place *n = &f->nodes[node];

	if (v->best == node || v->aside == node || n->set.us <= fit_view_us(f, v->aside) ||
	    !fit_set_within(&n->set, &v->set) || !counts(f, v, n))
		return;
	if (n->set.us > fit_view_us(f, v->best) && f->rules.on_paper) {
		v->aside = v->best;
		v->best = node;
	} else if (n->set.us > fit_view_us(f, v->best)) {
		if (!fit_is_above(f, v->best, node))
			v->aside = v->best;
		else if (fit_is_above(f, v->aside, node))
			v->aside = -1; /* rare, and only an estimate */
		v->best = node;
	} else if (is_aside(f, node, v->best)) {
		v->aside = node;
	}
}

static void find_support(struct fit *f, struct fit_place *n)
{
	const struct fit_item *rarest = fit_rarest(f, &n->set);

	n->owner = FIT_NOBODY;
	n->shared = false;
	for (uint32_t i = 0; i < rarest->views.n && !n->shared; i++) {
		const struct fit_view *v = &f->views[rarest->views.v[i]];
		uint32_t d = v->demand;

		if (v->left_out || !fit_set_within(&n->set, &v->set))
			continue;
		if (n->owner == FIT_NOBODY)
			n->owner = d;
		else
			n->shared = true;
	}
}

static void join_all(struct fit *f, int32_t node)
{
	const struct fit_item *rarest = fit_rarest(f, &f->nodes[node].set);

	for (uint32_t i = 0; i < rarest->views.n; i++)
		view_joins(f, rarest->views.v[i], node);
}

void fit_support_grew(struct fit *f, uint32_t demand)
{
	const struct fit_set *set = &f->demands[demand].set;
	struct fit_walk w = fit_walk_nodes(set);
	int32_t n;

	while ((n = fit_next_within(f, &w, set)) >= 0) {
		if (f->nodes[n].shared)
			continue;
		find_support(f, &f->nodes[n]);
		join_all(f, n);
	}
}

static bool is_shared(const struct fit *f, int32_t node)
{
	return node < 0 || f->nodes[node].shared;
}

void fit_support_anew(struct fit *f)
{
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive)
			find_support(f, &f->nodes[i]);
	/* what has lost its support counts for less */
	for (uint32_t i = 0; i < f->nviews; i++)
		if (f->views[i].left_out &&
		    (!is_shared(f, f->views[i].best) || !is_shared(f, f->views[i].aside)))
			fit_view_refresh(f, i);
	for (uint32_t i = 0; i < f->ncandidates; i++)
		f->candidates[i].lone = true; /* to be looked at again */
}

static int32_t free_place(struct fit *f)
{
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (!f->nodes[i].alive)
			return (int32_t)i;
	f->nodes = fit_more(f->nodes, f->nnodes, sizeof(*f->nodes));
	return (int32_t)f->nnodes++;
}

/* On paper: nodes that would cost less below this one move there. */
static void adopt(struct fit *f, int32_t node)
{
	unsigned int room = LIMIT_TREE_DEPTH - fit_depth(f, node);

	for (uint32_t i = 0; i < f->nnodes; i++) {
		const struct fit_place *n = &f->nodes[i];

		if (!n->alive || n->set.n <= f->nodes[node].set.n ||
		    f->nodes[node].set.bytes <= fit_node_bytes(f, n->parent) ||
		    !fit_set_within(&f->nodes[node].set, &n->set) ||
		    fit_height(f, (int32_t)i) >= room)
			continue;
		detach(f, (int32_t)i);
		attach(f, (int32_t)i, node);
	}
}

static void note_candidate(struct fit *f, const struct fit_set *set, int32_t node)
{
	const uint32_t *slot = fit_table_get(&f->by_candidate, fit_set_hash(fit_set_plain(set)));

	if (slot)
		f->candidates[*slot].node = node;
}

/* Nodes that hold all of this one's items, and more. */
static void may_move_below(struct fit *f, int32_t node)
{
	const struct fit_set *set = &f->nodes[node].set;

	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive && f->nodes[i].set.n > set->n &&
		    fit_set_within(set, &f->nodes[i].set))
			f->nodes[i].may_move = true;
}

int fit_make(struct fit *f, struct policy_set items, int parent)
{
	struct fit_place n = { .set = fit_set_of(f, items), .alive = true };
	int32_t node = free_place(f);

	must(items.n > 0);
	find_support(f, &n);
	n.key = fit_key(f, &n.set);
	f->nodes[node] = n;
	fit_list_put(&f->items[n.key].nodes, (uint32_t)node);
	attach(f, node, parent);
	if (f->rules.on_paper)
		adopt(f, node);
	for (uint32_t i = 0; i < f->ncandidates; i++) {
		struct fit_candidate *c = &f->candidates[i];

		if (n.set.bytes > fit_node_bytes(f, c->parent) && n.set.n < c->set.n &&
		    fit_set_within(&n.set, &c->set) && fit_depth(f, node) < LIMIT_TREE_DEPTH)
			c->parent = node;
	}
	note_candidate(f, &n.set, node);
	join_all(f, node);
	may_move_below(f, node);
	return node;
}

/* What views lose makes everything in them worth more. */
struct loss {
	struct fit_set any; /* only the bits: of all that lose */
	double total;
	uint32_t n;
};

/* Candidates in the view one by one while few lose; else, by bounds_rise(), a bound that is higher
 * than need be, but soon found. */
static void view_loses(struct fit *f, uint32_t view, struct loss *l)
{
	struct fit_view *v = &f->views[view];
	struct fit_walk w = fit_walk_candidates(&v->set);
	uint64_t before = fit_view_us(f, v->best);
	double us;
	uint32_t c;

	fit_view_refresh(f, view);
	us = fit_weight(f, v) * (double)(before - fit_view_us(f, v->best));
	if (us <= 0)
		return;
	if (l->n++ < LOSSES) {
		while (fit_walk_next(f, &w, &c))
			if (fit_set_within(&f->candidates[c].set, &v->set))
				f->candidates[c].gain += us;
		return;
	}
	l->total += us;
	for (int i = 0; i < FIT_WORDS; i++)
		l->any.sig[i] |= v->set.sig[i];
}

static void bounds_rise(struct fit *f, const struct loss *l)
{
	for (uint32_t i = 0; i < f->ncandidates && l->total > 0; i++)
		if (fit_set_may_hold(&l->any, &f->candidates[i].set))
			f->candidates[i].gain += l->total;
}

static void drop_one(struct fit *f, int32_t node)
{
	struct fit_place *n = &f->nodes[node];
	const struct fit_item *rarest = fit_rarest(f, &n->set);
	struct loss loss = { 0 };

	detach(f, node);
	note_candidate(f, &n->set, -1);
	n->alive = false;
	fit_list_drop(&f->items[n->key].nodes, (uint32_t)node);
	for (uint32_t i = 0; f->rules.on_paper && i < f->nnodes; i++) {
		int32_t parent;

		if (!f->nodes[i].alive || f->nodes[i].parent != node)
			continue;
		detach(f, (int32_t)i);
		parent = fit_parent_for(f, &f->nodes[i].set,
					LIMIT_TREE_DEPTH - 1 - fit_height(f, (int32_t)i));
		attach(f, (int32_t)i, parent);
	}
	for (uint32_t i = 0; i < f->ncandidates; i++)
		if (f->candidates[i].parent == node)
			f->candidates[i].parent = fit_parent_for(f, &f->candidates[i].set,
								 LIMIT_TREE_DEPTH - 1);
	for (uint32_t i = 0; i < rarest->views.n; i++) {
		const struct fit_view *v = &f->views[rarest->views.v[i]];

		if (v->best == node || v->aside == node)
			view_loses(f, rarest->views.v[i], &loss);
	}
	bounds_rise(f, &loss);
	fit_set_done(&n->set);
	n->set = (struct fit_set){ 0 };
}

void fit_drop(struct fit *f, int node)
{
	must(!f->nodes[node].in_use);
	for (uint32_t i = 0; !f->rules.on_paper && i < f->nnodes; i++)
		if (f->nodes[i].alive && f->nodes[i].parent == node)
			fit_drop(f, (int)i);
	drop_one(f, node);
}
