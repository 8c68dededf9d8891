/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "store/store_priv.h"

#define LOADED_ENVS 64 /* whose manifests are kept in memory */

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
	struct err err; /* the first failure */
	struct env_waiter *waiters;
	index_progress_fn progress;
	void *progress_arg;
	struct merge merge;
	char *target;
	uv_work_t work;
};

char *store_entry_path(const struct store *s, const char *sha256, const char *tag)
{
	return mem_printf("%s/wheels/%s-%s", s->dir, sha256, tag);
}

char *store_env_path(const struct store *s, const char *hash)
{
	return mem_printf("%s/envs/%s", s->dir, hash);
}

char *store_tmp_name(struct store *s)
{
	return mem_printf("%s/%llu", s->tmp, (unsigned long long)++s->counter);
}

int store_publish(const char *from, const char *to, bool durable, struct err *err)
{
	auto_close int fd = -1;

	if (durable) {
		fd = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 || syncfs(fd) < 0)
			return err_sys(err, errno, "syncing '%s'", from);
	}
	if (rename(from, to) == 0)
		return 0;
	if (errno != EEXIST && errno != ENOTEMPTY)
		return err_sys(err, errno, "publishing '%s'", to);
	return fd_remove_tree(AT_FDCWD, from, err); /* another daemon was first */
}

/* ---- open and close ---- */

/* Each daemon builds in a directory of its own below DIR/tmp and holds its lock; those whose lock
 * can be taken were left by a daemon that is dead. */
static void clean_tmp(const char *all)
{
	DIR *dir = opendir(all);
	struct dirent *e;
	struct err err;

	while (dir && (e = readdir(dir))) {
		auto_close int fd = -1;

		if (e->d_name[0] == '.')
			continue;
		fd = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
			continue;
		if (fd_remove_tree(dirfd(dir), e->d_name, &err) < 0)
			log_warn("store", "cleaning up: %s", err.text);
	}
	if (dir)
		closedir(dir);
}

static int open_tmp(struct store *s, struct err *err)
{
	auto_free char *all = mem_printf("%s/tmp", s->dir);

	clean_tmp(all);
	s->tmp = mem_printf("%s/%d-XXXXXX", all, getpid());
	if (!mkdtemp(s->tmp) || chmod(s->tmp, 0711) < 0)
		return err_sys(err, errno, "mkdir '%s'", s->tmp);
	s->tmp_lock = open(s->tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->tmp_lock < 0 || flock(s->tmp_lock, LOCK_EX) < 0)
		return err_sys(err, errno, "locking '%s'", s->tmp);
	return 0;
}

int store_open(uv_loop_t *loop, const struct store_config *config, struct store **out,
	       struct err *err)
{
	static const char *const dirs[] = { "", "/wheels", "/envs", "/tmp" };
	struct store *s = mem_new(struct store);

	s->loop = loop;
	s->jail = config->jail;
	s->index = config->index;
	s->dir = mem_strdup(config->dir);
	s->tmp_lock = -1;
	for (size_t i = 0; i < array_len(dirs); i++) {
		auto_free char *path = mem_printf("%s%s", s->dir, dirs[i]);

		if (fd_mkdirs(path, 0711, err) < 0)
			goto fail;
	}
	if (open_tmp(s, err) < 0)
		goto fail;
	*out = s;
	return 0;
fail:
	store_close(s);
	return err_wrap(err, "opening the store");
}

static void free_env(struct env *e)
{
	for (size_t i = 0; i < e->ndists; i++)
		json_decref(e->manifests ? e->manifests[i] : NULL);
	for (size_t i = 0; i < e->nfiles; i++)
		free(e->files[i].path);
	free(e->manifests);
	free(e->files);
	free(e->path);
	free(e->site);
	free(e);
}

void store_close(struct store *s)
{
	struct err err;

	if (!s)
		return;
	s->closing = true;
	if (s->tmp && fd_remove_tree(AT_FDCWD, s->tmp, &err) < 0)
		log_warn("store", "cleaning up: %s", err.text);
	fd_close(&s->tmp_lock);
	while (s->ready) {
		struct env *e = s->ready;

		s->ready = e->next;
		free_env(e);
	}
	free(s->tmp);
	free(s->dir);
	/* Work under way still points here: the structure lives until the process ends. */
	if (!s->entries && !s->envs)
		free(s);
}

/* ---- environments ---- */

static struct env *find_ready(struct store *s, const char *hash)
{
	for (struct env *e = s->ready; e; e = e->next)
		if (strcmp(e->hash, hash) == 0) {
			e->used = ++s->clock;
			return e;
		}
	return NULL;
}

