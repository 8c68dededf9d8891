/* SPDX-License-Identifier: Apache-2.0
 *
 * Removal, least valuable first. Every object goes by one rename into this daemon's tmp, under the
 * exclusive lock and only when nobody needs it: a kill at any step leaves a whole object or a
 * temporary.
 */
#include "store/prune.h"

#include <dirent.h>
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

#define TRASH "-gone-" /* in names of what was taken away */

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

/* The mark of an environment that lacks bytecode; one too many is looked at once, for nothing. */
static void forget_late(const struct pruning *g, const struct object *o)
{
	auto_free char *late = mem_printf("%s/late/%s", g->p->dir, o->name);

	if (o->kind == OBJECT_ENV && unlink(late) < 0 && errno != ENOENT)
		log_warn("store", "removing '%s': %m", late);
}

/* Its fact goes first: one that was left would say of an object of the same name, made later, that
 * it is on disk for good. 1: it has gone to where `to` says; 0: it is needed. */
static int take_away(const struct pruning *g, const struct object *o, const char *to,
		     struct err *err)
{
	auto_free char *from = place_of(g, o), *fact_to = mem_printf("%s.fact", to);
	auto_free char *fact = mem_printf("%s/facts/%s.%s", g->p->dir, object_kind_name(o->kind),
					  o->name);

	if (is_needed(g, o))
		return 0;
	if (rename(fact, fact_to) < 0 && errno != ENOENT)
		return err_sys(err, errno, "removing '%s'", fact);
	if (rename(from, to) < 0 && errno != ENOENT) {
		err_sys(err, errno, "removing '%s'", from);
		if (rename(fact_to, fact) < 0 && errno != ENOENT)
			log_warn("store", "putting '%s' back: %m", fact);
		return -1;
	}
	forget_late(g, o);
	unlink(fact_to); /* else with the rest of the trash */
	return 1;
}

/* 1: gone; 0: it is needed. */
static int take(struct pruning *g, struct object *o, struct err *err)
{
	auto_free char *to = mem_printf("%s" TRASH "%llu", g->p->trash, g->count++);
	int rc;

	if (flock(g->lock, LOCK_EX) < 0)
		return err_sys(err, errno, "locking the store");
	rc = take_away(g, o, to, err);
	flock(g->lock, LOCK_UN);
	if (rc <= 0)
		return rc;
	o->gone = true;
	g->all.bytes -= o->bytes;
	g->p->freed_bytes += o->bytes;
	g->p->removed[o->kind]++;
	return fd_remove_tree(AT_FDCWD, to, err) < 0 ? -1 : 1;
}

/* What could not be removed when it had been taken away. */
static int empty_trash(const struct pruning *g, struct err *err)
{
	auto_free char *tmp = mem_strndup(g->p->trash,
					  (size_t)(strrchr(g->p->trash, '/') - g->p->trash));
	DIR *dir = opendir(tmp);
	struct dirent *e;
	int rc = 0, more = 0;

	if (!dir)
		return err_sys(err, errno, "reading '%s'", tmp);
	while (rc == 0 && (more = fd_next_entry(dir, &e, err)) > 0)
		if (strstr(e->d_name, TRASH))
			rc = fd_remove_tree(dirfd(dir), e->d_name, err);
	closedir(dir);
	return more < 0 ? -1 : rc;
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
	if (empty_trash(&g, err) < 0)
		return -1;
	if (objects_load(p->dir, p->downloads, &g.all, err) < 0)
		return -1;
	p->left_bytes = g.all.bytes;
	if (p->budget && g.all.bytes <= p->budget) {
		objects_free(&g.all);
		return 0;
	}
	if (p->budget)
		p->to_bytes = p->budget / 10 * 9; /* so that the next wheel prunes nothing */
	objects_judge(&g.all);
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
