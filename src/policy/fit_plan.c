/* SPDX-License-Identifier: Apache-2.0
 *
 * Which change is next while nodes are processes.
 */
#include "base/limits.h"
#include "base/mem.h"
#include "policy/fit_worth.h"

#define TRIES 16 /* candidates for which something might go */

static struct fit_step make(const struct fit_candidate *c)
{
	return (struct fit_step){ .action = FIT_MAKE,
				  .parent = c->parent,
				  .items = fit_set_plain(&c->set) };
}

static struct fit_step drop(int32_t node)
{
	return (struct fit_step){ .action = FIT_DROP, .node = node };
}

static bool moves(const struct fit *f, int32_t node)
{
	const struct fit_place *n = &f->nodes[node];
	struct fit_walk w = fit_walk_nodes(&n->set);
	unsigned int below;
	int32_t p;

	while ((p = fit_next_within(f, &w, &n->set)) >= 0) {
		if (f->nodes[p].set.n >= n->set.n || fit_saved(f, n, f->nodes[p].set.bytes) == 0)
			continue;
		below = fit_height(f, node);
		return below < LIMIT_TREE_DEPTH &&
		       fit_saved(f, n,
				 fit_node_bytes(f, fit_parent_for(f, &n->set,
								  LIMIT_TREE_DEPTH - 1 - below)));
	}
	return false;
}

static void wish(struct fit *f, uint32_t candidate, bool anyway)
{
	if (f->nwishes < FIT_WISHES)
		f->wishes[f->nwishes++] = (struct fit_wish){ candidate, anyway };
}

/* Dropped to be made again elsewhere. */
static void wish_again(struct fit *f, int32_t node)
{
	const uint32_t *slot = fit_candidate_of(f, node);

	if (slot)
		wish(f, *slot, true);
}

/* What is dropped first: what is too much; else what would take less below a node that came later:
 * its set, cheaper now, is made again. */
static int32_t surplus(struct fit *f, const struct fit_going *g)
{
	if (f->bytes > f->rules.budget_bytes)
		return fit_cheapest(f, g);
	for (uint32_t i = 0; i < f->nnodes; i++) {
		if (!f->nodes[i].alive || !f->nodes[i].may_move || g[i].bytes <= 0)
			continue;
		if (moves(f, (int32_t)i)) {
			wish_again(f, (int32_t)i);
			return (int32_t)i;
		}
		f->nodes[i].may_move = false;
	}
	return -1;
}

/* Make it, or drop what is in its way; FIT_NOTHING: that is worth more. */
static struct fit_step place(struct fit *f, const struct fit_candidate *c,
			     const struct fit_going *g)
{
	int32_t node, leaf = -1;

	if (fit_room_for(f, c) <= (double)(f->rules.budget_bytes - f->bytes))
		return make(c);
	node = fit_first_to_go(f, c, g, &leaf);
	if (node < 0)
		return (struct fit_step){ .action = FIT_NOTHING };
	f->nwishes = 0;
	wish(f, (uint32_t)(c - f->candidates), false);
	if (leaf >= 0)
		wish_again(f, leaf);
	return drop(node);
}

/* What something was dropped for comes next, though what went may be worth more per byte: else the
 * two would take turns. */
static struct fit_step go_on(struct fit *f, const struct fit_going *g)
{
	while (f->nwishes) {
		struct fit_wish w = f->wishes[--f->nwishes];
		struct fit_candidate *c = &f->candidates[w.candidate];

		if (c->node >= 0)
			continue;
		fit_look_at(f, c);
		if (w.anyway && fit_room_for(f, c) <= (double)(f->rules.budget_bytes - f->bytes))
			return make(c);
		if (!w.anyway && c->gain > 0)
			return place(f, c, g);
	}
	return (struct fit_step){ .action = FIT_NOTHING };
}

/* Of the nodes that would move below the candidate the one that is soonest made again, and frees
 * room enough for it. */
static int32_t makes_way(const struct fit *f, const struct fit_candidate *c,
			 const struct fit_going *g)
{
	double bytes = fit_room_for(f, c) - (double)(f->rules.budget_bytes - f->bytes);
	int32_t best = -1;

	for (uint32_t i = 0; i < f->nnodes; i++) {
		const struct fit_place *n = &f->nodes[i];

		if (n->alive && n->children == 0 && g[i].bytes >= bytes && c->set.n < n->set.n &&
		    (best < 0 || n->set.us < fit_view_us(f, best)) &&
		    fit_saved(f, n, c->set.bytes) && fit_set_within(&c->set, &n->set))
			best = (int32_t)i;
	}
	return best;
}

static struct fit_step plan_paying(struct fit *f, const struct fit_going *g)
{
	const struct fit_candidate *c = fit_paying(f);
	int32_t node;

	if (c && fit_room_for(f, c) <= (double)(f->rules.budget_bytes - f->bytes))
		return make(c);
	node = c ? makes_way(f, c, g) : -1;
	if (node < 0)
		return (struct fit_step){ .action = FIT_NOTHING };
	f->nwishes = 0;
	wish_again(f, node);
	wish(f, (uint32_t)(c - f->candidates), true);
	return drop(node);
}

static struct fit_step plan(struct fit *f, const struct fit_going *g)
{
	uint64_t budget = f->rules.budget_bytes;
	struct fit_candidate *c;
	struct fit_step step;

	f->look++;
	f->looks = 0;
	step = go_on(f, g);
	if (step.action == FIT_NOTHING)
		step = plan_paying(f, g);
	if (step.action != FIT_NOTHING)
		return step;
	fit_heap_fill(f, budget - f->rules.root_bytes);
	for (int i = 0; step.action == FIT_NOTHING && i < TRIES && (c = fit_heap_best(f)); i++) {
		step = place(f, c, g);
		c->tried = f->look;
		fit_heap_pop(f);
	}
	if (step.action != FIT_NOTHING)
		return step;
	fit_heap_fill(f, budget - f->bytes);
	c = fit_heap_best(f);
	return c ? make(c) : step;
}

struct fit_step fit_plan(struct fit *f)
{
	struct fit_step step = { .action = FIT_NOTHING };
	struct fit_going *g;
	int32_t node;

	fit_weigh(f);
	fit_forget_candidates(f);
	fit_suggest(f, FIT_SUGGESTED);
	g = fit_losses(f);
	node = surplus(f, g);
	if (node >= 0)
		step = drop(node);
	else if (f->bytes <= f->rules.budget_bytes)
		step = plan(f, g);
	free(g);
	return step;
}
