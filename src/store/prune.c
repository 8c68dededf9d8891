/* SPDX-License-Identifier: Apache-2.0
 *
 * Removal, least valuable first. Every object goes by one rename into this daemon's tmp, under the
 * exclusive lock and only when nobody needs it: a kill at any step leaves a whole object or a
 * temporary.
 */
#include "store/prune.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "store/store_priv.h"

struct pruning {
	struct prune *p;
	struct objects all;
	struct object **order; /* the least valuable first */
	int lock;
	unsigned long long count;
};

static int by_value(const void *a, const void *b)
{
	const struct object *x = *(struct object *const *)a, *y = *(struct object *const *)b;

	return x->value < y->value ? -1 : x->value > y->value;
}

/* The mark that protects it: environments by their own name, all else by the wheel's sha256. */
static bool is_needed(const struct pruning *g, const struct object *o)
{
	auto_free char *mark = o->kind == OBJECT_ENV ? mem_printf("envs.%s", o->name)
						     : mem_printf("wheels.%.64s", o->name);

	return use_is_needed(g->p->dir, mark) ||
	       (o->kind == OBJECT_ENV && use_is_kept(g->p->dir, o->name));
}

static char *place_of(const struct pruning *g, const struct object *o)
{
	return o->kind == OBJECT_DOWNLOAD
		       ? mem_printf("%s/%s", g->p->downloads, o->name)
		       : mem_printf("%s/%s/%s", g->p->dir, object_kind_name(o->kind), o->name);
}

static void forget(const struct pruning *g, const struct object *o)
{
	auto_free char *fact = mem_printf("%s/facts/%s.%s", g->p->dir, object_kind_name(o->kind),
					  o->name);
	auto_free char *late = mem_printf("%s/late/%s", g->p->dir, o->name);

	if (unlink(fact) < 0 && errno != ENOENT)
		log_warn("store", "removing '%s': %m", fact);
	if (o->kind == OBJECT_ENV && unlink(late) < 0 && errno != ENOENT)
		log_warn("store", "removing '%s': %m", late);
}

/* 1: gone; 0: it is needed. */
static int take(struct pruning *g, struct object *o, struct err *err)
{
	auto_free char *from = place_of(g, o);
	auto_free char *to = mem_printf("%s-gone-%llu", g->p->trash, g->count++);
	bool needed;
	int rc = 0;

	if (flock(g->lock, LOCK_EX) < 0)
		return err_sys(err, errno, "locking the store");
	needed = is_needed(g, o);
	if (!needed)
		rc = rename(from, to);
	if (!needed && (rc == 0 || errno == ENOENT))
		forget(g, o);
	if (rc < 0 && errno != ENOENT)
		err_sys(err, errno, "removing '%s'", from);
	else
		rc = 0;
	flock(g->lock, LOCK_UN);
	if (needed || rc < 0)
		return rc;
	o->gone = true;
	g->all.bytes -= o->bytes;
	g->p->freed_bytes += o->bytes;
	g->p->removed[o->kind]++;
	return fd_remove_tree(AT_FDCWD, to, err) < 0 ? -1 : 1;
}

static bool is_made_of(const struct object *env, const char *sha256)
{
	for (char **name = env->entries; name && *name; name++)
		if (strncmp(*name, sha256, 64) == 0)
			return true;
	return false;
}

/* An environment's files stay when its entries go, but what is known of them would be lost: so
 * entries go after all environments made of them. 1: none is left. */
static int take_envs_of(struct pruning *g, const struct object *o, struct err *err)
{
	for (size_t i = 0; i < g->all.n; i++) {
		struct object *env = &g->all.v[i];
		int rc;

		if (env->kind != OBJECT_ENV || env->gone || !is_made_of(env, o->name))
			continue;
		rc = take(g, env, err);
		if (rc <= 0)
			return rc;
	}
	return 1;
}

/* Bytecode without its sources is of no use. */
static int take_code_of(struct pruning *g, const struct object *o, struct err *err)
{
	int rc = 1;

	for (size_t i = 0; i < g->all.n && rc == 1; i++) {
		struct object *code = &g->all.v[i];

		if (code->kind == OBJECT_CODE && !code->gone &&
		    strncmp(code->name, o->name, 64) == 0)
			rc = take(g, code, err);
	}
	return rc;
}

/* The same question before anything is removed for it. */
static bool envs_are_needed(const struct pruning *g, const struct object *o)
{
	for (size_t i = 0; i < g->all.n; i++) {
		const struct object *env = &g->all.v[i];

		if (env->kind == OBJECT_ENV && !env->gone && is_made_of(env, o->name) &&
		    is_needed(g, env))
			return true;
	}
	return false;
}

static int drop(struct pruning *g, struct object *o, struct err *err)
{
	bool inner = o->kind == OBJECT_WHEEL || o->kind == OBJECT_CODE;
	int rc = inner && envs_are_needed(g, o) ? 0 : 1;

	if (rc == 1 && inner)
		rc = take_envs_of(g, o, err);
	if (rc == 1 && o->kind == OBJECT_WHEEL)
		rc = take_code_of(g, o, err);
	if (rc == 1)
		rc = take(g, o, err);
	if (rc == 0)
		g->p->in_use++;
	return rc < 0 ? -1 : 0;
}

static bool is_due(const struct pruning *g, const struct object *o, double now)
{
	if (g->p->older_s > 0 && now - o->used_s >= g->p->older_s)
		return true;
	return g->all.bytes > g->p->to_bytes;
}

int prune_run(struct prune *p, struct err *err)
{
	auto_free char *path = mem_printf("%s/lock", p->dir);
	auto_close int lock = open(path, O_RDWR | O_CLOEXEC); /* of this thread's own */
	struct pruning g = { .p = p, .lock = lock };
	struct timespec now;
	int rc = 0;

	if (lock < 0)
		return err_sys(err, errno, "opening '%s'", path);
	if (objects_load(p->dir, p->downloads, &g.all, err) < 0)
		return -1;
	if (p->budget && g.all.bytes > p->budget)
		p->to_bytes = p->budget / 10 * 9; /* so that the next wheel prunes nothing */
	clock_gettime(CLOCK_REALTIME, &now);
	g.order = mem_zero(g.all.n + 1, sizeof(struct object *));
	for (size_t i = 0; i < g.all.n; i++)
		g.order[i] = &g.all.v[i];
	qsort(g.order, g.all.n, sizeof(struct object *), by_value);
	for (size_t i = 0; i < g.all.n && rc == 0; i++)
		if (!g.order[i]->gone && is_due(&g, g.order[i], (double)now.tv_sec))
			rc = drop(&g, g.order[i], err);
	p->left_bytes = g.all.bytes;
	free(g.order);
	objects_free(&g.all);
	return rc;
}
