/* SPDX-License-Identifier: Apache-2.0
 *
 * Subjects as sets of items, and what items cost and need.
 */
#include <string.h>

#include "base/clock.h"
#include "function/knowledge.h"
#include "function/priv.h"

#define STD_MIN_US 1000
/* What a dist takes until a node with it was measured: numpy 2.4 left 9 MB for 70 ms, pandas 3
 * (with numpy) 30 MB for 250 ms; it is corrected by what nodes turn out to take. */
#define BYTES_PER_US 130.0
#define LEARN 0.25 /* how much a new measurement counts beside those before */

void items_init(struct items *t)
{
	t->gen = 1;
	t->bytes_per_us = BYTES_PER_US;
}

void items_done(struct items *t)
{
	for (uint32_t i = 0; i < t->n; i++) {
		for (uint32_t k = 0; k < t->v[i].nclosures; k++)
			ids_done(&t->v[i].closures[k]);
		free(t->v[i].closures);
	}
	for (uint32_t i = 0; i < t->nwishes; i++)
		ids_done(&t->wishes[i].things);
	free(t->v);
	free(t->wishes);
	free(t->wish_of);
	intern_done(&t->names);
}

static struct wish *wish_find(struct items *t, uint32_t dist)
{
	return dist < t->nwish_of && t->wish_of[dist] ? &t->wishes[t->wish_of[dist] - 1] : NULL;
}

static struct wish *wish_make(struct items *t, uint32_t dist)
{
	if (dist >= t->nwish_of) {
		t->wish_of = mem_resize(t->wish_of, (dist + 1) * 2 * sizeof(uint32_t));
		memset(t->wish_of + t->nwish_of, 0,
		       ((dist + 1) * 2 - t->nwish_of) * sizeof(uint32_t));
		t->nwish_of = (dist + 1) * 2;
	}
	t->wishes = mem_resize(t->wishes, (t->nwishes + 1) * sizeof(struct wish));
	t->wishes[t->nwishes] = (struct wish){ 0 };
	t->wish_of[dist] = ++t->nwishes;
	return &t->wishes[t->nwishes - 1];
}

static bool missed(const struct node *n, uint32_t thing)
{
	return policy_set_has(ids_set(&n->absent), thing) ||
	       policy_set_has(ids_set(&n->env), thing);
}

/* A node tells what all its dists together look for. What another node with a dist did not look
 * for, that dist does not. */
static bool wish_narrow(struct wish *w, const struct node *n)
{
	bool all = w->all && n->everything, changed = all != w->all;
	const struct subject *s = n->sponsor;
	size_t kept = 0;

	for (size_t i = 0; i < w->things.n; i++)
		if (missed(n, w->things.v[i]) || !s ||
		    policy_set_has(ids_set(&s->provides), w->things.v[i]))
			w->things.v[kept++] = w->things.v[i];
	changed = changed || kept != w->things.n;
	w->things.n = kept;
	w->all = all;
	return changed;
}

void items_wishes(struct functions *f, const struct node *n)
{
	bool changed = false;

	for (size_t i = 0; i < n->dists.n; i++) {
		uint32_t dist = n->dists.v[i];
		struct wish *w = wish_find(&f->items, dist);

		if (w) {
			changed = wish_narrow(w, n) || changed;
			continue;
		}
		w = wish_make(&f->items, dist);
		for (size_t k = 0; k < n->absent.n; k++)
			ids_add(&w->things, n->absent.v[k]);
		for (size_t k = 0; k < n->env.n; k++)
			ids_add(&w->things, n->env.v[k]);
		ids_seal(&w->things);
		w->all = n->everything != 0;
		changed = true;
	}
	f->items.gen += changed;
}

static uint32_t item_put(struct functions *f, const char *name, uint32_t dist)
{
	struct items *t = &f->items;
	uint32_t number = intern_put(&t->names, name);

	if (number == INTERN_NONE || number < t->n)
		return number;
	t->v = mem_resize(t->v, (number + 1) * sizeof(struct item));
	t->v[number] = (struct item){ .dist = dist };
	t->n = number + 1;
	return number;
}

/* Which of the things that the dist looks for there are for this subject. */
static void put_found(struct subject *s, const struct wish *w, struct buf *out)
{
	struct err ignored;

	for (size_t i = 0; w && i < w->things.n; i++)
		if (policy_set_has(ids_set(&s->provides), w->things.v[i]) ||
		    policy_set_has(ids_set(&s->env), w->things.v[i]))
			(void)!buf_putf(out, &ignored, "|%u", w->things.v[i]);
	if (w && w->all)
		(void)!buf_putf(out, &ignored, "|lock %u", s->closure);
}

