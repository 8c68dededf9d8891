/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (any thread). Private to the room.
 *
 * An index page made small. One line a file; that of a wheel or sdist is
 *     FILENAME \t URL \t SHA256 \t SIZE \t REQUIRES-PYTHON \t YANKED \t CORE \t UPLOADED \n
 * (SHA256 may be empty, SIZE 0, YANKED 0 or 1, CORE empty, "1", or the sha256 of the metadata
 * file, UPLOADED empty or a time as ISO 8601 has it), any other file's line is its name alone.
 * Pages are from outside: a line that would break the format, or a URL that is not http, https or
 * file, is left out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "index/tags.h"

struct digest_file {
	const char *filename, *url;				/* url: absolute */
	const char *sha256, *requires_python, *core, *uploaded; /* NULL: not said */
	unsigned long long size;
	bool yanked;
};

warn_unused int digest_add(struct buf *out, const struct digest_file *file, struct err *err);
/* An URL as a page has it, made absolute, without what a lock must not hold; NULL: of no use. */
char *digest_url(const char *base, const char *url);
/* A path as a file:// URL, and back; NULL: it is none. */
char *digest_file_url(const char *path);
char *digest_file_path(const char *url);
/* PEP 792, after the last file. What it means for a person, or NULL: nothing was said. */
warn_unused int digest_set_status(struct buf *out, const char *status, const char *reason,
				  struct err *err);
char *digest_status(const struct buf *digest, const char *name);

struct digest_page {
	const char *url;	  /* where the page is, for relative links */
	const char *content_type; /* decides between JSON and HTML; NULL: by its first byte */
	const char *text;
	size_t len;
};
/* page_json.c: the JSON form alone. */
warn_unused int page_json_parse(const struct digest_page *page, struct buf *out, struct err *err);
warn_unused int digest_parse(const struct digest_page *page, struct buf *out, struct err *err);

/* What the resolver gets: lines of the dist `name` only; at the end "wheels=N other=M", before it
 * for each wheel that fits "VERSION \t RANK \t BUILD \t line". */
struct digest_want {
	const char *name;
	const struct tags *tags;
	bool all;    /* every file's name is given too, one a line, no tab */
	bool sdists; /* given, too, with the rank DIGEST_SDIST_RANK: behind every wheel */
};
#define DIGEST_SDIST_RANK 1000000
warn_unused int digest_filter(const struct buf *digest, const struct digest_want *want,
			      struct buf *out);

/* One wheel's line out of a filtered digest, its fields as copies; false: no such line. */
struct digest_line {
	char *filename, *url, *sha256, *core;
	unsigned long long size;
};
bool digest_find(const struct buf *filtered, const char *url, struct digest_line *out);
void digest_line_done(struct digest_line *line);
