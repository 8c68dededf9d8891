/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon. Private to the room.
 */
#pragma once

#include <jansson.h>

#include "base/mem.h"
#include "store/store.h"

struct entry_work; /* entry.c: one wheel on its way into the store */
struct code_work;  /* code.c: one part of a wheel's bytecode */
struct env_work;   /* env.c: one environment on its way */
struct fact;	   /* facts.c */
struct use;	   /* use.c */

/* An environment that is ready: its facts, cached. */
struct env {
	struct env *next;
	char hash[65];
	char *path, *site;
	struct store_env pub;
	bool held;		  /* this daemon needs it, and says so (use.c) */
	bool late;		  /* bytecode that nobody waits for is not in it yet */
	bool late_work;		  /* this daemon is at it */
	struct contents **wheels; /* by dist of the lock; NULL: not asked for yet */
	uint64_t wheels_gen;
	size_t ndists;
};

#define STORE_CONTENTS 256

struct store {
	uv_loop_t *loop;
	struct jail *jail;
	struct index *index;
	char *dir, *tmp; /* tmp: this daemon's own directory below DIR/tmp */
	char *uses;	 /* tmp/uses: what this daemon needs, by name */
	char *downloads; /* wheels as fetched: room index's */
	struct use *held;
	int tmp_lock, lock;
	uint64_t counter;
	struct entry_work *entries; /* in work */
	struct code_work *codes;    /* in work */
	struct env_work *envs;	    /* in work */
	struct env *ready;
	struct contents *contents[STORE_CONTENTS]; /* of wheels, by hash */
	uint64_t contents_bytes, contents_gen;
	int installers, compilers; /* running */
	size_t lates;		   /* environments that get the rest of their bytecode */
	struct fact *unsettled;	   /* published, not yet durable */
	bool settling, closing;
	int caching;	  /* listings, prunings, verifications */
	bool keep_budget; /* after them */
	int cpus;
	uint64_t budget;
	bool strict;
	const char *const *lax; /* names whose RECORD is not compared */
	struct store_asks asks;
};

/* store.c */
char *store_entry_path(const struct store *s, const char *sha256);
char *store_code_path(const struct store *s, const char *sha256, const char *tag, int part);
char *store_env_path(const struct store *s, const char *hash);
char *store_late_path(const struct store *s, const char *hash);
/* A name below this daemon's tmp that was never used. */
char *store_tmp_name(struct store *s);
/* Rename; an existing target is success, ours is dropped then. Nothing is synced: see facts.c. */
warn_unused int store_publish(const char *from, const char *to, struct err *err);
/* Memory of a closed store whose last work ended. */
void store_release(struct store *s);

/* build.c: a directory made by a job, looked at from outside, published. */
struct build_spec {
	struct jail_job_spec job; /* "/out" and the report are added */
	const char *kind, *name;  /* of the fact; the target is DIR/kind/name */
	const struct buf *input;  /* what it reads; NULL: nothing */
};
typedef void (*build_fn)(void *arg, const struct err *err);
void build_start(struct store *s, const struct build_spec *spec, build_fn done, void *arg);

/* facts.c: the catalogue, one small file per object that is whole and durable. Loop. */
void facts_add(struct store *s, const char *kind, const char *name, uint64_t bytes,
	       uint64_t cost_ms);
/* Make all that was published durable (one syncfs) and say so, when nothing is in work. */
void facts_settle(struct store *s);
/* Object of the store was used: at most once an hour on disk. */
void facts_touch(struct store *s, const char *kind, const char *name);
/* At open: after a restart of the machine, what is not known to be durable is dropped. */
warn_unused int facts_recover(struct store *s, struct err *err);

/* use.c: what this daemon needs, counted by name ("envs.HASH", "wheels.SHA256"). */
void use_hold(struct store *s, const char *name);
void use_drop(struct store *s, const char *name);
void use_free(struct store *s);
/* Any thread. Does any daemon that lives need it? Under the exclusive lock. */
bool use_is_needed(const char *store_dir, const char *name);
bool use_is_kept(const char *store_dir, const char *env_hash);

