/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line.
 *
 * Replays a workload against a policy. What a call still has to import (its residual) is the time
 * of all its closure less that of the node it is forked from. Nodes are made behind the call: the
 * next one finds them. Policies keep to the memory given, by the model of workload.h; none (each
 * call in a fresh interpreter), root (one interpreter that holds nothing), tree files and the bound
 * have a memory of their own.
 */
#pragma once

#include "base/err.h"
#include "sim/workload.h"

/* A tree as in a file: nested objects with "packages" (what a node adds) and "children". */
struct sim_tree {
	struct sim_tree_node {
		struct policy_set items; /* all, the parents' too */
		int parent;		 /* lower than its own number; -1: the root */
	} * nodes;
	uint32_t n;
};
/* ERR_NOT_FOUND, ERR_CORRUPT: not such a file, or it names dists that the workload lacks. */
warn_unused int sim_tree_load(const char *path, const struct workload *w, struct sim_tree *out,
			      struct err *err);
void sim_tree_done(struct sim_tree *t);
/* The optimiser's tree as such a text, one more line at its end; the caller frees. */
char *sim_tree_print(const struct fit *f, const struct workload *w);

enum sim_kind {
	SIM_NONE,
	SIM_ROOT,
	SIM_SOCK,   /* a node for each call that misses, first match, the LRU subtree goes */
	SIM_LRU,    /* the same with best fit; the least recently used leaf goes */
	SIM_GDSF,   /* the same; the leaf of least GreedyDual-Size-Frequency priority goes */
	SIM_FIRST,  /* a tree file, first fit */
	SIM_BEST,   /* a tree file, best fit */
	SIM_ONLINE, /* policy/fit.h, call by call */
	SIM_FITTED, /* policy/fit.h, from the calls that teach (without: from all) */
	SIM_BOUND,  /* every call's own set free */
};

struct sim_policy {
	enum sim_kind kind;
	char *name;
	struct sim_tree tree;
};

struct sim_run {
	const struct workload *work;
	const struct sim_policy *policy;
	uint64_t memory_bytes;
	double half_life;    /* of demand, in calls: SIM_ONLINE */
	const double *after; /* each function's popularity after a change in the middle, or NULL */
};

struct sim_result {
	double mean_ms, p50_ms, p99_ms; /* of the calls that do not teach */
	double hits;			/* the part of them that had nothing left to import */
	double memory_bytes;		/* the most that was held */
	double made, made_ms;		/* nodes made, and the CPU time of their imports */
	double nodes;			/* in the end */
	/* Calls after the change until what a call is to expect is at most SIM_BACK times what a
	 * tree that is fitted to the new mix gives; -1: not within the run, or no change. */
	double back_calls;
};
#define SIM_BACK 1.2

void sim_replay(const struct sim_run *run, struct sim_result *out);