static uint32_t dist_item(struct functions *f, struct subject *s, uint32_t dist)
{
	auto_buf struct buf name = { 0 };
	struct err ignored;

	(void)!buf_putf(&name, &ignored, "%u %u %s", s->interp->id, s->tenant,
			intern_name(&f->names, dist));
	put_found(s, wish_find(&f->items, dist), &name);
	return name.data ? item_put(f, name.data, dist) : INTERN_NONE;
}

static uint32_t top_of(struct functions *f, uint32_t module)
{
	const char *name = intern_name(&f->names, module);
	auto_free char *top = mem_strndup(name, strcspn(name, "."));

	return intern_put(&f->names, top);
}

static void sample(struct functions *f, uint32_t number, uint64_t us, bool guess)
{
	struct item *i = &f->items.v[number];

	i->us = i->us && !i->guess ? (uint64_t)((1 - LEARN) * (double)i->us + LEARN * (double)us)
				   : us;
	i->guess = guess;
	if (!i->measured)
		i->bytes = (uint64_t)(f->items.bytes_per_us * (double)i->us);
}

static void take_item(struct functions *f, struct subject *s, uint32_t number, uint64_t us)
{
	const struct item *i;

	if (number == INTERN_NONE || policy_set_has(ids_set(&s->hopeless), number))
		return;
	i = &f->items.v[number];
	/* What is nobody's is a guess until its node was made, and then a single measurement. */
	if (s->assumed ? !i->us || i->guess : !s->sampled || !i->us)
		sample(f, number, us, s->assumed);
	ids_add(&s->items, number);
}

static bool is_aside(const struct functions *f, const struct subject *s, size_t i)
{
	return s->excluded.n && grow_sets_aside(s, intern_name(&f->names, s->seen[i].module));
}

/* Modules of the standard library come with the dist whose module is complete next: that, or what
 * it imports, has imported them. Returns where those begin that no dist came after. */
static size_t share_times(const struct functions *f, const struct subject *s, uint64_t *us)
{
	uint64_t pending = 0;
	size_t rest = 0;

	for (size_t i = 0; i < s->nseen; i++) {
		const struct seen_module *m = &s->seen[i];

		if (is_aside(f, s, i))
			continue;
		pending += m->self_us;
		if (m->dist == INTERN_NONE)
			continue;
		us[ids_place(&s->seen_dists, m->dist)] += pending + 1;
		pending = 0;
		rest = i + 1;
	}
	return rest;
}

/* What it loads of the standard library by itself is one item, shared by those that load the same:
 * which part of it imports which is not known. */
static void take_rest(struct functions *f, struct subject *s, size_t rest)
{
	auto_buf struct buf name = { 0 };
	struct ids tops = { 0 };
	struct err ignored;
	uint64_t us = 0;

	for (size_t i = rest; i < s->nseen; i++) {
		if (s->seen[i].dist != INTERN_NONE || is_aside(f, s, i))
			continue;
		ids_add(&tops, top_of(f, s->seen[i].module));
		us += s->seen[i].self_us;
	}
	ids_seal(&tops);
	(void)!buf_putf(&name, &ignored, "%u %u std", s->interp->id, s->tenant);
	for (size_t i = 0; i < tops.n; i++)
		(void)!buf_putf(&name, &ignored, " %u", tops.v[i]);
	if (us >= STD_MIN_US && name.data)
		take_item(f, s, item_put(f, name.data, INTERN_NONE), us);
	ids_done(&tops);
}

uint64_t items_left_us(const struct functions *f, const struct subject *s)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < s->nseen; i++)
		if (is_aside(f, s, i))
			sum += s->seen[i].self_us;
	return sum;
}

void items_seen(const struct functions *f, const struct subject *s, struct ids *out)
{
	auto_free uint64_t *us = mem_zero(s->seen_dists.n + 1, sizeof(*us));

	(void)share_times(f, s, us);
	for (size_t i = 0; i < s->items.n; i++)
		ids_add(out, s->items.v[i]);
	for (size_t i = 0; i < s->hopeless.n; i++) {
		uint32_t dist = f->items.v[s->hopeless.v[i]].dist;

		if (policy_set_has(ids_set(&s->seen_dists), dist) &&
		    us[ids_place(&s->seen_dists, dist)])
			ids_add(out, s->hopeless.v[i]);
	}
	ids_seal(out);
}

