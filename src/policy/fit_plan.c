/* SPDX-License-Identifier: Apache-2.0
 *
 * What the next node is worth, what a node that goes would lose, and which change is next.
 */
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "policy/fit_priv.h"

/* A node is not worth making for less than this part of the time that it takes to make. */
#define WORTH 0.05
#define PAYS 1.25
#define TRIES 16
/* So many gains are counted at most for one step while nodes are processes: time is limited, and
 * the next step goes on from there. */
#define LOOKS 64
/* So many candidates of new closures are added for one step; beyond, the closure's rest. */
#define SUGGESTED 128
#define ROUNDS 6

void fit_judge(const struct fit *f, struct fit_candidate *c)
{
	double sum = 0, left_out = 0, owners = 0;
	uint32_t owner = FIT_NOBODY, having = 0;

	for (uint32_t i = 0; i < c->views.n; i++) {
		const struct fit_view *v = &f->views[c->views.v[i]];
		uint64_t now_us = fit_view_us(f, v->best);
		double more;

		if (!v->left_out && having++ == 0)
			owner = v->demand;
		if (c->set.us <= now_us)
			continue;
		more = fit_weight(f, v) * (double)(c->set.us - now_us);
		if (!v->left_out)
			sum += more;
		else if (v->demand == owner) /* its first view came before */
			owners += more;
		else
			left_out += more;
	}
	c->lone = having < 2;
	if (having > 0)
		sum += left_out;
	if (having > 1 || (having == 1 && f->demands[owner].calls > 1))
		sum += owners;
	c->gain = sum;
}

static double need(const struct fit *f, const struct fit_candidate *c)
{
	return (double)(f->rules.node_bytes + c->set.bytes - fit_node_bytes(f, c->parent));
}

double fit_cost(const struct fit *f, const struct fit_candidate *c)
{
	double net = need(f, c) - (double)c->credit;

	return net > 1 ? net : 1;
}

/* What has to be free to make it: on paper nodes move at once. */
static double room_for(const struct fit *f, const struct fit_candidate *c)
{
	return f->rules.on_paper ? fit_cost(f, c) : need(f, c);
}

/* The credit without nodes that would be too deep below it. */
static double credit_for(const struct fit *f, const struct fit_candidate *c)
{
	unsigned int room = LIMIT_TREE_DEPTH - 1 - fit_depth(f, c->parent);
	double sum = 0;

	for (uint32_t i = 0; i < f->nnodes; i++) {
		const struct fit_place *n = &f->nodes[i];
		uint64_t saved = n->alive && n->set.n > c->set.n ? fit_saved(f, n, c->set.bytes)
								 : 0;

		if (saved && fit_set_within(&c->set, &n->set) && fit_height(f, (int32_t)i) < room)
			sum += (double)saved;
	}
	return sum;
}

/* A node that nobody need be forked from to be worth it: others that hold its items, each for
 * itself, would hold them once. */
static struct fit_candidate *paying(const struct fit *f)
{
	struct fit_candidate *best = NULL;
	double most = 0, live = f->rules.on_paper ? 1 : PAYS;

	for (uint32_t i = 0; i < f->ncandidates; i++) {
		struct fit_candidate *c = &f->candidates[i];
		double paid = c->node < 0 ? (double)c->credit - live * need(f, c) : 0;

		if (paid > most)
			paid = credit_for(f, c) - live * need(f, c);
		if (paid > most) {
			best = c;
			most = paid;
		}
	}
	return best;
}

static bool is_better(const struct fit_rank *a, const struct fit_rank *b)
{
	return a->worth > b->worth || (a->worth == b->worth && a->candidate < b->candidate);
}

/* The one at this place is worth less than before. */
static void heap_sink(struct fit *f, uint32_t at)
{
	struct fit_rank x = f->heap[at];

	for (uint32_t child; (child = 2 * at + 1) < f->nheap; at = child) {
		if (child + 1 < f->nheap && is_better(&f->heap[child + 1], &f->heap[child]))
			child++;
		if (!is_better(&f->heap[child], &x))
			break;
		f->heap[at] = f->heap[child];
	}
	f->heap[at] = x;
}

