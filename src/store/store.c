/* SPDX-License-Identifier: Apache-2.0 */
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/workdir.h"
#include "store/store_priv.h"

#define LAYOUT "2\n" /* of the directories below DIR; what another layout left is dropped */

char *store_entry_path(const struct store *s, const char *sha256)
{
	return mem_printf("%s/wheels/%s", s->dir, sha256);
}

char *store_code_path(const struct store *s, const char *sha256, const char *tag, int part)
{
	return mem_printf("%s/bytecode/%s-%s.%d", s->dir, sha256, tag, part);
}

char *store_env_path(const struct store *s, const char *hash)
{
	return mem_printf("%s/envs/%s", s->dir, hash);
}

char *store_late_path(const struct store *s, const char *hash)
{
	return mem_printf("%s/late/%s", s->dir, hash);
}

char *store_tmp_name(struct store *s)
{
	return mem_printf("%s/%llu", s->tmp, (unsigned long long)++s->counter);
}

int store_publish(const char *from, const char *to, struct err *err)
{
	if (rename(from, to) == 0)
		return 0;
	if (errno != EEXIST && errno != ENOTEMPTY)
		return err_sys(err, errno, "publishing '%s'", to);
	return fd_remove_tree(AT_FDCWD, from, err); /* another daemon was first */
}

/* ---- open and close ---- */

/* What an older layout left goes; nothing of it was ever released. */
static int check_layout(struct store *s, struct err *err)
{
	static const char *const old[] = { "wheels", "bytecode", "envs" };
	auto_free char *path = mem_printf("%s/layout", s->dir);
	auto_buf struct buf text = BUF_MAX(16);
	auto_close int fd = -1;

	if (buf_read_file(&text, AT_FDCWD, path, err) < 0 && err->sys != ENOENT)
		return -1; /* what it is must be known before anything goes */
	if (text.len && strcmp(text.data, LAYOUT) == 0)
		return 0;
	for (size_t i = 0; i < array_len(old); i++) {
		auto_free char *dir = mem_printf("%s/%s", s->dir, old[i]);

		if (fd_remove_tree(AT_FDCWD, dir, err) < 0)
			return -1;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(err, errno, "creating '%s'", path);
	return fd_write_all(fd, LAYOUT, strlen(LAYOUT), err);
}

static int open_lock(struct store *s, struct err *err)
{
	auto_free char *path = mem_printf("%s/lock", s->dir);
	int rc;

	s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock < 0 || flock(s->lock, LOCK_EX) < 0)
		return err_sys(err, errno, "locking '%s'", path);
	rc = check_layout(s, err);
	flock(s->lock, LOCK_UN);
	return rc;
}

static int make_dirs(const struct store *s, struct err *err)
{
	static const char *const dirs[] = { "/wheels", "/bytecode", "/envs", "/tmp",
					    "/facts",  "/late",	    "/keep" };

	for (size_t i = 0; i < array_len(dirs); i++) {
		auto_free char *path = mem_printf("%s%s", s->dir, dirs[i]);

		if (fd_mkdirs(path, 0711, err) < 0)
			return -1;
	}
	return 0;
}

static int open_tmp(struct store *s, struct err *err)
{
	auto_free char *all = mem_printf("%s/tmp", s->dir);

	if (workdir_open(all, 0711, &s->tmp, &s->tmp_lock, err) < 0)
		return -1;
	s->uses = mem_printf("%s/uses", s->tmp);
	if (mkdir(s->uses, 0700) < 0)
		return err_sys(err, errno, "mkdir '%s'", s->uses);
	return 0;
}

int store_open(uv_loop_t *loop, const struct store_config *config, struct store **out,
	       struct err *err)
{
	struct store *s = mem_new(struct store);
	cpu_set_t set;

	s->loop = loop;
	s->jail = config->jail;
	s->index = config->index;
	s->dir = mem_strdup(config->dir);
	s->downloads = mem_strdup(config->downloads);
	s->lax = config->accept_record;
	s->strict = config->strict;
	s->tmp_lock = s->lock = -1;
	s->cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
	if (s->cpus > LIMIT_WORKERS)
		s->cpus = LIMIT_WORKERS;
	if (fd_mkdirs(s->dir, 0711, err) < 0 || open_lock(s, err) < 0 || make_dirs(s, err) < 0 ||
	    open_tmp(s, err) < 0 || facts_recover(s, err) < 0) {
		store_close(s);
		return err_wrap(err, "opening the store");
	}
	s->budget = config->budget_bytes ? config->budget_bytes : cache_default_budget(s->dir);
	/* What an earlier daemon left without facts, or over the budget. */
	if (s->unsettled)
		facts_settle(s);
	else
		cache_keep_budget(s);
	*out = s;
	return 0;
}

void store_ask(struct store *s, const struct store_asks *asks)
{
	s->asks = *asks;
}

void store_release(struct store *s)
{
	if (s->entries || s->codes || s->envs || s->lates || s->settling || s->caching)
		return;
	use_free(s);
	free(s->uses);
	free(s->downloads);
	free(s->tmp);
	free(s->dir);
	free(s);
}

bool store_is_busy(const struct store *s)
{
	return s->entries || s->codes || s->envs || s->lates || s->caching;
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
	fd_close(&s->lock);
	while (s->ready) {
		struct env *e = s->ready;

		s->ready = e->next;
		env_free(e);
	}
	contents_forget(s);
	store_release(s); /* else what is under way still points here: it ends with the process */
}
