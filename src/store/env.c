/* SPDX-License-Identifier: Apache-2.0
 *
 * One environment from a lock: every dist's entry and first bytecode, a merge, its name; then the
 * rest of the bytecode, which nobody waits for.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "store/store_priv.h"

struct env_waiter {
	struct env_waiter *next;
	store_env_fn done;
	void *arg;
};

struct env_work {
	struct store *s;
	struct env_work *next;
	struct lock *lock;
	struct store_python python;
	char *strings[4];
	size_t missing;
	struct env_dist {
		struct env_work *work;
		struct lock_dist *dist;
		int to_compile; /* parts, until its bytecode is asked for */
	} * dists;
	bool late;	/* some bytecode was not there */
	struct err err; /* the first failure */
	struct env_waiter *waiters;
	index_progress_fn progress;
	void *progress_arg;
	struct merge merge;
	char *target;
	uint64_t begin_us;
	uv_work_t work;
};

/* ---- ready ones ---- */

/* "cpython-311" -> "3.11" */
static void version_of_tag(const char *tag, char *out, size_t size)
{
	const char *digits = strrchr(tag, '-') ? strrchr(tag, '-') + 1 : tag;

	snprintf(out, size, "%.1s.%s", digits, *digits ? digits + 1 : "");
}

void env_free(struct env *e)
{
	free(e->wheels);
	free(e->path);
	free(e->site);
	free(e);
}

static struct env *find_env(struct store *s, const char *hash)
{
	for (struct env *e = s->ready; e; e = e->next)
		if (strcmp(e->hash, hash) == 0)
			return e;
	return NULL;
}

static struct env *new_env(struct store *s, const struct lock *lock)
{
	struct env *e = mem_new(struct env);
	char version[16];

	version_of_tag(lock->python_tag, version, sizeof(version));
	memcpy(e->hash, lock->hash, sizeof(e->hash));
	e->path = store_env_path(s, lock->hash);
	e->site = mem_printf("lib/python%s/site-packages", version);
	e->pub = (struct store_env){ e->path, e->site };
	e->ndists = lock->ndists;
	e->next = s->ready;
	s->ready = e;
	return e;
}

/* Marked first, then looked for: whoever prunes it does it the other way round. */
struct env *env_ready(struct store *s, const struct lock *lock)
{
	auto_free char *path = NULL, *late = NULL, *mark = NULL;
	struct env *e = find_env(s, lock->hash);

	if (e && e->held)
		return e;
	path = store_env_path(s, lock->hash);
	mark = mem_printf("envs.%s", lock->hash);
	use_hold(s, mark);
	if (access(path, F_OK) < 0) {
		use_drop(s, mark);
		return NULL;
	}
	late = store_late_path(s, lock->hash);
	e = e ? e : new_env(s, lock);
	e->held = true;
	e->late = access(late, F_OK) == 0;
	facts_touch(s, "envs", lock->hash);
	return e;
}

void env_let_go(struct store *s)
{
	for (struct env *e = s->ready; e; e = e->next) {
		auto_free char *mark = mem_printf("envs.%s", e->hash);

		if (!e->held || e->late_work || !s->asks.in_use ||
		    s->asks.in_use(s->asks.ctx, e->path))
			continue;
		e->held = false;
		use_drop(s, mark);
	}
}

const struct store_env *store_find_env(struct store *s, const struct lock *lock)
{
	struct env *e = env_ready(s, lock);

	return e && (!e->late || e->late_work) ? &e->pub : NULL;
}

/* ---- the rest of the bytecode ---- */

struct late {
	struct store *s;
	struct lock *lock;
	struct store_python python;
	char *strings[4], *site;
	size_t missing;
	bool failed;
	struct late_part {
		struct late *late;
		struct merge_dist merge;
		int part;
		uv_work_t work;
		struct err err;
	} * parts; /* two for each dist */
};

static void copy_python(const struct store_python *python, char **strings, struct store_python *out)
{
	strings[0] = mem_strdup(python->path);
	strings[1] = mem_strdup(python->prefix);
	strings[2] = mem_strdup(python->cache_tag);
	strings[3] = mem_strdup(python->version);
	*out = (struct store_python){ strings[0], strings[1], strings[2], strings[3] };
}