static void heap_pop(struct fit *f)
{
	f->heap[0] = f->heap[--f->nheap];
	if (f->nheap)
		heap_sink(f, 0);
}

/* All candidates that may be of use and find room, in a new look. */
static void heap_fill(struct fit *f, uint64_t most_bytes)
{
	if (f->heap_room < f->ncandidates) {
		f->heap_room = 2 * f->ncandidates;
		f->heap = mem_resize(f->heap, f->heap_room * sizeof(*f->heap));
	}
	f->nheap = 0;
	for (uint32_t i = 0; i < f->ncandidates; i++) {
		const struct fit_candidate *c = &f->candidates[i];

		if (c->gain > 0 && c->node < 0 && c->tried != f->look &&
		    room_for(f, c) <= (double)most_bytes)
			f->heap[f->nheap++] = (struct fit_rank){ c->gain / fit_cost(f, c), i };
	}
	for (uint32_t i = f->nheap / 2; i-- > 0;)
		heap_sink(f, i);
}

static void look_at(struct fit *f, struct fit_candidate *c)
{
	fit_judge(f, c);
	c->looked = f->look;
	f->looks++;
	if (c->gain * f->scale < WORTH * (double)(c->set.us - fit_view_us(f, c->parent)))
		c->gain = 0;
}

/* The best of the heap; once LOOKS gains were counted, the best of those. NULL: none is left. */
static struct fit_candidate *heap_best(struct fit *f)
{
	while (f->nheap) {
		struct fit_candidate *c = &f->candidates[f->heap[0].candidate];

		if (c->looked == f->look && c->gain > 0)
			return c;
		if (c->looked == f->look || (!f->rules.on_paper && f->looks >= LOOKS)) {
			heap_pop(f);
			continue;
		}
		look_at(f, c);
		f->heap[0].worth = c->gain / fit_cost(f, c);
		heap_sink(f, 0);
	}
	return NULL;
}

/* What goes with each node: us of calls lost, bytes freed; bytes < 0: it may not go. */
struct going {
	double us, bytes;
	double alone; /* us lost if all below it stayed */
	int32_t leaf; /* its only child, when that can be made again without it; else -1 */
};

/* What a view would have left when the subtree goes: what is above it is in every call that had
 * what is below; `aside` may be inside, too, then a little is lost that would not have been. */
static void view_losses(const struct fit *f, const struct fit_view *v, uint64_t now_us, double w,
			struct going *out)
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

static void node_frees(const struct fit *f, int32_t node, struct going *out)
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

static const uint32_t *candidate_of(const struct fit *f, int32_t node)
{
	return fit_table_get(&f->by_candidate, fit_set_hash(fit_set_plain(&f->nodes[node].set)));
}

/* Nodes are processes: what has one child, without children, frees a node's bytes when the child is
 * made again without it. */
static void find_leaves(const struct fit *f, struct going *out)
{
	for (uint32_t i = 0; i < f->nnodes; i++)
		out[i].leaf = -1;
	for (uint32_t i = 0; i < f->nnodes && !f->rules.on_paper; i++) {
		const struct fit_place *n = &f->nodes[i];

		if (!n->alive || n->children || n->parent < 0 ||
		    f->nodes[n->parent].children != 1 || !candidate_of(f, (int32_t)i))
			continue;
		out[n->parent].leaf = (int32_t)i;
	}
}

static struct going *losses(const struct fit *f)
{
	struct going *out = mem_zero(f->nnodes + 1, sizeof(*out));

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

static int32_t cheapest(const struct fit *f, const struct going *g)
{
	int32_t best = -1;

	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive && g[i].bytes > 0 &&
		    (best < 0 || g[i].us * g[best].bytes < g[best].us * g[i].bytes))
			best = (int32_t)i;
	return best;
}

/* Nothing of this subtree, nor what is above it, can go again. */
static void take_out(const struct fit *f, int32_t node, struct going *g)
{
	for (int32_t n = node; n >= 0; n = f->nodes[n].parent)
		g[n].bytes = -1;
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive && fit_is_above(f, node, (int32_t)i))
			g[i].bytes = -1;
}

