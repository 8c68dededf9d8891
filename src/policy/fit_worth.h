/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon and simulator. What nodes gain and lose: for those who plan, fit_plan.c while
 * nodes are processes and fit_solve.c on paper.
 */
#pragma once

#include "policy/fit_priv.h"

/* So many candidates of new closures are added for one step; beyond, the closure's rest. */
#define FIT_SUGGESTED 128

/* fit_worth.c */
/* Bytes that it takes in the end, nodes having moved below it; 1 when it saves more. */
double fit_cost(const struct fit *f, const struct fit_candidate *c);
/* What it would save now as a node. */
void fit_judge(const struct fit *f, struct fit_candidate *c);
/* What has to be free to make it: on paper nodes move at once. */
double fit_room_for(const struct fit *f, const struct fit_candidate *c);
/* A node that nobody need be forked from to be worth it: others that hold its items, each for
 * itself, would hold them once. NULL: there is none. */
struct fit_candidate *fit_paying(const struct fit *f);
/* Counts its gain anew. */
void fit_look_at(struct fit *f, struct fit_candidate *c);
/* All candidates that may be of use and find room, but those tried in this fit.look. */
void fit_heap_fill(struct fit *f, uint64_t most_bytes);
/* The best of the heap; once LOOKS gains were counted, the best of those. NULL: none is left. */
struct fit_candidate *fit_heap_best(struct fit *f);
void fit_heap_pop(struct fit *f);

/* fit_loss.c */
/* What goes with each node: us of calls lost, bytes freed; bytes < 0: it may not go. */
struct fit_going {
	double us, bytes;
	double alone; /* us lost if all below it stayed */
	int32_t leaf; /* its only child, when that can be made again without it; else -1 */
};

/* Of all nodes, by number; the caller frees. */
struct fit_going *fit_losses(const struct fit *f);
/* The node whose subtree loses least per byte; -1: nothing may go. */
int32_t fit_cheapest(const struct fit *f, const struct fit_going *g);
/* The first of what would have to go for the candidate to be made, and the leaf that comes again
 * without it, or -1. -1: that is worth more. */
int32_t fit_first_to_go(const struct fit *f, const struct fit_candidate *c,
			const struct fit_going *all, int32_t *out_leaf);
/* The candidate of the same set; NULL: there is none. */
const uint32_t *fit_candidate_of(const struct fit *f, int32_t node);