void store_hold(struct store *s, const struct lock *lock, bool hold)
{
	auto_free char *env = mem_printf("envs.%s", lock->hash);
	void (*change)(struct store * s, const char *name) = hold ? use_hold : use_drop;

	change(s, env);
	for (size_t i = 0; i < lock->ndists; i++) {
		auto_free char *wheel = mem_printf("wheels.%s", lock->dists[i].sha256);

		change(s, wheel);
	}
}

/* When something failed the mark stays: the next daemon tries again, this one does not. */
static void late_done(struct late *l)
{
	struct store *s = l->s;
	struct env *e = find_env(s, l->lock->hash);
	auto_free char *path = store_late_path(s, l->lock->hash);

	if (--l->missing)
		return;
	if (!s->closing && !l->failed) {
		if (unlink(path) < 0 && errno != ENOENT)
			log_warn("store", "removing '%s': %m", path);
		if (e)
			e->late = e->late_work = false;
	}
	s->lates--;
	store_hold(s, l->lock, false);
	for (size_t i = 0; i < 2 * l->lock->ndists; i++) {
		free(l->parts[i].merge.entry);
		free(l->parts[i].merge.code[l->parts[i].part]);
	}
	for (size_t i = 0; i < array_len(l->strings); i++)
		free(l->strings[i]);
	free(l->site);
	free(l->parts);
	lock_free(l->lock);
	free(l);
	if (s->closing)
		store_release(s);
}

static void link_on_thread(uv_work_t *work)
{
	struct late_part *p = work->data;

	if (merge_code(p->late->site, &p->merge, p->part, &p->err) == 0)
		p->err.kind = ERR_NONE;
}

static void on_linked(uv_work_t *work, int status)
{
	struct late_part *p = work->data;

	if (p->err.kind) {
		log_warn("store", "adding bytecode of %s: %s", p->merge.name, p->err.text);
		p->late->failed = true;
	}
	late_done(p->late);
}

static void on_late_code(void *arg)
{
	struct late_part *p = arg;

	if (access(p->merge.code[p->part], F_OK) < 0) { /* told already */
		p->late->failed = true;
		late_done(p->late);
		return;
	}
	p->work.data = p;
	must(uv_queue_work(p->late->s->loop, &p->work, link_on_thread, on_linked) == 0);
}

static void want_part(struct late *l, size_t i, int part)
{
	const struct lock_dist *dist = &l->lock->dists[i];
	struct code_want want = { l->lock, dist, &l->python, part };
	struct late_part *p = &l->parts[2 * i + (size_t)part];

	l->missing++;
	*p = (struct late_part){ .late = l,
				 .part = part,
				 .merge = { .name = dist->name,
					    .entry = store_entry_path(l->s, dist->sha256) } };
	p->merge.code[part] = store_code_path(l->s, dist->sha256, l->python.cache_tag, part);
	code_make(l->s, &want, on_late_code, p);
}

static void start_late(struct store *s, struct env *e, const struct lock *lock,
		       const struct store_python *python)
{
	struct late *l = mem_new(struct late);
	struct err err;

	e->late_work = true;
	s->lates++;
	l->s = s;
	l->lock = lock_copy(lock);
	store_hold(s, l->lock, true);
	copy_python(python, l->strings, &l->python);
	l->site = mem_printf("%s/%s", e->path, e->site);
	l->parts = mem_zero(2 * lock->ndists + 1, sizeof(*l->parts));
	l->missing = 1;
	for (size_t i = 0; i < l->lock->ndists; i++) {
		size_t sources = 0;

		if (entry_sources(s, lock->dists[i].sha256, &sources, &err) < 0) {
			log_warn("store", "bytecode of %s: %s", lock->dists[i].name, err.text);
			l->failed = true;
		}
		for (int part = 0; part < code_parts(sources); part++)
			want_part(l, i, part);
	}
	late_done(l);
}

