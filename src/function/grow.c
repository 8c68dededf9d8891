/* SPDX-License-Identifier: Apache-2.0 */
#include <sched.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "function/knowledge.h"
#include "function/priv.h"
#include "function/times.h"
#include "function/warm.h"
#include "policy/policy.h"

#define UNFORKABLE_LINES 100
#define CALM_US 1000000UL /* without a call */

/* One node: waits for its turn, for its environment, for its imports. */
struct growth {
	struct functions *f;
	struct growth *next;
	struct ids items;
	int place, parent_place; /* the optimiser's; -1: an heir's, the root's */
	uint64_t reserve_bytes;
	uint32_t parent_id, heir_of; /* heir_of: the node whose like it is; 0: of none */
	struct subject *s;	     /* NULL: it has not begun */
	struct lock *lock;	     /* of its environment; NULL: none */
	bool held;		     /* the store keeps that environment */
	const char *env_path;
	uint64_t begin_us;
	bool watch;
};

static void say_unforkable(struct functions *f, char *line)
{
	for (uint32_t i = 0; i < f->nunforkable; i++)
		if (strcmp(f->unforkable[i], line) == 0)
			line[0] = '\0';
	if (!line[0] || f->nunforkable == UNFORKABLE_LINES) {
		free(line);
		return;
	}
	f->unforkable = mem_resize(f->unforkable, (f->nunforkable + 1) * sizeof(char *));
	f->unforkable[f->nunforkable++] = line;
}

/* No node of these beyond the parent's is made for this subject any more. */
static void rule_out(struct subject *s, const struct ids *items, const struct node *parent,
		     const char *why)
{
	struct functions *f = s->f;

	free(s->cannot);
	s->cannot = mem_strdup(why);
	for (size_t i = 0; i < items->n; i++)
		if (!parent || !policy_set_has(ids_set(&parent->items), items->v[i]))
			ids_add(&s->hopeless, items->v[i]);
	ids_seal(&s->hopeless);
	s->items_gen = 0;
	log_info("function", "no node for %s: %s", s->key, why);
	say_unforkable(f, mem_printf("%s: %s", s->key, why));
}

static void give_up(struct growth *g, const char *why)
{
	rule_out(g->s, &g->items, knowledge_find(g->f, g->parent_id), why);
}

void grow_never_again(struct functions *f, const struct node *n, const char *why)
{
	if (n->sponsor)
		rule_out(n->sponsor, &n->items, n->parent, why);
	optimise_anew(f);
}

/* "MODULE: what it leaves", for `tree`: "twisted 26.10.0: MODULE: what it leaves". */
static void blame(struct subject *s, const char *text)
{
	auto_free char *module = mem_strndup(text, strcspn(text, ":"));
	uint32_t id = intern_find(&s->f->names, module), dist = INTERN_NONE;
	const char *whose = "dist:the standard library ";

	for (size_t i = 0; id != INTERN_NONE && i < s->nseen; i++)
		if (s->seen[i].module == id)
			dist = s->seen[i].dist;
	if (dist != INTERN_NONE)
		whose = intern_name(&s->f->names, dist);
	whose += strlen("dist:");
	say_unforkable(s->f,
		       mem_printf("%.*s: %.200s", (int)(strrchr(whose, ' ') - whose), whose, text));
}

/* What the node says about its modules. Those that cannot sleep ("blame="), those whose import
 * comes to one of them ("way=") and those that cannot be imported there ("failed=") are imported
 * after the fork from now on: a node that did so halfway would not be as a fresh process (S10).
 * Returns whether there are any that were not known. */
static bool set_aside(struct subject *s, char **left)
{
	size_t before = s->excluded.n;

	for (; *left; left++) {
		const char *name = strchr(*left, '=');

		explain_left(s, *left);
		if (strncmp(*left, "blame=", 6) == 0)
			blame(s, name + 1);
		else if (strncmp(*left, "way=", 4) == 0 || strncmp(*left, "failed=", 7) == 0)
			ids_add(&s->excluded, intern_find(&s->f->names, name + 1));
	}
	ids_seal(&s->excluded);
	return s->excluded.n > before;
}