/* "cpython-311" -> "3.11" */
static void version_of_tag(const char *tag, char *out, size_t size)
{
	const char *digits = strrchr(tag, '-') ? strrchr(tag, '-') + 1 : tag;

	snprintf(out, size, "%.1s.%s", digits, *digits ? digits + 1 : "");
}

struct env *store_ready_env(struct store *s, const struct lock *lock, const char *version)
{
	struct env *e = find_ready(s, lock->hash);
	auto_free char *path = NULL;

	if (e)
		return e;
	path = store_env_path(s, lock->hash);
	if (access(path, F_OK) < 0)
		return NULL;
	e = mem_new(struct env);
	memcpy(e->hash, lock->hash, sizeof(e->hash));
	e->path = steal(path);
	e->site = mem_printf("lib/python%s/site-packages", version);
	e->pub = (struct store_env){ e->path, e->site };
	e->ndists = lock->ndists;
	e->used = ++s->clock;
	e->next = s->ready;
	s->ready = e;
	return e;
}

const struct store_env *store_find_env(struct store *s, const struct lock *lock)
{
	char version[16];
	struct env *e;

	version_of_tag(lock->python_tag, version, sizeof(version));
	e = store_ready_env(s, lock, version);
	return e ? &e->pub : NULL;
}

static void free_work(struct env_work *w)
{
	for (size_t i = 0; i < array_len(w->strings); i++)
		free(w->strings[i]);
	for (size_t i = 0; i < w->merge.n; i++) {
		free(w->merge.entries[i]);
		free(w->merge.names[i]);
	}
	free(w->merge.entries);
	free(w->merge.names);
	free(w->merge.out);
	buf_done(&w->merge.warnings);
	free(w->target);
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
		e = store_ready_env(s, w->lock, w->python.version);
		if (!e)
			err_set(&w->err, ERR_SYSTEM, "the environment vanished");
	}
	while (w->waiters) {
		struct env_waiter *one = w->waiters;

		w->waiters = one->next;
		one->done(one->arg, e ? &e->pub : NULL, e ? NULL : &w->err);
		free(one);
	}
	free_work(w);
}

static void merge_on_thread(uv_work_t *work)
{
	struct env_work *w = work->data;

	if (merge_run(&w->merge, &w->err) < 0 ||
	    store_publish(w->merge.out, w->target, false, &w->err) < 0) {
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
	     line; line = strtok_r(NULL, "\n", &save))
		log_warn("store", "%s", line);
	if (w->err.kind)
		err_wrap(&w->err, "building the environment");
	finish_env(w);
}

static void merge(struct env_work *w)
{
	struct store *s = w->s;

	w->merge.n = w->lock->ndists;
	w->merge.entries = mem_zero(w->merge.n + 1, sizeof(char *));
	w->merge.names = mem_zero(w->merge.n + 1, sizeof(char *));
	for (size_t i = 0; i < w->merge.n; i++) {
		w->merge.entries[i] = store_entry_path(s, w->lock->dists[i].sha256,
						       w->lock->python_tag);
		w->merge.names[i] = mem_strdup(w->lock->dists[i].name);
	}
	w->merge.out = store_tmp_name(s);
	w->merge.python = w->strings[0];
	w->merge.tag = w->strings[2];
	w->merge.version = w->strings[3];
	w->merge.warnings.max = 64 * KIB;
	w->work.data = w;
	must(uv_queue_work(s->loop, &w->work, merge_on_thread, on_merged) == 0);
}

static void on_entry(void *arg, const struct err *err)
{
	struct env_work *w = arg;

	if (err && !w->err.kind)
		w->err = *err;
	if (--w->missing)
		return;
	if (w->err.kind)
		finish_env(w);
	else
		merge(w);
}

static struct env_work *new_work(struct store *s, const struct lock *lock,
				 const struct store_python *python)
{
	struct env_work *w = mem_new(struct env_work);

	w->s = s;
	w->lock = lock_copy(lock);
	w->strings[0] = mem_strdup(python->path);
	w->strings[1] = mem_strdup(python->prefix);
	w->strings[2] = mem_strdup(python->cache_tag);
	w->strings[3] = mem_strdup(python->version);
	w->python = (struct store_python){ w->strings[0], w->strings[1], w->strings[2],
					   w->strings[3] };
	w->target = store_env_path(s, lock->hash);
	w->next = s->envs;
	s->envs = w;
	return w;
}