/* Calls that the candidate serves lose less with what goes than they would without it. */
static void rescue(const struct fit *f, const struct fit_candidate *c, struct going *g)
{
	for (uint32_t i = 0; i < c->views.n; i++) {
		const struct fit_view *v = &f->views[c->views.v[i]];
		uint64_t us = fit_view_us(f, v->best);

		if (us && !(v->left_out && c->lone))
			view_losses(f, v, us < c->set.us ? us : c->set.us, -fit_weight(f, v), g);
	}
}

/* The node that is lifted out, its leaf staying, with least loss per byte; -1: there is none. */
static int32_t cheapest_lift(const struct fit *f, const struct going *g)
{
	int32_t best = -1;

	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive && g[i].bytes > 0 && g[i].leaf >= 0 &&
		    (best < 0 || g[i].alone < g[best].alone))
			best = (int32_t)i;
	return best;
}

/* What goes next, and whether its leaf comes again. */
static int32_t next_to_go(const struct fit *f, const struct going *g, struct going *out)
{
	int32_t n = cheapest(f, g), l = cheapest_lift(f, g);
	double node_bytes = (double)f->rules.node_bytes;

	if (l >= 0 && (n < 0 || g[l].alone * g[n].bytes < g[n].us * node_bytes)) {
		*out = (struct going){ .us = g[l].alone, .bytes = node_bytes, .leaf = g[l].leaf };
		return l;
	}
	if (n >= 0)
		*out = (struct going){ .us = g[n].us, .bytes = g[n].bytes, .leaf = -1 };
	return n;
}

/* The first of what would have to go for the candidate to be made; -1: that is worth more. */
static int32_t first_to_go(const struct fit *f, const struct fit_candidate *c,
			   const struct going *all, int32_t *out_leaf)
{
	struct going *g = mem_zero(f->nnodes + 1, sizeof(*g)), next;
	double bytes = room_for(f, c) - (double)(f->rules.budget_bytes - f->bytes), lost = 0;
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
	const uint32_t *slot = candidate_of(f, node);

	if (slot)
		wish(f, *slot, true);
}

/* What is dropped first: what is too much; else what would take less below a node that came later:
 * its set, cheaper now, is made again. */
