/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * Run a small job and take what it prints: asking an interpreter what it is, turning TOML into
 * JSON. The job is a sandbox (jail/job.h); its output is data from outside.
 */
#pragma once

#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "jail/job.h"

/* out: standard output, NUL-terminated, at most LIMIT_JOB_OUTPUT_BYTES. err NULL: it ended with
 * status 0; else err has the last line of its standard error. */
typedef void (*capture_fn)(void *arg, struct buf *out, const struct err *err);

/* spec's fds 1 and 2 are set here. done is called once, never before this returns 0. */
warn_unused int capture_start(uv_loop_t *loop, struct jail *jail, struct jail_job_spec *spec,
			      capture_fn done, void *arg, struct err *err);
