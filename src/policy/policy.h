/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon and simulator. Pure functions: no I/O, no clock, no allocation that outlives the
 * call except what is documented. Which node to fork from; which to make and to drop is fit.h's.
 *
 * Strings are interned by the caller: dists, modules, environment variables and absent things are
 * numbers, and sets are sorted arrays of them without duplicates.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct policy_set {
	const uint32_t *v; /* ascending, unique */
	size_t n;
};

bool policy_set_has(struct policy_set set, uint32_t x);
bool policy_set_within(struct policy_set inner, struct policy_set outer); /* inner is a subset */
/* A bit for each member, several to a bit: a subset's bits are all among its superset's. */
struct policy_bits {
	uint64_t w[4];
};
struct policy_bits policy_set_bits(struct policy_set set);

/* What is known of a sleeping node. */
struct policy_node {
	uint32_t id;
	int32_t parent;		      /* index into the array, -1 for a root */
	uint32_t root;		      /* which interpreter (roots are never mixed) */
	struct policy_set dists;      /* whose modules it imported */
	struct policy_bits dist_bits; /* of dists; zero: not told */
	struct policy_set reads;      /* whose metadata it read */
	struct policy_set modules;    /* all that are imported in it, its ancestors' too */
	struct policy_set absent; /* asked for and not there: interned "import:x", "group:y" ... */
	struct policy_set env;	  /* variables read while importing */
	uint32_t tenant;	  /* nonzero: only this tenant's functions may use it (interned) */
	uint32_t everything; /* nonzero: it listed all dists; then only this closure (interned lock)
				fits */
	uint32_t busy;	     /* forks in flight, and children nodes being made */
	bool asleep;	     /* ready to fork */
	bool pinned;	     /* a root: never evicted */
};

/* What is known of a function (or of a script). */
struct policy_function {
	uint32_t root;
	uint32_t closure;	 /* interned lock */
	uint32_t tenant;	 /* nonzero: shares no node but roots with others (interned) */
	struct policy_set dists; /* its locked closure (S2) */
	struct policy_set
		seen_dists; /* dists whose modules it was seen loading (S3); none: a new one */
	struct policy_bits seen_bits; /* of seen_dists, for nodes that tell theirs */
	struct policy_set modules;    /* its profile */
	const uint64_t *self_us;      /* parallel to modules: measured import time of each */
	/* The same by dist, parallel to seen_dists, and of modules of no dist; NULL: not told. */
	const uint64_t *dist_us;
	uint64_t other_us;
	struct policy_set
		provides;      /* interned absent-things that its closure or own code provides */
	struct policy_set env; /* variables that it sets to something else than a zygote has */
};

/* Why a function may not be forked from a node, and the thing that it is about. */
enum policy_rule {
	POLICY_ASLEEP,	 /* it does not sleep; which: 0 */
	POLICY_ROOT,	 /* it is below another root; which: that one */
	POLICY_TENANT,	 /* it is, or is not, of one tenant alone; which: that one, or 0 */
	POLICY_CLOSURE,	 /* S2: a dist that is not in the function's closure */
	POLICY_LOADED,	 /* S3: a dist of the closure that the function was not seen loading */
	POLICY_METADATA, /* it read the metadata of a dist that is not in the closure */
	POLICY_LISTED,	 /* it saw all dists of another closure; which: that one */
	POLICY_ABSENT,	 /* 3.4: it asked for something in vain that the function provides */
	POLICY_VARIABLE, /* 3.4: it read a variable that the function sets */
};
struct policy_reason {
	enum policy_rule rule;
	uint32_t which; /* interned */
};
/* The first max reasons, in the order of the rules; none: the function may be forked from it. */
size_t policy_refuses(const struct policy_node *node, const struct policy_function *f,
		      struct policy_reason *out, size_t max);
bool policy_admits(const struct policy_node *node, const struct policy_function *f);

/* Microseconds of measured import time that forking from it spares the function, if it may. */
uint64_t policy_saving(const struct policy_node *node, const struct policy_function *f);

/* Best fit: of the admitted nodes the one whose modules save the most measured time;
 * ties: least busy, then deepest. -1: none (not even a root). *out_saved_us is set when not -1. */
int policy_choose(const struct policy_node *nodes, size_t n, const struct policy_function *f,
		  uint64_t *out_saved_us);

/* What loads less than this altogether is nobody's concern. */
#define POLICY_GROW_MIN_US 2000