static int32_t surplus(struct fit *f, const struct going *g)
{
	if (f->bytes > f->rules.budget_bytes)
		return cheapest(f, g);
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
static struct fit_step place(struct fit *f, const struct fit_candidate *c, const struct going *g)
{
	int32_t node, leaf = -1;

	if (room_for(f, c) <= (double)(f->rules.budget_bytes - f->bytes))
		return make(c);
	node = first_to_go(f, c, g, &leaf);
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
static struct fit_step go_on(struct fit *f, const struct going *g)
{
	while (f->nwishes) {
		struct fit_wish w = f->wishes[--f->nwishes];
		struct fit_candidate *c = &f->candidates[w.candidate];

		if (c->node >= 0)
			continue;
		look_at(f, c);
		if (w.anyway && room_for(f, c) <= (double)(f->rules.budget_bytes - f->bytes))
			return make(c);
		if (!w.anyway && c->gain > 0)
			return place(f, c, g);
	}
	return (struct fit_step){ .action = FIT_NOTHING };
}

/* Of the nodes that would move below the candidate the one that is soonest made again, and frees
 * room enough for it. */
static int32_t makes_way(const struct fit *f, const struct fit_candidate *c, const struct going *g)
{
	double bytes = room_for(f, c) - (double)(f->rules.budget_bytes - f->bytes);
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

static struct fit_step plan_paying(struct fit *f, const struct going *g)
{
	const struct fit_candidate *c = paying(f);
	int32_t node;

	if (c && room_for(f, c) <= (double)(f->rules.budget_bytes - f->bytes))
		return make(c);
	node = c ? makes_way(f, c, g) : -1;
	if (node < 0)
		return (struct fit_step){ .action = FIT_NOTHING };
	f->nwishes = 0;
	wish_again(f, node);
	wish(f, (uint32_t)(c - f->candidates), true);
	return drop(node);
}

static struct fit_step plan(struct fit *f, const struct going *g)
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
	heap_fill(f, budget - f->rules.root_bytes);
	for (int i = 0; step.action == FIT_NOTHING && i < TRIES && (c = heap_best(f)); i++) {
		step = place(f, c, g);
		c->tried = f->look;
		heap_pop(f);
	}
	if (step.action != FIT_NOTHING)
		return step;
	heap_fill(f, budget - f->bytes);
	c = heap_best(f);
	return c ? make(c) : step;
}

struct fit_step fit_plan(struct fit *f)
{
	struct fit_step step = { .action = FIT_NOTHING };
	struct going *g;
	int32_t node;

	fit_weigh(f);
	fit_forget_candidates(f);
	fit_suggest(f, SUGGESTED);
	g = losses(f);
	node = surplus(f, g);
	if (node >= 0)
		step = drop(node);
	else if (f->bytes <= f->rules.budget_bytes)
		step = plan(f, g);
	free(g);
	return step;
}

static void shrink(struct fit *f, uint64_t to_bytes)
{
	while (f->bytes > to_bytes) {
		struct going *g = losses(f);
		int32_t n = cheapest(f, g);

		free(g);
		if (n < 0)
			return;
		fit_drop(f, n);
	}
}

static void grow(struct fit *f)
{
	const struct fit_candidate *c;

	for (;;) {
		f->look++;
		c = f->bytes < f->rules.budget_bytes ? paying(f) : NULL;
		if (f->bytes < f->rules.budget_bytes && !c) {
			heap_fill(f, f->rules.budget_bytes - f->bytes);
			c = heap_best(f);
		}
		if (!c)
			break;
		fit_make(f, fit_set_plain(&c->set), c->parent);
	}
	/* a node that is too deep to move cost more than was thought */
	shrink(f, f->rules.budget_bytes);
}

/* A tree set aside: the sets of its nodes. */
struct kept {
	struct fit_set *sets;
	uint32_t n;
	double value;
};

static void keep_done(struct kept *k)
{
	for (uint32_t i = 0; i < k->n; i++)
		fit_set_done(&k->sets[i]);
	free(k->sets);
	*k = (struct kept){ 0 };
}

static void keep(struct fit *f, struct kept *k)
{
	double value = fit_value(f);

	if (value <= k->value)
		return;
	keep_done(k);
	k->value = value;
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive) {
			k->sets = fit_more(k->sets, k->n, sizeof(*k->sets));
			k->sets[k->n++] = fit_set_of(f, fit_set_plain(&f->nodes[i].set));
		}
}

static void drop_all(struct fit *f)
{
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive)
			fit_drop(f, (int)i);
}

static void keep_restore(struct fit *f, const struct kept *k)
{
	drop_all(f);
	for (uint32_t i = 0; i < k->n; i++) {
		struct fit_candidate c = { .set = k->sets[i] };

		fit_candidate_place(f, &c);
		fit_make(f, fit_set_plain(&c.set), c.parent);
	}
	shrink(f, f->rules.budget_bytes);
}

/* The greedy choice is improved by taking the worst of it back and choosing again: what was best
 * early on may have been made needless by what came later. Half the memory comes first, so that
 * twice the memory is never worth less. */
static void solve(struct fit *f, uint64_t budget, struct kept *best)
{
	if (budget / 2 > f->rules.root_bytes)
		solve(f, budget / 2, best);
	f->rules.budget_bytes = budget;
	drop_all(f);
	grow(f);
	keep(f, best);
	for (int round = 0; round < ROUNDS; round++) {
		shrink(f, budget / 8 * (uint64_t)(5 + round % 3));
		grow(f);
		keep(f, best);
	}
	keep_restore(f, best);
	grow(f);
	keep(f, best);
}

void fit_solve(struct fit *f)
{
	struct kept best = { 0 };

	must(f->rules.on_paper);
	fit_weigh(f);
	while (fit_is_behind(f)) {
		fit_suggest(f, SUGGESTED);
		fit_forget_candidates(f);
	}
	solve(f, f->rules.budget_bytes, &best);
	keep_restore(f, &best);
	keep_done(&best);
}
