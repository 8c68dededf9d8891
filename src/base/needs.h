/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line; daemon (for what was deployed).
 *
 * What texts of requirements refer to beyond themselves, so that the resolver (which has no files)
 * can be given it: files that others name (-r, -c), wheels and sdists by path, and variables
 * ${NAME}. Finds rather too much than too little, for what a line means is judged by
 * python/resolver_files.py; the two agree on names: a file is called by the naming file's
 * directory, a slash, and what is written there, with nothing made shorter.
 */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"

struct needs {
	void *ctx;
	/* A descriptor to read, or -1: it cannot be opened, errno says why. */
	int (*open)(void *ctx, const char *path);
	const char *(*variable)(void *ctx, const char *name); /* NULL: not set */
	/* A file that another one names; text as needs_text() leaves it. */
	int (*file)(void *ctx, const char *path, const char *text, struct err *err);
	/* A wheel or sdist; takes fd. */
	int (*wheel)(void *ctx, const char *path, int fd, struct err *err);
	char **seen; /* kept here: what was given already; NULL-terminated */
	unsigned nseen;
};

void needs_done(struct needs *n);

/* A requirements file as it was read becomes UTF-8 (by its byte order mark or coding line, as pip
 * has it) with variables replaced, and what it names is given. ERR_USAGE, ERR_LIMIT. */
warn_unused int needs_requirements(struct needs *n, const char *path, struct buf *text,
				   struct err *err);
/* The wheels and sdists that a TOML text (pyproject.toml, pylock.toml, a script's block) names. */
warn_unused int needs_toml(struct needs *n, const char *path, const char *text, struct err *err);
/* ... that a requirement of the command line names. */
warn_unused int needs_word(struct needs *n, const char *word, struct err *err);
