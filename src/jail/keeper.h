/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the keeper, host root, and only where the daemon was started by root on cgroup v1 (there
 * the kernel wants the writer to be host root).
 *
 * It makes, limits, attaches, reads and removes cgroups of its own directory by a fixed table, and
 * nothing else: slots are numbers, values are numbers, and a process is attached only if it is
 * given as a pidfd and all its ids lie in the daemon's range. So a daemon that is broken into can
 * do no more with it than limit its own processes.
 *
 * Requests: CG_MAKE {STATUS slot}, CG_LIMIT {STATUS, MEMORY, PIDS, CPU}, CG_ATTACH {STATUS; pidfd},
 * CG_READ {STATUS}, CG_REMOVE {STATUS}. Answer: CG_DONE {MEMORY_PEAK, STATUS oom kills} or with
 * ERR_*. When the socket ends it removes everything it made, waiting for the last process to go.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct keeper_config {
	int sock;
	uint32_t first_id, ids; /* the daemon's range on the host */
};

/* Which of memory, pids and cpu are v1 hierarchies here; 0: none, no keeper is needed. */
int keeper_controllers(void);
__attribute__((noreturn)) void keeper_main(const struct keeper_config *config);
