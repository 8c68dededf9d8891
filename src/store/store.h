/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (libuv loop; tree building runs on the loop's thread pool).
 *
 * Tier 2: wheels unpacked (entries), their bytecode, and environments merged from both.
 *
 *   DIR/wheels/<sha256>/               sources of one wheel, for all interpreters
 *   DIR/bytecode/<sha256>-<tag>.<n>/   its bytecode for one interpreter: 0, what a first import
 *                                      will load; 1, the rest of a larger wheel
 *   DIR/envs/<lock hash>/              one environment laid out as a virtual environment, made of
 *                                      hard links; always mounted at JAIL_ENV
 *   DIR/late/<lock hash>               it lacks some bytecode, which is added in time
 *   DIR/facts/<kind>.<name>            the object is whole and on disk; modified: last used
 *   DIR/tmp/<daemon>/                  what is being built; goes with the daemon that made it
 *
 * Objects are built by a job (jail/job.h) into tmp, checked, renamed, and never changed then; only
 * an environment gets links to bytecode files that it lacked. A crash leaves only DIR/tmp. Files
 * belong to the store's id and are readable by all. Several daemons may share DIR.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "index/index.h"
#include "index/lock.h"
#include "jail/job.h"

struct store;

/* The interpreter that an entry's bytecode and an environment's layout are for. */
struct store_python {
	const char *path;      /* absolute, as it is inside sandboxes */
	const char *prefix;    /* shown inside sandboxes */
	const char *cache_tag; /* "cpython-311" */
	const char *version;   /* "3.11" */
};

struct store_env {
	const char *path; /* as the daemon sees it; stays valid until store_close() */
	const char *site; /* "lib/python3.11/site-packages" */
};

typedef void (*store_env_fn)(void *arg, const struct store_env *env, const struct err *err);

/* What the store asks of those who use it. Loop. */
struct store_asks {
	/* Does anything that lives, or a deployed function, need the environment at this path? */
	bool (*in_use)(void *ctx, const char *env_path);
	/* Append the modules of a dist that were seen loading, one a line: those of another version
	 * when nothing is known of this one. Is it this one? */
	bool (*loads)(void *ctx, const char *dist, const char *version, struct buf *out);
	void *ctx;
};

struct store_config {
	const char *dir;
	struct jail *jail;
	struct index *index;		  /* wheels come from here */
	const char *const *accept_record; /* dists whose RECORD is not compared; NULL-terminated */
	bool strict;			  /* two dists, one path, other bytes: an error */
	const char *downloads;		  /* where room index keeps wheels: pruned, too */
	uint64_t budget_bytes;		  /* of tiers 1 and 2; 0: a fifth of the file system */
};

warn_unused int store_open(uv_loop_t *loop, const struct store_config *config, struct store **out,
			   struct err *err);
void store_close(struct store *store);
/* Is something being fetched, installed or compiled? */
bool store_is_busy(const struct store *store);

/* Who is asked; until then no environment is pruned. */
void store_ask(struct store *store, const struct store_asks *asks);
/* The environments that deployed functions of this owner (a name for its state) need, by lock
 * hash, NULL-terminated: they stay while no daemon runs, too. */
warn_unused int store_keep(struct store *store, const char *owner, const char *const *hashes,
			   struct err *err);

/* For a person, as JSON text (docs/API.md); text is NULL on failure. */
typedef void (*store_text_fn)(void *arg, const char *text, const struct err *err);
struct store_prune {
	uint64_t to_bytes; /* UINT64_MAX: no bound */
	double older_s;	   /* what was not used for so long goes; 0: no bound */
};
void store_list(struct store *store, store_text_fn done, void *arg);
void store_prune(struct store *store, const struct store_prune *ask, store_text_fn done, void *arg);
/* Compare every file with what it should be; nothing is changed. */
void store_verify(struct store *store, store_text_fn done, void *arg);

/* The environment of a lock if it is ready now (one stat or less), else NULL. NULL, too, when
 * store_make_env() must be called once to go on with what an earlier daemon left undone. */
const struct store_env *store_find_env(struct store *store, const struct lock *lock);

/* Fetch, install and merge what is missing; done is called once, maybe before this returns. One
 * installation per wheel and one merge per lock however many ask. The interpreter's cache tag
 * must be the lock's python_tag. The environment is complete but for bytecode that a first import
 * is not likely to load: that follows in the background. */
void store_make_env(struct store *store, const struct lock *lock, const struct store_python *python,
		    index_progress_fn progress, store_env_fn done, void *arg);

/* Nothing prunes the lock's environment, nor what it is made of, until as many calls with false. */
void store_hold(struct store *store, const struct lock *lock, bool hold);

/* Which dist (an index into lock->dists) owns a file of the environment? path is relative to the
 * environment ("lib/python3.11/site-packages/numpy/__init__.py"). -1 when none. */
int store_owner(struct store *store, const struct lock *lock, const char *path);

/* Does a dist of this lock provide the importable top-level name, or the entry-point group? Used
 * for "absent things asked for" (DESIGN 3.4). */
bool store_provides_module(struct store *store, const struct lock *lock, const char *top_level);
bool store_provides_group(struct store *store, const struct lock *lock, const char *group);
/* Names that a dist (an index into lock->dists) tells: "requires", those in its Requires-Dist
 * lines, markers not asked; "top_level", what can be imported of it. */
void store_names(struct store *store, const struct lock *lock, size_t dist, const char *list,
		 void (*each)(void *ctx, const char *name), void *ctx);
