/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the starter.
 *
 * The daemon's command line: one table makes the struct, the parser and --help.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define OPTION_PYTHONS 8
#define OPTION_DISTS 64

struct options {
	char *cache;			  /* instead of the usual place */
	char *dir;			  /* everything below one directory */
	char *tree;			  /* a file, to start with */
	char *listen;			  /* HOST:PORT for calls by TCP */
	char *python[OPTION_PYTHONS + 1]; /* the first is the default; NULL-terminated */
	char *prefix[OPTION_PYTHONS + 1]; /* parallel: two levels above */
	uint64_t memory_bytes;		  /* budget for sleeping and warm processes */
	uint64_t cache_bytes;		  /* budget of tiers 1 and 2; 0: a fifth of the disk */
	char *accept_record[OPTION_DISTS + 1];
	bool no_tree; /* only roots sleep */
	bool strict;  /* about this host */
	bool strict_packages;
	bool allow_sdist;	     /* every request may build */
	uint64_t build_memory_bytes; /* 0: LIMIT_BUILD_MEMORY_BYTES */
	uint64_t build_s;	     /* 0: LIMIT_BUILD_MS */
	uint64_t idle_s;	     /* exit after idling; 0: never */
	uint64_t root_age_s;	     /* roots are made anew when so old; 0: never */
	char *lib;		     /* our own files for sandboxes */
	bool verbose, help, version;
	char *state_dir, *cache_dir, *run_dir; /* what follows from dir, user and environment */
};

/* 0, or -1 with ERR_USAGE. argv is not changed; strings are copies. */
warn_unused int options_parse(struct options *o, int argc, char *const *argv, struct err *err);
void options_done(struct options *o);
void options_help(void); /* to standard output */
