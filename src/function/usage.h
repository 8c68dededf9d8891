/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * What the tree is used for: how calls and scripts were started, and what each node has saved.
 * Counted where a call ends and where a fork begins; reported by `status`, `tree` and `top`.
 */
#pragma once

#include <stdint.h>

struct functions;
struct function_call;
struct node;
struct subject;

/* How a call got its process. NONE: it was answered without one. */
enum start_kind { START_WARM, START_SPARE, START_NODE, START_ROOT, START_NONE, START_KINDS };
struct starts {
	uint64_t n[START_KINDS];
};
const char *usage_name(enum start_kind kind);

/* Sums that halve in USAGE_HALF_LIFE_S: what was lately. */
#define USAGE_HALF_LIFE_S 600
struct usage {
	double forks, saved_us; /* as of at_us */
	uint64_t at_us, all_us; /* all that was ever saved */
};
struct usage_rates {
	double forks_per_s, saved_ms_per_s;
};

/* The node is forked for this subject. */
void usage_fork(struct node *n, const struct subject *s);
/* A call, or a script, has ended; start: as in struct function_timing. */
void usage_call(struct functions *f, const struct function_call *call);
void usage_run(struct functions *f, const char *start);
void usage_rates(const struct node *n, struct usage_rates *out);
