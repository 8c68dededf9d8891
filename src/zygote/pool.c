/* SPDX-License-Identifier: Apache-2.0
 *
 * Cells made ahead of time, per node (a cell is owned by the node that may enter it) and per kind.
 * A kind is stocked once it was asked for.
 */
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "zygote/zygote_priv.h"

struct wanted {
	struct zygote_node *node;
	int kind;
	uint32_t id;
	cell_fn done; /* NULL: for the pool */
	void *arg;
};

int pool_kind(const struct zygote_fork *spec)
{
	return 2 * (int)spec->net + spec->own_id;
}

static enum zygote_net net_of(int kind)
{
	return (enum zygote_net)(kind / 2);
}

static bool is_out(int kind)
{
	return net_of(kind) == ZYGOTE_NET_FULL || net_of(kind) == ZYGOTE_NET_ANY;
}

#define NO_ID UINT32_MAX /* a cell whose id is nobody's own */

static bool is_own_id(int kind)
{
	return kind % 2;
}

static void give_id(void *arg, uint32_t id)
{
	struct zygote_node *node = arg;

	if (id != NO_ID)
		id_give(&node->root->instances, id);
	node_unref(node); /* it is kept while cells of it live: their namespaces are its */
}

static void finish(struct wanted *w, struct cell *cell, const struct err *err)
{
	struct zygote_node *node = w->node;

	if (w->done) {
		w->done(w->arg, cell, err);
	} else {
		node->making[w->kind]--;
		if (err)
			log_warn("zygote", "%s", err->text);
		else if (node->gone || node->pooled[w->kind] == LIMIT_CELL_POOL)
			jail_free_cell(cell);
		else
			node->pool[w->kind][node->pooled[w->kind]++] = cell;
	}
	free(w);
}

static void on_connected(void *arg, struct cell *cell, const struct err *err)
{
	struct wanted *w = arg;
	struct zygote_node *node = w->node;

	if (err && net_of(w->kind) == ZYGOTE_NET_FULL) {
		struct err copy = *err;

		node->refs++; /* the cell may be the last that keeps it */
		jail_free_cell(cell);
		finish(w, NULL, &copy);
		node_unref(node);
		return;
	}
	if (err)
		log_debug("zygote", "%s", err->text);
	finish(w, cell, NULL);
}

static void on_cell(void *arg, struct cell *cell, const struct err *err)
{
	struct wanted *w = arg;

	if (!cell) {
		struct zygote_node *node = w->node;
		uint32_t id = w->id;

		finish(w, NULL, err);
		give_id(node, id); /* which may be the end of the node */
		return;
	}
	cell->gone = give_id;
	cell->gone_arg = w->node;
	cell->gone_id = w->id;
	if (is_out(w->kind))
		jail_connect_cell(cell, on_connected, w);
	else
		finish(w, cell, NULL);
}

/* Which id a process of the cell has: in the node's namespace, and in the daemon's. */
static bool take_id(struct zygote_node *node, int kind, uint32_t *outside, struct wanted *w,
		    struct cell_spec *spec)
{
	if (jail_mode(node->z->jail) == JAIL_ONE_ID) {
		*outside = 0;
		spec->host_id = node->host_base;
	} else if (is_own_id(kind)) {
		*outside = OWN_INSIDE;
		spec->host_id = jail_own_id(node->z->jail);
	} else if (id_take(&node->root->instances, &w->id)) {
		*outside = INSTANCES_INSIDE + w->id;
		spec->host_id = node->root->instances_base + w->id;
	} else {
		return false;
	}
	return true;
}

/* False, and nothing is started: no id is left. */
static bool make(struct zygote_node *node, int kind, cell_fn done, void *arg)
{
	struct wanted want = { .node = node, .kind = kind, .done = done, .arg = arg, .id = NO_ID };
	struct cell_spec spec = { .mode = MAKER_IN_USER | MAKER_IN_PID | MAKER_NEW_PID |
					  (net_of(kind) != ZYGOTE_NET_NONE ? MAKER_NEW_NET : 0) |
					  (is_out(kind) ? MAKER_FENCE_NET : 0),
				  .in_user = node->cell->ns[NS_USER],
				  .in_pid = node->root->cell->ns[NS_PID],
				  .prefix = node->root->prefix,
				  .nextents = 1 };
	uint32_t gid = 0, uid = 0, outside;
	struct wanted *w;

	if (!take_id(node, kind, &outside, &want, &spec))
		return false;
	if (is_own_id(kind))
		uid = jail_user(node->z->jail, &gid);
	spec.uid = uid;
	spec.gid = uid == gid ? gid : uid; /* one map serves users and groups */
	spec.extents[0] = (struct maker_extent){ uid, outside, 1 };
	node->refs++;
	w = mem_new(struct wanted);
	*w = want;
	jail_make_cell(node->z->jail, &spec, on_cell, w);
	return true;
}

void pool_refill(struct zygote_node *node, int kind)
{
	if (!node->asleep || node->gone || node->z->closing)
		return;
	while (node->pooled[kind] + node->making[kind] < node->wanted[kind] &&
	       make(node, kind, NULL, NULL))
		node->making[kind]++;
}

void pool_get(struct zygote_node *node, int kind, cell_fn done, void *arg)
{
	struct err err;

	/* One with a network has a process beside it. */
	node->wanted[kind] = is_out(kind) ? 1 : LIMIT_CELL_POOL;
	if (node->pooled[kind]) {
		done(arg, node->pool[kind][--node->pooled[kind]], NULL);
		return;
	}
	if (make(node, kind, done, arg))
		return;
	err_set(&err, ERR_BUSY, "no ids are left for another sandbox");
	done(arg, NULL, &err);
}

void pool_empty(struct zygote_node *node)
{
	for (int kind = 0; kind < CELL_KINDS; kind++)
		while (node->pooled[kind])
			jail_free_cell(node->pool[kind][--node->pooled[kind]]);
}
