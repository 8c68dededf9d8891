/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * What sleeping nodes hold and what functions and scripts load, as sets of numbers for room policy;
 * which node to fork from; making nodes in the background, and dropping them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "function/intern.h"
#include "function/optimise.h"
#include "function/python.h"
#include "function/usage.h"
#include "index/lock.h"
#include "zygote/zygote.h"

/* One sleeping interpreter, as seen from here. */
struct node {
	struct zygote_node *z;
	struct interp *interp;
	struct node *parent; /* NULL: a root */
	uint32_t id;
	struct ids dists, reads, modules, absent, env;
	uint32_t everything, tenant;
	char **adds;	 /* "numpy 2.4.6": what it imported beyond its parent; NULL-terminated */
	char **warmed;	 /* "numba 0.68.1: 80.2 ms": warm-up lines that it ran itself; or NULL */
	size_t nmodules; /* imported beyond its parent */
	uint64_t last_used_us, made_us, uses;
	uint32_t busy, children, failures;
	uint32_t index;		 /* in f->nodes, as of f->views_gen */
	int place;		 /* of the optimiser's; -1: it does not know of it */
	struct ids items;	 /* what it was made of */
	struct lock *lock;	 /* of the environment that it was born in; NULL: none */
	struct subject *sponsor; /* for whom it was made; NULL: is gone */
	struct node *heir;	 /* its like below the interpreter's next root */
	uint32_t renewed;	 /* the root below which that was last tried */
	uint64_t bytes, born_bytes, measured_us;

	char *made_for; /* that subject's key; NULL: a root */
	uint64_t calls; /* answered by instances that were forked from it */
	struct usage usage;
};

/* Why a module is left to the child. */
struct left_module {
	uint32_t module;
	enum { LEFT_FAILS, LEFT_WAY, LEFT_BLAMED } how; /* the last is the strongest */
	char *why;					/* what it leaves behind, or NULL */
};

struct seen_module {
	uint32_t module, dist; /* dist INTERN_NONE: the standard library */
	uint64_t self_us;
};

/* What is known of one function's version, or of a script. */
struct subject {
	struct functions *f;
	char *key;
	struct interp *interp;
	struct lock *lock;    /* never NULL; may have no dists */
	const char *env_path; /* NULL: no dists */
	char **own;	      /* upload_own_names() */
	char **env_names;     /* variables set to something else than a zygote has */
	bool afresh; /* one of them needs an interpreter of its own (PYTHONHASHSEED): the root's
			child starts one */
	struct ids dists; /* the closure */
	uint32_t closure, tenant;
	struct seen_module *seen; /* import order */
	size_t nseen;
	struct ids modules, seen_dists;
	uint64_t *self_us;	     /* parallel to modules.v */
	uint64_t *dist_us, other_us; /* the same, parallel to seen_dists.v, and of no dist */
	uint64_t import_us;
	uint32_t profiles; /* how many were recorded; 0: nothing known yet */
	bool replace;	   /* a script: the newest profile replaces the older */
	struct ids provides, env;
	struct ids lock_provides; /* of absent_known's first lock_asked things */
	size_t lock_asked;
	struct ids excluded; /* modules that cannot sleep, or that import one: left to the child */
	bool watch;	     /* the next node is to find out which */
	uint32_t tries;
	char *cannot;		/* why no node of its own can be made */
	struct ids hopeless;	/* items of which no node can be made for it */
	bool queued;		/* the optimiser has not yet said what it makes of its calls */
	struct ids *needs;	/* by dist of the lock: which others it may need; NULL: not known */
	uint32_t *lock_ids;	/* by dist of the lock, as interned */
	struct ids items, told; /* for the optimiser: now, and when it was last told */
	uint64_t items_gen;
	bool assumed; /* it is nobody's: priors.c */
	bool sampled; /* the profile's times count in the items' */
	double demand, demand_at;
	uint32_t fresh; /* calls that the optimiser has not been told of */
	bool noted;	/* it is among f->noted */
	uint64_t gen;	/* of the tree, when best was chosen */
	uint32_t best;	/* node id */

	/* For those who ask why. */
	struct left_module *left; /* of those excluded, and those to blame */
	size_t nleft;
	char *put_off;	    /* why its node could not be made the last time, but may be */
	uint64_t saved_us;  /* by best */
	uint64_t growth_us; /* when the making of its node began */

	int refs;
	struct subject *next; /* list of scripts */
};

/* lock is taken over. */
struct subject *subject_new(struct functions *f, const char *key, struct interp *interp,
			    struct lock *lock);
