/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (libuv loop). Private to the room.
 *
 * The parts of the room and what they ask of each other:
 *     resolve.c  feeds one resolver process       -> sources.c, meta.c
 *     sources.c  a name asked of every index	     -> page.c
 *     page.c     index pages, cached and filtered -> fetch.c, digest.c
 *     meta.c     METADATA of one wheel            -> fetch.c, zip.c, wheel.c
 *     wheel.c    whole wheels and sdists, checked -> fetch.c
 *     sdist.c    an sdist's metadata and wheel    -> wheel.c, sdist_job.c, resolve.c
 * Every call here calls its callback exactly once, never before it returns.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"
#include "index/fetch.h"
#include "index/index.h"
#include "index/settings.h"
#include "index/sha.h"
#include "index/tags.h"

/* With whose settings a wheel was found. */
struct index_source {
	char sha256[SHA_HEX];
	struct settings *settings;
};

struct index {
	uv_loop_t *loop;
	int refs; /* the owner's, and one for each thing under way */
	bool closing;
	char *cache_dir;
	char *tmp; /* this daemon's own directory below the cache */
	int tmp_lock;
	unsigned char salt[16];
	struct fetcher *fetcher;
	struct settings *settings;	/* the daemon's own; NULL: none */
	struct settings *settings_last; /* of the last request: its wheels come with these */
	struct index_source sources[LIMIT_LOCK_DISTS]; /* a ring */
	size_t next_source;
	struct index_resolver_source resolver;
	struct index_builds builds;
	int sdists;		/* under way */
	int building;		/* jobs running: at most LIMIT_BUILDS */
	struct sdist *to_build; /* waiting for their turn */
	struct resolve *resolves;
	struct wheel_job *jobs;
	atomic_ulong put_bytes; /* answers kept since the last look at how much they are */
	bool trimmed;		/* there was one */
	uint64_t early_bytes;	/* of wheels that are fetched because they are likely */
	int downloads;		/* wheels being downloaded now: at most LIMIT_DOWNLOADS */
};

struct index *index_ref(struct index *index);
void index_unref(struct index *index);

/* The wheels of this lock are to be fetched with these settings. */
void index_remember(struct index *index, const struct lock *lock, struct settings *settings);

/* cache.c: files below cache_dir, which several daemons may share. */
warn_unused int cache_open(struct index *index, struct err *err);
void cache_close(struct index *index);
char *cache_path(const struct index *index, const char *kind, const char *name);
/* Write under a temporary name, then rename. */
warn_unused int cache_put(struct index *index, const char *path, const struct buf *data,
			  struct err *err);
/* A new temporary file open for writing; *out_path is to be freed. */
warn_unused int cache_temp(const struct index *index, char **out_path, struct err *err);

/* partial.c: a file that a download of this sum goes on in, locked until it is closed; -1: another
 * has it, or there is none. What is there must be summed, which leaves the position at its end. */
#define PARTIAL_WORTH ((off_t)MIB) /* less is not kept */
int partial_open(const struct index *index, const char *sha256, bool make, char **out_path);
warn_unused int partial_sum(int fd, struct sha *sum, uint64_t *out_bytes);
/* What is old, or too much: more than so many bytes in all. */
void partial_clean(const struct index *index, uint64_t to_bytes);

/* trim.c: when a resolution has ended. Keeps the answers of indexes below LIMIT_ANSWERS_BYTES. */
void trim_if_due(struct index *index);

/* Is it a file of ours and how old? -1: not there. */
double cache_age_s(const char *path);

/* A resolution or a download failed: pages that are in the cache now count as old for every daemon,
 * so that the next try sees what was put right. Any thread. */
void cache_distrust(const struct index *index);
bool cache_is_distrusted(const struct index *index, const char *path);

/* page.c */
struct page_want {
	const char *source;	 /* index URL; or, with links, a directory or the URL of a page */
	bool links;		 /* find-links: the page is not of one dist only */
	const char *name;	 /* normalized */
	const struct tags *tags; /* lives until the callback */
	bool all, sdists;	 /* see digest.h */
	struct settings *settings;
};
/* filtered: as digest_filter() leaves it, may be stolen; NULL without err: the index knows no such
 * dist. note: NULL or a line for a person. */
