/* SPDX-License-Identifier: Apache-2.0
 *
 * One wheel from the index to an entry: fetch, install in a job, look at it from outside, publish.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/progress.h"
#include "jail/jail.h"
#include "store/store_priv.h"

struct waiter {
	struct waiter *next;
	entry_fn done;
	void *arg;
};

enum entry_step { ENTRY_FETCHING, ENTRY_QUEUED, ENTRY_INSTALLING, ENTRY_CHECKING };

struct entry_work {
	struct store *s;
	struct entry_work *next;
	enum entry_step step;
	char *name, *version, *filename, *target, *wheel, *out, *runtime;
	char *python, *prefix;
	struct waiter *waiters;
	index_progress_fn progress;
	void *progress_arg;
	int report; /* reading end of the installer's standard output */
	uv_work_t work;
	struct err err;
};

static void start_next(struct store *s);

static void finish(struct entry_work *w, const struct err *err)
{
	struct store *s = w->s;
	struct err own;

	for (struct entry_work **p = &s->entries; *p; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			break;
		}
	if (err) {
		own = *err;
		err_wrap(&own, "installing %s %s", w->name, w->version);
		if (w->out && fd_remove_tree(AT_FDCWD, w->out, &(struct err){ 0 }) < 0)
			log_warn("store", "could not remove %s", w->out);
	}
	while (w->waiters) {
		struct waiter *one = w->waiters;

		w->waiters = one->next;
		one->done(one->arg, err ? &own : NULL);
		free(one);
	}
	fd_close(&w->report);
	free(w->name);
	free(w->version);
	free(w->filename);
	free(w->target);
	free(w->wheel);
	free(w->out);
	free(w->runtime);
	free(w->python);
	free(w->prefix);
	free(w);
	start_next(s);
}

/* What the installer left is an attacker's until looked at: only directories and plain files of one
 * link, no set-id bits, readable by all and writable by nobody else. */
static int check_tree(int dirfd, const char *name, int depth, uint64_t *files, struct err *err)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	int rc = 0, more = 0;

	if (!dir)
		return err_sys(err, errno, "looking at '%s'", name);
	if (depth > 100)
		rc = err_set(err, ERR_CORRUPT, "'%s' is nested too deeply", name);
	while (rc == 0 && (more = fd_next_entry(dir, &e, err)) > 0) {
		struct stat st;

		if (++*files > 2 * LIMIT_WHEEL_MEMBERS)
			rc = err_set(err, ERR_LIMIT, "too many files");
		else if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			rc = err_sys(err, errno, "looking at '%s'", e->d_name);
		else if (S_ISDIR(st.st_mode) && !(st.st_mode & 07022))
			rc = check_tree(fd, e->d_name, depth + 1, files, err);
		else if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || (st.st_mode & 07022))
			rc = err_set(err, ERR_CORRUPT, "'%s' is not a plain file (mode %o)",
				     e->d_name, st.st_mode);
	}
	closedir(dir);
	return more < 0 ? -1 : rc;
}

static void publish_on_thread(uv_work_t *work)
{
	struct entry_work *w = work->data;
	uint64_t files = 0;

	if (check_tree(AT_FDCWD, w->out, 0, &files, &w->err) < 0)
		return;
	auto_free char *manifest = mem_printf("%s/manifest.json", w->out);

	/* What is published stays: believe what is there, not that the installer ended well. */
	if (access(manifest, R_OK) < 0) {
		err_sys(&w->err, errno, "the installer left no manifest");
		return;
	}
	if (chmod(w->out, 0755) < 0) {
		err_sys(&w->err, errno, "chmod");
		return;
	}
	if (store_publish(w->out, w->target, true, &w->err) < 0)
		return;
	w->err = ERR_INIT;
}

static void say(struct entry_work *w, const char *what)
{
	struct progress p = { .what = what, .name = w->name, .version = w->version };
	char line[PROGRESS_LINE];

	if (!w->progress)
		return;
	progress_print(&p, line);
	w->progress(w->progress_arg, line);
}

static void on_published(uv_work_t *work, int status)
{
	struct entry_work *w = work->data;

	w->s->installers--;
	if (status < 0)
		err_set(&w->err, ERR_SYSTEM, "cancelled");
	if (!w->err.kind)
		say(w, "installed");
	finish(w, w->err.kind ? &w->err : NULL);
}

