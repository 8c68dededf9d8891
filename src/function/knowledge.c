/* SPDX-License-Identifier: Apache-2.0 */
#include "function/knowledge.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "function/priv.h"
#include "function/upload.h"
#include "policy/policy.h"

#define NODE_FAILURES 2 /* forks that failed in a row: the node is dropped */

/* Numbers: a dist is "dist:NAME VERSION SHA256", so that two wheels of one version differ (S2). */
static uint32_t intern_dist(struct functions *f, const struct lock_dist *d)
{
	auto_free char *text = mem_printf("dist:%s %s %s", d->name, d->version, d->sha256);

	return intern_put(&f->names, text);
}

struct node *knowledge_find(struct functions *f, uint32_t id)
{
	uint32_t low = 0, high = f->nnodes; /* they are in the order of their ids */

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (f->nodes[mid]->id == id)
			return f->nodes[mid];
		if (f->nodes[mid]->id < id)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

struct node *knowledge_find_place(struct functions *f, int place)
{
	for (uint32_t i = 0; place >= 0 && i < f->nnodes; i++)
		if (f->nodes[i]->place == place)
			return f->nodes[i];
	return NULL;
}

struct node *knowledge_add(struct functions *f, struct zygote_node *z, struct node *parent,
			   struct interp *interp)
{
	struct node *n;

