/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (libuv loop). Private to the room.
 *
 * Sdists: their metadata, and the wheels that are built of them.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "index/private.h"

/* sdist.c */
struct sdist_want {
	struct wheel_want sdist;
	const char *name;	    /* of the dist */
	const char *sums;	    /* its sha256 must be one of these; NULL: any */
	bool build;		    /* else its metadata may come from PKG-INFO (PEP 643) */
	const struct asked *asked;  /* whose requirements bring it */
	const struct sdist *parent; /* it is needed to build this one, which waits; NULL: none */
	index_progress_fn progress; /* with the arg of done */
};
struct sdist_built {
	const struct buf *headers; /* of METADATA */
	char sha256[SHA_HEX];	   /* of the sdist */
	const char *filename;	   /* of the wheel, which is in the cache; NULL: not built */
	char wheel_sha256[SHA_HEX];
};
typedef void (*sdist_fn)(void *arg, const struct sdist_built *built, const struct err *err);
void sdist_get(struct index *index, const struct sdist_want *want, sdist_fn done, void *arg);
struct settings *sdist_settings(const struct sdist *s);

/* sdist_job.c: report and wheel are borrowed; report is an object of unknown contents, NULL on
 * failure. */
struct sdist_job_spec {
	const char *archive;	  /* path in the cache */
	const char *plan;	  /* NULL: only look */
	const char *env, *prefix; /* of a build */
};
typedef void (*sdist_job_fn)(void *arg, json_t *report, int wheel, const struct err *err);
warn_unused int sdist_job_start(struct index *index, const struct sdist_job_spec *spec,
				sdist_job_fn done, void *arg, struct err *err);
