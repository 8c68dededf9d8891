/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the keeper, where it has a delegated directory of cgroup v2. Private to the room.
 *
 * The same table as for v1: slots are directories "0", "1" ... of dir.
 */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "wire/wire.h"

warn_unused int v2_make(int dir, unsigned int slot, struct err *err);
/* Limits of CG_LIMIT. Without the controller cpu a limit of that is not an error: it is left out.
 */
warn_unused int v2_limit(int dir, unsigned int slot, const struct wire_msg *m, struct err *err);
/* The process of a pidfd, by its number in this process's /proc. */
warn_unused int v2_attach(int dir, unsigned int slot, pid_t pid, struct err *err);