/* Mark, by dist of the lock, what this one may need. */
static void mark_needs(const struct subject *s, size_t dist, bool *marks)
{
	if (marks[dist])
		return;
	marks[dist] = true;
	for (size_t i = 0; s->needs && i < s->needs[dist].n; i++)
		mark_needs(s, s->needs[dist].v[i], marks);
}

static int lock_index(const struct subject *s, uint32_t dist)
{
	for (size_t i = 0; i < s->lock->ndists; i++)
		if (s->lock_ids[i] == dist)
			return (int)i;
	return -1;
}

/* Which dist of the lock provides what another looked for; -1: none, or all of them do. */
static int provider(struct functions *f, const struct subject *s, const char *thing)
{
	auto_free char *site = mem_printf("lib/python%s/site-packages", s->interp->version);
	const struct lock_dist *d;
	int owner = -1;

	if (strncmp(thing, "meta:", 5) == 0) {
		d = lock_find(s->lock, thing + 5);
		return d ? (int)(d - s->lock->dists) : -1;
	}
	if (strncmp(thing, "import:", 7) != 0)
		return -1;
	auto_free char *inside = mem_strdup(thing + 7);

	for (char *c = inside; *c; c++)
		if (*c == '.')
			*c = '/';
	for (size_t i = 0; i < 2 && owner < 0; i++) {
		auto_free char *path = i ? mem_printf("%s/%s.py", site, inside)
					 : mem_printf("%s/%s/__init__.py", site, inside);

		owner = store_owner(f->config.store, s->lock, path);
	}
	return owner;
}

static void mark_found(struct functions *f, const struct subject *s, uint32_t dist, bool *marks)
{
	const struct wish *w = wish_find(&f->items, dist);

	for (size_t i = 0; w && i < w->things.n; i++) {
		int owner = -1;

		if (policy_set_has(ids_set(&s->provides), w->things.v[i]))
			owner = provider(f, s, intern_name(&f->names, w->things.v[i]));
		if (owner >= 0 && (size_t)owner < s->lock->ndists)
			mark_needs(s, (size_t)owner, marks);
	}
	for (size_t i = 0; w && w->all && i < s->lock->ndists; i++)
		marks[i] = true;
}

static bool same_ids(const struct ids *a, const struct ids *b)
{
	return a->n == b->n && (!a->n || memcmp(a->v, b->v, a->n * sizeof(*a->v)) == 0);
}

static void add_closure(struct item *item, struct ids *closure)
{
	for (uint32_t k = 0; k < item->nclosures; k++)
		if (same_ids(&item->closures[k], closure))
			return;
	if (item->nclosures == LIMIT_CLOSURES)
		return;
	item->closures = mem_resize(item->closures, (item->nclosures + 1) * sizeof(*closure));
	item->closures[item->nclosures++] = *closure;
	*closure = (struct ids){ 0 };
}

static void find_closure(struct functions *f, struct subject *s, uint32_t number)
{
	auto_free bool *marks = mem_zero(s->lock->ndists + 1, sizeof(bool));
	struct item *item = &f->items.v[number];
	int at = item->dist == INTERN_NONE ? -1 : lock_index(s, item->dist);
	struct ids closure = { 0 };

	ids_add(&closure, number);
	if (at >= 0) {
		mark_needs(s, (size_t)at, marks);
		mark_found(f, s, item->dist, marks);
	}
	for (size_t i = 0; at >= 0 && i < s->items.n; i++) {
		uint32_t dist = f->items.v[s->items.v[i]].dist;
		int other = dist == INTERN_NONE ? -1 : lock_index(s, dist);

		if (other >= 0 && marks[other])
			ids_add(&closure, s->items.v[i]);
	}
	ids_seal(&closure);
	add_closure(item, &closure);
	ids_done(&closure);
}

void items_refresh(struct functions *f, struct subject *s)
{
	auto_free uint64_t *us = NULL;
	size_t rest;

	if (s->items_gen == f->items.gen)
		return;
	s->items_gen = f->items.gen;
	ids_reset(&s->items);
	if (!s->profiles || s->afresh || s->import_us < POLICY_GROW_MIN_US)
		return;
	knowledge_provides(f, s);
	us = mem_zero(s->seen_dists.n + 1, sizeof(*us));
	rest = share_times(f, s, us);
	for (size_t i = 0; i < s->seen_dists.n; i++)
		if (us[i])
			take_item(f, s, dist_item(f, s, s->seen_dists.v[i]), us[i]);
	take_rest(f, s, rest);
	ids_seal(&s->items);
	s->sampled = true;
	for (size_t i = 0; i < s->items.n; i++)
		find_closure(f, s, s->items.v[i]);
}

