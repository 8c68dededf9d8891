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
};

static void give_up(struct subject *s, const char *why)
{
	struct functions *f = s->f;

	free(s->cannot);
	s->cannot = mem_strdup(why);
	log_info("function", "no node for %s: %s", s->key, why);
	if (f->nunforkable == UNFORKABLE_LINES)
		return;
	f->unforkable = mem_resize(f->unforkable, (f->nunforkable + 1) * sizeof(char *));
	f->unforkable[f->nunforkable++] = mem_printf("%s: %s", s->key, why);
}

/* "dist=NAME" among what an import left behind: that dist is imported after the fork next time. */
static bool exclude_dists(struct subject *s, char **left)
{
	size_t before = s->excluded.n;

	for (; *left; left++) {
		const struct lock_dist *d = strncmp(*left, "dist=", 5) == 0
						    ? lock_find(s->lock, *left + 5)
						    : NULL;

		if (!d)
			continue;
		auto_free char *text = mem_printf("dist:%s %s %s", d->name, d->version, d->sha256);

		ids_add(&s->excluded, intern_put(&s->f->names, text));
	}
	ids_seal(&s->excluded);
	return s->excluded.n > before;
}

/* A module that could not be imported in the node is imported after the fork: harmless. */
static const char *what_is_left(char **left)
{
	for (; left && *left; left++)
		if (strncmp(*left, "failed=", 7) != 0 && strncmp(*left, "dist=", 5) != 0)
			return *left;
	return NULL;
}

static void drop_now(struct node *n)
{
	struct err err;

	if (zygote_drop(n->z, &err) < 0)
		log_warn("function", "dropping node %u: %s", n->id, err.text);
}

static void judge(struct functions *f, struct subject *s, struct node *n,
		  const struct zygote_profile *p)
{
	const char *left = p ? what_is_left(p->left) : NULL;

	if (left) {
		bool again = exclude_dists(s, p->left) && s->tries < LIMIT_GROW_TRIES;
		auto_free char *why = mem_printf("cannot sleep: %.200s", left);

		drop_now(n);
		if (again)
			grow_consider(f, s);
		else
			give_up(s, why);
	} else if (!knowledge_admits(f, n, s)) {
		drop_now(n);
		give_up(s, "what its imports asked for makes a node that would not fit it");
	}
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
		if (profile)
			knowledge_describe(f, n, s, profile);
		log_info("function", "node %u for %s is asleep after %.0f ms (%zu modules)", n->id,
			 s->key, (double)(clock_us() - g->begin_us) / 1e3, n->nmodules);
		judge(f, s, n, profile);
		grow_memory(f);
	} else {
		give_up(s, err ? err->text : "its parent is gone");
	}
	free(g);
	spare_node_made(f, s);
	subject_unref(s);
	grow_kick(f);
	functions_went_quiet(f);
}

/* The profile in import order, without what the parent has and what cannot sleep. */
static const char **modules_beyond(struct functions *f, const struct subject *s,
				   const struct node *parent)
{
	const char **out = mem_zero(s->nseen + 1, sizeof(*out));
	size_t n = 0;

	for (size_t i = 0; i < s->nseen; i++) {
		const struct seen_module *m = &s->seen[i];

		if (policy_set_has(ids_set(&parent->modules), m->module) ||
		    policy_set_has(ids_set(&s->excluded), m->dist))
			continue;
		out[n++] = intern_name(&f->names, m->module);
	}
	return out;
}

static bool start(struct functions *f, struct subject *s)
{
	struct zygote_grow spec = { .env_path = s->env_path,
				    .memory_bytes = f->config.memory_bytes };
	struct node *parent;
	struct growth *g;

	if (!s->interp->root || !knowledge_where(f, s, &parent))
		return false;
	auto_free const char **modules = modules_beyond(f, s, parent);

	if (!modules[0])
		return false;
	spec.modules = modules;
	s->tries++;
	f->growing++;
	parent->busy++;
	parent->last_used_us = clock_us();
	g = mem_new(struct growth);
	*g = (struct growth){ f, s, parent->id, clock_us() };
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
		subject_unref(s);
	}
}

void grow_consider(struct functions *f, struct subject *s)
{
	struct node *parent;

	if (s->queued || s->cannot || !s->profiles || f->draining || !s->interp->root ||
	    f->grow_queued == LIMIT_GROW_QUEUE || s->tries > LIMIT_GROW_TRIES)
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
			.root = n->interp->id,
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
