/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (blocks for the length of a small SQLite statement; never on a call's path).
 *
 * What survives the daemon: functions, locks, profiles, what interpreters are. SQLite in WAL mode
 * with synchronous=NORMAL: after kill -9 every committed row is there; after a power cut the last
 * rows may be missing, never half.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct state;

warn_unused int state_open(const char *path, struct state **out, struct err *err);
void state_close(struct state *s);

struct state_function {
	const char *name;
	uint32_t version;
	const char *python, *prefix;
	const char *lock;     /* JSON */
	const char *settings; /* JSON, see function/settings.h */
	double deployed;      /* seconds since the epoch */
};
/* One transaction: the new version is the function's from here on. */
warn_unused int state_put_function(struct state *s, const struct state_function *fn,
				   struct err *err);
warn_unused int state_remove_function(struct state *s, const char *name, struct err *err);
/* each() gets borrowed strings. */
warn_unused int state_each_function(struct state *s,
				    void (*each)(void *ctx, const struct state_function *fn),
				    void *ctx, struct err *err);

/* Things that can be made again, by key. stamp must be equal for a hit (a file's mtime, or 0). */
#define STATE_LOCK "lock"	/* key: index_request_key */
#define STATE_PROFILE "profile" /* key: of a subject */
#define STATE_LOADS "loads"	/* key: "NAME VERSION" of a dist; see loads.c */
#define STATE_INTERP "interp"	/* key: path; stamp: mtime in ns */
#define STATE_DEMAND "demand"	/* key: "all"; see demand.c */
/* 1 found (JSON appended to out), 0 not there, -1 error. */
warn_unused int state_get(struct state *s, const char *kind, const char *key, int64_t stamp,
			  struct buf *out, struct err *err);
/* The newest whose key is "WORD " and more. */
warn_unused int state_get_near(struct state *s, const char *kind, const char *word, struct buf *out,
			       struct err *err);
/* Of all kinds LIMIT_FACTS and LIMIT_FACTS_BYTES are kept, those that were written last. */
warn_unused int state_put(struct state *s, const char *kind, const char *key, int64_t stamp,
			  const char *json, struct err *err);
