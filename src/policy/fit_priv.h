/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon and simulator. What the files of the optimiser share.
 */
#pragma once

#include "policy/fit.h"

#define FIT_NOBODY UINT32_MAX
#define FIT_WORDS 8

/* Lists grow by fit_more(). */
struct fit_set {
	uint32_t *v; /* ascending */
	uint32_t n;
	uint64_t sig[FIT_WORDS]; /* a bit for each item: a subset's bits are all there */
	uint64_t us, bytes;
};

struct fit_list {
	uint32_t *v, n;
};

/* Ascending numbers, each a byte or a few: what it is more than the one before. */
struct fit_rising {
	uint8_t *bytes;
	uint32_t n, room, last;
};

struct fit_item {
	uint64_t us, bytes;
	struct fit_set *closures;
	uint32_t nclosures;
	struct fit_list views; /* that have it, ascending */
	/* Those with this item as their key: of a set's items the one that the fewest views had.
	 * What lies in a set has its key there, so few have to be looked at. */
	struct fit_list nodes, candidates;
};

/* All calls with one closure. */
struct fit_demand {
	struct fit_set set;
	double weight; /* calls; times fit.scale: decayed */
	double last;
	double rate;	/* its weight when it last came */
	double part[2]; /* of the weight: of its own view, of each left out one */
	uint32_t calls;
	uint32_t first_view, nviews; /* the first is the closure as it is */
};

struct fit_view {
	struct fit_set set;
	uint32_t demand;
	bool left_out; /* else it is the closure as it is */
	/* The best node, and the best that would be left without it: on paper any other, else one
	 * that is not above it. -1: the root. */
	int32_t best, aside;
};

struct fit_candidate {
	struct fit_set set;
	struct fit_rising views; /* that hold all of it */
	double gain;		 /* us, an upper bound */
	uint64_t credit;	 /* bytes that nodes would cost less below it */
	int32_t parent, node;	 /* node: it is there; -1: it is not */
	uint32_t looked;	 /* the gain is that of this fit.look */
	uint32_t tried;		 /* in this fit.look it found no place */
	uint64_t judged;	 /* the gain was counted in this call */
	bool lone;		 /* when looked at: only one demand had it */
	bool guess;		 /* when looked at: no call that was made would use it */
};

struct fit_place {
	struct fit_set set;
	int32_t parent;
	uint32_t key;
	uint32_t children;
	uint32_t owner; /* the first demand that has it, or FIT_NOBODY */
	bool shared;	/* others have it, too */
	bool alive, in_use;
	bool may_move; /* since it was looked at, a parent may have come, or room below one */
};

/* A candidate by its gain per byte; the heap has the best on top. */
struct fit_rank {
	double worth;
	uint32_t candidate;
};

/* A candidate that nodes were dropped for; anyway: though no call gains by it now. */
struct fit_wish {
	uint32_t candidate;
	bool anyway;
};
#define FIT_WISHES 4

struct fit_table {
	uint64_t *hash; /* 0: free */
	uint32_t *index;
	uint32_t n, cap;
};

struct fit {
	struct fit_rules rules;
	double left_out;	  /* so much of one call's weight is on copies */
	double now, epoch, scale; /* scale: 2^-((now - epoch) / half_life) */
	uint64_t seed, bytes, ncalls;
	struct fit_wish wishes[FIT_WISHES]; /* to be made next, the last first */
	uint32_t nwishes;
	uint32_t nsuggested; /* of the demands: these have suggested candidates */
	struct fit_list pile;
	uint8_t *piled; /* items that are on the pile */
	uint32_t looks; /* candidates looked at in this fit.look */
	struct fit_rank *heap;
	uint32_t nheap, heap_room;
	struct fit_item *items;
	struct fit_demand *demands;
	struct fit_view *views;
	struct fit_candidate *candidates;
	struct fit_place *nodes;
	uint32_t nitems, ndemands, nviews, ncandidates, nnodes, look;
	struct fit_table by_set, by_raw, by_candidate;
};