	if (f->nnodes == LIMIT_NODES)
		return NULL;
	n = mem_new(struct node);
	n->z = z;
	n->interp = interp;
	n->parent = parent;
	n->id = ++f->next_node_id;
	n->place = -1;
	n->made_us = n->last_used_us = clock_us();
	if (parent)
		parent->children++;
	f->nodes[f->nnodes++] = n;
	f->gen++;
	zygote_node_set_data(z, n);
	return n;
}

void knowledge_gone(struct functions *f, struct node *n)
{
	uint32_t i = 0;

	while (i < f->nnodes && f->nodes[i] != n)
		i++;
	must(i < f->nnodes);
	memmove(&f->nodes[i], &f->nodes[i + 1], (f->nnodes - i - 1) * sizeof(f->nodes[0]));
	f->nnodes--;
	f->gen++;
	for (i = 0; i < f->nnodes; i++)
		if (f->nodes[i]->parent == n)
			f->nodes[i]->parent = NULL;
	for (i = 0; i < f->nnodes; i++)
		if (f->nodes[i]->heir == n)
			f->nodes[i]->heir = NULL;
	optimise_gone(f, n->place);
	if (n->parent)
		n->parent->children--;
	else if (n->interp->root == n)
		n->interp->root = NULL;
	else if (n->interp->next_root == n)
		n->interp->next_root = NULL;
	ids_done(&n->dists);
	ids_done(&n->reads);
	ids_done(&n->modules);
	ids_done(&n->absent);
	ids_done(&n->env);
	ids_done(&n->items);
	lock_free(n->lock);
	upload_names_free(n->adds);
	upload_names_free(n->warmed);
	free(n->made_for);
	free(n);
}

/* numpy.linalg -> numpy, as "own:numpy": a function with a numpy.py of its own must not see it. */
static uint32_t own_of(struct functions *f, const char *module)
{
	auto_free char *top = mem_strndup(module, strcspn(module, "."));

	return intern_put2(&f->names, "own:", top);
}

static bool provided_by(struct subject *s, const struct lock *lock, const char *absent);

/* Only functions with the closure that it was born with would see the same. */
static void fits_one(struct functions *f, struct node *n)
{
	n->everything = intern_put2(&f->names, "lock:", n->lock ? n->lock->hash : "");
}

/* Something that the node's own environment provides was asked for and not found (or was listed).
 */
static void add_absent(struct functions *f, struct node *n, struct subject *s, const char *thing)
{
	uint32_t id;

	if (n->lock && provided_by(s, n->lock, thing)) {
		fits_one(f, n);
		return;
	}
	id = intern_put(&f->names, thing);
	ids_add(&n->absent, id);
}

static void inherit(struct ids *to, const struct ids *from)
{
	for (size_t i = 0; i < from->n; i++)
		ids_add(to, from->v[i]);
}

static void note_absent(struct functions *f, const struct node *n)
{
	size_t before = f->absent_known.n;

	for (size_t i = 0; i < n->absent.n; i++) {
		bool known = false;

		for (size_t k = 0; k < before && !known; k++)
			known = f->absent_known.v[k] == n->absent.v[i];
		if (!known)
			ids_add(&f->absent_known, n->absent.v[i]);
	}
}

/* Of what the subject was not seen loading, the file that it came from says whose it is. */
static uint32_t dist_of(struct subject *s, uint32_t module, const char *name, const char *origin)
{
	uint32_t dist;

	for (size_t i = 0; i < s->nseen; i++)
		if (s->seen[i].module == module)
			return s->seen[i].dist;
	return subject_place(s, name, origin, &dist) ? dist : INTERN_NONE;
}

static void add_read(struct functions *f, struct node *n, struct subject *s, const char *name)
{
	const struct lock_dist *d = lock_find(s->lock, name);

	if (strcmp(name, "*") == 0)
		fits_one(f, n);
	else if (d)
		ids_add(&n->reads, intern_dist(f, d));
}

static void list_adds(struct functions *f, struct node *n)
{
	size_t count = 0;

	n->adds = mem_zero(n->dists.n + 1, sizeof(char *));
	for (size_t i = 0; i < n->dists.n; i++) {
		const char *text = intern_name(&f->names, n->dists.v[i]) + strlen("dist:");

		if (n->parent && policy_set_has(ids_set(&n->parent->dists), n->dists.v[i]))
			continue;
		n->adds[count++] = mem_strndup(text, (size_t)(strrchr(text, ' ') - text));
	}
}

void knowledge_describe(struct functions *f, struct node *n, struct subject *s,
			const struct zygote_profile *p)
{
	if (n->parent) {
		inherit(&n->dists, &n->parent->dists);
		inherit(&n->reads, &n->parent->reads);
		inherit(&n->modules, &n->parent->modules);
		inherit(&n->absent, &n->parent->absent);
		inherit(&n->env, &n->parent->env);
		n->everything = n->parent->everything;
	}
	for (size_t i = 0; i < p->nmodules; i++) {
		uint32_t id = intern_put(&f->names, p->modules[i]);

		n->nmodules++;
		ids_add(&n->modules, id);
		if (s)
			ids_add(&n->dists, dist_of(s, id, p->modules[i], p->origins[i]));
		/* A root's own modules are there in any fresh interpreter, too. */
		if (n->parent)
			ids_add(&n->absent, own_of(f, p->modules[i]));
	}
	/* What an interpreter asks for at its own start is asked by every fresh one, too: only what
	 * imports ask for counts. */
	for (char **a = p->absent; a && *a && s; a++)
		add_absent(f, n, s, *a);
	for (char **e = p->env_read; e && *e && s; e++)
		ids_add(&n->env, intern_put2(&f->names, "env:", *e));
	for (char **r = p->reads; r && *r && s; r++)
		add_read(f, n, s, *r);
	ids_seal(&n->dists);
	ids_seal(&n->reads);
	ids_seal(&n->modules);
	ids_seal(&n->absent);
	ids_seal(&n->env);
	note_absent(f, n);
	list_adds(f, n);
	f->gen++;
}

static bool owns(struct subject *s, const struct lock *lock, const char *format, const char *path)
{
	auto_free char *inside = mem_strdup(path), *file = NULL;

	for (char *p = inside; *p; p++)
		if (*p == '.')
			*p = '/';
	file = mem_printf(format, s->interp->version, inside, s->interp->soabi);
	return store_owner(s->f->config.store, lock, file) >= 0;
}

/* A dotted name is asked of the files: that a closure has `numpy` says nothing of `numpy.x`. */
static bool provides_module(struct subject *s, const struct lock *lock, const char *name)
{
	if (!strchr(name, '.'))
		return store_provides_module(s->f->config.store, lock, name);
#define SITE "lib/python%1$s/site-packages/%2$s"
	return owns(s, lock, SITE ".py", name) || owns(s, lock, SITE "/__init__.py", name) ||
	       owns(s, lock, SITE ".%3$s.so", name) || owns(s, lock, SITE ".abi3.so", name) ||
	       owns(s, lock, SITE ".so", name);
#undef SITE
}

static bool provided_by(struct subject *s, const struct lock *lock, const char *absent)
{
	if (!lock->ndists || !s->interp->version)
		return false;
	if (strncmp(absent, "import:", 7) == 0)
		return provides_module(s, lock, absent + 7);
	if (strncmp(absent, "meta:", 5) == 0)
		return lock_find(lock, absent + 5);
	if (strncmp(absent, "group:", 6) == 0)
		return store_provides_group(s->f->config.store, lock, absent + 6);
	return false;
}

/* What of all that any node missed would this subject have found? */
void knowledge_provides(struct functions *f, struct subject *s)
{
	for (; s->lock_asked < f->absent_known.n; s->lock_asked++) {
		uint32_t id = f->absent_known.v[s->lock_asked];
		const char *thing = intern_name(&f->names, id);

		if (strncmp(thing, "own:", 4) != 0 && provided_by(s, s->lock, thing))
			ids_add(&s->lock_provides, id);
	}
	ids_reset(&s->provides);
	inherit(&s->provides, &s->lock_provides);
	for (char **own = s->own; own && *own; own++) {
		bool fills = **own == '~';

		ids_add(&s->provides, intern_find2(&f->names, "import:", *own + fills));
		if (!fills)
			ids_add(&s->provides, intern_find2(&f->names, "own:", *own));
	}
	ids_seal(&s->provides);
	ids_reset(&s->env);
	for (char **e = s->env_names; e && *e; e++)
		ids_add(&s->env, intern_find2(&f->names, "env:", *e));
	ids_seal(&s->env);
}

struct node *knowledge_top(struct node *n)
{
	while (n->parent)
		n = n->parent;
	return n;
}

static void view_node(struct node *n, struct policy_node *v)
{
	*v = (struct policy_node){
		.id = n->id,
		.parent = -1,
		.root = knowledge_top(n)->id,
		.dists = ids_set(&n->dists),
		.dist_bits = policy_set_bits(ids_set(&n->dists)),
		.reads = ids_set(&n->reads),
		.modules = ids_set(&n->modules),
		.absent = ids_set(&n->absent),
		.env = ids_set(&n->env),
		.tenant = n->tenant,
		.everything = n->everything,
		.busy = n->busy,
		.asleep = true,
		.pinned = !n->parent,
	};
}

/* Kept until the tree changes. */
static struct policy_node *view_all(struct functions *f)
{
	uint32_t parent = 0;

