/* SPDX-License-Identifier: Apache-2.0
 *
 * What every object of the store goes through: an empty directory in tmp, a job that fills it, a
 * look from outside, one rename.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "jail/jail.h"
#include "store/store_priv.h"

struct build {
	struct store *s;
	char *kind, *name, *out;
	int report; /* reading end of the job's standard output */
	uint64_t begin_us, bytes;
	uv_work_t work;
	struct err err;
	build_fn done;
	void *arg;
};

static void finish(struct build *b, const struct err *err)
{
	if (err && b->out && fd_remove_tree(AT_FDCWD, b->out, &(struct err){ 0 }) < 0)
		log_warn("store", "could not remove %s", b->out);
	log_debug("store", "%s/%s took %llu ms", b->kind, b->name,
		  (unsigned long long)(clock_us() - b->begin_us) / 1000);
	if (!err)
		facts_add(b->s, b->kind, b->name, b->bytes, (clock_us() - b->begin_us) / 1000);
	b->done(b->arg, err);
	fd_close(&b->report);
	free(b->kind);
	free(b->name);
	free(b->out);
	free(b);
}

struct look {
	uint64_t files, bytes;
};

/* What a job left is an attacker's until looked at: only directories and plain files of one link,
 * no set-id bits, readable by all and writable by nobody else. */
static int check_tree(int dirfd, const char *name, int depth, struct look *look, struct err *err)
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
		struct stat st = { 0 };

		if (++look->files > 2 * LIMIT_WHEEL_MEMBERS)
			rc = err_set(err, ERR_LIMIT, "too many files");
		else if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			rc = err_sys(err, errno, "looking at '%s'", e->d_name);
		else if (S_ISDIR(st.st_mode) && !(st.st_mode & 07022))
			rc = check_tree(fd, e->d_name, depth + 1, look, err);
		else if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || (st.st_mode & 07022))
			rc = err_set(err, ERR_CORRUPT, "'%s' is not a plain file (mode %o)",
				     e->d_name, st.st_mode);
		look->bytes += (uint64_t)st.st_blocks * 512;
	}
	closedir(dir);
	return more < 0 ? -1 : rc;
}

static void publish_on_thread(uv_work_t *work)
{
	struct build *b = work->data;
	auto_free char *target = mem_printf("%s/%s/%s", b->s->dir, b->kind, b->name);
	struct look look = { 0 };

	if (check_tree(AT_FDCWD, b->out, 0, &look, &b->err) < 0)
		return;
	auto_free char *manifest = mem_printf("%s/manifest.json", b->out);

	/* What is published stays: believe what is there, not that the installer ended well. */
	if (strcmp(b->kind, "wheels") == 0 && access(manifest, R_OK) < 0) {
		err_sys(&b->err, errno, "the installer left no manifest");
		return;
	}
	b->bytes = look.bytes;
	if (chmod(b->out, 0755) < 0) {
		err_sys(&b->err, errno, "chmod");
		return;
	}
	if (store_publish(b->out, target, &b->err) < 0)
		return;
	b->err = ERR_INIT;
}

static void on_published(uv_work_t *work, int status)
{
	struct build *b = work->data;

	if (status < 0)
		err_set(&b->err, ERR_SYSTEM, "cancelled");
	finish(b, b->err.kind ? &b->err : NULL);
}

/* The sentence that the installer printed, checked like everything it says. */
static void read_report(struct build *b, int status, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(64 * KIB);
	json_t *o = NULL;
	const char *kind = NULL, *message = NULL;

	if (buf_read_fd(&text, b->report, err) == 0)
		o = json_loadb(text.data, text.len, 0, NULL);
	if (o && json_unpack(o, "{s:s, s:s}", "kind", &kind, "message", &message) == 0)
		err_set(err, err_kind_parse(kind), "%.700s", message);
	else if (WIFSIGNALED(status))
		err_set(err, ERR_LIMIT, "its process was killed by signal %d", WTERMSIG(status));
	else
		err_set(err, ERR_SYSTEM, "its process ended with status %d", status);
	json_decref(o);
}

static void on_job(void *arg, int status, const struct err *err)
{
	struct build *b = arg;
	struct err own = ERR_INIT;

	if (!err && status != 0) {
		read_report(b, status, &own);
		err = &own;
	}
	if (err) {
		finish(b, err);
		return;
	}
	b->err = ERR_INIT;
	b->work.data = b;
	must(uv_queue_work(b->s->loop, &b->work, publish_on_thread, on_published) == 0);
}

static int make_out(struct build *b, struct err *err)
{
	b->out = store_tmp_name(b->s);
	if (mkdir(b->out, 0755) < 0)
		return err_sys(err, errno, "mkdir '%s'", b->out);
	/* EINVAL and EPERM: there is one id only, and it is ours. */
	if (chown(b->out, JAIL_ID_STORE, JAIL_ID_STORE) < 0 && errno != EINVAL && errno != EPERM)
		return err_sys(err, errno, "chown '%s'", b->out);
	return 0;
}

static int make_input(const struct buf *text, int *out, struct err *err)
{
	auto_close int fd = memfd_create("input", MFD_CLOEXEC);

	if (fd < 0)
		return err_sys(err, errno, "memfd_create");
	if (fd_write_all(fd, text->data ? text->data : "", text->len, err) < 0)
		return -1;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_sys(err, errno, "lseek");
	*out = fd_steal(&fd);
	return 0;
}

void build_start(struct store *s, const struct build_spec *spec, build_fn done, void *arg)
{
	struct build *b = mem_new(struct build);
	struct jail_job_spec job = spec->job;
	int pipefd[2] = { -1, -1 }, rc;
	auto_close int input = -1;

	*b = (struct build){ .s = s,
			     .kind = mem_strdup(spec->kind),
			     .name = mem_strdup(spec->name),
			     .begin_us = clock_us(),
			     .done = done,
			     .arg = arg };
	rc = pipe2(pipefd, O_CLOEXEC) < 0 ? err_sys(&b->err, errno, "pipe") : 0;
	b->report = pipefd[0];
	if (rc == 0)
		rc = make_out(b, &b->err);
	if (rc == 0 && spec->input)
		rc = make_input(spec->input, &input, &b->err);
	if (rc == 0) {
		job.mounts[job.nmounts++] = (struct jail_mount){ b->out, "/out", true };
		job.fds[0] = input;
		job.fds[1] = pipefd[1];
		job.fds[2] = STDERR_FILENO;
		job.nfds = 3;
		rc = jail_job_start(s->jail, &job, on_job, b, &b->err);
	}
	fd_close(&pipefd[1]);
	if (rc < 0)
		finish(b, &b->err);
}
