/* SPDX-License-Identifier: Apache-2.0
 *
 * Which sets lie in a set, and which hold it, without a look at all of them.
 */
#include "policy/fit_priv.h"

#include <stddef.h>

#include "base/mem.h"

void fit_list_put(struct fit_list *l, uint32_t x)
{
	l->v = fit_more(l->v, l->n, sizeof(*l->v));
	l->v[l->n++] = x;
}

void fit_list_drop(struct fit_list *l, uint32_t x)
{
	uint32_t i = 0;

	while (l->v[i] != x)
		i++;
	for (l->n--; i < l->n; i++)
		l->v[i] = l->v[i + 1];
}

void fit_rising_put(struct fit_rising *r, uint32_t x)
{
	uint32_t more = x - r->last;

	if (r->n + 5 > r->room) {
		r->room = r->room + r->room / 4 + 8;
		r->bytes = mem_resize(r->bytes, r->room);
	}
	for (; more > 127; more >>= 7)
		r->bytes[r->n++] = (uint8_t)(more | 128);
	r->bytes[r->n++] = (uint8_t)more;
	r->last = x;
}

bool fit_rising_next(const struct fit_rising *r, uint32_t *at, uint32_t *x)
{
	uint32_t more = 0, shift = 0;

	if (*at == r->n)
		return false;
	for (; r->bytes[*at] & 128; shift += 7)
		more |= (r->bytes[(*at)++] & 127u) << shift;
	*x += more | (uint32_t)r->bytes[(*at)++] << shift;
	return true;
}

uint32_t fit_key(const struct fit *f, const struct fit_set *set)
{
	uint32_t rarest = set->v[0];

	for (uint32_t i = 1; i < set->n; i++)
		if (f->items[set->v[i]].views.n < f->items[rarest].views.n)
			rarest = set->v[i];
	return rarest;
}

/* The views that may hold the set: those of its rarest item. */
const struct fit_item *fit_rarest(const struct fit *f, const struct fit_set *set)
{
	return &f->items[fit_key(f, set)];
}

struct fit_walk fit_walk_nodes(const struct fit_set *set)
{
	return (struct fit_walk){ .set = fit_set_plain(set),
				  .offset = offsetof(struct fit_item, nodes) };
}

struct fit_walk fit_walk_candidates(const struct fit_set *set)
{
	return (struct fit_walk){ .set = fit_set_plain(set),
				  .offset = offsetof(struct fit_item, candidates) };
}

bool fit_walk_next(const struct fit *f, struct fit_walk *w, uint32_t *out)
{
	for (; w->item < w->set.n; w->item++, w->at = 0) {
		const char *item = (const char *)&f->items[w->set.v[w->item]];
		const struct fit_list *list = (const struct fit_list *)(item + w->offset);

		if (w->at == list->n)
			continue;
		*out = list->v[w->at++];
		return true;
	}
	return false;
}

int32_t fit_next_within(const struct fit *f, struct fit_walk *w, const struct fit_set *set)
{
	uint32_t node;

	while (fit_walk_next(f, w, &node))
		if (fit_set_within(&f->nodes[node].set, set))
			return (int32_t)node;
	return -1;
}
