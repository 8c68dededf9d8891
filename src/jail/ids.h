/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * Blocks of ids. A root owns a block of the daemon's range, a node a block inside its parent's, an
 * instance one id of its node's. Id 0 of a block is the node itself. Numbers here are of the
 * block's own user namespace, which is how maps are written.
 *
 * An id is given out again only when its last process is reaped (the caller frees it then).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct id_block {
	uint32_t
		size; /* ids of this block: 0 .. size-1; 1: nothing to give, everyone shares id 0 */
	uint64_t *used; /* bitmap of units given out; unit 0 always is */
	uint32_t unit;	/* ids per child block */
};

/* size ids, of which the first unit serves instances and each further unit can be a child's. */
void id_block_init(struct id_block *b, uint32_t size);
void id_block_done(struct id_block *b);
/* One id for an instance: 1 .. unit-1, or 0 when none is left: it then shares the node's id. */
uint32_t id_take(struct id_block *b);
void id_give(struct id_block *b, uint32_t id); /* 0 is ignored */
/* A block for a child node; false when none is left: the child then shares (0, size 1). */
bool id_take_block(struct id_block *b, uint32_t *out_first, uint32_t *out_size);
void id_give_block(struct id_block *b, uint32_t first);
