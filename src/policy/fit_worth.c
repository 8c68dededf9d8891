/* SPDX-License-Identifier: Apache-2.0
 *
 * What candidates are worth as nodes, and which is the best.
 */
#include "policy/fit_worth.h"

#include "base/limits.h"
#include "base/mem.h"

/* A node is not worth making for less than this part of the time that it takes to make. */
#define WORTH 0.05
/* A node that saves others bytes saves so many times its own: those have to be made again. */
#define PAYS 1.25
/* So many gains are counted at most for one step while nodes are processes: time is limited, and
 * the next step goes on from there. */
#define LOOKS 64

void fit_judge(const struct fit *f, struct fit_candidate *c)
{
	double sum = 0, left_out = 0, owners = 0;
	uint32_t owner = FIT_NOBODY, having = 0;

	for (uint32_t at = 0, view = 0; fit_rising_next(&c->views, &at, &view);) {
		const struct fit_view *v = &f->views[view];
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
	c->guess = sum <= 0;
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

double fit_room_for(const struct fit *f, const struct fit_candidate *c)
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

struct fit_candidate *fit_paying(const struct fit *f)
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

void fit_heap_pop(struct fit *f)
{
	f->heap[0] = f->heap[--f->nheap];
	if (f->nheap)
		heap_sink(f, 0);
}

void fit_heap_fill(struct fit *f, uint64_t most_bytes)
{
	if (f->heap_room < f->ncandidates) {
		f->heap_room = 2 * f->ncandidates;
		f->heap = mem_resize(f->heap, f->heap_room * sizeof(*f->heap));
	}
	f->nheap = 0;
	for (uint32_t i = 0; i < f->ncandidates; i++) {
		const struct fit_candidate *c = &f->candidates[i];

		if (c->gain > 0 && c->node < 0 && c->tried != f->look &&
		    fit_room_for(f, c) <= (double)most_bytes)
			f->heap[f->nheap++] = (struct fit_rank){ c->gain / fit_cost(f, c), i };
	}
	for (uint32_t i = f->nheap / 2; i-- > 0;)
		heap_sink(f, i);
}

void fit_look_at(struct fit *f, struct fit_candidate *c)
{
	double part, own_us;

	fit_judge(f, c);
	part = c->guess && f->rules.guess > WORTH ? f->rules.guess : WORTH;
	c->looked = f->look;
	f->looks++;
	own_us = (double)(c->set.us - fit_view_us(f, c->parent));
	if (own_us < (double)f->rules.least_us ||
	    c->gain * f->scale < part * (own_us + (double)f->rules.node_us))
		c->gain = 0;
}

struct fit_candidate *fit_heap_best(struct fit *f)
{
	while (f->nheap) {
		struct fit_candidate *c = &f->candidates[f->heap[0].candidate];

		if (c->looked == f->look && c->gain > 0)
			return c;
		if (c->looked == f->look || (!f->rules.on_paper && f->looks >= LOOKS)) {
			fit_heap_pop(f);
			continue;
		}
		fit_look_at(f, c);
		f->heap[0].worth = c->gain / fit_cost(f, c);
		heap_sink(f, 0);
	}
	return NULL;
}