/* The sentence that the installer printed, checked like everything it says. */
static void read_report(struct entry_work *w, int status, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(64 * KIB);
	json_t *o = NULL;
	const char *kind = NULL, *message = NULL;

	if (buf_read_fd(&text, w->report, err) == 0)
		o = json_loadb(text.data, text.len, 0, NULL);
	if (o && json_unpack(o, "{s:s, s:s}", "kind", &kind, "message", &message) == 0)
		err_set(err, err_kind_parse(kind), "%.700s", message);
	else if (WIFSIGNALED(status))
		err_set(err, ERR_LIMIT, "the installer was killed by signal %d", WTERMSIG(status));
	else
		err_set(err, ERR_SYSTEM, "the installer ended with status %d", status);
	json_decref(o);
}

static void on_installed(void *arg, int status, const struct err *err)
{
	struct entry_work *w = arg;
	struct err own = ERR_INIT;

	if (!err && status != 0) {
		read_report(w, status, &own);
		err = &own;
	}
	if (err) {
		w->s->installers--;
		finish(w, err);
		return;
	}
	w->step = ENTRY_CHECKING;
	w->err = ERR_INIT;
	w->work.data = w;
	must(uv_queue_work(w->s->loop, &w->work, publish_on_thread, on_published) == 0);
}

static int make_out(struct entry_work *w, struct err *err)
{
	w->out = store_tmp_name(w->s);
	if (mkdir(w->out, 0755) < 0)
		return err_sys(err, errno, "mkdir '%s'", w->out);
	/* EINVAL and EPERM: there is one id only, and it is ours. */
	if (chown(w->out, JAIL_ID_STORE, JAIL_ID_STORE) < 0 && errno != EINVAL && errno != EPERM)
		return err_sys(err, errno, "chown '%s'", w->out);
	return 0;
}

static int start_job(struct entry_work *w, struct err *err)
{
	auto_free char *inside = mem_printf("/in/%s", w->filename);
	const char *argv[] = {
		JAIL_LIB "/pipsqueak-install", inside, "/out", w->python, w->runtime, NULL
	};
	struct jail_job_spec spec = {
		.argv = argv,
		.prefix = w->prefix,
		.mounts = { { w->wheel, inside, false }, { w->out, "/out", true } },
		.nmounts = 2,
		.fds = { -1, -1, STDERR_FILENO },
		.nfds = 3,
		.deadline_ms = LIMIT_INSTALL_MS,
	};
	int pipefd[2];
	int rc;

	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return err_sys(err, errno, "pipe");
	w->report = pipefd[0];
	spec.fds[1] = pipefd[1];
	rc = jail_job_start(w->s->jail, &spec, on_installed, w, err);
	close(pipefd[1]);
	return rc;
}

static void install(struct entry_work *w)
{
	struct err err;

	w->step = ENTRY_INSTALLING;
	say(w, "install");
	w->s->installers++;
	if (make_out(w, &err) < 0 || start_job(w, &err) < 0) {
		w->s->installers--;
		finish(w, &err);
	}
}

static void start_next(struct store *s)
{
	for (struct entry_work *w = s->entries; w && s->installers < LIMIT_INSTALLERS; w = w->next)
		if (w->step == ENTRY_QUEUED) {
			install(w);
			return; /* the list may have changed; the next end calls again */
		}
}

static void on_fetched(void *arg, const char *path, const struct err *err)
{
	struct entry_work *w = arg;

	if (err) {
		finish(w, err);
		return;
	}
	w->wheel = mem_strdup(path);
	w->step = ENTRY_QUEUED;
	start_next(w->s);
}

static void on_fetch_progress(void *arg, const char *line)
{
	struct entry_work *w = arg;

	if (w->progress)
		w->progress(w->progress_arg, line);
}

void entry_make(struct store *s, const struct lock_dist *dist, const struct store_python *python,
		index_progress_fn progress, entry_fn done, void *arg)
{
	char *target = store_entry_path(s, dist->sha256, python->cache_tag);
	struct waiter *one;
	struct entry_work *w;

	if (access(target, F_OK) == 0) {
		free(target);
		done(arg, NULL);
		return;
	}
	one = mem_new(struct waiter);
	one->done = done;
	one->arg = arg;
	for (w = s->entries; w; w = w->next)
		if (strcmp(w->target, target) == 0) {
			free(target);
			one->next = w->waiters;
			w->waiters = one;
			return;
		}
	w = mem_new(struct entry_work);
	w->s = s;
	w->report = -1;
	w->name = mem_strdup(dist->name);
	w->version = mem_strdup(dist->version);
	w->filename = mem_strdup(dist->filename);
	w->target = target;
	w->python = mem_strdup(python->path);
	w->prefix = mem_strdup(python->prefix);
	w->runtime = mem_printf(JAIL_ENV "/lib/python%s/site-packages", python->version);
	w->progress = progress;
	w->progress_arg = arg;
	w->waiters = one;
	w->next = s->entries;
	s->entries = w;
	index_fetch(s->index, dist, on_fetch_progress, on_fetched, w);
}
