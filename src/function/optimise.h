/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (plans are made on a thread of the loop's pool, one at a time).
 *
 * The optimiser at work: what calls ask for, told to policy/fit.h; what it says is worth its memory
 * is made by grow.c; what has to go is dropped.
 *
 * An item is a dist as one interpreter (and tenant) loads it, or a part of the standard library
 * that a function loads by itself. A dist that looked, while it was imported in a node, for
 * something that a function provides and others do not (DESIGN 3.4) is another item for that
 * function: it cannot share the node. So a set of items is what a node may hold for all who have
 * them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "base/limits.h"
#include "function/intern.h"
#include "index/lock.h"

/* A node beside its items: copied pages of its parent's; measured, 2.2 to 3.5 MB. */
#define NODE_BYTES (3 * MIB)

struct functions;
struct growth;
struct interp;
struct job;
struct node;
struct subject;

struct item {
	uint32_t dist; /* as interned; INTERN_NONE: of the standard library */
	uint64_t us, bytes;
	bool guess;	      /* us: of a tree to start from */
	bool measured;	      /* bytes are what a node took, not an estimate */
	struct ids *closures; /* items that it needs, itself among them; one for each lock's way */
	uint32_t nclosures;
	uint64_t told_us, told_bytes; /* to the optimiser */
	uint32_t told_closures;
};

/* What a dist looked for while it was imported: in every node that holds it. */
struct wish {
	struct ids things;
	bool all; /* it listed all dists */
};

struct items {
	struct intern names;
	struct item *v; /* by number */
	uint32_t n;
	struct wish *wishes;
	uint32_t nwishes;
	uint32_t *wish_of; /* by dist: index + 1, 0: none */
	uint32_t nwish_of;
	uint64_t gen; /* counts changes of wishes: what items a subject has may be others */
	double bytes_per_us;
};

#define DROPPED 16 /* sets that went lately, and are remembered */

/* What the loop keeps of the optimiser. */
struct optimiser {
	struct fit *fit; /* the thread's while a job goes on */
	struct job *job;
	bool plan_again, anew; /* wanted */
	uint64_t anew_after_us;
	int lost[LIMIT_NODES]; /* places of nodes that are gone */
	uint32_t nlost, next_measured;
	uint64_t squeezed_bytes, squeezed_until_us; /* less than the budget, until then */
	/* A node that made room for another and came back itself: what it believes of memory is too
	 * far from the truth. Until then none makes room, each time for longer. */
	struct {
		uint64_t set, at_us;
	} dropped[DROPPED];
	uint32_t ndropped;
	uint64_t calm_until_us, calm_us;
	uint64_t hold_until_us;
	struct subject *waiting[LIMIT_GROW_QUEUE]; /* marked queued */
	uint32_t nwaiting;
	struct prior *priors; /* priors.c */
	uint32_t npriors, nbegun;
	struct subject *prior_subjects;
	int next;		/* the place that would go first; -1: none may */
	struct subject **noted; /* with calls that it was not told of */
	uint32_t nnoted, noted_cap;
	struct json_t *kept_demand; /* by subject's key, as last saved */
	uint64_t saved_us;
	bool demand_changed;
};

/* items.c */
void items_init(struct items *t);
void items_done(struct items *t);
/* s->items, if its profile or any wish changed. */
void items_refresh(struct functions *f, struct subject *s);
/* What it imports that cannot sleep. */
uint64_t items_left_us(const struct functions *f, const struct subject *s);
/* Its items, and those of which none of its own nodes can be made: another's may hold them. */
void items_seen(const struct functions *f, const struct subject *s, struct ids *out);
/* A node for this subject was made: what its dists look for. */
void items_wishes(struct functions *f, const struct node *n);
/* Times of a subject's items that no other has are its profile's, not a mean. */
void items_alone(struct functions *f, struct subject *s);
/* A node of items that this subject has too, whose profile has the times that the node measured. */
void items_timed(struct functions *f, const struct subject *s, const struct node *n);
/* So many bytes more than its parent. */
void items_measured(struct functions *f, const struct node *n, uint64_t bytes);
bool items_have(const struct functions *f, const struct ids *items, uint32_t dist);
/* What of the subject's items the node holds. */
void items_of_node(struct functions *f, const struct node *n, struct subject *s, struct ids *out);
/* The lock of an environment that has these of the subject's items, what they require without
 * loading it, and nothing else. */
struct lock *items_lock(struct functions *f, const struct subject *s, struct policy_set items);
/* The modules of these items, in import order, that at least half of the calls with all of the
 * items load; without what the parent has. NULL-terminated; the names are the daemon's. */
const char **items_modules(struct functions *f, const struct subject *s, struct policy_set items,
			   const struct node *parent);
/* Of those with all of these items the one that is called most; NULL: none is left. */
struct subject *items_sponsor(struct functions *f, struct policy_set items);

/* demand.c */
/* So many calls started a process. Of one that is not known yet they wait for its profile. */
void demand_note(struct functions *f, struct subject *s, uint32_t calls);
void demand_forget(struct functions *f, const struct subject *s); /* it is going */
double demand_of(const struct subject *s, double now);		  /* calls, decayed */
void demand_add(struct subject *s, double calls, double now);
void demand_open(struct functions *f);
void demand_load(struct functions *f, struct subject *s);
void demand_save(struct functions *f, bool now);
void demand_close(struct functions *f);

/* priors.c */
warn_unused int priors_open(struct functions *f, const char *text, struct err *err);
void priors_match(struct functions *f, const struct subject *s); /* a function has this lock */
void priors_close(struct functions *f);

/* optimise.c */
void optimise_open(struct functions *f);
void optimise_close(struct functions *f);
/* Does it still think of a subject of this interpreter? */
bool optimise_needs(const struct functions *f, const struct interp *p);
bool optimise_busy(const struct functions *f);
void optimise_tick(struct functions *f);
/* Something is other than it was: think again, now or when that is done which is being done. */
void optimise_kick(struct functions *f);
/* All that is known counts anew: costs, items, nodes. */
void optimise_anew(struct functions *f);
int optimise_place(struct functions *f, int place); /* of a node that has just been made; -1 */
void optimise_gone(struct functions *f, int place); /* what was, or was to be, there */
/* A growth ended, or will not be. */
void optimise_grown(struct functions *f);
/* The node that would be dropped if memory were short, as of the last plan; NULL: none may go. */
struct node *optimise_next_to_go(struct functions *f);
/* No ids are left for another node: not again for a while. */
void optimise_hold(struct functions *f);
/* All functions' and scripts' subjects; the caller frees. */
struct subject **subjects_all(struct functions *f, size_t *out_n);

/* memory.c */
/* Memory of all nodes as last measured; refreshes what is old, a few at a time. */
uint64_t optimise_measure(struct functions *f);
/* What is left for more nodes; negative: too many are there. */
int64_t optimise_room(struct functions *f);

/* grow.c */
/* A node of these items (copied) for the place that the optimiser gave it, below the one there;
 * reserve_bytes of the budget are its. */
void grow_set(struct functions *f, struct policy_set items, int place, int parent_place,
	      uint64_t reserve_bytes);
