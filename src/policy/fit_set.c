/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/fit_priv.h"

#include <string.h>

#include "base/mem.h"

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 31) * 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 29) * 0xbf58476d1ce4e5b9u;
	return x ^ x >> 32;
}

struct fit_set fit_set_of(const struct fit *f, struct policy_set items)
{
	struct fit_set s = { .v = mem_zero(items.n + 1, sizeof(uint32_t)), .n = (uint32_t)items.n };
	uint64_t bit;

	for (uint32_t i = 0; i < s.n; i++) {
		must(items.v[i] < f->nitems && (i == 0 || items.v[i - 1] < items.v[i]));
		s.v[i] = items.v[i];
		bit = mix(items.v[i]) % (64 * FIT_WORDS);
		s.sig[bit / 64] |= (uint64_t)1 << bit % 64;
		s.us += f->items[items.v[i]].us;
		s.bytes += f->items[items.v[i]].bytes;
	}
	return s;
}

void fit_set_done(struct fit_set *s)
{
	free(s->v);
}

struct policy_set fit_set_plain(const struct fit_set *s)
{
	return (struct policy_set){ s->v, s->n };
}

bool fit_set_may_hold(const struct fit_set *outer, const struct fit_set *inner)
{
	uint64_t more = 0;

	for (int i = 0; i < FIT_WORDS; i++)
		more |= inner->sig[i] & ~outer->sig[i];
	return !more;
}

bool fit_set_within(const struct fit_set *inner, const struct fit_set *outer)
{
	return inner->n <= outer->n && fit_set_may_hold(outer, inner) &&
	       policy_set_within(fit_set_plain(inner), fit_set_plain(outer));
}

uint64_t fit_set_hash(struct policy_set s)
{
	uint64_t h = mix(s.n + 1);

	for (size_t i = 0; i < s.n; i++)
		h = mix(h + s.v[i]);
	return h ? h : 1;
}

static uint32_t *table_slot(const struct fit_table *t, uint64_t hash)
{
	uint32_t at = (uint32_t)hash & (t->cap - 1);

	while (t->hash[at] && t->hash[at] != hash)
		at = (at + 1) & (t->cap - 1);
	return &t->index[at];
}

static void table_grow(struct fit_table *t)
{
	struct fit_table old = *t;

	t->cap = old.cap ? 2 * old.cap : 1024;
	t->hash = mem_zero(t->cap, sizeof(*t->hash));
	t->index = mem_zero(t->cap, sizeof(*t->index));
	for (uint32_t i = 0; i < old.cap; i++)
		if (old.hash[i]) {
			uint32_t *slot = table_slot(t, old.hash[i]);

			*slot = old.index[i];
			t->hash[slot - t->index] = old.hash[i];
		}
	free(old.hash);
	free(old.index);
}

/* Hashes of 64 bits stand for their sets: two sets with one hash would only cost a candidate, or
 * count a call as another's. */
uint32_t *fit_table_find(struct fit_table *t, uint64_t hash, bool *out_new)
{
	uint32_t *slot;

	if (2 * (t->n + 1) > t->cap)
		table_grow(t);
	slot = table_slot(t, hash);
	*out_new = !t->hash[slot - t->index];
	if (*out_new) {
		t->hash[slot - t->index] = hash;
		t->n++;
	}
	return slot;
}

uint32_t *fit_table_get(const struct fit_table *t, uint64_t hash)
{
	uint32_t *slot = t->cap ? table_slot(t, hash) : NULL;

	return slot && t->hash[slot - t->index] ? slot : NULL;
}

void fit_table_done(struct fit_table *t)
{
	free(t->hash);
	free(t->index);
	*t = (struct fit_table){ 0 };
}

void *fit_more(void *list, uint32_t n, size_t size)
{
	/* room for one more: doubled whenever n is a power of two */
	return n & (n - 1) ? list : mem_resize(list, (n ? 2 * (size_t)n : 1) * size);
}

void fit_pile_put(struct fit *f, const struct fit_set *set)
{
	for (uint32_t i = 0; i < set->n; i++)
		if (!f->piled[set->v[i]]) {
			f->piled[set->v[i]] = 1;
			f->pile.v[f->pile.n++] = set->v[i];
		}
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

struct policy_set fit_pile_take(struct fit *f)
{
	struct policy_set s = { f->pile.v, f->pile.n };

	if (s.n)
		qsort(f->pile.v, s.n, sizeof(*f->pile.v), by_number);
	for (uint32_t i = 0; i < s.n; i++)
		f->piled[s.v[i]] = 0;
	f->pile.n = 0;
	return s;
}

uint32_t fit_random(struct fit *f, uint32_t n)
{
	f->seed = f->seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((f->seed >> 33) * (uint64_t)n >> 31);
}