/* Why it may not sleep; NULL: it may. */
static const char *what_is_left(char **left)
{
	for (; left && *left; left++)
		if (strncmp(*left, "blame=", 6) != 0 && strncmp(*left, "way=", 4) != 0 &&
		    !warm_is_word(*left))
			return *left;
	return NULL;
}

static void drop_now(struct node *n)
{
	struct err err;

	if (zygote_drop(n->z, &err) < 0)
		log_warn("function", "dropping node %u: %s", n->id, err.text);
}

/* Is anything left that it was made for? */
static bool has_hope(struct growth *g)
{
	const struct node *parent = knowledge_find(g->f, g->parent_id);

	items_refresh(g->f, g->s);
	for (size_t i = 0; i < g->items.n; i++)
		if (policy_set_has(ids_set(&g->s->items), g->items.v[i]) &&
		    !(parent && policy_set_has(ids_set(&parent->items), g->items.v[i])))
			return true;
	return false;
}

/* A node that may not stay: the next try leaves out what is to blame, or finds out what is. */
static void try_again(struct growth *g, char **left)
{
	struct subject *s = g->s;
	const char *left_there = what_is_left(left);
	bool cooled = warm_spoilt(s, left), found = set_aside(s, left) || cooled;

	s->watch = !g->watch && !found;
	s->items_gen = 0;
	if (s->tries >= LIMIT_GROW_TRIES || (!found && !s->watch)) {
		auto_free char *why = mem_printf("cannot sleep: %.200s",
						 left_there ? left_there : "unknown why");

		give_up(g, why);
	} else if (!has_hope(g)) {
		give_up(g, "all that it would import must be imported after the fork");
	}
}

/* May it stay? */
static bool judge(struct growth *g, struct node *n, const struct zygote_profile *p)
{
	struct functions *f = g->f;

	if (g->watch || (p && what_is_left(p->left))) {
		drop_now(n);
		try_again(g, p ? p->left : (char *[]){ NULL });
		return false;
	}
	if (!knowledge_admits(f, n, g->s)) {
		/* Its dists looked for something that this function has: with that known they are
		 * other items for it. */
		uint64_t gen = f->items.gen;

		if (p && warm_asked(g->s, p->left)) { /* it may have been these lines alone */
			drop_now(n);
			return false;
		}
		items_wishes(f, n);
		drop_now(n);
		if (f->items.gen == gen || g->s->tries >= LIMIT_GROW_TRIES)
			give_up(g, "what its imports asked for makes a node that would not fit it");
		return false;
	}
	return true;
}

static void growth_free(struct growth *g)
{
	struct growth **link = &g->f->growths;

	while (*link != g)
		link = &(*link)->next;
	*link = g->next;
	if (g->held)
		store_hold(g->f->config.store, g->lock, false);
	lock_free(g->lock);
	ids_done(&g->items);
	subject_unref(g->s);
	free(g);
}

/* It came to nothing, or to a node that did not stay. */
static void not_made(struct growth *g)
{
	struct functions *f = g->f;
	struct node *old = knowledge_find(f, g->heir_of);
	struct interp *p = old ? old->interp : NULL;

	optimise_gone(f, g->place);
	if (g->place >= 0)
		optimise_anew(f);
	growth_free(g);
	if (p)
		renew_grown(f, p);
}

/* The optimiser thinks that it holds these; what it does hold counts. */
static void settle_items(struct growth *g, struct node *n)
{
	struct ids has = { 0 };

	for (size_t i = 0; i < g->items.n; i++)
		ids_add(&n->items, g->items.v[i]);
	items_of_node(g->f, n, g->s, &has);
	ids_seal(&has);
	if (has.n != g->items.n ||
	    (has.n && memcmp(has.v, g->items.v, has.n * sizeof(*has.v)) != 0)) {
		if (!g->heir_of && g->s->tries >= LIMIT_GROW_TRIES)
			give_up(g, "its imports are others than expected");
		optimise_anew(g->f);
	} else if (g->s->tries) {
		g->s->tries = 1; /* it may have others */
	}
	ids_done(&n->items);
	n->items = has;
}

