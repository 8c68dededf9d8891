/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the starter, while it is still who started it.
 *
 * A directory of cgroup v2 that is the daemon's alone. The kernel wants processes in leaves only,
 * so the calling process moves to the leaf "daemon" in it, with all that it will fork; cgroups of
 * functions are made beside that.
 *
 * It is the cgroup in which this process was started, if nobody else is in it (a unit with
 * Delegate=yes, a container's first process). Else, for root under systemd, a scope that systemd
 * makes for us, pipsqueak-PID.scope, and removes when the last process has left it.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"

/* Gives the directory to owner (host ids). Its descriptor, or -1: there is none, and err says why.
 */
warn_unused int delegate_open(uint32_t owner, struct err *err);
