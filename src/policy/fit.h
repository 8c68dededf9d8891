/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon and simulator. Pure: no I/O, no clock, the same result for the same calls.
 *
 * The optimiser: which nodes are worth their memory. docs/TREE.md explains it.
 *
 * An item is what a node imports or does not (a dist), with the time that its import takes and the
 * bytes that it leaves, its dependencies being there already. A call is a set of items; a node may
 * serve it when all items of the node are among the call's, and then saves the sum of their times.
 * The value of a tree is the sum over remembered calls of the best saving that any of its nodes
 * gives: monotone and submodular, so nodes are chosen lazily by gain per marginal byte (Minoux;
 * Leskovec and others, KDD 2007).
 *
 * Against over-fitting up to half of a call's weight is on copies that are left out and varied:
 * they have lost some of the call's packages and got one of another call's, and a node counts to
 * them only if another call would have suggested it, too.
 *
 * With F remembered closures, V views of them (F, and at most 8,000 ln F copies), C candidates, N
 * nodes, s items in a set; k of a kind lie in a set by its items' index, few of N or C:
 *   fit_choose   O(s + k)                fit_call     O(s + k) for each of its 2 to 17 views
 *   fit_plan     O(F + C + N + V depth); at most 64 gains are counted, O(a candidate's views) each;
 *                new closures: O(512 s) each to compare, O(views of its rarest item) a candidate
 *   fit_make, fit_drop   O(C + N + views of the node's rarest item), O(k) for each view it serves
 * bench/policy.c measures them at their limits.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"

struct fit;

struct fit_rules {
	uint64_t budget_bytes;
	uint64_t root_bytes; /* of the root, which is always there and holds no item */
	uint64_t node_bytes; /* of a node beyond its items */
	uint64_t node_us;    /* to make one, beyond its items' times */
	uint64_t least_us;   /* it has to save this more than its parent, each time */
	/* Demand halves in this time, in the unit of fit_call()'s; 0: never. */
	double half_life;
	/* The tree is on paper: a node moves below a better parent that comes later, and children
	 * of a dropped one move up. Else nodes are processes: they stay where they were forked, and
	 * a subtree goes as a whole. */
	bool on_paper;
	/* A node that no call would use which was made, only such as may come, has to save at least
	 * this part of the time that its making takes: else they fill whatever memory is free.
	 * Below 0.05, which any node has to: no more than others. */
	double guess;
};

struct fit *fit_new(const struct fit_rules *rules);
void fit_free(struct fit *f);
void fit_budget(struct fit *f, uint64_t bytes);

/* Items are small numbers of the caller's. To be told before the item occurs in a set. */
void fit_item(struct fit *f, uint32_t item, uint64_t us, uint64_t bytes);
/* A closure of dependencies seen for the item, itself included; there may be several. Without one:
 * the item alone. Nodes hold whole closures only: nothing else can be imported. */
void fit_closure(struct fit *f, uint32_t item, struct policy_set closure);

/* So many calls with this closure until this time (not before that of the last). Time is best
 * counted in calls: then a night without any is nobody's absence. */
void fit_call(struct fit *f, struct policy_set items, double calls, double now);

/* The node (>= 0) that saves this call most, or -1: the root. *out_us: what it saves. */
int fit_choose(const struct fit *f, struct policy_set items, uint64_t *out_us);

/* The next change that is worth making. Applied by the caller, when it has been done, with
 * fit_make() or fit_drop(). */
enum fit_action { FIT_NOTHING, FIT_MAKE, FIT_DROP };
struct fit_step {
	enum fit_action action;
	int node;		 /* FIT_DROP: the top of the subtree that goes */
	int parent;		 /* FIT_MAKE: what it forks from; -1: the root */
	struct policy_set items; /* FIT_MAKE: all, the parent's too; valid until the next call */
};
/* A node is dropped when the tree is over its budget, for one that saves FIT_HYSTERESIS times as
 * much, or to be made again where it takes less: the next steps say so. What is in use is never
 * dropped, nor what is above it. A step that was not done does no harm: the next one is planned
 * from what there is. */
#define FIT_HYSTERESIS 1.05
struct fit_step fit_plan(struct fit *f);
/* A step takes only so many new closures into account: there is more to plan, though the last step
 * was FIT_NOTHING. */
bool fit_is_behind(const struct fit *f);

/* Returns the node's number: stable, and used again only after it was dropped. */
int fit_make(struct fit *f, struct policy_set items, int parent);
void fit_drop(struct fit *f, int node); /* on_paper: this one; else with all below it */
void fit_use(struct fit *f, int node, bool in_use);

/* Only on paper: choose the tree for the calls told so far, within the budget. */
void fit_solve(struct fit *f);

struct fit_node {
	struct policy_set items; /* all */
	int parent;		 /* -1: the root */
	uint64_t us, own_bytes;	 /* us: what all its items take to import */
};
/* false: there is no such node. For all: from 0 to fit_nodes() - 1. */
bool fit_node(const struct fit *f, int node, struct fit_node *out);
int fit_nodes(const struct fit *f);
uint64_t fit_bytes(const struct fit *f); /* of the tree, the root included */
double fit_value(const struct fit *f);	 /* in us, of calls as they weigh now */
