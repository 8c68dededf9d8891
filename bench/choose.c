/* SPDX-License-Identifier: Apache-2.0
 *
 * What policy_choose() takes over a full tree: LIMIT_NODES nodes, 10,000 functions. Each dist of
 * the made-up workload has MODULES modules. Prints JSON, in microseconds of CPU time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/limits.h"
#include "base/mem.h"
#include "policy/policy.h"
#include "sim/workload.h"

enum { FUNCTIONS = 10000, MODULES = 40 };

/* Of this thread: what else the machine does is not counted. */
static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static struct policy_set modules_of(struct policy_set dists)
{
	uint32_t *v = mem_zero(dists.n * MODULES + 1, sizeof(*v));

	for (size_t i = 0; i < dists.n * MODULES; i++)
		v[i] = dists.v[i / MODULES] * MODULES + (uint32_t)(i % MODULES);
	return (struct policy_set){ v, dists.n * MODULES };
}

/* Nodes of the sets that an optimiser would make of these functions. */
static struct policy_node *tree(const struct workload *w, size_t *out_n)
{
	struct fit_rules rules = { .budget_bytes = UINT64_MAX / 2,
				   .root_bytes = SIM_ROOT_BYTES,
				   .node_bytes = SIM_NODE_BYTES,
				   .half_life = 10000 };
	struct policy_node *nodes = mem_zero(LIMIT_NODES, sizeof(*nodes));
	struct fit *f = fit_new(&rules);
	size_t n = 1;

	nodes[0] = (struct policy_node){ .id = 1, .parent = -1, .root = 1, .asleep = true };
	workload_teach_items(w, f);
	for (uint32_t i = 0; i < w->nfunctions && i < 1500; i++)
		fit_call(f, w->functions[i].items, 1, i);
	while (n < LIMIT_NODES) {
		struct fit_step step = fit_plan(f);
		struct fit_node made;

		if (step.action == FIT_NOTHING && fit_is_behind(f))
			continue;
		if (step.action == FIT_DROP) { /* it would only be made again elsewhere */
			fit_use(f, step.node, true);
			continue;
		}
		if (step.action != FIT_MAKE)
			break;
		if (!fit_node(f, fit_make(f, step.items, step.parent), &made))
			break;
		uint32_t *v = mem_zero(made.items.n, sizeof(*v));

		for (size_t i = 0; i < made.items.n; i++)
			v[i] = made.items.v[i];
		nodes[n] = (struct policy_node){ .id = (uint32_t)n + 1,
						 .parent = made.parent + 1,
						 .root = 1,
						 .dists = { v, made.items.n },
						 .asleep = true };
		nodes[n].dist_bits = policy_set_bits(nodes[n].dists);
		nodes[n].modules = modules_of(nodes[n].dists);
		n++;
	}
	fit_free(f);
	*out_n = n;
	return nodes;
}

int main(void)
{
	double *us = mem_zero(FUNCTIONS, sizeof(double));
	struct policy_node *nodes;
	struct workload w;
	size_t n;

	workload_generate(&w, FUNCTIONS, 0);
	nodes = tree(&w, &n);
	for (uint32_t i = 0; i < FUNCTIONS; i++) {
		struct policy_set dists = w.functions[i].items, modules = modules_of(dists);
		uint64_t *self_us = mem_zero(modules.n + 1, sizeof(*self_us)), begin, saved;
		uint64_t *dist_us = mem_zero(dists.n + 1, sizeof(*dist_us));
		struct policy_function f = { .root = 1,
					     .dists = dists,
					     .seen_dists = dists,
					     .seen_bits = policy_set_bits(dists),
					     .modules = modules,
					     .self_us = self_us,
					     .dist_us = dist_us };

		for (size_t k = 0; k < modules.n; k++)
			dist_us[k / MODULES] += self_us[k] = 100 + k % 7;
		begin = cpu_ns();
		must(policy_choose(nodes, n, &f, &saved) >= 0);
		us[i] = (double)(cpu_ns() - begin) / 1e3;
		free(self_us);
		free(dist_us);
		free((void *)modules.v);
	}
	qsort(us, FUNCTIONS, sizeof(*us), by_size);
	printf("{\"functions\": %d, \"nodes\": %zu, \"choose_us\": {\"p50\": %.1f, \"p99\": %.1f, "
	       "\"max\": %.1f}}\n",
	       FUNCTIONS, n, us[FUNCTIONS / 2], us[FUNCTIONS * 99 / 100], us[FUNCTIONS - 1]);
	return 0;
}
