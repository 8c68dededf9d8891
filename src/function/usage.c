/* SPDX-License-Identifier: Apache-2.0 */
#include "function/usage.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "function/priv.h"

const char *usage_name(enum start_kind kind)
{
	static const char *const names[] = { "warm", "spare", "node", "root", "none" };

	return names[kind];
}

/* Server-Timing has other words for two of them. */
static enum start_kind kind_of(const char *start)
{
	if (!start)
		return START_NONE;
	if (strcmp(start, "warm") == 0)
		return START_WARM;
	if (strcmp(start, "spare") == 0)
		return START_SPARE;
	return strcmp(start, "fork") == 0 ? START_NODE : START_ROOT;
}

static double left_after(uint64_t us)
{
	return exp2(-(double)us / (USAGE_HALF_LIFE_S * 1e6));
}

void usage_fork(struct node *n, const struct subject *s)
{
	uint64_t now = clock_us(), saved_us = n->id == s->best ? s->saved_us : 0;
	struct usage *u = &n->usage;
	double left = left_after(now - u->at_us);

	u->forks = u->forks * left + 1;
	u->saved_us = u->saved_us * left + (double)saved_us;
	u->all_us = saved_us > UINT64_MAX - u->all_us ? UINT64_MAX : u->all_us + saved_us;
	u->at_us = n->last_used_us = now;
	n->uses++;
}

void usage_call(struct functions *f, const struct function_call *call)
{
	struct node *n = call->inst ? knowledge_find(f, call->inst->node_id) : NULL;

	f->call_starts.n[kind_of(call->timing.start)]++;
	if (n && call->timing.start)
		n->calls++;
}

void usage_run(struct functions *f, const char *start)
{
	f->total_runs++;
	f->run_starts.n[kind_of(start)]++;
}

/* A sum that gains r a second goes to r / ln 2 half-lives; a young one is on its way there. */
void usage_rates(const struct node *n, struct usage_rates *out)
{
	uint64_t now = clock_us();
	double left = left_after(now - n->usage.at_us), age_s = (double)(now - n->made_us) / 1e6;
	double window_s = USAGE_HALF_LIFE_S / M_LN2 * (1 - left_after(now - n->made_us));

	if (age_s < 1)
		window_s = 1;
	*out = (struct usage_rates){ n->usage.forks * left / window_s,
				     n->usage.saved_us * left / window_s / 1e3 };
}
