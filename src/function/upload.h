/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon; upload_unpack() on a thread of libuv's pool (it blocks), the rest on the loop.
 *
 * An uploaded function: a zip file from outside becomes a directory, and what it asks for is found.
 */
#pragma once

#include <stddef.h>

#include "base/err.h"
#include "function/function.h"
#include "function/settings.h"

/* Unpack into dir, which must not exist. Refused: absolute paths, "..", symbolic links and other
 * special members, duplicates, more than LIMIT_APP_FILES members or LIMIT_APP_BYTES unpacked.
 * Files are readable by all (the directory is mounted, read-only, for other ids). Synced to disk.
 * On failure dir may be there half-made: the caller removes it. */
warn_unused int upload_unpack(const void *zip, size_t len, const char *dir, struct err *err);

/* What the directory asks for: inputs as index/index.h has them (JSON), and the wheels in the
 * directory that it names, open. The first that is there of pylock.pipsqueak.toml, pylock.toml,
 * requirements.txt, pyproject.toml, the only script's PEP 723 block; none: inputs is NULL.
 * options: struct function_upload's. */
struct upload_needs {
	char *inputs;
	struct run_wheel wheels[LIMIT_LOCAL_WHEELS];
	size_t nwheels;
};
warn_unused int upload_find_needs(const char *dir, const char *options, struct upload_needs *out,
				  struct err *err);
/* The name of the only .py file of the directory, or NULL. Free it. */
char *upload_only_script(int dirfd);
void upload_needs_done(struct upload_needs *n);

/* The TOML of a script's PEP 723 block with its comment marks removed; NULL when it has none. */
warn_unused int upload_pep723(const char *script, char **out, struct err *err);

/* Check settings' entry, or fill it by convention: lambda_function.lambda_handler, handler.handler,
 * main.handler, f.f, or the only .py file's `handler`. Existence of the file is what is checked. */
warn_unused int upload_find_entry(const char *dir, struct function_settings *s, struct err *err);

/* Names that a directory on sys.path makes importable, NULL-terminated: modules and packages (which
 * shadow), and with a leading "~" directories without __init__.py (which only fill gaps). Looks at
 * LIMIT_OWN_NAMES entries. A directory that cannot be read has none. */
char **upload_own_names(int dirfd);
void upload_names_free(char **names);