void subject_unref(struct subject *s);
/* What it is started with, NAME=VALUE; its names are kept. */
void subject_set_env(struct subject *s, const char *const *env);
/* The tenant whose functions alone it shares nodes with; NULL: anyone's who asks for none. */
void subject_set_tenant(struct subject *s, const char *tenant);
/* The profile as JSON text, to and from the state database. */
void subject_load(struct subject *s);
/* Learn from a PROFILE message (untrusted) and keep it; then maybe make a node. */
void subject_learn(struct subject *s, const struct zygote_profile *p);
/* Can a node import this, and whose is it (INTERN_NONE: the standard library's)? false: it is the
 * function's own, or ours, or a lie. */
bool subject_place(struct subject *s, const char *name, const char *origin, uint32_t *out_dist);
/* For one that is nobody's: modules that it is thought to load, then all of them; and what a node
 * for it did load. dist: an index into the lock. */
void subject_assume(struct subject *s, size_t dist, const char *module, uint64_t us);
void subject_assume_top(struct subject *s, size_t dist, uint64_t us);
void subject_assumed(struct subject *s);
void subject_correct(struct subject *s, const struct zygote_profile *p);
/* Times in s->seen are others: sums of them follow. */
void subject_resum(struct subject *s);
void subject_save(struct subject *s);  /* the profile, in the state database */
void subject_needs(struct subject *s); /* learns s->needs, once its environment is there */
#define PROFILES_ENOUGH 4	       /* of one version: later first calls teach nothing new */

/* loads.c: keep, by dist, which modules this subject was seen loading. */
void loads_learn(struct subject *s);

/* explain.c: keep what a node said about a module: "blame=", "way=", "failed=". */
void explain_left(struct subject *s, const char *text);
void explain_put_off(struct subject *s, const char *why); /* its node; NULL: it is made */
void explain_forget(struct subject *s);

/* The best node to fork this subject from; its interpreter's root when nothing is known. NULL:
 * the root is gone. */
struct node *knowledge_choose(struct functions *f, struct subject *s);
struct node *knowledge_find(struct functions *f, uint32_t id); /* NULL: gone */
struct node *knowledge_find_place(struct functions *f, int place);
/* s->provides and s->env, by all that nodes are known to have missed and read. */
void knowledge_provides(struct functions *f, struct subject *s);
/* A node was made: parent NULL for a root; s is whom it was made for (NULL for a root). */
struct node *knowledge_add(struct functions *f, struct zygote_node *z, struct node *parent,
			   struct interp *interp);
void knowledge_describe(struct functions *f, struct node *n, struct subject *s,
			const struct zygote_profile *p);
void knowledge_gone(struct functions *f, struct node *n);
void knowledge_failed(struct functions *f, struct node *n); /* a fork: maybe drops the node */
/* The tree and a subject as policy sees them; root: the one to fork below. */
void knowledge_view(struct functions *f, struct subject *s, const struct node *root,
		    struct policy_node *nodes, struct policy_function *fn);
/* May this node be forked for this subject, by all that is known (DESIGN 3.4)? */
bool knowledge_admits(struct functions *f, struct node *n, struct subject *s);

/* grow.c: nodes in the background. */
void grow_consider(struct functions *f, struct subject *s); /* maybe one is to be made for it */
void grow_kick(struct functions *f); /* calls have become fewer: maybe start one */
void grow_close(struct functions *f);
uint64_t grow_reserved(const struct functions *f); /* bytes, by what is being made */
/* The like of this node below its interpreter's next root; false: it will not be. */
bool grow_heir(struct functions *f, struct node *n, struct node *parent);
/* Must this module be imported after the fork, or a package that it lies in? */
bool grow_sets_aside(const struct subject *s, const char *module);
/* All that wait or are being made; the first after NULL. */
struct growth *grow_next(const struct functions *f, const struct growth *g);
bool grow_is_for(const struct functions *f, const struct subject *s); /* being made for it */
uint32_t grow_count(const struct functions *f);
bool grow_is_there(const struct functions *f, const struct growth *g);
/* For the optimiser: of what, below which node (NULL: none that is there); false: it is an heir. */
bool grow_look(const struct growth *g, const struct ids **out_items, struct node **out_parent);
/* Nothing that this node holds beyond its parent is to be held by a node for whom it was made. */
void grow_never_again(struct functions *f, const struct node *n, const char *why);
void grow_forget_waiting(struct functions *f); /* what has not begun and is no heir */
void grow_take_place(struct growth *g, int place);

/* renew.c: roots of another address layout and hash seed, by and by (S9). */
void renew_open(struct functions *f);
void renew_close(struct functions *f, uv_close_cb closed);
void renew_grown(struct functions *f, struct interp *p); /* an heir is made, or will not be */
struct node *knowledge_top(struct node *n);		 /* the root that it descends from */
