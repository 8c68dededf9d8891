/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/job.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "jail/jail_priv.h"

struct jail_job {
	struct jail *jail;
	char **argv;
	char *prefix;
	struct jail_mount mounts[JAIL_JOB_MOUNTS];
	size_t nmounts;
	int fds[JAIL_JOB_FDS];
	size_t nfds;
	uint64_t memory_bytes, deadline_ms;
	jail_job_fn done;
	void *arg;
	struct cell *cell;
	int pidfd;
	bool timed_out;
	uv_timer_t timer;
};

static void free_job(uv_handle_t *handle)
{
	struct jail_job *job = handle->data;

	for (char **a = job->argv; *a; a++)
		free(*a);
	free(job->argv);
	free(job->prefix);
	for (size_t i = 0; i < job->nmounts; i++) {
		free((char *)job->mounts[i].from);
		free((char *)job->mounts[i].to);
	}
	for (size_t i = 0; i < job->nfds; i++)
		fd_close(&job->fds[i]);
	fd_close(&job->pidfd);
	free(job);
}

static void end(struct jail_job *job, int status, const struct err *err)
{
	jail_free_cell(job->cell); /* every process of it goes with its init */
	job->cell = NULL;
	job->done(job->arg, status, err);
	uv_timer_stop(&job->timer);
	uv_close((uv_handle_t *)&job->timer, free_job);
}

static void on_exit_of(void *arg, int status)
{
	struct jail_job *job = arg;
	struct err err;

	if (!job->timed_out) {
		end(job, status, NULL);
		return;
	}
	err_set(&err, ERR_TIMEOUT, "it did not end within %llu s",
		(unsigned long long)job->deadline_ms / 1000);
	end(job, 0, &err);
}

static void on_deadline(uv_timer_t *timer)
{
	struct jail_job *job = timer->data;

	job->timed_out = true;
	jail_free_cell(job->cell);
	job->cell = NULL;
}

static void on_started(void *arg, int pidfd, pid_t pid, const struct err *err)
{
	struct jail_job *job = arg;

	if (err) {
		end(job, 0, err);
		return;
	}
	job->pidfd = pidfd;
	for (size_t i = 0; i < job->nfds; i++)
		fd_close(&job->fds[i]); /* the job has them; a pipe's reader must see its end */
	if (job->deadline_ms)
		must(uv_timer_start(&job->timer, on_deadline, job->deadline_ms, 0) == 0);
	jail_watch(job->jail, pid, on_exit_of, job);
}

static void on_cell(void *arg, struct cell *cell, const struct err *err)
{
	static const char *const env[] = { "PATH=/usr/bin:/bin", "LANG=C.UTF-8", "HOME=" JAIL_HOME,
					   NULL };
	struct jail_job *job = arg;
	struct spawn_spec spec = { .cell = cell,
				   .argv = (const char *const *)job->argv,
				   .env = env,
				   .nmounts = job->nmounts,
				   .fds = job->fds,
				   .nfds = job->nfds,
				   .memory_bytes = job->memory_bytes };

	if (err) {
		end(job, 0, err);
		return;
	}
	job->cell = cell;
	for (size_t i = 0; i < job->nmounts; i++)
		spec.mounts[i] = job->mounts[i];
	jail_spawn(job->jail, &spec, on_started, job);
}

static int copy_spec(struct jail_job *job, const struct jail_job_spec *spec, struct err *err)
{
	size_t n = 0;

	while (spec->argv[n])
		n++;
	job->argv = mem_zero(n + 1, sizeof(char *));
	for (size_t i = 0; i < n; i++)
		job->argv[i] = mem_strdup(spec->argv[i]);
	job->prefix = mem_strdup(spec->prefix);
	for (; job->nmounts < spec->nmounts; job->nmounts++)
		job->mounts[job->nmounts] = (struct jail_mount){
			.from = mem_strdup(spec->mounts[job->nmounts].from),
			.to = mem_strdup(spec->mounts[job->nmounts].to),
			.writable = spec->mounts[job->nmounts].writable,
		};
	for (; job->nfds < spec->nfds; job->nfds++) {
		int fd = spec->fds[job->nfds];

		job->fds[job->nfds] = fd < 0 ? -1 : dup(fd);
		if (fd >= 0 && job->fds[job->nfds] < 0)
			return err_set(err, ERR_LIMIT, "too many open descriptors");
	}
	job->memory_bytes = spec->memory_bytes;
	job->deadline_ms = spec->deadline_ms;
	return 0;
}

int jail_job_start(struct jail *jail, const struct jail_job_spec *spec, jail_job_fn done, void *arg,
		   struct err *err)
{
	uint32_t id = jail->start->ids > 1 ? JAIL_ID_STORE : 0;
	struct cell_spec cell = { .mode = MAKER_NEW_PID,
				  .extents = { { 0, id, 1 } },
				  .nextents = 1,
				  .host_id = id,
				  .prefix = spec->prefix };
	struct jail_job *job = mem_new(struct jail_job);

	job->jail = jail;
	job->done = done;
	job->arg = arg;
	job->pidfd = -1;
	must(uv_timer_init(jail->loop, &job->timer) == 0);
	job->timer.data = job;
	if (copy_spec(job, spec, err) < 0) {
		uv_close((uv_handle_t *)&job->timer, free_job);
		return -1;
	}
	if (spec->prefix && !jail_has_prefix(jail, spec->prefix)) {
		uv_close((uv_handle_t *)&job->timer, free_job);
		return err_set(err, ERR_NOT_FOUND,
			       "the daemon cannot see the interpreter in '%s'; show it by "
			       "`pipsqueak deploy` or `pipsqueak run` with --python, or start "
			       "the daemon with --python",
			       spec->prefix);
	}
	cell.prefix = job->prefix;
	jail_make_cell(jail, &cell, on_cell, job);
	return 0;
}
