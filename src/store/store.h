/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (libuv loop; tree building runs on the loop's thread pool).
 *
 * Tier 2: wheels unpacked with bytecode (entries), and environments merged from them.
 *
 *   DIR/wheels/<sha256>-<cache tag>/   one entry, never changed once its name is there
 *   DIR/envs/<lock hash>/              one environment laid out as a virtual environment, made of
 *                                      hard links into the entries; always mounted at JAIL_ENV
 *   DIR/tmp/                           what is being built; emptied at open
 *
 * An entry is built by an installer job (jail/job.h) into DIR/tmp, checked, synced (one syncfs)
 * and renamed. A crash leaves only DIR/tmp. Files belong to the store's id and are readable by all.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

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

struct store_config {
	const char *dir;
	struct jail *jail;
	struct index *index; /* wheels come from here */
};

warn_unused int store_open(uv_loop_t *loop, const struct store_config *config, struct store **out,
			   struct err *err);
void store_close(struct store *store);

/* The environment of a lock if it is ready now (one stat or less), else NULL. */
const struct store_env *store_find_env(struct store *store, const struct lock *lock);

/* Fetch, install and merge what is missing; done is called once, maybe before this returns. One
 * installation per wheel and one merge per lock however many ask. The interpreter's cache tag
 * must be the lock's python_tag. */
void store_make_env(struct store *store, const struct lock *lock, const struct store_python *python,
		    index_progress_fn progress, store_env_fn done, void *arg);

/* Which dist (an index into lock->dists) owns a file of the environment? path is relative to the
 * environment ("lib/python3.11/site-packages/numpy/__init__.py"). -1 when none. */
int store_owner(struct store *store, const struct lock *lock, const char *path);

/* Does a dist of this lock provide the importable top-level name, or the entry-point group? Used
 * for "absent things asked for" (DESIGN 3.4). */
bool store_provides_module(struct store *store, const struct lock *lock, const char *top_level);
bool store_provides_group(struct store *store, const struct lock *lock, const char *group);