/* ---- making one ---- */

static void free_work(struct env_work *w)
{
	for (size_t i = 0; i < array_len(w->strings); i++)
		free(w->strings[i]);
	for (size_t i = 0; i < w->merge.n; i++) {
		free(w->merge.dists[i].name);
		free(w->merge.dists[i].entry);
		free(w->merge.dists[i].code[0]);
		free(w->merge.dists[i].code[1]);
	}
	free(w->merge.dists);
	free(w->merge.out);
	buf_done(&w->merge.warnings);
	free(w->dists);
	free(w->target);
	store_hold(w->s, w->lock, false);
	lock_free(w->lock);
	free(w);
}

static void finish_env(struct env_work *w)
{
	struct store *s = w->s;
	struct env *e = NULL;

	for (struct env_work **p = &s->envs; *p; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			break;
		}
	if (!w->err.kind) {
		e = env_ready(s, w->lock);
		if (!e)
			err_set(&w->err, ERR_SYSTEM, "the environment vanished");
	}
	if (e && e->late && !e->late_work)
		start_late(s, e, w->lock, &w->python);
	while (w->waiters) {
		struct env_waiter *one = w->waiters;

		w->waiters = one->next;
		one->done(one->arg, e ? &e->pub : NULL, e ? NULL : &w->err);
		free(one);
	}
	free_work(w);
	facts_settle(s);
}

/* The mark is there before the environment is: else a crash in between would leave one that is
 * taken for complete. */
static int mark_late(const struct env_work *w, struct err *err)
{
	auto_free char *path = store_late_path(w->s, w->lock->hash);
	auto_close int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	return fd < 0 ? err_sys(err, errno, "creating '%s'", path) : 0;
}

static void merge_on_thread(uv_work_t *work)
{
	struct env_work *w = work->data;

	if (merge_run(&w->merge, &w->err) < 0 || (w->late && mark_late(w, &w->err) < 0) ||
	    store_publish(w->merge.out, w->target, &w->err) < 0) {
		if (fd_remove_tree(AT_FDCWD, w->merge.out, &(struct err){ 0 }) < 0)
			return; /* what is left goes at the next start */
		return;
	}
	w->err = ERR_INIT;
}

static void on_merged(uv_work_t *work, int status)
{
	struct env_work *w = work->data;
	char *save = NULL;

	if (status < 0)
		err_set(&w->err, ERR_SYSTEM, "cancelled");
	for (char *line = w->merge.warnings.data ? strtok_r(w->merge.warnings.data, "\n", &save)
						 : NULL;
	     line; line = strtok_r(NULL, "\n", &save)) {
		log_warn("store", "%s", line);
		if (w->progress) {
			auto_free char *text = mem_printf("warning: %s", line);

			w->progress(w->progress_arg, text);
		}
	}
	if (w->err.kind)
		err_wrap(&w->err, "building the environment");
	else
		facts_add(w->s, "envs", w->lock->hash, w->merge.own_bytes,
			  (clock_us() - w->begin_us) / 1000);
	finish_env(w);
}

static int find_code(struct env_work *w, struct merge_dist *d, const struct lock_dist *dist)
{
	size_t sources;

	if (entry_sources(w->s, dist->sha256, &sources, &w->err) < 0)
		return err_wrap(&w->err, "bytecode of %s", dist->name);
	for (int part = 0; part < code_parts(sources); part++) {
		d->code[part] = store_code_path(w->s, dist->sha256, w->lock->python_tag, part);
		w->late = w->late || access(d->code[part], F_OK) < 0;
	}
	return 0;
}

