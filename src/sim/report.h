/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line. What replays gave, for people, programs and as a picture.
 */
#pragma once

#include <stdio.h>

#include "sim/replay.h"

struct sim_row {
	const char *policy;
	double memory_gb; /* that was allowed */
	struct sim_result result;
};

void report_table(FILE *to, const struct sim_row *rows, uint32_t n, bool with_back);
void report_json(FILE *to, const struct sim_row *rows, uint32_t n);
/* Residual against memory, a line for each policy that has several memories, else a point. */
void report_svg(FILE *to, const struct sim_row *rows, uint32_t n);
