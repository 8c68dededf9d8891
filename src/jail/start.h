/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the starter, which becomes the daemon.
 *
 * The start-up of DESIGN section 3: one path for root, for a user with subordinate ids and for a
 * user without. Afterwards this process is id 0 of a user namespace of its own, nobody on the
 * host (root) or the plain user (user), with mounts of its own, and has two helpers: the cell maker
 * and, where there are cgroups, the keeper. Call it first in main(), before any thread exists.
 */
#pragma once

#include "base/err.h"

struct jail_start;

struct jail_start_config {
	const char *state_dir, *cache_dir, *run_dir; /* on the host; created when missing, 0700 */
	const char *lib_dir; /* our helper programs, extension and bootstrap */
	const char *const
		*prefixes; /* interpreters to show, NULL-terminated; /usr is always there */
};

/* The directories as the daemon sees them afterwards (they may lie elsewhere on the host). */
struct jail_paths {
	const char *state, *cache, *run, *lib;
};

warn_unused int jail_start(const struct jail_start_config *config, struct jail_start **out,
			   struct err *err);
const struct jail_paths *jail_start_paths(const struct jail_start *start);
