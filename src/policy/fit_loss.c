/* SPDX-License-Identifier: Apache-2.0
 *
 * What would be lost with a node that goes, and what would have to go for a candidate.
 */
#include <string.h>

#include "base/mem.h"
#include "policy/fit_worth.h"

/* What a view would have left when the subtree goes: what is above it is in every call that had
 * what is below; `aside` may be inside, too, then a little is lost that would not have been. */
static void view_losses(const struct fit *f, const struct fit_view *v, uint64_t now_us, double w,
			struct fit_going *out)
{
	for (int32_t n = v->best; n >= 0; n = f->nodes[n].parent) {
		uint64_t left = fit_view_us(f, f->nodes[n].parent);

		if (fit_view_us(f, v->aside) > left &&
		    (f->rules.on_paper || !fit_is_above(f, n, v->aside)))
			left = fit_view_us(f, v->aside);
		if (now_us > left)
			out[n].us += w * (double)(now_us - left);
		if (now_us > left && n == v->best)
			out[n].alone += w * (double)(now_us - left);
		if (f->rules.on_paper)
			return;
	}
}

static void node_frees(const struct fit *f, int32_t node, struct fit_going *out)
{
	const struct fit_place *p = &f->nodes[node];
	double own = (double)(p->set.bytes - fit_node_bytes(f, p->parent));

	if (f->rules.on_paper) { /* the children take its items over */
		out[node].bytes = (double)f->rules.node_bytes + own * (1 - (double)p->children);
		return;
	}
	own += (double)f->rules.node_bytes;
	for (int32_t n = node; n >= 0; n = f->nodes[n].parent)
		out[n].bytes += own;
}

const uint32_t *fit_candidate_of(const struct fit *f, int32_t node)
{
	return fit_table_get(&f->by_candidate, fit_set_hash(fit_set_plain(&f->nodes[node].set)));
}

/* Nodes are processes: what has one child, without children, frees a node's bytes when the child is
 * made again without it. */
static void find_leaves(const struct fit *f, struct fit_going *out)
{
	for (uint32_t i = 0; i < f->nnodes; i++)
		out[i].leaf = -1;
	for (uint32_t i = 0; i < f->nnodes && !f->rules.on_paper; i++) {
		const struct fit_place *n = &f->nodes[i];

		if (!n->alive || n->children || n->parent < 0 ||
		    f->nodes[n->parent].children != 1 || !fit_candidate_of(f, (int32_t)i))
			continue;
		out[n->parent].leaf = (int32_t)i;
	}
}

struct fit_going *fit_losses(const struct fit *f)
{
	struct fit_going *out = mem_zero(f->nnodes + 1, sizeof(*out));

	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive)
			node_frees(f, (int32_t)i, out);
	for (uint32_t i = 0; i < f->nviews; i++)
		view_losses(f, &f->views[i], fit_view_us(f, f->views[i].best),
			    fit_weight(f, &f->views[i]), out);
	for (uint32_t i = 0; i < f->nnodes; i++)
		for (int32_t n = (int32_t)i; f->nodes[i].in_use && n >= 0; n = f->nodes[n].parent)
			out[n].bytes = -1;
	find_leaves(f, out);
	return out;
}

int32_t fit_cheapest(const struct fit *f, const struct fit_going *g)
{
	int32_t best = -1;

	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive && g[i].bytes > 0 &&
		    (best < 0 || g[i].us * g[best].bytes < g[best].us * g[i].bytes))
			best = (int32_t)i;
	return best;
}

/* Nothing of this subtree, nor what is above it, can go again. */
static void take_out(const struct fit *f, int32_t node, struct fit_going *g)
{
	for (int32_t n = node; n >= 0; n = f->nodes[n].parent)
		g[n].bytes = -1;
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive && fit_is_above(f, node, (int32_t)i))
			g[i].bytes = -1;
}

/* Calls that the candidate serves lose less with what goes than they would without it. */
static void rescue(const struct fit *f, const struct fit_candidate *c, struct fit_going *g)
{
	for (uint32_t at = 0, view = 0; fit_rising_next(&c->views, &at, &view);) {
		const struct fit_view *v = &f->views[view];
		uint64_t us = fit_view_us(f, v->best);

		if (us && !(v->left_out && c->lone))
			view_losses(f, v, us < c->set.us ? us : c->set.us, -fit_weight(f, v), g);
	}
}

/* The node that is lifted out, its leaf staying, with least loss per byte; -1: there is none. */
static int32_t cheapest_lift(const struct fit *f, const struct fit_going *g)
{
	int32_t best = -1;

	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive && g[i].bytes > 0 && g[i].leaf >= 0 &&
		    (best < 0 || g[i].alone < g[best].alone))
			best = (int32_t)i;
	return best;
}

/* What goes next, and whether its leaf comes again. */
static int32_t next_to_go(const struct fit *f, const struct fit_going *g, struct fit_going *out)
{
	int32_t n = fit_cheapest(f, g), l = cheapest_lift(f, g);
	double node_bytes = (double)f->rules.node_bytes;

	if (l >= 0 && (n < 0 || g[l].alone * g[n].bytes < g[n].us * node_bytes)) {
		*out = (struct fit_going){ .us = g[l].alone,
					   .bytes = node_bytes,
					   .leaf = g[l].leaf };
		return l;
	}
	if (n >= 0)
		*out = (struct fit_going){ .us = g[n].us, .bytes = g[n].bytes, .leaf = -1 };
	return n;
}

int32_t fit_first_to_go(const struct fit *f, const struct fit_candidate *c,
			const struct fit_going *all, int32_t *out_leaf)
{
	struct fit_going *g = mem_zero(f->nnodes + 1, sizeof(*g)), next;
	double bytes = fit_room_for(f, c) - (double)(f->rules.budget_bytes - f->bytes), lost = 0;
	int32_t first = -1, n;

	memcpy(g, all, f->nnodes * sizeof(*g));
	rescue(f, c, g);
	for (n = c->parent; n >= 0; n = f->nodes[n].parent)
		g[n].bytes = -1;
	while (bytes > 0 && lost * FIT_HYSTERESIS < c->gain && (n = next_to_go(f, g, &next)) >= 0) {
		lost += next.us;
		bytes -= next.bytes;
		if (first < 0) {
			first = n;
			*out_leaf = next.leaf;
		}
		take_out(f, n, g);
	}
	free(g);
	return bytes > 0 || lost * FIT_HYSTERESIS >= c->gain ? -1 : first;
}