static void merge(struct env_work *w)
{
	struct store *s = w->s;

	w->begin_us = clock_us();
	w->merge.n = w->lock->ndists;
	w->merge.dists = mem_zero(w->merge.n + 1, sizeof(struct merge_dist));
	for (size_t i = 0; i < w->merge.n; i++) {
		const struct lock_dist *dist = &w->lock->dists[i];
		struct merge_dist *d = &w->merge.dists[i];

		d->name = mem_strdup(dist->name);
		d->bytes = dist->size_bytes;
		d->entry = store_entry_path(s, dist->sha256);
		if (find_code(w, d, dist) < 0) {
			finish_env(w);
			return;
		}
		facts_touch(s, "wheels", dist->sha256);
	}
	w->merge.out = store_tmp_name(s);
	w->merge.python = w->strings[0];
	w->merge.version = w->strings[3];
	w->merge.threads = s->cpus;
	w->merge.strict = s->strict || w->lock->strict;
	w->merge.warnings.max = 64 * KIB;
	w->work.data = w;
	must(uv_queue_work(s->loop, &w->work, merge_on_thread, on_merged) == 0);
}

static void one_less(struct env_work *w)
{
	if (--w->missing)
		return;
	if (w->err.kind)
		finish_env(w);
	else
		merge(w);
}

static void on_code(void *arg)
{
	one_less(arg);
}

/* What a large wheel's first part holds depends on what the others import (hint.c): none is begun
 * while others are on the point of being there. Small ones have all in one part. */
static void start_codes(struct env_work *w)
{
	bool wait = false;

	for (size_t i = 0; i < w->lock->ndists && !wait; i++)
		wait = entry_is_unpacking(w->s, w->lock->dists[i].sha256);
	w->missing++; /* what is there already is told at once */
	for (size_t i = 0; i < w->lock->ndists; i++) {
		struct code_want want = { w->lock, &w->lock->dists[i], &w->python, 0 };

		if (w->dists[i].to_compile == 0 || (wait && w->dists[i].to_compile > 1))
			continue;
		w->dists[i].to_compile = 0;
		code_make(w->s, &want, on_code, w);
	}
	one_less(w);
}

static void on_entry(void *arg, const struct err *err)
{
	struct env_dist *d = arg;
	struct env_work *w = d->work;
	struct err own = ERR_INIT;
	size_t sources = 0;

	if (!err && entry_sources(w->s, d->dist->sha256, &sources, &own) < 0)
		err = &own;
	if (err && !w->err.kind)
		w->err = *err;
	d->to_compile = err ? 0 : code_parts(sources);
	if (!d->to_compile)
		w->missing--;
	start_codes(w);
}

static struct env_work *new_work(struct store *s, const struct lock *lock,
				 const struct store_python *python)
{
	struct env_work *w = mem_new(struct env_work);

	w->s = s;
	w->lock = lock_copy(lock);
	store_hold(s, w->lock, true);
	copy_python(python, w->strings, &w->python);
	w->dists = mem_zero(lock->ndists + 1, sizeof(*w->dists));
	w->target = store_env_path(s, lock->hash);
	w->next = s->envs;
	s->envs = w;
	return w;
}

static void on_entry_progress(void *arg, const char *line)
{
	struct env_work *w = ((struct env_dist *)arg)->work;

	if (w->progress)
		w->progress(w->progress_arg, line);
}

void store_make_env(struct store *s, const struct lock *lock, const struct store_python *python,
		    index_progress_fn progress, store_env_fn done, void *arg)
{
	struct env *ready = env_ready(s, lock);
	struct env_waiter *one;
	struct env_work *w;

	if (ready) {
		if (ready->late && !ready->late_work)
			start_late(s, ready, lock, python);
		done(arg, &ready->pub, NULL);
		return;
	}
	one = mem_new(struct env_waiter);
	one->done = done;
	one->arg = arg;
	for (w = s->envs; w; w = w->next)
		if (strcmp(w->lock->hash, lock->hash) == 0) {
			one->next = w->waiters;
			w->waiters = one;
			return;
		}
	w = new_work(s, lock, python);
	w->waiters = one;
	w->progress = progress;
	w->progress_arg = arg;
	w->missing = lock->ndists + 1; /* held until all are asked for */
	for (size_t i = 0; i < w->lock->ndists; i++) {
		w->dists[i] = (struct env_dist){ w, &w->lock->dists[i], 0 };
		entry_make(s, w->dists[i].dist, on_entry_progress, on_entry, &w->dists[i]);
	}
	one_less(w);
}