static void set_time(struct functions *f, uint32_t number, uint64_t us)
{
	struct item *item = &f->items.v[number];

	item->us = us;
	if (!item->measured)
		item->bytes = (uint64_t)(f->items.bytes_per_us * (double)us);
}

static bool has_other(struct subject *const *all, size_t n, const struct subject *s, uint32_t item)
{
	for (size_t i = 0; i < n; i++)
		if (all[i] != s && policy_set_has(ids_set(&all[i]->items), item))
			return true;
	return false;
}

void items_alone(struct functions *f, struct subject *s)
{
	auto_free uint64_t *us = mem_zero(s->seen_dists.n + 1, sizeof(*us));
	size_t n;
	auto_free struct subject **all = subjects_all(f, &n);

	share_times(f, s, us);
	for (size_t i = 0; i < s->items.n; i++) {
		uint32_t number = s->items.v[i], dist = f->items.v[number].dist;

		if (dist != INTERN_NONE && !has_other(all, n, s, number))
			set_time(f, number, us[ids_place(&s->seen_dists, dist)]);
	}
}

void items_timed(struct functions *f, const struct subject *s, const struct node *n)
{
	auto_free uint64_t *us = mem_zero(s->seen_dists.n + 1, sizeof(*us));

	share_times(f, s, us);
	for (size_t i = 0; i < n->items.n; i++) {
		uint32_t number = n->items.v[i], dist = f->items.v[number].dist;
		uint64_t known = f->items.v[number].us, now;

		if (dist == INTERN_NONE || policy_set_has(ids_set(&n->parent->items), number))
			continue;
		now = us[ids_place(&s->seen_dists, dist)];
		if (now && now < known)
			set_time(f, number, now);
		else if (now)
			set_time(f, number,
				 (uint64_t)((1 - LEARN) * (double)known + LEARN * (double)now));
	}
}

void items_measured(struct functions *f, const struct node *n, uint64_t bytes)
{
	uint64_t us = 0;
	double part;

	for (size_t i = 0; i < n->items.n; i++)
		if (!n->parent || !policy_set_has(ids_set(&n->parent->items), n->items.v[i]))
			us += f->items.v[n->items.v[i]].us;
	bytes -= bytes < NODE_BYTES ? bytes : NODE_BYTES;
	if (!us || !bytes)
		return;
	part = (double)bytes / (double)us;
	f->items.bytes_per_us = (1 - LEARN) * f->items.bytes_per_us + LEARN * part;
	for (size_t i = 0; i < n->items.n; i++) {
		struct item *item = &f->items.v[n->items.v[i]];

		if (n->parent && policy_set_has(ids_set(&n->parent->items), n->items.v[i]))
			continue;
		item->bytes = (uint64_t)(part * (double)item->us);
		item->measured = true;
	}
}

bool items_have(const struct functions *f, const struct ids *items, uint32_t dist)
{
	for (size_t i = 0; i < items->n; i++)
		if (f->items.v[items->v[i]].dist == dist)
			return true;
	return false;
}

void items_of_node(struct functions *f, const struct node *n, struct subject *s, struct ids *out)
{
	items_refresh(f, s);
	for (size_t i = 0; i < s->items.n; i++) {
		uint32_t number = s->items.v[i], dist = f->items.v[number].dist;

		if (dist == INTERN_NONE ? policy_set_has(ids_set(&n->items), number)
					: policy_set_has(ids_set(&n->dists), dist))
			ids_add(out, number);
	}
}

/* Is each of the dists that are not loaded, but would be in the environment, in all the others'
 * locks? Else the node would be of no use to them. */
static void unmark_private(struct functions *f, const struct subject *s, struct policy_set items,
			   const bool *loaded, bool *marks)
{
	size_t n;
	auto_free struct subject **all = subjects_all(f, &n);

	for (size_t k = 0; k < n; k++) {
		if (all[k] == s || !policy_set_within(items, ids_set(&all[k]->items)))
			continue;
		for (size_t i = 0; i < s->lock->ndists; i++)
			if (marks[i] && !loaded[i] &&
			    !policy_set_has(ids_set(&all[k]->dists), s->lock_ids[i]))
				marks[i] = false;
	}
}

