/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * Cells, ids, cgroups: everything that needs a namespace. The daemon itself never forks: a
 * single-threaded cell maker does it (jail/maker.h), started before the daemon has threads.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"

struct jail;
struct jail_start; /* what the start-up made: see jail/start.h */

enum jail_mode {
	JAIL_ROOT,   /* started by root: a range of ids, the keeper on cgroup v1 */
	JAIL_SUBIDS, /* started by a user with subordinate ids */
	JAIL_ONE_ID, /* started by a user without: one id for everything */
};

#define JAIL_ID_STORE 1 /* owner of what installers write, where there is more than one id */
#define JAIL_OWN_IDS 16 /* the daemon's own: itself, those two, and some to come */
#define JAIL_ID_BUILD 2 /* what jobs are that run code of packages: owner of nothing */

warn_unused int jail_open(uv_loop_t *loop, struct jail_start *start, struct jail **out,
			  struct err *err);
void jail_close(struct jail *jail);
enum jail_mode jail_mode(const struct jail *jail);
/* Host id that scripts of `run` carry, for the client's id-mapped mounts (root only). */
uint32_t jail_run_host_id(const struct jail *jail);
/* What this host gives and what is weaker for it: one JSON object, for `status`. */
warn_unused int jail_describe(const struct jail *jail, struct buf *out, struct err *err);
/* 0, or ERR_START: this host does not give all of it; what is weaker is in the sentence. */
warn_unused int jail_require_all(const struct jail *jail, struct err *err);
/* Show an interpreter's prefix that the daemon cannot reach by path: a detached mount from the
 * client. Idempotent per prefix; takes the descriptor. */
warn_unused int jail_add_prefix(struct jail *jail, const char *prefix, int tree, struct err *err);
/* A detached mount of the pseudo terminal at `path`, to be a script's /dev/tty, if that is the file
 * that `same` is open on (O_PATH): the client may be where another /dev/pts is mounted. */
warn_unused int jail_detach_terminal(const char *path, int same, int *out, struct err *err);
/* Can sandboxes be given a network (is pasta there)? */
bool jail_has_network(const struct jail *jail);
/* Can sandboxes show this prefix (reachable, or added)? */
bool jail_has_prefix(struct jail *jail, const char *prefix);