	if (f->views && f->views_gen == f->gen) {
		for (uint32_t i = 0; i < f->nnodes; i++)
			f->views[i].busy = f->nodes[i]->busy;
		return f->views;
	}
	if (!f->views)
		f->views = mem_zero(LIMIT_NODES, sizeof(*f->views));
	f->views_gen = f->gen;
	for (uint32_t i = 0; i < f->nnodes; i++) {
		struct node *n = f->nodes[i];

		view_node(n, &f->views[i]);
		n->index = i;
		parent = n->parent ? n->parent->index : 0; /* it came before its children */
		f->views[i].parent = n->parent ? (int32_t)parent : -1;
	}
	return f->views;
}

static void view_subject(const struct subject *s, const struct node *root,
			 struct policy_function *v)
{
	*v = (struct policy_function){
		.root = root ? root->id : 0,
		.closure = s->closure,
		.tenant = s->tenant,
		.dists = ids_set(&s->dists),
		.seen_dists = ids_set(&s->seen_dists),
		.seen_bits = policy_set_bits(ids_set(&s->seen_dists)),
		.modules = ids_set(&s->modules),
		.self_us = s->self_us,
		.dist_us = s->dist_us,
		.other_us = s->other_us,
		.provides = ids_set(&s->provides),
		.env = ids_set(&s->env),
	};
}

/* The tree as policy sees it, for up to LIMIT_NODES nodes. */
void knowledge_view(struct functions *f, struct subject *s, const struct node *root,
		    struct policy_node *nodes, struct policy_function *fn)
{
	knowledge_provides(f, s);
	memcpy(nodes, view_all(f), f->nnodes * sizeof(*nodes));
	view_subject(s, root, fn);
}

struct node *knowledge_choose(struct functions *f, struct subject *s)
{
	struct policy_function fn;
	uint64_t saved_us, begin_ns;
	struct node *n;
	int at;

	if (s->afresh) /* no import of a node's would be of use */
		return s->interp->root;
	if (s->gen == f->gen && s->best) { /* nothing has changed since this was chosen */
		n = knowledge_find(f, s->best);
		if (n)
			return n;
	}
	begin_ns = clock_cpu_ns();
	knowledge_provides(f, s);
	view_subject(s, s->interp->root, &fn);
	at = policy_choose(view_all(f), f->nnodes, &fn, &saved_us);
	s->saved_us = at >= 0 ? saved_us : 0;
	/* The root holds no module of any package: it is right for everybody (S3), even for one
	 * whose own files shadow something that an interpreter has at its start. */
	n = at >= 0 ? f->nodes[at] : s->interp->root;
	s->gen = f->gen;
	s->best = n ? n->id : 0;
	f->choose_ns += clock_cpu_ns() - begin_ns;
	return n;
}

bool knowledge_admits(struct functions *f, struct node *n, struct subject *s)
{
	struct policy_function fn;
	struct policy_node v;

	knowledge_provides(f, s);
	view_node(n, &v);
	view_subject(s, n->interp == s->interp ? knowledge_top(n) : NULL, &fn);
	return policy_admits(&v, &fn);
}

void knowledge_failed(struct functions *f, struct node *n)
{
	struct err err;

	if (++n->failures < NODE_FAILURES || !n->parent)
		return;
	log_warn("function", "node %u: forks fail; dropping it", n->id);
	grow_never_again(f, n, "forks from its node fail");
	if (zygote_drop(n->z, &err) < 0)
		log_debug("function", "dropping node %u: %s", n->id, err.text);
}