struct lock *items_lock(struct functions *f, const struct subject *s, struct policy_set items)
{
	auto_free bool *marks = mem_zero(s->lock->ndists + 1, sizeof(bool));
	auto_free bool *loaded = mem_zero(s->lock->ndists + 1, sizeof(bool));
	struct lock *lock = lock_new(s->lock->python_tag);

	for (size_t i = 0; i < items.n; i++) {
		uint32_t dist = f->items.v[items.v[i]].dist;
		int at = dist == INTERN_NONE ? -1 : lock_index(s, dist);

		if (at < 0)
			continue;
		loaded[at] = true;
		mark_needs(s, (size_t)at, marks);
		mark_found(f, s, dist, marks);
	}
	/* What it loads, but as another item, is not to be found in this node's. */
	for (size_t i = 0; i < s->lock->ndists; i++)
		if (!loaded[i] && policy_set_has(ids_set(&s->seen_dists), s->lock_ids[i]))
			marks[i] = false;
	unmark_private(f, s, items, loaded, marks);
	for (size_t i = 0; i < s->lock->ndists; i++)
		if (marks[i])
			lock_add(lock, &s->lock->dists[i]);
	lock->strict = s->lock->strict;
	lock_seal(lock);
	return lock;
}

/* By position in the profile: does it belong to these items? */
static bool *modules_of(struct functions *f, const struct subject *s, struct policy_set items)
{
	bool *take = mem_zero(s->nseen + 1, sizeof(bool));
	struct ids dists = { 0 };
	size_t begin = 0;
	bool has_rest = false;

	for (size_t i = 0; i < items.n; i++) {
		ids_add(&dists, f->items.v[items.v[i]].dist);
		has_rest = has_rest || f->items.v[items.v[i]].dist == INTERN_NONE;
	}
	ids_seal(&dists);
	for (size_t i = 0; i < s->nseen; i++) {
		bool ours = policy_set_has(ids_set(&dists), s->seen[i].dist);

		if (s->seen[i].dist == INTERN_NONE)
			continue;
		for (; begin <= i; begin++)
			take[begin] = ours && (s->seen[begin].dist == INTERN_NONE || begin == i);
	}
	for (; begin < s->nseen; begin++)
		take[begin] = has_rest;
	ids_done(&dists);
	return take;
}

/* How much of the calls that have all of the items load each module of the profile. */
static double *weigh_modules(struct functions *f, const struct subject *s, struct policy_set items,
			     double *out_all)
{
	double *weight = mem_zero(s->nseen + 1, sizeof(double)), now = clock_wall_s();
	size_t n;
	auto_free struct subject **all = subjects_all(f, &n);

	*out_all = 0;
	for (size_t k = 0; k < n; k++) {
		double w = demand_of(all[k], now) + 1e-9;

		if (!policy_set_within(items, ids_set(&all[k]->items)))
			continue;
		*out_all += w;
		for (size_t i = 0; i < s->nseen; i++)
			if (policy_set_has(ids_set(&all[k]->modules), s->seen[i].module))
				weight[i] += w;
	}
	return weight;
}

const char **items_modules(struct functions *f, const struct subject *s, struct policy_set items,
			   const struct node *parent)
{
	const char **out = mem_zero(s->nseen + 1, sizeof(*out));
	auto_free bool *take = modules_of(f, s, items);
	double all;
	auto_free double *weight = weigh_modules(f, s, items, &all);
	size_t n = 0;

	for (size_t i = 0; i < s->nseen; i++) {
		uint32_t module = s->seen[i].module;

		if (take[i] && weight[i] * 2 >= all && !is_aside(f, s, i) &&
		    !policy_set_has(ids_set(&parent->modules), module))
			out[n++] = intern_name(&f->names, module);
	}
	return out;
}

struct subject *items_sponsor(struct functions *f, struct policy_set items)
{
	struct subject *best = NULL;
	double now = clock_wall_s(), most = -1;
	size_t n;
	auto_free struct subject **all = subjects_all(f, &n);

	for (size_t k = 0; k < n; k++) {
		double w = demand_of(all[k], now);

		if (w <= most || !policy_set_within(items, ids_set(&all[k]->items)))
			continue;
		items_refresh(f, all[k]);
		if (!policy_set_within(items, ids_set(&all[k]->items)))
			continue;
		best = all[k];
		most = w;
	}
	return best;
}
