/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (libuv loop; nothing here blocks it for more than a millisecond).
 *
 * Tier 1: what the package indexes said, kept on disk. Index pages, metadata and wheels are fetched
 * once and found again by URL and sha256. Also feeds the resolver, which runs in a sandboxed
 * process and asks for pages and metadata over its stream (messages NEED and GIVE).
 *
 * The index, credentials and certificates come from pip's configuration and environment; pip's
 * own default is asked out of pip's wheel. No index host is written here.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "index/lock.h"

struct index;
struct jail;
struct sdist;

/* How the index room gets a resolver process. The daemon wires this to the zygote room:
 * start one forked resolver; when it is ready, call ready(arg, stream descriptor or -1, err). It is
 * not needed for more than patience_ms.
 * The index room owns the descriptor then (a SOCK_STREAM of wire frames); closing it ends the
 * process. */
typedef void (*index_resolver_ready_fn)(void *arg, int stream, const struct err *err);
struct index_resolver_source {
	void (*start)(void *ctx, uint64_t patience_ms, index_resolver_ready_fn ready, void *arg);
	void *ctx;
};

/* The interpreter that a build is for. */
struct index_python {
	const char *path, *prefix, *cache_tag, *version; /* as store.h has them */
};
/* path: of the environment, valid until it is dropped; NULL on failure. */
typedef void (*index_env_fn)(void *arg, const char *path, const struct err *err);
/* A line for a person: "resolving pandas", "downloading numpy 2.4.6 (16.4 MB)". */
typedef void (*index_progress_fn)(void *arg, const char *line);

/* How sdists are built (sdist.c): in jobs, in environments that the daemon has the store make. */
struct index_builds {
	struct jail *jail; /* NULL: they cannot be built */
	/* done is called once, maybe before this returns; a success is kept until drop_env(). */
	void (*make_env)(void *ctx, const struct lock *lock, const struct index_python *python,
			 index_progress_fn progress, index_env_fn done, void *arg);
	void (*drop_env)(void *ctx, const struct lock *lock);
	void *ctx;
	bool always;		   /* every request may build, not only those that say so */
	uint64_t memory_bytes, ms; /* of one build; 0: LIMIT_BUILD_* */
};

struct index_config {
	const char *cache_dir; /* tier 1 lives below: created when missing */
	/* JSON of python/pipconf.py, run by who starts the daemon (which itself never forks); NULL:
	 * then each request must carry its own. */
	const char *pip_settings;
	struct index_resolver_source resolver;
	struct index_builds builds;
};

/* A wheel of the caller's that index_take() has taken into the cache. */
struct index_local {
	char *path; /* where it was; absolute */
	char sha256[65];
	uint64_t size_bytes;
};

/* What to resolve. Everything is text that the client sent; NULL when absent. */
struct index_request {
	const char *const *with;  /* requirement lines, NULL-terminated; or NULL */
	const char *requirements; /* text of a requirements.txt */
	const char *pep723;	  /* the TOML of a script block, comment marks removed */
	const char *pyproject;	  /* text of a pyproject.toml */
	const char *pylock;	  /* text of a pylock.toml */
	/* JSON object, what else python/resolver_files.py reads: requirements, pyproject, pylock
	 * and their names (KEY_name), files, wheels, groups, extras, links, extra_indexes,
	 * exclude_newer, pre, allow_sdist, uv_lock, root; and how it is to be installed:
	 * accept_record, strict */
	const char *inputs;
	const char *index_url;	  /* overrides pip's configured index */
	const char *python_info;  /* JSON about the target interpreter: see python/pyinfo.py */
	const char *pip_settings; /* of this caller; NULL: the daemon's own */
	bool wheels; /* they will be wanted: begin to fetch one as soon as it is likely */
	const struct index_local *locals; /* of the wheels in inputs; no part of the key */
	size_t nlocals;
	bool offline; /* the network is not asked; no part of the key */
	bool refresh; /* pages are asked for again, however new; no part of the key */
	/* These are the requirements of its build: settings are its own. NULL: they are a user's.
	 */
	const struct sdist *build;
};

/* lock is the callee's to keep (lock_free) and NULL on failure; then err says why. */
typedef void (*index_lock_fn)(void *arg, struct lock *lock, const struct err *err);
/* path of the checked wheel in the cache; NULL on failure. */
typedef void (*index_wheel_fn)(void *arg, const char *path, const struct err *err);

warn_unused int index_open(uv_loop_t *loop, const struct index_config *config, struct index **out,
			   struct err *err);
void index_close(struct index *index); /* outstanding callbacks get ERR_SYSTEM "shutting down" */

/* A hex sha256 over everything in the request that can change the answer; the key under which
 * the daemon keeps the lock, so that a second run costs one look-up. out has 65 bytes. */
void index_request_key(const struct index_request *request, char *out);

/* The lock is known from before: its wheels are to come as this request says. */
void index_use(struct index *index, const struct index_request *request, const struct lock *lock);

/* Can all of the lock's wheels be had? Those that were built here are in the cache only, and built
 * anew by resolving again. */
bool index_has_built(const struct index *index, const struct lock *lock);

/* Is an sdist being looked at or built? */
bool index_is_busy(const struct index *index);

/* Kept answers of indexes go, the least recently used first, until they are no more than to_bytes;
 * with 0 so do broken off downloads. They are kept below LIMIT_ANSWERS_BYTES without being asked.
 * done is never called before this returns. */
typedef void (*index_trimmed_fn)(void *arg, const struct err *err);
void index_trim(struct index *index, uint64_t to_bytes, index_trimmed_fn done, void *arg);

/* Resolve. progress may be NULL. done is called once, maybe before this returns (when the source
 * of resolvers fails at once); the request's strings are copied. Kinds of error: ERR_USAGE
 * (malformed input, no settings), ERR_NOT_FOUND (no such package, no wheel that fits),
 * ERR_CONFLICT, ERR_UPSTREAM, ERR_DENIED, ERR_TIMEOUT, ERR_LIMIT, ERR_CORRUPT (a lie was caught),
 * ERR_DIED (the resolver ended). */
void index_resolve(struct index *index, const struct index_request *request,
		   index_progress_fn progress, index_lock_fn done, void *arg);

/* Take a wheel that the caller has as a descriptor (which is borrowed until done) into the cache.
 * done is never called before this returns. */
typedef void (*index_local_fn)(void *arg, const struct index_local *local, const struct err *err);
void index_take(struct index *index, const char *path, int fd, index_local_fn done, void *arg);

/* Have the wheel in the cache, sha256 checked; one download however many ask. done is never called
 * before this returns. Credentials and certificates are those of the last index_resolve(). */
void index_fetch(struct index *index, const struct lock_dist *dist, index_progress_fn progress,
		 index_wheel_fn done, void *arg);
