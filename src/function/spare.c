/* SPDX-License-Identifier: Apache-2.0
 *
 * Spares (DESIGN 3.1): instances forked ahead of their calls. Each was born into its own cell,
 * checked, and its limits hold; it has been told its function's environment and waits. It has run
 * no code of the function yet, serves one function only, and a call that takes it costs a message.
 *
 * One of a function whose instances are not used again stays what it is: it forks a child for each
 * call (python/again.c), ends all that the child left running, and is a spare again. So its cell is
 * used again, but by calls of this one version alone, one at a time, and only while none of them
 * has left anything in it.
 */
#include "base/clock.h"
#include "function/priv.h"

#define RECENT_US (10 * 1000000UL) /* starts further apart do not add up */

/* A function that keeps starting instances is given spares: one, and one more each time that a
 * call found none ready. A function whose instances are used again needs them in bursts only. */
static void note_start(struct version *v, bool ready)
{
	uint64_t now = clock_us();

	if (now - v->last_start_us > RECENT_US)
		v->recent_starts = 0;
	v->last_start_us = now;
	v->recent_starts++;
	if (v->set.reuse && v->recent_starts < 2)
		return;
	if (!v->want_spares)
		v->want_spares = 1;
	else if (!ready && v->recent_starts > 1 && v->want_spares < LIMIT_SPARES)
		v->want_spares++;
}

static void set_spare(struct instance *inst, bool is_spare)
{
	instance_uncount(inst);
	inst->is_spare = is_spare;
	instance_count(inst);
}

void spare_become(struct instance *inst)
{
	if (inst->v->nspares < LIMIT_SPARES && inst->v->fn->f->spares < LIMIT_ALL_SPARES)
		set_spare(inst, true);
}

static int nearness(const struct instance *inst)
{
	return inst->state == INSTANCE_SPARE ? 2 : inst->state == INSTANCE_SWEEPING;
}

/* The one that is furthest. Those of another node than the best one end. */
static struct instance *choose(struct version *v, const struct node *best)
{
	struct instance *found = NULL, *next;

	for (struct instance *i = v->instances; i; i = next) {
		next = i->next;
		if (!i->is_spare || i->state == INSTANCE_ENDING)
			continue;
		if (i->node_id != best->id) {
			set_spare(i, false);
			instance_end(i);
		} else if (!found || nearness(i) > nearness(found)) {
			found = i;
		}
	}
	return found;
}

struct instance *spare_take(struct version *v)
{
	struct node *best = v->nspares ? knowledge_choose(v->fn->f, v->subject) : NULL;
	struct instance *found = best ? choose(v, best) : NULL;

	note_start(v, found && found->state == INSTANCE_SPARE);
	if (found) {
		best->last_used_us = clock_us();
		if (found->calls) /* the first was counted when it was forked */
			usage_fork(best, v->subject);
		set_spare(found, false);
	}
	return found;
}

void spare_refill(struct version *v)
{
	struct functions *f = v->fn->f;

	while (v->nspares < v->want_spares && f->spares < LIMIT_ALL_SPARES && !v->retired &&
	       !f->draining && !f->closing && !v->subject->queued)
		if (!instance_spare(v)) {
			v->want_spares = 0;
			return;
		}
}

void spare_unused(struct instance *inst)
{
	struct version *v = inst->v;

	if (v->want_spares)
		v->want_spares--;
	instance_end(inst);
}

void spare_node_made(struct functions *f, const struct subject *s)
{
	for (uint32_t i = 0; i < f->by_name_cap; i++) {
		struct version *v = f->by_name[i] ? f->by_name[i]->live : NULL;
		struct node *best;

		if (!v || v->subject != s)
			continue;
		best = v->nspares ? knowledge_choose(f, v->subject) : NULL;
		if (best)
			choose(v, best);
		spare_refill(v);
	}
}