/* cache.c: after something was added: prune when there is more than the budget. */
void cache_keep_budget(struct store *s);
uint64_t cache_default_budget(const char *dir);
void cache_ended(struct store *s); /* one of s->caching */

/* entry.c: the sources of one wheel. done is called later or at once; err NULL: the entry is
 * there. */
typedef void (*entry_fn)(void *arg, const struct err *err);
void entry_make(struct store *s, const struct lock_dist *dist, index_progress_fn progress,
		entry_fn done, void *arg);
/* Fetched, and now a matter of the processor. */
bool entry_is_unpacking(const struct store *s, const char *sha256);
/* Of an entry that is there: number of sources. */
warn_unused int entry_sources(const struct store *s, const char *sha256, size_t *out,
			      struct err *err);

/* code.c: bytecode of one entry for one interpreter, in at most two parts: what a first import
 * will load (0), and the rest (1) of a wheel that has more than CODE_FIRST sources. A failure is
 * logged, and done all the same: without bytecode it is slower, not wrong. */
#define CODE_FIRST 64
struct code_want {
	const struct lock *lock; /* what it will be imported together with */
	const struct lock_dist *dist;
	const struct store_python *python;
	int part;
};
typedef void (*code_fn)(void *arg);
void code_make(struct store *s, const struct code_want *want, code_fn done, void *arg);
/* How many parts has it: 0, 1 or 2. */
int code_parts(size_t sources);

/* hint.c: which modules of a dist are to be in part 0, for compile_wheel.py to read: lines
 * "known NAME" (seen loading), "guess" (nothing was seen of this very version) and "import NAME"
 * (another wheel of the lock imports it, so what it imports itself is likely to be loaded, too). */
void hint_make(const struct store *s, const struct code_want *want, struct buf *out);

/* env.c */
struct env *env_ready(struct store *s, const struct lock *lock);
void env_free(struct env *e);
/* Give up the marks of environments that nothing here needs; they may be found again. */
void env_let_go(struct store *s);

/* contents.c */
/* By dist of the lock; NULL where one's manifest cannot be read. Until anything is asked again. */
struct contents **contents_of(struct store *s, const struct lock *lock, struct env *e);
/* "requires", "top_level", "groups": a list of the manifest. */
const json_t *contents_list(const struct contents *c, const char *list);
/* Which of them has the file (relative to site-packages)? -1: none. */
int contents_owner(struct contents *const *wheels, size_t n, const char *file);
void contents_forget(struct store *s);

/* merge.c: on the thread pool; touches nothing but the disk and its arguments. */
struct merge_dist {
	char *name, *entry; /* path of the entry */
	char *code[2];	    /* paths of its bytecode; those that are not there are left out */
	uint64_t bytes;	    /* of the wheel: large ones first */
};
struct merge {
	char *out;		  /* directory to make */
	struct merge_dist *dists; /* in the lock's order */
	size_t n;
	char *python, *version;
	int threads;
	bool strict;
	struct buf warnings; /* lines */
	uint64_t own_bytes;  /* of the directories: what removing it alone would free */
};
warn_unused int merge_run(struct merge *m, struct err *err);
/* Add one part of a dist's bytecode to an environment in use: only links to files that were not
 * there, beside sources that are this dist's. */
warn_unused int merge_code(const char *site, const struct merge_dist *dist, int part,
			   struct err *err);

/* scripts.c */
warn_unused int scripts_write(int entry, int bin, struct err *err);
warn_unused int scripts_put(int dir, const char *name, mode_t mode, const char *text, size_t len,
			    struct err *err);

/* order.c: the order in which pip installs the dists: out[i] is an index into m->dists. */
void order_find(const struct merge *m, size_t *out);
