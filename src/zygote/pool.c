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

static bool is_own_id(int kind)
{
	return kind % 2;
}

static void give_id(void *arg, uint32_t id)
{
	struct zygote_node *node = arg;

	id_give(&node->ids, id);
	node_unref(node); /* it is kept while cells of it live: their ids are its */
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

	if (err && net_of(w->kind) == ZYGOTE_NET_FULL) {
		struct err copy = *err;

		jail_free_cell(cell);
		finish(w, NULL, &copy);
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
		give_id(w->node, w->id);
		finish(w, NULL, err);
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

static void make(struct zygote_node *node, int kind, cell_fn done, void *arg)
{
	struct wanted *w = mem_new(struct wanted);
	uint32_t gid = 0, uid = 0, outside;
	struct cell_spec spec = { .mode = MAKER_IN_USER | MAKER_IN_PID | MAKER_NEW_PID |
					  (net_of(kind) != ZYGOTE_NET_NONE ? MAKER_NEW_NET : 0) |
					  (is_out(kind) ? MAKER_FENCE_NET : 0),
				  .in_user = node->cell->ns[NS_USER],
				  .in_pid = node->root->cell->ns[NS_PID],
				  .prefix = node->root->prefix,
				  .nextents = 1 };

	node->refs++;
	*w = (struct wanted){ .node = node, .kind = kind, .done = done, .arg = arg };
	/* Also a node that shares its parent's id maps the scripts' id. */
	if (is_own_id(kind) && jail_mode(node->z->jail) != JAIL_ONE_ID) {
		outside = OWN_INSIDE;
		spec.host_id = jail_own_id(node->z->jail);
	} else {
		outside = is_own_id(kind) ? 0 : id_take(&node->ids);
		w->id = outside;
		spec.host_id = node->host_base + outside;
	}
	if (is_own_id(kind))
		uid = jail_user(node->z->jail, &gid);
	spec.uid = uid;
	spec.gid = uid == gid ? gid : uid; /* one map serves users and groups */
	spec.extents[0] = (struct maker_extent){ uid, outside, 1 };
	jail_make_cell(node->z->jail, &spec, on_cell, w);
}

void pool_refill(struct zygote_node *node, int kind)
{
	if (!node->asleep || node->gone || node->z->closing)
		return;
	while (node->pooled[kind] + node->making[kind] < node->wanted[kind]) {
		node->making[kind]++;
		make(node, kind, NULL, NULL);
	}
}

void pool_get(struct zygote_node *node, int kind, cell_fn done, void *arg)
{
	/* One with a network has a process beside it. */
	node->wanted[kind] = is_out(kind) ? 1 : LIMIT_CELL_POOL;
	if (node->pooled[kind]) {
		done(arg, node->pool[kind][--node->pooled[kind]], NULL);
		return;
	}
	make(node, kind, done, arg);
}

void pool_empty(struct zygote_node *node)
{
	for (int kind = 0; kind < CELL_KINDS; kind++)
		while (node->pooled[kind])
			jail_free_cell(node->pool[kind][--node->pooled[kind]]);
}
