/* SPDX-License-Identifier: Apache-2.0
 *
 * One run of python/build_sdist.py in a sandbox: the archive goes in and a report, a wheel and what
 * was printed come out, as files that have no name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "index/sdist.h"
#include "jail/job.h"

#define TAIL_BYTES 640 /* of what a build printed, that fits into an error */
#define SYSTEM_PYTHON "/usr/bin/python3"

enum { ARCHIVE, REPORT, PRINTED, WHEEL, FILES };

struct sdist_job {
	int fds[FILES];
	sdist_job_fn done;
	void *arg;
};

static void job_free(struct sdist_job *job)
{
	for (int i = 0; i < FILES; i++)
		fd_close(&job->fds[i]);
	free(job);
}

/* For a terminal: odd characters become '?'; the length that is left. */
static size_t make_plain(char *text, size_t n)
{
	size_t len = 0;

	for (const char *c = text; c < text + n; c++) {
		bool plain = (*c >= ' ' && *c <= '~') || *c == '\n' || *c == '\t';

		if (((unsigned char)*c & 0xc0) != 0x80) /* the first byte of a character */
			text[len++] = plain ? *c : '?';
	}
	text[len] = '\0';
	return len;
}

/* The end of what was printed, whole lines if there are any. */
static void read_tail(int fd, char out[TAIL_BYTES + 1])
{
	off_t size = lseek(fd, 0, SEEK_END);
	ssize_t n = pread(fd, out, TAIL_BYTES, size > TAIL_BYTES ? size - TAIL_BYTES : 0);
	size_t len = make_plain(out, n > 0 ? (size_t)n : 0);
	char *line;

	while (len && strchr(" \n\t", out[len - 1]))
		len--;
	out[len] = '\0';
	line = size > TAIL_BYTES ? strchr(out, '\n') : NULL;
	if (line)
		memmove(out, line + 1, strlen(line));
}

static int failure(struct sdist_job *job, const char *what, struct err *err)
{
	char tail[TAIL_BYTES + 1], said[301];

	snprintf(said, sizeof(said), "%s", what); /* a report's, maybe */
	make_plain(said, strlen(said));
	read_tail(job->fds[PRINTED], tail);
	return err_set(err, ERR_CORRUPT, "%s%s%s", said, *tail ? "; it printed last:\n" : "", tail);
}

static int read_report(struct sdist_job *job, int status, json_t **out, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_REQUIREMENTS_BYTES);
	char what[64];
	const char *failed;
	json_t *report;

	if (WIFSIGNALED(status))
		snprintf(what, sizeof(what), "it was killed by signal %d", WTERMSIG(status));
	else
		snprintf(what, sizeof(what), "it ended with exit code %d", WEXITSTATUS(status));
	if (status != 0)
		return failure(job, what, err);
	if (lseek(job->fds[REPORT], 0, SEEK_SET) < 0 ||
	    buf_read_fd(&text, job->fds[REPORT], err) < 0)
		return -1;
	report = json_loadb(text.data ? text.data : "", text.len, 0, NULL);
	if (!json_is_object(report)) {
		json_decref(report);
		return failure(job, "it ended without a report", err);
	}
	failed = json_string_value(json_object_get(report, "failed"));
	if (failed) {
		failure(job, failed, err);
		json_decref(report);
		return -1;
	}
	*out = report;
	return 0;
}

static void on_job(void *arg, int status, const struct err *err)
{
	struct sdist_job *job = arg;
	struct err own = ERR_INIT;
	json_t *report = NULL;

	if (err) {
		failure(job, err->text, &own);
		own.kind = err->kind;
	} else if (read_report(job, status, &report, &own) < 0) {
		report = NULL;
	}
	job->done(job->arg, report, job->fds[WHEEL], report ? NULL : &own);
	json_decref(report);
	job_free(job);
}

static int open_files(struct sdist_job *job, struct index *index, const char *archive,
		      struct err *err)
{
	job->fds[ARCHIVE] = open(archive, O_RDONLY | O_CLOEXEC);
	if (job->fds[ARCHIVE] < 0)
		return err_sys(err, errno, "open '%s'", archive);
	for (int i = ARCHIVE + 1; i < FILES; i++) {
		auto_free char *path = NULL;

		job->fds[i] = cache_temp(index, &path, err);
		if (job->fds[i] < 0)
			return -1;
		unlink(path);
	}
	return 0;
}

int sdist_job_start(struct index *index, const struct sdist_job_spec *spec, sdist_job_fn done,
		    void *arg, struct err *err)
{
	const struct index_builds *builds = &index->builds;
	const char *filename = strrchr(spec->archive, '/') + 1;
	auto_free char *limit = mem_printf("%lu", LIMIT_BUILD_UNPACKED_BYTES);
	const char *look[] = { SYSTEM_PYTHON, "-I",	"-S",  JAIL_LIB "/build_sdist.py",
			       "look",	      filename, limit, NULL };
	const char *build[] = { JAIL_ENV "/bin/python",
				"-I",
				JAIL_LIB "/build_sdist.py",
				"build",
				filename,
				limit,
				spec->plan,
				NULL };
	struct jail_job_spec job = {
		.argv = spec->plan ? build : look,
		.prefix = spec->plan ? spec->prefix : NULL,
		.mounts = { { spec->env, JAIL_ENV, false } },
		.nmounts = spec->plan ? 1 : 0,
		.nfds = FILES,
		.memory_bytes = builds->memory_bytes ? builds->memory_bytes
						     : LIMIT_BUILD_MEMORY_BYTES,
		.deadline_ms = builds->ms ? builds->ms : LIMIT_BUILD_MS,
		.tmp_bytes = LIMIT_BUILD_UNPACKED_BYTES,
		.hostile = true,
		.pids = LIMIT_BUILD_PIDS,
	};
	struct sdist_job *j = mem_new(struct sdist_job);

	*j = (struct sdist_job){ .fds = { -1, -1, -1, -1 }, .done = done, .arg = arg };
	if (open_files(j, index, spec->archive, err) < 0) {
		job_free(j);
		return -1;
	}
	memcpy(job.fds, j->fds, sizeof(j->fds));
	if (jail_job_start(builds->jail, &job, on_job, j, err) < 0) {
		job_free(j);
		return -1;
	}
	return 0;
}
