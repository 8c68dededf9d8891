/* SPDX-License-Identifier: Apache-2.0 */
#include "function/intern.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"

#define NAME_MAX_BYTES 512 /* longer names come from liars only */

static uint32_t hash_of(const char *s)
{
	uint32_t h = 2166136261u; /* FNV-1a */

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	return h;
}

void intern_done(struct intern *t)
{
	for (uint32_t i = 0; i < t->n; i++)
		free(t->names[i]);
	free(t->names);
	free(t->slots);
	memset(t, 0, sizeof(*t));
}

static uint32_t *slot_of(const struct intern *t, const char *name)
{
	uint32_t i = hash_of(name) & (t->nslots - 1);

	while (t->slots[i] && strcmp(t->names[t->slots[i] - 1], name) != 0)
		i = (i + 1) & (t->nslots - 1);
	return &t->slots[i];
}

static void grow_slots(struct intern *t)
{
	free(t->slots);
	t->nslots = t->nslots ? t->nslots * 2 : 1024;
	t->slots = mem_zero(t->nslots, sizeof(*t->slots));
	for (uint32_t i = 0; i < t->n; i++)
		*slot_of(t, t->names[i]) = i + 1;
}

uint32_t intern_put(struct intern *t, const char *name)
{
	uint32_t *slot;

	if ((t->n + 1) * 2 > t->nslots)
		grow_slots(t);
	slot = slot_of(t, name);
	if (*slot)
		return *slot - 1;
	if (t->n >= LIMIT_NAMES || strlen(name) > NAME_MAX_BYTES)
		return INTERN_NONE;
	if (t->n == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 512;
		t->names = mem_resize(t->names, t->cap * sizeof(*t->names));
	}
	t->names[t->n] = mem_strdup(name);
	*slot = ++t->n;
	return t->n - 1;
}

uint32_t intern_find(const struct intern *t, const char *name)
{
	uint32_t found;

	if (!t->nslots)
		return INTERN_NONE;
	found = *slot_of(t, name);
	return found ? found - 1 : INTERN_NONE;
}

static const char *join(char *room, size_t size, const char *prefix, const char *name)
{
	int n = snprintf(room, size, "%s%s", prefix, name);

	return n > 0 && (size_t)n < size ? room : NULL;
}

uint32_t intern_put2(struct intern *t, const char *prefix, const char *name)
{
	char room[NAME_MAX_BYTES];
	const char *whole = join(room, sizeof(room), prefix, name);

	return whole ? intern_put(t, whole) : INTERN_NONE;
}

uint32_t intern_find2(const struct intern *t, const char *prefix, const char *name)
{
	char room[NAME_MAX_BYTES];
	const char *whole = join(room, sizeof(room), prefix, name);

	return whole ? intern_find(t, whole) : INTERN_NONE;
}

const char *intern_name(const struct intern *t, uint32_t id)
{
	return id < t->n ? t->names[id] : "";
}

void ids_done(struct ids *s)
{
	free(s->v);
	memset(s, 0, sizeof(*s));
}

void ids_reset(struct ids *s)
{
	s->n = 0;
}

void ids_add(struct ids *s, uint32_t id)
{
	if (id == INTERN_NONE)
		return;
	if (s->n == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 16;
		s->v = mem_resize(s->v, s->cap * sizeof(*s->v));
	}
	s->v[s->n++] = id;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

void ids_seal(struct ids *s)
{
	size_t n = 0;

	if (!s->n)
		return;
	qsort(s->v, s->n, sizeof(*s->v), by_number);
	for (size_t i = 0; i < s->n; i++)
		if (!n || s->v[n - 1] != s->v[i])
			s->v[n++] = s->v[i];
	s->n = n;
}

size_t ids_place(const struct ids *s, uint32_t id)
{
	size_t low = 0, high = s->n;

	while (low + 1 < high) {
		size_t mid = (low + high) / 2;

		if (s->v[mid] <= id)
			low = mid;
		else
			high = mid;
	}
	return low;
}
