/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * A lock: the exact wheels that a set of requirements resolved to, for one interpreter.
 * dists are sorted by name, so two equal sets give equal hashes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct lock_dist {
	char *name;	     /* normalized (PEP 503) */
	char *version;	     /* PEP 440, as the wheel's file name has it */
	char *filename;	     /* of the wheel */
	char *url;	     /* where it was found, without credentials */
	char sha256[65];     /* hex */
	uint64_t size_bytes; /* 0: the index did not say */
	/* What the wheel was built of here; NULL: it is one of the index. Then url is the sdist's.
	 */
	char *sdist; /* file name */
	char sdist_sha256[65];
	uint64_t sdist_bytes;
	bool lax; /* whoever asked vouches for the wheel, should its RECORD lie */
};

struct lock {
	char hash[65];	  /* sha256 hex over python tag, every name, version, sha256, and rules */
	char *python_tag; /* cache tag, e.g. "cpython-311" */
	struct lock_dist *dists;
	size_t ndists;
	bool strict; /* a rule: two dists, one path, other bytes are an error */
};

struct lock *lock_new(const char *python_tag);
void lock_free(struct lock *lock);
struct lock *lock_copy(const struct lock *lock);
/* Append; takes copies. */
void lock_add(struct lock *lock, const struct lock_dist *dist);
/* Sort and compute the hash; call once after the last lock_add(). */
void lock_seal(struct lock *lock);
/* How it is to be installed, by its names and no others; accept: NULL-terminated, or NULL. Seals it
 * anew: what was installed by other rules is another environment. */
void lock_set_rules(struct lock *lock, const char *const *accept, bool strict);
const struct lock_dist *lock_find(const struct lock *lock, const char *name);
/* JSON text, one object; parse checks everything (names, hex, sizes). */
warn_unused int lock_print(const struct lock *lock, struct buf *out, struct err *err);
/* pylock.toml (PEP 751); python_info: JSON of pyinfo.py, of the interpreter it is for. */
warn_unused int lock_print_pylock(const struct lock *lock, const char *python_info, struct buf *out,
				  struct err *err);
warn_unused int lock_parse(const char *json, size_t len, struct lock **out, struct err *err);
