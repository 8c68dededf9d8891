/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
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
	uint64_t memory_bytes, deadline_ms, pids;
	bool hostile;
	jail_job_fn done;
	void *arg;
	struct cell *cell;
	int pidfd;
	int slot; /* its cgroup; -1: none */
	int gate; /* closed when the limits hold */
	bool timed_out, attaching, exited;
	int status;
	struct err err;
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
	fd_close(&job->gate);
	free(job);
}

static void tell(struct jail_job *job)
{
	job->done(job->arg, job->err.kind ? 0 : job->status, job->err.kind ? &job->err : NULL);
	uv_timer_stop(&job->timer);
	uv_close((uv_handle_t *)&job->timer, free_job);
}

static void on_usage(void *arg, const struct slot_usage *usage)
{
	struct jail_job *job = arg;

	if (usage->oom_kills && !job->err.kind)
		err_set(&job->err, ERR_LIMIT, "it wanted more than %llu MiB of memory",
			(unsigned long long)(job->memory_bytes / MIB));
	tell(job);
}

static void end(struct jail_job *job)
{
	jail_free_cell(job->cell); /* every process of it goes with its init */
	job->cell = NULL;
	if (job->slot >= 0)
		jail_slot_give(job->jail, job->slot, on_usage, job);
	else
		tell(job);
}

static void on_exit_of(void *arg, int status)
{
	struct jail_job *job = arg;

	job->exited = true;
	job->status = status;
	if (job->timed_out && !job->err.kind)
		err_set(&job->err, ERR_TIMEOUT, "it did not end within %llu s",
			(unsigned long long)job->deadline_ms / 1000);
	if (!job->attaching)
		end(job);
}

static void on_attached(void *arg, const struct err *err)
{
	struct jail_job *job = arg;

	job->attaching = false;
	if (err && !job->exited) { /* it still waits before the gate: nothing ran without limits */
		job->err = *err;
		err_wrap(&job->err, "limiting a job");
		jail_free_cell(job->cell);
		job->cell = NULL;
	}
	if (job->exited)
		end(job);
	else if (!err)
		fd_close(&job->gate);
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
		job->err = *err;
		end(job);
		return;
	}
	job->pidfd = pidfd;
	for (size_t i = 0; i < job->nfds; i++)
		fd_close(&job->fds[i]); /* the job has them; a pipe's reader must see its end */
	if (job->deadline_ms)
		must(uv_timer_start(&job->timer, on_deadline, job->deadline_ms, 0) == 0);
	job->attaching = job->slot >= 0;
	jail_watch(job->jail, pid, on_exit_of, job);
	if (job->slot >= 0)
		jail_slot_attach(job->jail, job->slot, pidfd, on_attached, job);
	else
		fd_close(&job->gate);
}

static void on_cell(void *arg, struct cell *cell, const struct err *err)
{
	/* A job is short: memory that it frees it soon needs again (a twentieth of the time that
	 * compiling takes). */
	static const char *const env[] = { "PATH=/usr/bin:/bin",
					   "LANG=C.UTF-8",
					   "HOME=" JAIL_HOME,
					   "MALLOC_TRIM_THRESHOLD_=1073741824",
					   "MALLOC_TOP_PAD_=16777216",
					   "MALLOC_MMAP_THRESHOLD_=33554432",
					   "GLIBC_TUNABLES=glibc.malloc.hugetlb=1",
					   NULL };
	struct jail_job *job = arg;
	struct spawn_spec spec = { .cell = cell,
				   .argv = (const char *const *)job->argv,
				   .env = env,
				   .nmounts = job->nmounts,
				   .fds = job->fds,
				   .nfds = job->nfds };
	struct slot_limits limits = { .memory_bytes = job->memory_bytes, .pids = job->pids };

	if (err) {
		job->err = *err;
		end(job);
		return;
	}
	job->cell = cell;
	if (job->hostile)
		job->slot = jail_slot_take(job->jail, &limits);
	if (job->slot < 0) {
		spec.memory_bytes = job->memory_bytes;
		spec.pids = job->pids;
	}
	for (size_t i = 0; i < job->nmounts; i++)
		spec.mounts[i] = job->mounts[i];
	jail_spawn(job->jail, &spec, on_started, job);
}

static int make_gate(struct jail_job *job, struct err *err)
{
	int ends[2];

	must(job->nfds < JAIL_JOB_FDS);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_sys(err, errno, "making a pipe");
	job->fds[job->nfds++] = ends[0];
	job->gate = ends[1];
	return 0;
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
	job->hostile = spec->hostile;
	job->pids = spec->pids;
	return spec->hostile ? make_gate(job, err) : 0;
}

int jail_job_start(struct jail *jail, const struct jail_job_spec *spec, jail_job_fn done, void *arg,
		   struct err *err)
{
	uint32_t own = spec->hostile ? JAIL_ID_BUILD : JAIL_ID_STORE;
	uint32_t id = jail->start->ids > 1 ? own : 0;
	struct cell_spec cell = { .mode = MAKER_NEW_PID | (spec->hostile ? MAKER_NEW_NET : 0),
				  .extents = { { 0, id, 1 } },
				  .nextents = 1,
				  .host_id = id,
				  .tmp_bytes = spec->tmp_bytes,
				  .prefix = spec->prefix };
	struct jail_job *job = mem_new(struct jail_job);

	job->jail = jail;
	job->done = done;
	job->arg = arg;
	job->pidfd = job->slot = job->gate = -1;
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