typedef void (*page_fn)(void *arg, struct buf *filtered, const char *note, const struct err *err);
void page_get(struct index *index, const struct page_want *want, page_fn done, void *arg);

/* sources.c: page_get() of every source in want->settings (want->source and links are not read).
 * note() may come any number of times before done(), whose own note is NULL. */
typedef void (*page_note_fn)(void *arg, const char *note);
void sources_get(struct index *index, const struct page_want *want, page_note_fn note, page_fn done,
		 void *arg);

/* wheel.c */
struct wheel_want {
	const char *url, *filename; /* url "": it was built here, and is in the cache or nowhere */
	const char *sha256;	    /* "": not known, it is computed */
	uint64_t size;		    /* 0: not known */
	struct settings *settings;
};
typedef void (*wheel_fn)(void *arg, const char *path, const char *sha256, const struct err *err);
void wheel_get(struct index *index, const struct wheel_want *want, index_progress_fn progress,
	       wheel_fn done, void *arg);
/* The wheel is likely to be wanted soon: begin, if there is room for such. */
void wheel_expect(struct index *index, const struct wheel_want *want);
void wheels_close(struct index *index);
/* Where the wheel is in the cache, whether it is there or not. */
char *wheel_path(const struct index *index, const char *sha256, const char *filename);

/* meta.c: the header lines of METADATA that matter. sha256: of the wheel, as far as known. */
struct meta_want {
	struct wheel_want wheel;
	const char *core;	    /* "": the index lists no metadata file; "1" or its sha256 */
	index_progress_fn progress; /* of a whole wheel, with the arg of done */
	bool whole; /* the wheel is wanted whatever its metadata says: have it summed first */
	bool early; /* it is not cached and likely to be the one: fetch the wheel too */
};
typedef void (*meta_fn)(void *arg, const struct buf *headers, const char *sha256,
			const struct err *err);
void meta_get(struct index *index, const struct meta_want *want, meta_fn done, void *arg);

/* clean.c */
struct clean {
	struct index_request q; /* points to what follows and into the original */
	char **with, *texts[8];
	size_t n;
};
void clean_request(struct clean *c, struct settings *s, const struct index_request *q);
void clean_done(struct clean *c);

/* asked.c */
struct asked {
	char *request; /* JSON for the resolver */
	char *text;    /* everything the caller wrote: URLs that stand in it may be asked for */
	char *python_info, *rules; /* for builds: the interpreter; inputs of their requests */
	bool allow_sdist;
	char **accept; /* dists whose wheels are vouched for; NULL-terminated, or NULL */
	bool strict;
	char *root; /* directories below it may be named, too; NULL: none */
	char *python_tag;
	struct index_local *locals;
	size_t nlocals;
};
/* a->allow_sdist as it was: allowed whatever the request says. */
warn_unused int asked_build(struct asked *a, const struct index_request *q, struct err *err);
void asked_done(struct asked *a); /* also of one that was not built */

/* offered.c: what the resolver may name. */
struct digest_line;
struct offered {
	const struct asked *asked;
	struct given *given; /* pages */
	struct known *known; /* sums that were computed */
};
void offered_done(struct offered *o);
void offered_page(struct offered *o, const char *name, struct buf *filtered); /* takes filtered */
void offered_sum(struct offered *o, const char *url, const char *filename, const char *sha256);
/* A file's line on a page that was given. */
bool offered_given(const struct offered *o, const char *name, const char *url,
		   struct digest_line *out);
/* An URL that the caller wrote, or a file of his: its name and, if known, its sha256. */
bool offered_written(const struct offered *o, const char *url, struct digest_line *out);
/* The first candidate of a name that the resolver looks into is nearly always the one. */
bool offered_is_likely(const struct offered *o, const char *name);
/* A directory for --find-links: written so, or below where the caller is. */
bool offered_place(const struct offered *o, const char *place);
/* Is this dist what an index offered, or what the caller wrote down, or built of that? */
bool offered_dist(const struct offered *o, const struct lock_dist *d);

/* resolve.c */
void resolves_close(struct index *index);
