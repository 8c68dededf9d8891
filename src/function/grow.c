/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "function/knowledge.h"
#include "function/priv.h"
#include "policy/policy.h"

#define UNFORKABLE_LINES 100

/* One node being made. */
struct growth {
	struct functions *f;
	struct subject *s;
	uint32_t parent_id;
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

static void give_up(struct subject *s, const char *why)
{
	struct functions *f = s->f;

	free(s->cannot);
	s->cannot = mem_strdup(why);
	log_info("function", "no node for %s: %s", s->key, why);
	say_unforkable(f, mem_printf("%s: %s", s->key, why));
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
		if (strncmp(*left, "blame=", 6) != 0 && strncmp(*left, "way=", 4) != 0)
			return *left;
	return NULL;
}

static void drop_now(struct node *n)
{
	struct err err;

	if (zygote_drop(n->z, &err) < 0)
		log_warn("function", "dropping node %u: %s", n->id, err.text);
}

/* A node that may not stay: the next try leaves out what is to blame, or finds out what is. */
static void try_again(struct subject *s, bool watched, char **left)
{
	const char *left_there = what_is_left(left);
	bool found = set_aside(s, left);

	s->watch = !watched && !found;
	if (s->tries < LIMIT_GROW_TRIES && (found || s->watch)) {
		grow_consider(s->f, s);
	} else {
		auto_free char *why = mem_printf("cannot sleep: %.200s",
						 left_there ? left_there : "unknown why");

		give_up(s, why);
	}
}

/* May it stay? */
static bool judge(struct functions *f, struct subject *s, struct node *n, bool watched,
		  const struct zygote_profile *p)
{
	if (watched || (p && what_is_left(p->left))) {
		drop_now(n);
		try_again(s, watched, p ? p->left : (char *[]){ NULL });
		return false;
	}
	if (!knowledge_admits(f, n, s)) {
		drop_now(n);
		give_up(s, "what its imports asked for makes a node that would not fit it");
		return false;
	}
	return true;
}

static void on_grown(void *arg, struct zygote_node *z, const struct zygote_profile *profile,
		     const struct err *err)
{
	struct growth *g = arg;
	struct functions *f = g->f;
	struct subject *s = g->s;
	struct node *parent = knowledge_find(f, g->parent_id), *n = NULL;

	f->growing--;
	s->queued = false;
	if (parent)
		parent->busy--;
	if (z && parent)
		n = knowledge_add(f, z, parent, s->interp);
	if (n) {
		n->tenant = s->tenant;
		n->made_for = mem_strdup(s->key);
		explain_put_off(s, NULL);
		if (profile)
			knowledge_describe(f, n, s, profile);
		uint32_t id = n->id;
		size_t modules = n->nmodules;

		if (judge(f, s, n, g->watch, profile))
			log_info("function", "node %u for %s is asleep after %.0f ms (%zu modules)",
				 id, s->key, (double)(clock_us() - g->begin_us) / 1e3, modules);
		grow_memory(f);
	} else if (err && err->kind == ERR_BUSY) {
		s->tries--; /* ids come back with nodes that go */
		explain_put_off(s, err->text);
	} else {
		give_up(s, err ? err->text : "its parent is gone");
	}
	free(g);
	spare_node_made(f, s);
	renew_grown(s);
	subject_unref(s);
	grow_kick(f);
	functions_went_quiet(f);
}

/* A module is imported after the fork when it, or a package that it lies in, must be. */
static bool is_set_aside(const struct subject *s, const char *module)
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

/* The profile in import order, without what the parent has and what cannot sleep. */
static const char **modules_beyond(struct functions *f, const struct subject *s,
				   const struct node *parent)
{
	const char **out = mem_zero(s->nseen + 1, sizeof(*out));
	size_t n = 0;

	for (size_t i = 0; i < s->nseen; i++) {
		const struct seen_module *m = &s->seen[i];

		const char *name = intern_name(&f->names, m->module);

		if (!policy_set_has(ids_set(&parent->modules), m->module) && !is_set_aside(s, name))
			out[n++] = name;
	}
	return out;
}

static bool start(struct functions *f, struct subject *s)
{
	struct zygote_grow spec = { .env_path = s->env_path,
				    .memory_bytes = f->config.memory_bytes,
				    .watch = s->watch };
	struct node *parent;
	struct growth *g;

	if (!knowledge_root_to_grow(s) || !knowledge_where(f, s, &parent))
		return false;
	auto_free const char **modules = modules_beyond(f, s, parent);

	if (!modules[0] && s->excluded.n)
		give_up(s, "all that it would import must be imported after the fork");
	if (!modules[0])
		return false;
	spec.modules = modules;
	s->tries++;
	f->growing++;
	parent->busy++;
	parent->last_used_us = s->growth_us = clock_us();
	g = mem_new(struct growth);
	*g = (struct growth){ f, s, parent->id, clock_us(), s->watch };
	zygote_grow(f->config.zygotes, parent->z, &spec, on_grown, g);
	return true;
}

void grow_kick(struct functions *f)
{
	/* Below calls in priority: while calls run, the housekeeping timer comes back to it. */
	while (f->grow_queued && f->growing < LIMIT_GROWING && !f->draining) {
		struct subject *s = f->grow_queue[0];

		memmove(&f->grow_queue[0], &f->grow_queue[1],
			--f->grow_queued * sizeof(f->grow_queue[0]));
		if (start(f, s))
			continue; /* it stays marked until the node is there */
		s->queued = false;
		renew_grown(s);
		subject_unref(s);
	}
}

void grow_consider(struct functions *f, struct subject *s)
{
	struct node *parent;

	if (s->queued || s->cannot || s->afresh || !s->profiles || f->draining ||
	    !knowledge_root_to_grow(s) || f->grow_queued == LIMIT_GROW_QUEUE ||
	    s->tries > LIMIT_GROW_TRIES)
		return;
	if (!knowledge_where(f, s, &parent))
		return;
	s->queued = true;
	s->refs++;
	f->grow_queue[f->grow_queued++] = s;
	if (!f->calls)
		grow_kick(f);
	else
		functions_housekeep(f);
}

static uint64_t nodes_bytes(struct functions *f, struct policy_node *views)
{
	uint64_t total = 0;

	for (uint32_t i = 0; i < f->nnodes; i++) {
		struct node *n = f->nodes[i];
		struct zygote_node_info info;

		zygote_node_info(n->z, &info);
		total += info.unique_bytes;
		views[i] = (struct policy_node){
			.id = n->id,
			.parent = -1,
			.root = knowledge_top(n)->id,
			.unique_bytes = info.unique_bytes,
			.last_used_us = n->last_used_us,
			.busy = n->busy > info.busy ? n->busy : info.busy,
			.children = n->children > info.children ? n->children : info.children,
			.asleep = info.asleep,
			.pinned = !n->parent,
		};
	}
	return total;
}

struct node *grow_next_to_go(struct functions *f)
{
	struct policy_node views[LIMIT_NODES];
	int at;

