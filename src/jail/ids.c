/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/ids.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define PART 8U	       /* a block is so small a part of the largest free range, */
#define WIDE_PART 256U /* where there shall be many, if that is larger than */
#define WIDE_RANGE 65536U
#define SMALL_BLOCK 32U /* but no smaller than this, or half of the range */

void id_block_init(struct id_block *b, uint32_t size, uint32_t own, bool wide)
{
	*b = (struct id_block){ .wide = wide };
	if (size > own)
		id_give_block(b, own, size - own);
}

void id_block_done(struct id_block *b)
{
	free(b->free);
	*b = (struct id_block){ 0 };
}

static uint32_t part_of(uint32_t size, bool wide)
{
	uint32_t part = wide && size > WIDE_RANGE ? WIDE_PART : PART;
	uint32_t half = size / 2 + size % 2;
	uint32_t least = half < SMALL_BLOCK ? half : SMALL_BLOCK;

	return size / part > least ? size / part : least;
}

static void remove_range(struct id_block *b, uint32_t i)
{
	memmove(&b->free[i], &b->free[i + 1], (--b->nfree - i) * sizeof(b->free[0]));
}

bool id_take_block(struct id_block *b, uint32_t *out_first, uint32_t *out_size)
{
	uint32_t best = 0;

	if (!b->nfree)
		return false;
	for (uint32_t i = 1; i < b->nfree; i++)
		if (b->free[i].size > b->free[best].size)
			best = i;
	*out_first = b->free[best].first;
	*out_size = part_of(b->free[best].size, b->wide);
	b->free[best].first += *out_size;
	b->free[best].size -= *out_size;
	if (!b->free[best].size)
		remove_range(b, best);
	return true;
}

void id_give_block(struct id_block *b, uint32_t first, uint32_t size)
{
	uint32_t i = 0;

	while (i < b->nfree && b->free[i].first < first)
		i++;
	b->free = mem_resize(b->free, (b->nfree + 1) * sizeof(b->free[0]));
	memmove(&b->free[i + 1], &b->free[i], (b->nfree++ - i) * sizeof(b->free[0]));
	b->free[i] = (struct id_range){ first, size };
	if (i + 1 < b->nfree && first + size == b->free[i + 1].first) {
		b->free[i].size += b->free[i + 1].size;
		remove_range(b, i + 1);
	}
	if (i > 0 && b->free[i - 1].first + b->free[i - 1].size == first) {
		b->free[i - 1].size += b->free[i].size;
		remove_range(b, i);
	}
}

void id_pool_init(struct id_pool *p, uint32_t size)
{
	*p = (struct id_pool){ mem_zero(size / 64 + 1, sizeof(uint64_t)), size };
}

void id_pool_done(struct id_pool *p)
{
	free(p->used);
	*p = (struct id_pool){ 0 };
}

bool id_take(struct id_pool *p, uint32_t *out)
{
	for (uint32_t i = 0; i < p->size; i++)
		if (!(p->used[i / 64] >> (i % 64) & 1)) {
			p->used[i / 64] |= 1ULL << (i % 64);
			*out = i;
			return true;
		}
	return false;
}

void id_give(struct id_pool *p, uint32_t id)
{
	p->used[id / 64] &= ~(1ULL << (id % 64));
}
