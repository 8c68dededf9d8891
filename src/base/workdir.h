/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * Several daemons may share a directory for what they have under way. Each has one of its own below
 * it and holds that one's lock; those whose lock can be taken were left by a daemon that is dead.
 */
#pragma once

#include <sys/types.h>

#include "base/err.h"

/* Removes what dead daemons left below `all` (which exists) and makes one for this process. The
 * caller frees *out_path and closes *out_lock, which ends the use. */
warn_unused int workdir_open(const char *all, mode_t mode, char **out_path, int *out_lock,
			     struct err *err);
