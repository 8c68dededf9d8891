/* SPDX-License-Identifier: Apache-2.0
 *
 * The catalogue: DIR/facts/<kind>.<name> says "bytes cost_ms" of an object that is whole and on
 * disk for good; its modification time is the last use. An object may be used as soon as it has
 * its name; when nothing is in work, one syncfs makes all of them durable and then their facts are
 * written. A killed daemon loses nothing: the page cache is the kernel's. After a restart of the
 * machine (another boot id) what has no fact may be damaged, and is dropped.
 */
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

struct fact {
	struct fact *next;
	char *file; /* below DIR/facts */
	uint64_t bytes, cost_ms;
};

struct settle {
	struct store *s;
	struct fact *facts;
	uv_work_t work;
	struct err err;
};

void facts_add(struct store *s, const char *kind, const char *name, uint64_t bytes,
	       uint64_t cost_ms)
{
	struct fact *f = mem_new(struct fact);

	*f = (struct fact){ .next = s->unsettled,
			    .file = mem_printf("%s.%s", kind, name),
			    .bytes = bytes,
			    .cost_ms = cost_ms };
	s->unsettled = f;
}

static int write_fact(const struct store *s, int dir, const struct fact *f, struct err *err)
{
	auto_free char *text = mem_printf("%llu %llu\n", (unsigned long long)f->bytes,
					  (unsigned long long)f->cost_ms);
	auto_free char *temp = mem_printf("%s/fact", s->tmp); /* one settling at a time */
	auto_close int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_sys(err, errno, "creating '%s'", temp);
	if (fd_write_all(fd, text, strlen(text), err) < 0)
		return -1;
	if (renameat(AT_FDCWD, temp, dir, f->file) < 0)
		return err_sys(err, errno, "renaming to '%s'", f->file);
	return 0;
}

static int settle(struct settle *job)
{
	auto_free char *path = mem_printf("%s/facts", job->s->dir);
	auto_close int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0 || syncfs(dir) < 0)
		return err_sys(&job->err, errno, "syncing '%s'", path);
	for (struct fact *f = job->facts; f; f = f->next)
		if (write_fact(job->s, dir, f, &job->err) < 0)
			return -1;
	if (fsync(dir) < 0)
		return err_sys(&job->err, errno, "syncing '%s'", path);
	return 0;
}

static void settle_on_thread(uv_work_t *work)
{
	struct settle *job = work->data;

	if (settle(job) == 0)
		job->err.kind = ERR_NONE;
}

static void on_settled(uv_work_t *work, int status)
{
	struct settle *job = work->data;
	struct store *s = job->s;

	if (job->err.kind)
		log_warn("store",
			 "%s; what was installed is in use, but may be lost if the "
			 "machine stops",
			 job->err.text);
	while (job->facts) {
		struct fact *f = job->facts;

		job->facts = f->next;
		free(f->file);
		free(f);
	}
	free(job);
	s->settling = false;
	if (s->closing) {
		store_release(s);
		return;
	}
	facts_settle(s);
	cache_keep_budget(s);
}

void facts_settle(struct store *s)
{
	struct settle *job;

	if (s->settling || s->closing || !s->unsettled || s->entries || s->codes || s->envs)
		return;
	job = mem_new(struct settle);
	job->s = s;
	job->facts = steal(s->unsettled);
	job->work.data = job;
	s->settling = true;
	must(uv_queue_work(s->loop, &job->work, settle_on_thread, on_settled) == 0);
}

void facts_touch(struct store *s, const char *kind, const char *name)
{
	auto_free char *path = mem_printf("%s/facts/%s.%s", s->dir, kind, name);

	/* Missing: it is so new that it has no fact yet. */
	if (utimensat(AT_FDCWD, path, NULL, 0) < 0 && errno != ENOENT)
		log_debug("store", "noting the use of %s: %m", path);
}

/* ---- at open ---- */

static bool has_fact(const struct store *s, const char *kind, const char *name)
{
	auto_free char *path = mem_printf("%s/facts/%s.%s", s->dir, kind, name);
	struct stat st;

	return stat(path, &st) == 0 && st.st_size > 0;
}

/* Objects without a fact: kept to be settled when the machine ran on, else dropped. */
static int recover_kind(struct store *s, const char *kind, bool same_boot, struct err *err)
{
	auto_free char *path = mem_printf("%s/%s", s->dir, kind);
	DIR *dir = opendir(path);
	struct dirent *e;
	int rc = 0, more = 0;

	if (!dir)
		return err_sys(err, errno, "reading '%s'", path);
	while (rc == 0 && (more = fd_next_entry(dir, &e, err)) > 0) {
		if (e->d_name[0] == '.' || has_fact(s, kind, e->d_name))
			continue;
		if (same_boot) {
			facts_add(s, kind, e->d_name, 0, 0);
		} else {
			log_info("store",
				 "dropping %s/%s: the machine stopped before it was "
				 "on disk",
				 kind, e->d_name);
			rc = fd_remove_tree(dirfd(dir), e->d_name, err);
		}
	}
	closedir(dir);
	return more < 0 ? -1 : rc;
}

static int recover(struct store *s, struct err *err)
{
	static const char *const kinds[] = { "envs", "bytecode", "wheels" };
	auto_free char *path = mem_printf("%s/boot", s->dir);
	auto_buf struct buf now = BUF_MAX(128), then = BUF_MAX(128);
	auto_close int fd = -1;
	bool same;

	if (buf_read_file(&now, AT_FDCWD, "/proc/sys/kernel/random/boot_id", err) < 0)
		return -1;
	if (buf_read_file(&then, AT_FDCWD, path, err) < 0 && err->sys != ENOENT)
		return -1;
	same = now.len == then.len && memcmp(now.data, then.data, now.len) == 0;
	for (size_t i = 0; i < array_len(kinds); i++)
		if (recover_kind(s, kinds[i], same, err) < 0)
			return -1;
	if (same)
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(err, errno, "creating '%s'", path);
	return fd_write_all(fd, now.data, now.len, err);
}

int facts_recover(struct store *s, struct err *err)
{
	int rc;

	if (flock(s->lock, LOCK_EX) < 0)
		return err_sys(err, errno, "locking the store");
	rc = recover(s, err);
	flock(s->lock, LOCK_UN);
	return rc;
}