static void take_in(struct growth *g, struct node *n, const struct zygote_profile *p)
{
	struct functions *f = g->f;
	struct node *old = knowledge_find(f, g->heir_of);
	struct subject *s = g->s;

	log_info("function", "node %u for %s is asleep after %.0f ms (%zu modules)", n->id, s->key,
		 (double)(clock_us() - g->begin_us) / 1e3, n->nmodules);
	items_wishes(f, n);
	warm_stays(s, n, p ? p->left : NULL);
	if (s->assumed && p)
		subject_correct(s, p);
	settle_items(g, n);
	if (p && n->parent)
		times_of_node(f, n, s, p);
	n->place = optimise_place(f, g->place);
	optimise_measure(f); /* nothing has been forked from it: all it added is its own */
	items_measured(f, n, n->bytes);
	if (old && n->parent)
		old->heir = n;
	if (optimise_measure(f) <= f->config.memory_bytes)
		return;
	/* It took more than was thought, and is the one thing that nobody uses yet: the next plan
	 * knows what it takes. */
	log_info("function", "node %u takes %llu MiB, more than there is room for", n->id,
		 (unsigned long long)(n->bytes / MIB));
	optimise_anew(f);
	drop_now(n);
}

/* What it could find there without loading it counts as found. One that listed all fits that one
 * closure anyway. */
static void read_environment(struct growth *g, struct node *n)
{
	for (size_t i = 0; g->lock && !n->everything && i < g->s->lock->ndists; i++) {
		const struct lock_dist *d = &g->s->lock->dists[i];

		if (lock_find(g->lock, d->name) && !items_have(g->f, &g->items, g->s->lock_ids[i]))
			ids_add(&n->reads, g->s->lock_ids[i]);
	}
	ids_seal(&n->reads);
}

static void put_off(struct growth *g, const struct err *err)
{
	g->s->tries -= g->s->tries > 0;
	explain_put_off(g->s, err->text);
	optimise_hold(g->f);
}

static void have_node(struct growth *g, struct node *n, const struct zygote_profile *profile)
{
	struct functions *f = g->f;
	struct subject *s = g->s;
	struct interp *p = g->heir_of ? n->interp : NULL;

	n->tenant = s->tenant;
	n->made_for = mem_strdup(s->key);
	explain_put_off(s, NULL);
	n->sponsor = s;
	n->lock = g->lock ? lock_copy(g->lock) : NULL;
	if (profile)
		knowledge_describe(f, n, s, profile);
	read_environment(g, n);
	if (!judge(g, n, profile)) {
		not_made(g);
		return;
	}
	take_in(g, n, profile);
	growth_free(g);
	if (p)
		renew_grown(f, p);
}

static void on_grown(void *arg, struct zygote_node *z, const struct zygote_profile *profile,
		     const struct err *err)
{
	struct growth *g = arg;
	struct functions *f = g->f;
	struct node *parent = knowledge_find(f, g->parent_id), *n = NULL;
	struct err ignored;

	f->growing--;
	if (parent)
		parent->busy--;
	if (z && parent)
		n = knowledge_add(f, z, parent, g->s->interp);
	if (z && !n && zygote_drop(z, &ignored) < 0)
		log_debug("function", "a node too many: %s", ignored.text);
	if (n) {
		have_node(g, n, profile);
	} else {
		if (err && err->kind == ERR_BUSY)
			put_off(g, err); /* ids come back with nodes that go */
		else if (err && parent)	 /* else it was not its own fault */
			give_up(g, err->text);
		not_made(g);
	}
	grow_kick(f);
	optimise_grown(f);
	functions_went_quiet(f);
}

bool grow_sets_aside(const struct subject *s, const char *module)
{
	auto_free char *name = mem_strdup(module);

	for (;;) {
		char *dot;

		if (policy_set_has(ids_set(&s->excluded), intern_find(&s->f->names, name)))
			return true;
		dot = strrchr(name, '.');
		if (!dot)
			return false;
		*dot = '\0';
	}
}

