/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line. What `simulate` and `fit` have in common.
 */
#pragma once

#include "base/err.h"
#include "sim/replay.h"

/* A directory, or "generated[:FUNCTIONS]". */
warn_unused int workload_open(const char *what, uint64_t seed, struct workload *out,
			      struct err *err);
/* "2G", "512M": bytes, in powers of ten as the published figures are; 0: not such a size. */
uint64_t workload_size(const char *text);
/* A number from low to high, and nothing else. */
bool workload_number(const char *text, double low, double high, double *out);
