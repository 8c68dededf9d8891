/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the installer (pipsqueak-install), one short-lived sandboxed process per wheel.
 *
 * It parses what may be an attacker's file. It can write to its output directory only, and the
 * daemon looks at the result from outside before it is used.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zip.h>

#include "base/buf.h"
#include "base/err.h"

struct member {
	char *name; /* as in the zip; no directory entries */
	uint64_t index, size;
	bool executable, seen; /* seen: RECORD names it */
};

struct record {
	char *path;
	char algorithm[8]; /* "sha256"; empty: no hash given */
	char hash[128];	   /* base64url without padding */
};

struct wheel {
	zip_t *zip;
	struct member *members; /* sorted by name */
	size_t nmembers;
	struct record *records; /* sorted by path */
	size_t nrecords;
	char *dist_info;      /* "numpy-2.4.6.dist-info" */
	char *data_dir;	      /* "numpy-2.4.6.data/" */
	char *name, *version; /* from METADATA */
};

/* wheel.c: what may be in a wheel. Checks everything but the hashes. */
warn_unused int wheel_open(const char *path, struct wheel *out, struct err *err);
void wheel_done(struct wheel *w);
warn_unused int wheel_read(struct wheel *w, const char *member, struct buf *out, struct err *err);
const struct record *wheel_record(const struct wheel *w, const char *path);
/* No absolute path, no "..", nothing odd; ERR_CORRUPT with the reason. */
warn_unused int wheel_check_path(const char *path, struct err *err);

/* unpack.c: every member below out, hashes compared while writing. */
warn_unused int unpack_all(struct wheel *w, int out_dir, struct err *err);
/* Where a member goes below out: "site/numpy/__init__.py"; the caller frees. */
char *unpack_place(const struct wheel *w, const char *member);

/* manifest.c: what the daemon needs to know of an entry without looking at its files. */
warn_unused int manifest_write(struct wheel *w, int out_dir, struct err *err);