static void give_up_place(struct growth *g)
{
	struct functions *f = g->f;
	struct node *parent = knowledge_find(f, g->parent_id);

	f->growing--;
	if (parent)
		parent->busy--;
	not_made(g);
	optimise_grown(f);
}

/* Its environment is there. */
static void import(struct growth *g)
{
	struct functions *f = g->f;
	struct node *parent = knowledge_find(f, g->parent_id);
	struct zygote_grow spec = { .env_path = g->env_path,
				    .memory_bytes = f->config.memory_bytes,
				    .watch = g->watch };
	auto_free const char **modules = NULL, **cold = warm_cold(g->s);

	if (!parent || f->draining) {
		give_up_place(g);
		return;
	}
	modules = items_modules(f, g->s, ids_set(&g->items), parent);
	if (!modules[0]) {
		give_up(g, g->s->excluded.n
				   ? "all that it would import must be imported after the fork"
				   : "what it is to be forked from has all of it");
		give_up_place(g);
		return;
	}
	spec.modules = modules;
	spec.cold = cold;
	zygote_grow(f->config.zygotes, parent->z, &spec, on_grown, g);
}

static void on_env(void *arg, const struct store_env *env, const struct err *err)
{
	struct growth *g = arg;

	if (env) {
		g->env_path = env->path;
		import(g);
		return;
	}
	give_up(g, err->text);
	give_up_place(g);
}

static void find_env(struct growth *g)
{
	struct functions *f = g->f;
	struct subject *s = g->s;
	struct store_python python;

	if (!g->lock)
		g->lock = items_lock(f, s, ids_set(&g->items));
	if (!g->lock->ndists) {
		import(g);
	} else if (s->env_path && strcmp(g->lock->hash, s->lock->hash) == 0) {
		g->env_path = s->env_path;
		import(g);
	} else {
		store_hold(f->config.store, g->lock, true);
		g->held = true;
		python_store_view(s->interp, &python);
		store_make_env(f->config.store, g->lock, &python, NULL, on_env, g);
	}
}

/* The one that the optimiser means, or the nearest above it that is right for whom it is made for
 * and may have one more below it. */
static struct node *find_parent(struct growth *g)
{
	struct functions *f = g->f;
	struct node *n = g->heir_of	       ? knowledge_find(f, g->parent_id)
			 : g->parent_place < 0 ? g->s->interp->root
					       : knowledge_find_place(f, g->parent_place);
	struct zygote_node_info info;

	for (; n; n = n->parent) {
		zygote_node_peek(n->z, &info);
		if (!n->parent || (info.depth < LIMIT_TREE_DEPTH && info.asleep &&
				   !zygote_node_full(n->z) && knowledge_admits(f, n, g->s)))
			break;
	}
	return n;
}

/* The node below which it is to be is itself being made. */
static bool must_wait(const struct growth *g)
{
	for (const struct growth *o = g->f->growths; o; o = o->next)
		if (o != g && g->parent_place >= 0 && o->place == g->parent_place)
			return true;
	return false;
}

static bool start(struct growth *g)
{
	struct functions *f = g->f;
	struct node *parent, *old = knowledge_find(f, g->heir_of);

	g->s = g->heir_of ? (old ? old->sponsor : NULL) : items_sponsor(f, ids_set(&g->items));
	if (!g->s)
		return false;
	g->s->refs++;
	parent = find_parent(g);
	if (!parent)
		return false;
	g->parent_id = parent->id;
	g->begin_us = clock_us();
	g->watch = g->s->watch;
	f->growing++;
	parent->busy++;
	parent->last_used_us = g->s->growth_us = clock_us();
	g->s->tries += !g->heir_of;
	find_env(g);
	return true;
}

