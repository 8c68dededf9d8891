/* SPDX-License-Identifier: Apache-2.0
 *
 * What a decision of the policy takes: choose, taking note of a call, a growth step. A minute.
 * Prints JSON, in microseconds.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "sim/workload.h"

enum { FUNCTIONS = 3000, NODES = 400, STEPS = 60 };

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void put(const char *what, double *us, size_t n, const char *end)
{
	qsort(us, n, sizeof(*us), by_size);
	printf("  \"%s\": {\"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}%s\n", what, us[n / 2],
	       us[n * 99 / 100], us[n - 1], end);
}

static struct fit *grown(const struct workload *w, double *call_us)
{
	struct fit_rules rules = { .budget_bytes = UINT64_MAX / 2,
				   .root_bytes = SIM_ROOT_BYTES,
				   .node_bytes = SIM_NODE_BYTES,
				   .half_life = 10000 };
	struct fit *f = fit_new(&rules);

	workload_teach_items(w, f);
	for (uint32_t i = 0; i < w->nfunctions; i++) {
		uint64_t start = clock_ns();

		fit_call(f, w->functions[i].items, 1, i);
		call_us[i] = (double)(clock_ns() - start) / 1e3;
	}
	for (int made = 0; made < NODES;) {
		struct fit_step step = fit_plan(f);

		if (step.action == FIT_DROP)
			fit_drop(f, step.node);
		else if (step.action == FIT_MAKE && ++made)
			fit_make(f, step.items, step.parent);
		else
			break;
	}
	fit_budget(f, fit_bytes(f));
	return f;
}

static void apply(struct fit *f, const struct fit_step *step)
{
	if (step->action == FIT_DROP)
		fit_drop(f, step->node);
	else if (step->action == FIT_MAKE)
		fit_make(f, step->items, step->parent);
}

int main(void)
{
	double *call_us = mem_zero(FUNCTIONS, sizeof(double));
	double *choose_us = mem_zero(FUNCTIONS, sizeof(double)), step_us[STEPS];
	struct workload w;
	struct fit *f;
	uint64_t saved;

	workload_generate(&w, FUNCTIONS, 0);
	f = grown(&w, call_us);
	for (uint32_t i = 0; i < FUNCTIONS; i++) {
		uint64_t start = clock_ns();

		(void)fit_choose(f, w.functions[i].items, &saved);
		choose_us[i] = (double)(clock_ns() - start) / 1e3;
	}
	for (uint32_t i = 0; i < STEPS; i++) {
		struct fit_step step;
		uint64_t start;

		fit_call(f, w.functions[i * 37 % FUNCTIONS].items, 3, FUNCTIONS + i);
		start = clock_ns();
		step = fit_plan(f);
		apply(f, &step);
		step_us[i] = (double)(clock_ns() - start) / 1e3;
	}
	printf("{\n  \"functions\": %d, \"nodes\": %d,\n", FUNCTIONS, fit_nodes(f));
	put("choose_us", choose_us, FUNCTIONS, ",");
	put("call_us", call_us, FUNCTIONS, ",");
	put("grow_step_us", step_us, STEPS, "");
	puts("}");
	fit_free(f);
	workload_done(&w);
	free(call_us);
	free(choose_us);
	return 0;
}
