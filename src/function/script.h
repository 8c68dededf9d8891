/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * A copy of a run request that outlives functions_run(), its checks, and what follows from it: the
 * key of its profile, the names its own directory shadows. The life of a run is in script.c.
 */
#pragma once

#include "function/function.h"
#include "index/index.h"
#include "index/lock.h"

struct script {
	struct run_request r; /* every string, list and descriptor of it is owned */
};

/* ERR_USAGE, ERR_DENIED or ERR_LIMIT with what to do about it. */
warn_unused int script_check(const struct run_request *r, struct err *err);
warn_unused int script_copy(struct script *s, const struct run_request *r, struct err *err);
void script_done(struct script *s);
/* What names the script among scripts: kind, code or path, and its lock. Free it. */
char *script_key(const struct script *s, const struct lock *lock);
/* Descriptor of the directory at the front of its sys.path; -1: none, or not ours to read. */
int script_open_dir(const struct script *s);
void script_index_request(const struct script *s, const char *python_info,
			  struct index_request *out);
bool script_has_flag(const struct script *s, const char *word);
