/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line.
 *
 * What is required, gathered for the daemon, which cannot read the caller's files: texts as JSON
 * (see index/index.h), wheels as descriptors.
 */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "base/limits.h"

#define CLI_WORDS 64

struct words {
	const char *v[CLI_WORDS];
	int n;
};

/* The flags that say what is required; of `run`, `lock` and `deploy`. */
struct required {
	struct words with, groups, extras, links, extra_indexes, indexes, accept;
	const char *requirements_file, *index_url, *python, *exclude_newer;
	bool upgrade, offline, pre, allow_sdist, strict;
};
/* argv[*i] and maybe the next: 1 taken (*i moves on), 0 not one of them, 2 bad usage (told). */
int required_flag(const char *verb, struct required *r, int argc, char **argv, int *i);

struct inputs_from {
	const struct required *required;
	const char *dir;    /* a project's directory, or NULL */
	const char *script; /* its name and PEP 723 block, or NULL */
	const char *pep723;
	bool no_locks; /* a pylock.toml of the directory does not count */
};

struct inputs {
	char *json; /* NULL: nothing beyond --with and the script's block */
	bool any;   /* something is required here */
	struct {
		char *path; /* absolute */
		int fd;
	} wheels[LIMIT_LOCAL_WHEELS];
	int nwheels;
};
warn_unused int inputs_gather(const struct inputs_from *from, struct inputs *out, struct err *err);
void inputs_done(struct inputs *in);

/* What `deploy` says of its options: one line of JSON for a header. dir: whose files may name
 * variables. */
warn_unused int inputs_options(const struct required *r, const char *dir, char **out,
			       struct err *err);