/* How many at a time: while there are calls half of the processors are theirs. */
static uint32_t slots(const struct functions *f)
{
	cpu_set_t set;
	int cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

	if (clock_us() - f->last_call_us > CALM_US || cpus / 2 >= LIMIT_GROWING)
		return LIMIT_GROWING;
	return cpus > 3 ? (uint32_t)cpus / 2 : 1;
}

/* Below calls in priority: while calls run, the housekeeping timer comes back to it. */
void grow_kick(struct functions *f)
{
	struct growth *g = f->growths, *next;
	uint32_t most = slots(f);

	for (; g && f->growing < most && !f->draining; g = next) {
		next = g->next;
		if (g->s || must_wait(g))
			continue;
		if (!start(g)) {
			not_made(g);
			optimise_kick(f);
		}
		next = f->growths; /* the list may be another one now */
	}
}

static struct growth *growth_new(struct functions *f, struct policy_set items)
{
	struct growth *g = mem_new(struct growth), **end = &f->growths;

	g->f = f;
	g->place = g->parent_place = -1;
	for (size_t i = 0; i < items.n; i++)
		ids_add(&g->items, items.v[i]);
	while (*end)
		end = &(*end)->next;
	*end = g;
	return g;
}

void grow_set(struct functions *f, struct policy_set items, int place, int parent_place,
	      uint64_t reserve_bytes)
{
	struct growth *g = growth_new(f, items);

	g->place = place;
	g->parent_place = parent_place;
	g->reserve_bytes = reserve_bytes;
	if (!f->calls)
		grow_kick(f);
	else
		functions_housekeep(f);
}

bool grow_heir(struct functions *f, struct node *n, struct node *parent)
{
	struct growth *g;

	if (!n->sponsor || f->draining)
		return false;
	g = growth_new(f, ids_set(&n->items));
	g->heir_of = n->id;
	g->parent_id = parent->id;
	g->lock = n->lock ? lock_copy(n->lock) : NULL;
	g->reserve_bytes = n->bytes;
	grow_kick(f);
	return true;
}

void grow_consider(struct functions *f, struct subject *s)
{
	if (s->queued || s->afresh || !s->profiles || f->draining ||
	    f->opt.nwaiting == LIMIT_GROW_QUEUE)
		return;
	items_refresh(f, s);
	if (!s->items.n || f->config.no_tree)
		return;
	s->queued = true;
	s->refs++;
	f->opt.waiting[f->opt.nwaiting++] = s;
	optimise_kick(f);
}

struct growth *grow_next(const struct functions *f, const struct growth *g)
{
	return g ? g->next : f->growths;
}

uint32_t grow_count(const struct functions *f)
{
	uint32_t n = 0;

	for (const struct growth *g = f->growths; g; g = g->next)
		n++;
	return n;
}

bool grow_is_for(const struct functions *f, const struct subject *s)
{
	for (const struct growth *g = f->growths; g; g = g->next)
		if (g->s == s)
			return true;
	return false;
}

bool grow_is_there(const struct functions *f, const struct growth *g)
{
	for (const struct growth *o = f->growths; o; o = o->next)
		if (o == g)
			return true;
	return false;
}

bool grow_look(const struct growth *g, const struct ids **out_items, struct node **out_parent)
{
	*out_items = &g->items;
	*out_parent = knowledge_find(g->f, g->parent_id);
	return !g->heir_of;
}

void grow_forget_waiting(struct functions *f)
{
	struct growth *g = f->growths, *next;

	for (; g; g = next) {
		next = g->next;
		if (!g->s && !g->heir_of)
			growth_free(g);
	}
}

void grow_take_place(struct growth *g, int place)
{
	g->place = place;
}

uint64_t grow_reserved(const struct functions *f)
{
	uint64_t sum = 0;

	for (const struct growth *g = f->growths; g; g = g->next)
		sum += g->reserve_bytes;
	return sum;
}

void grow_close(struct functions *f)
{
	while (f->growths) {
		f->growths->held = false; /* the store is closed */
		growth_free(f->growths);
	}
	for (uint32_t i = 0; i < f->nunforkable; i++)
		free(f->unforkable[i]);
	free(f->unforkable);
	warm_close(f);
}
