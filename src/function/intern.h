/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * Names as numbers. Room policy works on sorted sets of numbers; this gives modules, dists, absent
 * things and variables theirs. A name keeps its number as long as the daemon lives.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"

#define INTERN_NONE UINT32_MAX

struct intern {
	char **names;
	uint32_t n, cap;
	uint32_t *slots; /* number + 1, or 0 */
	uint32_t nslots; /* a power of two */
};

void intern_done(struct intern *t);
/* INTERN_NONE when the table holds LIMIT_NAMES already: names come from outside. */
uint32_t intern_put(struct intern *t, const char *name);
uint32_t intern_find(const struct intern *t, const char *name); /* INTERN_NONE: never seen */
/* The number of "prefix" + name. */
uint32_t intern_put2(struct intern *t, const char *prefix, const char *name);
uint32_t intern_find2(const struct intern *t, const char *prefix, const char *name);
const char *intern_name(const struct intern *t, uint32_t id);

/* A growing set. Add in any order, then seal: sorted, without duplicates. */
struct ids {
	uint32_t *v;
	size_t n, cap;
};

void ids_done(struct ids *s);
void ids_reset(struct ids *s);
void ids_add(struct ids *s, uint32_t id); /* INTERN_NONE is ignored */
void ids_seal(struct ids *s);
size_t ids_place(const struct ids *s, uint32_t id); /* where in v; it must be there */
static inline struct policy_set ids_set(const struct ids *s)
{
	return (struct policy_set){ s->v, s->n };
}
