/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon. Private to the room.
 */
#pragma once

#include <jansson.h>

#include "base/mem.h"
#include "store/store.h"

struct entry_work; /* entry.c: one wheel on its way into the store */
struct env_work;   /* env.c: one environment on its way */

/* An environment that is ready: its facts, cached. */
struct env {
	struct env *next;
	char hash[65];
	char *path, *site;
	struct store_env pub;
	json_t **manifests; /* by dist of the lock; loaded when first asked for */
	size_t ndists;
	struct owned {
		char *path; /* relative to the environment */
		int dist;
	} * files; /* sorted; NULL until asked for */
	size_t nfiles;
	uint64_t used; /* for the bound on loaded manifests */
};

struct store {
	uv_loop_t *loop;
	struct jail *jail;
	struct index *index;
	char *dir, *tmp; /* tmp: this daemon's own directory below DIR/tmp */
	int tmp_lock;
	uint64_t counter;
	struct entry_work *entries; /* in work */
	struct env_work *envs;	    /* in work */
	struct env *ready;
	uint64_t clock;
	int installers; /* running */
	bool closing;
};

char *store_entry_path(const struct store *s, const char *sha256, const char *tag);
char *store_env_path(const struct store *s, const char *hash);
/* A name below this daemon's tmp that was never used. */
char *store_tmp_name(struct store *s);
/* sync what is below path to disk, then rename; an existing target is success, ours is dropped. */
warn_unused int store_publish(const char *from, const char *to, bool durable, struct err *err);
struct env *store_ready_env(struct store *s, const struct lock *lock, const char *version);

/* entry.c. done is called later or at once; err NULL: the entry is there. */
typedef void (*entry_fn)(void *arg, const struct err *err);
void entry_make(struct store *s, const struct lock_dist *dist, const struct store_python *python,
		index_progress_fn progress, entry_fn done, void *arg);
void entry_close(struct store *s);

/* merge.c: on the thread pool; touches nothing but the disk and its arguments. */
struct merge {
	char *out;	/* directory to make */
	char **entries; /* paths, in the lock's order */
	char **names;	/* of dists, for warnings */
	size_t n;
	char *python, *version, *tag;
	struct buf warnings; /* lines */
};
warn_unused int merge_run(struct merge *m, struct err *err);
