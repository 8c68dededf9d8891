/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the keeper. On cgroup v1, and only where root started the daemon, it is host root: there
 * the kernel wants the writer to be so. On v2 it has the daemon's id and a directory that was
 * delegated to that, and is there because a write to cgroup.procs may take 10 ms (an RCU grace
 * period), in which the daemon's loop must not stand still.
 *
 * It makes, limits, attaches, reads and removes cgroups of its own directory by a fixed table, and
 * nothing else: slots are numbers, values are numbers, and a process is attached only if it is
 * given as a pidfd and all its ids lie in the daemon's range (v1). So a daemon that is broken into
 * can do no more with it than limit its own processes.
 *
 * Requests: CG_MAKE {STATUS slot}, CG_LIMIT {STATUS, MEMORY, PIDS, CPU}, CG_ATTACH {STATUS; pidfd},
 * CG_READ {STATUS}, CG_TIME {STATUS}, CG_REMOVE {STATUS}. Answer: CG_DONE {MEMORY_PEAK, STATUS oom
 * kills} or with ERR_*. When the socket ends it removes everything it made, waiting for the last
 * process to go.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct keeper_config {
	int sock;
	int v2;			/* the delegated directory; -1: v1 */
	uint32_t first_id, ids; /* the daemon's range on the host */
};

/* Which of memory, pids and cpu are v1 hierarchies here; 0: none, no keeper is needed. */
int keeper_controllers(void);
__attribute__((noreturn)) void keeper_main(const struct keeper_config *config);