static void on_entry_progress(void *arg, const char *line)
{
	struct env_work *w = arg;

	if (w->progress)
		w->progress(w->progress_arg, line);
}

void store_make_env(struct store *s, const struct lock *lock, const struct store_python *python,
		    index_progress_fn progress, store_env_fn done, void *arg)
{
	struct env *ready = store_ready_env(s, lock, python->version);
	struct env_waiter *one;
	struct env_work *w;

	if (ready) {
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
	for (size_t i = 0; i < w->lock->ndists; i++)
		entry_make(s, &w->lock->dists[i], &w->python, on_entry_progress, on_entry, w);
	on_entry(w, NULL);
}

/* ---- what is in an environment ---- */

static json_t *manifest(struct store *s, const struct lock *lock, struct env *e, size_t i)
{
	auto_buf struct buf text = BUF_MAX(64 * MIB);
	auto_free char *entry = NULL, *path = NULL;

	if (!e->manifests)
		e->manifests = mem_zero(e->ndists + 1, sizeof(json_t *));
	if (e->manifests[i])
		return e->manifests[i];
	entry = store_entry_path(s, lock->dists[i].sha256, lock->python_tag);
	path = mem_printf("%s/manifest.json", entry);
	if (buf_read_file(&text, AT_FDCWD, path, &(struct err){ 0 }) == 0)
		e->manifests[i] = json_loadb(text.data, text.len, 0, NULL);
	return e->manifests[i];
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct owned *)a)->path, ((const struct owned *)b)->path);
}

/* The least recently used environments give up what was read of their manifests. */
static void bound_loaded(struct store *s)
{
	struct env *oldest = NULL;
	int loaded = 0;

	for (struct env *e = s->ready; e; e = e->next) {
		if (!e->files)
			continue;
		loaded++;
		if (!oldest || e->used < oldest->used)
			oldest = e;
	}
	if (loaded <= LOADED_ENVS)
		return;
	for (size_t i = 0; i < oldest->nfiles; i++)
		free(oldest->files[i].path);
	for (size_t i = 0; oldest->manifests && i < oldest->ndists; i++)
		json_decref(oldest->manifests[i]);
	free(oldest->files);
	free(oldest->manifests);
	oldest->files = NULL;
	oldest->manifests = NULL;
	oldest->nfiles = 0;
}

static void load_files(struct store *s, const struct lock *lock, struct env *e)
{
	size_t total = 0, i;
	json_t *value;

	for (size_t d = 0; d < e->ndists; d++)
		total += json_array_size(json_object_get(manifest(s, lock, e, d), "files"));
	e->files = mem_zero(total + 1, sizeof(struct owned));
	for (size_t d = 0; d < e->ndists; d++)
		json_array_foreach(json_object_get(e->manifests[d], "files"), i,
				   value) if (json_is_string(value)) e->files[e->nfiles++] =
			(struct owned){ mem_printf("%s/%s", e->site, json_string_value(value)),
					(int)d };
	qsort(e->files, e->nfiles, sizeof(struct owned), by_path);
	/* The lists of files are in e->files now; the rest of a manifest is small. */
	for (size_t d = 0; d < e->ndists; d++)
		json_object_del(e->manifests[d], "files");
	bound_loaded(s);
}

static struct env *loaded(struct store *s, const struct lock *lock)
{
	char version[16];
	struct env *e;

	version_of_tag(lock->python_tag, version, sizeof(version));
	e = store_ready_env(s, lock, version);
	if (e && !e->files)
		load_files(s, lock, e);
	return e;
}

int store_owner(struct store *s, const struct lock *lock, const char *path)
{
	struct env *e = loaded(s, lock);
	struct owned key = { .path = (char *)path }, *found = NULL;

	if (e)
		found = bsearch(&key, e->files, e->nfiles, sizeof(key), by_path);
	return found ? found->dist : -1;
}

static bool any_has(struct store *s, const struct lock *lock, const char *list, const char *name)
{
	struct env *e = loaded(s, lock);
	json_t *value;
	size_t i;

	for (size_t d = 0; e && e->manifests && d < e->ndists; d++)
		json_array_foreach(json_object_get(e->manifests[d], list), i,
				   value) if (json_is_string(value) &&
					      strcmp(json_string_value(value), name) ==
						      0) return true;
	return false;
}

bool store_provides_module(struct store *s, const struct lock *lock, const char *top_level)
{
	return any_has(s, lock, "top_level", top_level);
}

bool store_provides_group(struct store *s, const struct lock *lock, const char *group)
{
	return any_has(s, lock, "groups", group);
}
