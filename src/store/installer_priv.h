/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the installer (pipsqueak-install), one short-lived sandboxed process per wheel.
 *
 * It parses what may be an attacker's file. It can write to its output directory only, and the
 * daemon looks at the result from outside before it is used.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zip.h>

#include "base/buf.h"
#include "base/err.h"

struct member {
	char *name; /* as in the zip; no directory entries */
	uint64_t index, size, packed;
	uint32_t crc;
	uint16_t method; /* ZIP_CM_STORE or ZIP_CM_DEFLATE */
	bool executable;
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
	struct buf metadata;
	bool lax; /* the user vouches for this dist: what RECORD says is not compared */
	/* Sets, as JSON objects: what `import x` could find in it, and the modules of others that
	 * its own import; made by unpack_all(). */
	json_t *top_level, *imports;
};

/* wheel.c: what may be in a wheel. Checks everything but the hashes. */
warn_unused int wheel_open(const char *path, bool lax, struct wheel *out, struct err *err);
void wheel_done(struct wheel *w);
warn_unused int wheel_read(struct wheel *w, const char *member, struct buf *out, struct err *err);
const struct member *wheel_member(const struct wheel *w, const char *name);
/* No absolute path, no "..", nothing odd; ERR_CORRUPT with the reason. */
warn_unused int wheel_check_path(const char *path, struct err *err);

/* record.c: RECORD vouches for every member and names none that is not there. */
warn_unused int record_parse(struct wheel *w, char *text, struct err *err);
warn_unused int record_check(struct wheel *w, struct err *err);
const struct record *record_find(const struct wheel *w, const char *path);
/* Does data hash to what r says? */
warn_unused int record_compare(const struct record *r, const unsigned char *digest, size_t len,
			       struct err *err);

/* identity.c: file name, dist-info, METADATA and WHEEL speak of one dist. */
warn_unused int identity_check(struct wheel *w, const char *path, struct err *err);
/* The value of the n-th header of that name, or NULL; the caller frees. */
char *identity_header(const char *text, const char *name, size_t n);
/* PEP 503, in place. */
void identity_normalize(char *name);
/* PEP 440: equal versions give equal texts; the caller frees. */
char *identity_version(const char *text);

/* unpack.c: every member below out, hashes compared before it is written. */
warn_unused int unpack_all(struct wheel *w, int out_dir, struct err *err);
/* Where a member goes below out: "site/numpy/__init__.py"; NULL: of no known scheme. The caller
 * frees. */
char *unpack_place(const struct wheel *w, const char *member);

/* verify.c: is the entry below dir what its RECORD says, no file less and none more? */
warn_unused int verify_entry(int dir, struct err *err);

/* imports.c: add the modules that a source imports but those of its own wheel. */
struct imports {
	json_t *own, *names; /* sets */
};
void imports_read(struct imports *to, const char *text, size_t len);

/* manifest.c: what the daemon needs to know of an entry without looking at its files. */
warn_unused int manifest_write(struct wheel *w, int out_dir, struct err *err);
/* What `import x` could find: directories and modules at the top of site. */
json_t *manifest_top_level(const struct wheel *w);
