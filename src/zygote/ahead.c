/* SPDX-License-Identifier: Apache-2.0
 *
 * Children forked ahead of anyone who wants them: one of each kind of cell for a node that is
 * forked from. It was born into its cell, checked, and put in a cgroup, and waits there without any
 * right; no code but ours has run in it. Whoever comes first gets it: then its function's files are
 * mounted, and its limits are set. So what a start need not wait for is the fork, the sandbox, and
 * a grace period of the kernel's that moving a process to a cgroup costs (5 to 12 ms, unless
 * another was just moved).
 *
 * They are made when nothing has been forked for a moment: a machine at its limits has no use for
 * them.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "zygote/zygote_priv.h"

#define REGULAR_US (60 * 1000000UL) /* a node that is forked from twice within */

struct ahead {
	struct zygote_node *node;
	int kind;
	struct zygote_child *child;  /* NULL: none now */
	struct zygote_limits limits; /* of who came last */
	bool wanted, making;
	uint64_t used_us, before_us; /* when somebody wanted one, and the time before that */
};

struct aheads {
	uv_timer_t timer;
	uint64_t since_us; /* when the first of those that are wanted was wanted; 0: none is */
	int count;
	bool useless; /* there are no cgroups: limits are made at birth */
};

static struct ahead *of(struct zygote_node *node, int kind)
{
	if (!node->ahead[kind]) {
		node->ahead[kind] = mem_new(struct ahead);
		node->ahead[kind]->node = node;
		node->ahead[kind]->kind = kind;
	}
	return node->ahead[kind];
}

/* Its descriptors, limits of its processes and writable mounts must be what any other's are: those
 * are made at its birth, or need rights that it has no more. */
static bool is_fit(const struct zygote_fork *spec)
{
	const struct zygote_limits *l = &spec->limits;
	bool all_read_only = true;

	for (size_t i = 0; i < spec->nmounts; i++)
		all_read_only = all_read_only && !spec->mounts[i].writable;
	return spec->role == ZYGOTE_INSTANCE && !spec->own_id && !spec->unhurried &&
	       all_read_only &&
	       (spec->net == ZYGOTE_NET_NONE || spec->net == ZYGOTE_NET_LOOPBACK) &&
	       !l->open_files && (l->memory_bytes || l->cpu_milli || l->count_cpu);
}

static void end(struct ahead *a)
{
	struct zygote_child *c = steal(a->child);

	if (!c)
		return;
	c->z->aheads->count--;
	child_abandon(c);
}

static void on_message(void *ctx, struct zygote_child *c, struct wire_msg *m)
{
	(void)ctx;
	(void)m;
	zygote_child_kill(c); /* in its phase nothing may come */
}

static void on_ended(void *ctx, struct zygote_child *c, const struct zygote_end *why)
{
	struct ahead *a = ctx;

	(void)why;
	if (a->child != c)
		return;
	a->child = NULL;
	c->z->aheads->count--;
}

static const struct zygote_events events = { on_message, on_ended, NULL };

static void end_oldest(struct zygotes *z)
{
	struct ahead *oldest = NULL;

	for (struct zygote_node *n = z->nodes; n; n = n->next)
		for (int kind = 0; kind < CELL_KINDS; kind++)
			if (n->ahead[kind] && n->ahead[kind]->child &&
			    (!oldest || n->ahead[kind]->used_us < oldest->used_us))
				oldest = n->ahead[kind];
	if (oldest)
		end(oldest);
}

static void on_born(void *arg, struct zygote_child *c, const struct zygote_timing *timing,
		    const struct err *err)
{
	struct ahead *a = arg;
	struct zygotes *z = a->node->z;

	(void)timing;
	a->making = false;
	if (!c) {
		log_debug("zygote", "forking ahead: %s", err->text);
		return;
	}
	if (c->slot < 0 || z->closing) {
		z->aheads->useless = c->slot < 0;
		child_abandon(c);
		return;
	}
	zygote_child_phase(c, WIRE_FROM_CHILD_AHEAD);
	z->aheads->count++;
	a->child = c;
	if (z->aheads->count > LIMIT_AHEAD)
		end_oldest(z);
}

