/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/ids.h"

#include <stdlib.h>

#include "base/mem.h"

#define CHILDREN 15	/* child blocks per block; the 16th part serves instances */
#define INSTANCES 8192U /* ids for instances looked at per block: more never run at once */

/* The bitmap has one bit per instance id first, then one per child block. */
static uint32_t instances(const struct id_block *b)
{
	return b->unit < INSTANCES ? b->unit : INSTANCES;
}

static bool bit(const struct id_block *b, uint32_t i)
{
	return b->used[i / 64] >> (i % 64) & 1;
}

static void set_bit(struct id_block *b, uint32_t i, bool on)
{
	uint64_t mask = 1ULL << (i % 64);

	b->used[i / 64] = on ? b->used[i / 64] | mask : b->used[i / 64] & ~mask;
}

void id_block_init(struct id_block *b, uint32_t size)
{
	b->size = size;
	b->unit = size / (CHILDREN + 1);
	if (b->unit == 0)
		b->unit = size; /* too small for children: all for instances */
	b->used = mem_zero((instances(b) + CHILDREN) / 64 + 1, sizeof(uint64_t));
	set_bit(b, 0, true);
}

void id_block_done(struct id_block *b)
{
	free(b->used);
	b->used = NULL;
}

uint32_t id_take(struct id_block *b)
{
	for (uint32_t i = 1; i < instances(b); i++)
		if (!bit(b, i)) {
			set_bit(b, i, true);
			return i;
		}
	return 0;
}

void id_give(struct id_block *b, uint32_t id)
{
	if (id && id < instances(b))
		set_bit(b, id, false);
}

bool id_take_block(struct id_block *b, uint32_t *out_first, uint32_t *out_size)
{
	*out_first = 0;
	*out_size = 1;
	if (b->unit == b->size)
		return false;
	for (uint32_t i = 0; i < CHILDREN; i++)
		if (!bit(b, instances(b) + i)) {
			set_bit(b, instances(b) + i, true);
			*out_first = (i + 1) * b->unit;
			*out_size = b->unit;
			return true;
		}
	return false;
}

void id_give_block(struct id_block *b, uint32_t first)
{
	if (first)
		set_bit(b, instances(b) + first / b->unit - 1, false);
}
