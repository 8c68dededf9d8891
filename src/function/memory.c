/* SPDX-License-Identifier: Apache-2.0
 *
 * What the nodes take of this machine's memory by measure, and what is left of the budget.
 */
#include "base/clock.h"
#include "base/log.h"
#include "function/knowledge.h"
#include "function/priv.h"

#define SLACK 64 /* this part of the budget is kept free: nodes grow a little after their birth */
#define MEASURE_US 1000000UL
#define MEASURE_MAX_US 10000000UL
#define FULL_ROOM 8	       /* nodes that are kept free for roots and heirs */
#define SQUEEZE 8	       /* this part of the nodes' memory goes each time that it is short, */
#define SQUEEZED_US 10000000UL /* and is not taken again for so long */

static void measure(struct node *n, uint64_t now)
{
	struct zygote_node_info info;

	zygote_node_info(n->z, &info);
	if (!n->measured_us)
		n->born_bytes = info.unique_bytes;
	/* Pages that it shares with what was forked from it are none of its own any more, but still
	 * there because of it: they are its own again when those have ended. */
	n->bytes = info.unique_bytes > n->born_bytes ? info.unique_bytes : n->born_bytes;
	n->measured_us = now;
}

/* It costs a walk over its page tables; what an old one has hardly changes. */
static uint64_t measure_again_us(const struct node *n, uint64_t now)
{
	uint64_t us = (now - n->made_us) / 4;

	return us < MEASURE_US ? MEASURE_US : us < MEASURE_MAX_US ? us : MEASURE_MAX_US;
}

uint64_t optimise_measure(struct functions *f)
{
	uint64_t total = 0, now = clock_us();
	uint32_t left = LIMIT_MEASURED, last = 0;

	/* A few at a time, or calls would wait for that; a new one at once. */
	for (uint32_t i = 0; i < f->nnodes; i++) {
		uint32_t at = (f->opt.next_measured + i) % f->nnodes;
		struct node *n = f->nodes[at];

		if (n->measured_us && (!left || now - n->measured_us < measure_again_us(n, now)))
			continue;
		if (n->measured_us && --left == 0)
			last = at;
		measure(n, now);
	}
	if (!left)
		f->opt.next_measured = (last + 1) % f->nnodes;
	for (uint32_t i = 0; i < f->nnodes; i++)
		total += f->nodes[i]->bytes;
	return total;
}

static uint64_t budget_now(const struct functions *f)
{
	bool squeezed = clock_us() < f->opt.squeezed_until_us &&
			f->opt.squeezed_bytes < f->config.memory_bytes;

	return squeezed ? f->opt.squeezed_bytes
			: f->config.memory_bytes - f->config.memory_bytes / SLACK;
}

void functions_pressed(struct functions *f)
{
	uint64_t bytes = optimise_measure(f);

	if (f->draining)
		return;
	zygotes_relax(f->config.zygotes);
	f->opt.squeezed_bytes = bytes - bytes / SQUEEZE;
	f->opt.squeezed_until_us = clock_us() + SQUEEZED_US;
	log_info("function",
		 "memory is short on this machine: %llu MiB of sleeping nodes become less",
		 (unsigned long long)(bytes / MIB));
	optimise_kick(f);
}

/* No more nodes fit, whatever they take: then one is made in another's place only. */
static bool is_full(const struct functions *f)
{
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (!f->nodes[i]->parent && zygote_node_full(f->nodes[i]->z))
			return true;
	return f->nnodes + f->growing + FULL_ROOM >= LIMIT_NODES;
}

int64_t optimise_room(struct functions *f)
{
	int64_t used = (int64_t)(optimise_measure(f) + grow_reserved(f));
	int64_t room = (int64_t)budget_now(f) - used;

	return room > 0 && is_full(f) ? 0 : room;
}