	nodes_bytes(f, views);
	at = policy_evict(views, f->nnodes);
	return at < 0 ? NULL : f->nodes[at];
}

void grow_memory(struct functions *f)
{
	struct policy_node views[LIMIT_NODES];

	for (;;) {
		uint64_t total = nodes_bytes(f, views);
		bool full = f->nnodes == LIMIT_NODES;
		struct node *n;
		struct err err;
		int at;

		if (total <= f->config.memory_bytes && !full)
			return;
		if (f->idle_oldest) { /* a warm instance comes back in a millisecond */
			instance_end(f->idle_oldest);
			continue;
		}
		at = policy_evict(views, f->nnodes);
		if (at < 0)
			return;
		n = f->nodes[at];
		log_info("function", "over budget (%llu of %llu MiB): dropping node %u",
			 (unsigned long long)(total / MIB),
			 (unsigned long long)(f->config.memory_bytes / MIB), n->id);
		uint32_t before = f->nnodes;

		if (zygote_drop(n->z, &err) < 0) {
			log_warn("function", "dropping node %u: %s", n->id, err.text);
			return;
		}
		if (f->nnodes == before) /* it goes later: the next round counts again */
			return;
	}
}

void grow_close(struct functions *f)
{
	for (uint32_t i = 0; i < f->grow_queued; i++)
		subject_unref(f->grow_queue[i]);
	f->grow_queued = 0;
	for (uint32_t i = 0; i < f->nunforkable; i++)
		free(f->unforkable[i]);
	free(f->unforkable);
}
