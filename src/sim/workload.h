/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line.
 *
 * What is replayed: functions with closures, what each dist costs, and the order of the calls.
 */
#pragma once

#include "base/err.h"
#include "policy/fit.h"
#include "sim/random.h"

struct sim_item {
	char *name; /* dist==version */
	uint64_t us, bytes;
	struct policy_set *closures; /* the caller's memory */
	uint32_t nclosures;
};

struct sim_function {
	char *name;
	struct policy_set items;
	uint32_t calls;	  /* "calls" of its line; 1 without */
	uint64_t left_us; /* "left_ms": what it imports that no node can hold */
};

struct workload {
	struct sim_item *items;
	struct sim_function *functions;
	uint32_t *calls; /* indices of functions; the first nwarm teach and are not counted */
	uint32_t nitems, nfunctions, ncalls, nwarm;
};

/* The model of memory that ReqBench's measurements fit (bytes; a megabyte is 10^6). */
#define SIM_ROOT_BYTES 66650000u /* 63 MB, and the root is a node, too */
#define SIM_NODE_BYTES 3650000u
#define SIM_BYTES_PER_HEAP_MB 4730000.0

#define SIM_CALLS 1000 /* of one function in a loaded workload */

/* A directory with functions.jsonl, packages.json, closures.json; each function is called once, or
 * as often as it says, in that order. ERR_NOT_FOUND, ERR_CORRUPT (with file and line), ERR_LIMIT.
 */
warn_unused int workload_load(const char *dir, struct workload *out, struct err *err);
void workload_done(struct workload *w);
/* Tell an optimiser of all items and closures. */
void workload_teach_items(const struct workload *w, struct fit *f);

/* mix.c */
/* Functions and dists made up: dependencies, costs and popularity of the shape that real ones have.
 * n from 1 to LIMIT_FUNCTIONS. */
void workload_generate(struct workload *out, uint32_t n, uint64_t seed);

/* Each function is called once, in the order that Python's random.Random(seed).shuffle gives; the
 * first nwarm teach. */
void workload_split(struct workload *w, uint64_t seed, uint32_t nwarm);

struct sim_mix {
	double zipf;	 /* popularity of the k-th function: k^-zipf */
	double drift;	 /* in the middle this part of the functions gives way to others */
	double burst;	 /* the chance that a call repeats the one before */
	double one_shot; /* the chance that a call is of a function that is called once */
	uint32_t ncalls; /* in all */
	uint64_t seed;
};
/* Calls drawn from the functions. *out_after: the popularity of each function at the end (the
 * caller frees). */
void workload_mix(struct workload *w, const struct sim_mix *mix, double **out_after);
