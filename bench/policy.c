/* SPDX-License-Identifier: Apache-2.0
 *
 * What a decision of the policy takes when as much is remembered as may be: choose, taking note of
 * a call, a growth step. Minutes. Prints JSON, in microseconds of CPU time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/limits.h"
#include "base/mem.h"
#include "sim/workload.h"

enum { GENERATED = 16000, NODES = 1000, STEPS = 300, WARM = LIMIT_FUNCTIONS - STEPS };

/* CPU time: what else the machine does is not to count. */
static uint64_t cpu_ns(void)
{
	struct timespec t;

	must(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct times {
	double *us;
	size_t n;
};

static void took(struct times *t, uint64_t start_ns)
{
	uint64_t now = cpu_ns();

	if ((t->n & (t->n - 1)) == 0)
		t->us = mem_resize(t->us, (t->n ? 2 * t->n : 1) * sizeof(*t->us));
	t->us[t->n++] = (double)(now - start_ns) / 1e3;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void put(const char *what, struct times *t, const char *end)
{
	qsort(t->us, t->n, sizeof(*t->us), by_size);
	printf("  \"%s\": {\"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f, \"times\": %zu}%s\n", what,
	       t->us[t->n / 2], t->us[t->n * 99 / 100], t->us[t->n - 1], t->n, end);
	free(t->us);
}

static bool step(struct fit *f, struct times *t)
{
	uint64_t start = cpu_ns();
	struct fit_step s = fit_plan(f);

	if (s.action == FIT_DROP)
		fit_drop(f, s.node);
	if (s.action == FIT_MAKE)
		fit_make(f, s.items, s.parent);
	took(t, start);
	return s.action != FIT_NOTHING;
}

/* Functions whose closure no other before has, to the front; the number of them. */
static uint32_t distinct(struct workload *w)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < w->nfunctions; i++) {
		struct sim_function x = w->functions[i];
		bool seen = false;

		for (uint32_t k = 0; k < n && !seen; k++) {
			struct policy_set s = w->functions[k].items;

			seen = s.n == x.items.n && !memcmp(s.v, x.items.v, s.n * sizeof(*s.v));
		}
		if (!seen) {
			w->functions[i] = w->functions[n];
			w->functions[n++] = x;
		}
	}
	return n;
}

static struct fit *filled(const struct workload *w, struct times *call, struct times *grow)
{
	struct fit_rules rules = { .budget_bytes = UINT64_MAX / 2,
				   .root_bytes = SIM_ROOT_BYTES,
				   .node_bytes = SIM_NODE_BYTES,
				   .half_life = LIMIT_FUNCTIONS };
	struct fit *f = fit_new(&rules);
	struct fit_node n;
	uint32_t nodes = 0;

	workload_teach_items(w, f);
	for (uint32_t i = 0; i < WARM; i++) {
		uint64_t start = cpu_ns();

		fit_call(f, w->functions[i].items, 1, i);
		took(call, start);
		if (fit_nodes(f) < (int)(NODES * (i + 1) / WARM))
			step(f, grow);
		else
			(void)fit_plan(f); /* takes the new closure into account */
	}
	for (int i = 0; i < fit_nodes(f); i++)
		nodes += fit_node(f, i, &n);
	fit_budget(f, fit_bytes(f));
	printf("{\n  \"closures\": %d, \"nodes\": %u,\n", LIMIT_FUNCTIONS, nodes);
	return f;
}

int main(void)
{
	struct times choose = { 0 }, call = { 0 }, again = { 0 }, grow = { 0 }, full = { 0 },
		     forget = { 0 };
	struct workload w;
	struct fit *f;
	uint64_t saved, start;

	workload_generate(&w, GENERATED, 0);
	must(distinct(&w) > LIMIT_FUNCTIONS);
	f = filled(&w, &call, &grow);
	for (uint32_t i = 0; i < WARM; i++) {
		start = cpu_ns();
		(void)fit_choose(f, w.functions[i].items, &saved);
		took(&choose, start);
	}
	for (uint32_t i = 0; i < STEPS; i++) {
		start = cpu_ns();
		fit_call(f, w.functions[WARM + i].items, 1, WARM + 2 * i);
		took(&call, start);
		step(f, &full);
		start = cpu_ns();
		fit_call(f, w.functions[i * 37 % WARM].items, 3, WARM + 2 * i + 1);
		took(&again, start);
		step(f, &full);
	}
	start = cpu_ns();
	fit_call(f, w.functions[WARM + STEPS].items, 1, 2 * LIMIT_FUNCTIONS);
	took(&forget, start);
	put("choose_us", &choose, ",");
	put("new_closure_us", &call, ",");
	put("known_closure_us", &again, ",");
	put("step_while_filling_us", &grow, ",");
	put("step_when_full_us", &full, ",");
	put("forget_half_us", &forget, "");
	puts("}");
	fit_free(f);
	workload_done(&w);
	return 0;
}