/* fit_set.c */
struct fit_set fit_set_of(const struct fit *f, struct policy_set items);
void fit_set_done(struct fit_set *s);
bool fit_set_may_hold(const struct fit_set *outer, const struct fit_set *inner); /* by bits */
bool fit_set_within(const struct fit_set *inner, const struct fit_set *outer);
uint64_t fit_set_hash(struct policy_set s);
struct policy_set fit_set_plain(const struct fit_set *s);
/* The slot of this hash, taken if it is new. */
uint32_t *fit_table_find(struct fit_table *t, uint64_t hash, bool *out_new);
/* NULL: it is not there. */
uint32_t *fit_table_get(const struct fit_table *t, uint64_t hash);
void fit_table_done(struct fit_table *t);
/* A union under construction. */
void fit_pile_put(struct fit *f, const struct fit_set *set);
/* As a set, valid until the next fit_pile_put(); the pile is empty again. */
struct policy_set fit_pile_take(struct fit *f);
uint32_t fit_random(struct fit *f, uint32_t n); /* below n */
/* Room for one more in a list of n. */
void *fit_more(void *list, uint32_t n, size_t size);

void fit_list_put(struct fit_list *l, uint32_t x);
void fit_list_drop(struct fit_list *l, uint32_t x);
void fit_rising_put(struct fit_rising *r, uint32_t x);
/* *at and *x are 0 before the first. */
bool fit_rising_next(const struct fit_rising *r, uint32_t *at, uint32_t *x);

/* Walks what is listed by items of a set: nodes or candidates, of which it has the key. */
struct fit_walk {
	struct policy_set set;
	size_t offset; /* of the list in the item */
	size_t item, at;
};
struct fit_walk fit_walk_nodes(const struct fit_set *set);
struct fit_walk fit_walk_candidates(const struct fit_set *set);
bool fit_walk_next(const struct fit *f, struct fit_walk *w, uint32_t *out);
/* The next node all of whose items the set has; -1: no more. */
int32_t fit_next_within(const struct fit *f, struct fit_walk *w, const struct fit_set *set);
const struct fit_item *fit_rarest(const struct fit *f, const struct fit_set *set);
uint32_t fit_key(const struct fit *f, const struct fit_set *set);

/* fit_demand.c */
/* Of the view: its part of the calls, decayed but for fit.scale; as of the last fit_weigh(). */
double fit_weight(const struct fit *f, const struct fit_view *v);
void fit_weigh_one(const struct fit *f, struct fit_demand *d);
void fit_weigh(struct fit *f);

/* Note which items the view has. */
void fit_view_index(struct fit *f, uint32_t view);
/* Of each item of the set the closure that it has there, or NULL; the caller frees the list. */
const struct fit_set **fit_closures_in(const struct fit *f, const struct fit_set *set);

/* fit_suggest.c */
/* Candidates of demands that are new, until there are so many more or all had their turn. */
void fit_suggest(struct fit *f, uint32_t most);

/* fit_forget.c */
/* Forget the less useful half when a list is at its limit. */
void fit_forget_candidates(struct fit *f);
void fit_forget_demands(struct fit *f);

/* fit_tree.c */
uint64_t fit_view_us(const struct fit *f, int32_t node);	     /* -1: 0 */
bool fit_better(const struct fit *f, int32_t node, int32_t than);    /* saves more */
uint64_t fit_node_bytes(const struct fit *f, int32_t node);	     /* all items'; -1: 0 */
bool fit_is_above(const struct fit *f, int32_t upper, int32_t node); /* or the same */
/* The best node to fork one of this set from that is at most so deep. */
int32_t fit_parent_for(const struct fit *f, const struct fit_set *set, unsigned int max_depth);
unsigned int fit_depth(const struct fit *f, int32_t node); /* of the root: 0 */
unsigned int fit_height(const struct fit *f, int32_t node);
/* Bytes that the node would take less below a parent whose items take so many; while nodes are
 * processes: if it is worth the move. */
uint64_t fit_saved(const struct fit *f, const struct fit_place *n, uint64_t parent_bytes);
void fit_candidate_place(const struct fit *f, struct fit_candidate *c);
void fit_view_refresh(struct fit *f, uint32_t view);
/* This demand is new, or came a second time: nodes that its own call alone suggested count. */
void fit_support_grew(struct fit *f, uint32_t demand);
void fit_support_anew(struct fit *f); /* after demands were forgotten */
