/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * Who is which id. A root owns a block of the daemon's range, a node a block inside its parent's;
 * id 0 of a block is the node itself. Instances take theirs out of one pool per root. Numbers here
 * are of the block's own user namespace, which is how maps are written.
 *
 * An id is given out again only when its last process is gone (the caller gives it back then).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Blocks shrink with what is left, so that a tree may be wide and deep (LIMIT_TREE_DEPTH) in the
 * same range: below a root of 2^21 ids (wide) there is room for over 900 nodes, below the first of
 * those for over 35, below that one's first for over 20; and for eight levels of them. */
struct id_block {
	struct id_range {
		uint32_t first, size;
	} * free; /* ascending, none touches another */
	uint32_t nfree;
	bool wide; /* many small ones, rather than few large ones */
};

/* size ids, of which the first `own` are never given. */
void id_block_init(struct id_block *b, uint32_t size, uint32_t own, bool wide);
void id_block_done(struct id_block *b);
/* False when none is left. */
bool id_take_block(struct id_block *b, uint32_t *out_first, uint32_t *out_size);
void id_give_block(struct id_block *b, uint32_t first, uint32_t size);

struct id_pool {
	uint64_t *used; /* bitmap */
	uint32_t size;
};

void id_pool_init(struct id_pool *p, uint32_t size);
void id_pool_done(struct id_pool *p);
bool id_take(struct id_pool *p, uint32_t *out);
void id_give(struct id_pool *p, uint32_t id);
