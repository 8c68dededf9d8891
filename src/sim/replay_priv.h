/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line. What the files of the replay share.
 */
#pragma once

#include "sim/replay.h"

/* So many nodes may be made between two calls. */
#define SIM_MADE_PER_CALL 2

struct replay_meta {
	double last, calls, priority;
};

struct replay {
	const struct sim_run *run;
	struct sim_result *out;
	struct fit *fit; /* keeps the nodes, of other policies too; NULL: there is no tree */
	double now;	 /* calls so far */
	/* of each node, for the caches */
	struct replay_meta *meta;
	uint32_t nmeta;
	double inflation; /* GreedyDual's L */
};

/* Counts a node that was just made, and what its imports took. */
void replay_made(struct replay *r, int node);

/* cache.c: SOCK, LRU, GreedyDual-Size-Frequency. */
void replay_learn_cache(struct replay *r, struct policy_set items, int node);