/* The node is busy until it is born: it, and so what it keeps of it, stays that long. */
static void make(struct ahead *a)
{
	struct zygote_fork spec = { .role = ZYGOTE_INSTANCE,
				    .net = (enum zygote_net)(a->kind / 2),
				    .stdio = { -1, -1, -1 },
				    .limits = a->limits };
	struct zygote_child *c;

	a->wanted = false;
	if (a->child || a->making || !a->node->asleep || a->node->gone)
		return;
	a->making = true;
	spec.limits.tmp_bytes = 0;
	c = child_new(a->node, &spec);
	c->is_ahead = true;
	child_fork(c, &events, a, on_born, a);
}

static void on_quiet(uv_timer_t *timer)
{
	struct zygotes *z = timer->data;

	z->aheads->since_us = 0;
	for (struct zygote_node *n = z->nodes, *next; n; n = next) {
		next = n->next;
		for (int kind = 0; kind < CELL_KINDS; kind++)
			if (n->ahead[kind] && n->ahead[kind]->wanted)
				make(n->ahead[kind]);
	}
}

void ahead_note(struct zygote_node *node, const struct zygote_fork *spec)
{
	struct aheads *all = node->z->aheads;
	uint64_t now = clock_us();
	struct ahead *a;

	if (node->gone || node->z->closing || all->useless)
		return;
	if (is_fit(spec)) {
		a = of(node, pool_kind(spec));
		a->before_us = a->used_us;
		a->used_us = now;
		a->limits = spec->limits;
		/* Whatever is new is forked from its root. */
		if (!node->parent || (a->before_us && now - a->before_us < REGULAR_US))
			a->wanted = true;
		if (a->wanted && !all->since_us)
			all->since_us = now;
	}
	if (all->since_us && (now - all->since_us < LIMIT_AHEAD_LATE_MS * 1000UL ||
			      !uv_is_active((uv_handle_t *)&all->timer)))
		must(uv_timer_start(&all->timer, on_quiet, LIMIT_AHEAD_MS, 0) == 0);
}

struct zygote_child *ahead_take(struct zygote_node *node, const struct zygote_fork *spec)
{
	struct ahead *a = node->ahead[pool_kind(spec)];
	struct zygote_child *c;

	if (!a || !a->child || node->gone || !is_fit(spec) ||
	    a->child->spec.limits.count_cpu != spec->limits.count_cpu)
		return NULL;
	c = steal(a->child);
	node->z->aheads->count--;
	return c;
}

void ahead_drop(struct zygote_node *node)
{
	for (int kind = 0; kind < CELL_KINDS; kind++) {
		if (!node->ahead[kind])
			continue;
		end(node->ahead[kind]);
		free(steal(node->ahead[kind]));
	}
}

uint32_t ahead_count(const struct zygote_node *node)
{
	uint32_t n = 0;

	for (int kind = 0; kind < CELL_KINDS; kind++)
		n += node->ahead[kind] && node->ahead[kind]->child;
	return n;
}

void zygotes_relax(struct zygotes *z)
{
	for (struct zygote_node *n = z->nodes; n; n = n->next)
		for (int kind = 0; kind < CELL_KINDS; kind++)
			if (n->ahead[kind])
				end(n->ahead[kind]);
}

void ahead_open(struct zygotes *z)
{
	z->aheads = mem_new(struct aheads);
	must(uv_timer_init(z->loop, &z->aheads->timer) == 0);
	z->aheads->timer.data = z;
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct zygotes *z = handle->data;

	free(steal(z->aheads));
}

void ahead_close(struct zygotes *z)
{
	uv_close((uv_handle_t *)&z->aheads->timer, on_timer_closed);
}
