/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/progress.h"
#include "index/digest.h"
#include "index/name.h"
#include "index/private.h"

struct waiter {
	struct waiter *next;
	index_progress_fn progress;
	wheel_fn done;
	void *arg;
};

/* One wheel on its way into the cache, however many wait for it. */
struct wheel_job {
	struct wheel_job *next;
	struct index *index;
	uv_work_t work;
	struct waiter *waiters;
	char *url, *filename;
	char sha256[SHA_HEX]; /* as wanted; "" : any */
	char have[SHA_HEX];   /* as found */
	uint64_t size;
	struct settings *settings;
	char *path; /* in the cache, once the sha256 is known */
	char *temp;
	int fd;	      /* of temp; -1: none */
	bool partial; /* temp may outlive this daemon */
	struct sha *sum;
	uint64_t expected;     /* what the server says of it, for those who watch */
	uint64_t got, told_us; /* bytes that are there; when that was last told */
	bool queued;	       /* waits for its turn to download */
	bool downloading;
	bool resumed;	 /* it came in more than one piece */
	bool whole_only; /* the pieces did not fit: once more, in one */
	bool found;	 /* the step on the thread pool succeeded */
	struct err err;
};

char *wheel_path(const struct index *index, const char *sha256, const char *filename)
{
	return mem_printf("%s/wheels/%s/%s", index->cache_dir, sha256, filename);
}

static void next_download(struct index *index);

/* The next try goes on there, if it was no fault of the bytes or of this disk. */
static bool is_worth_keeping(const struct wheel_job *job)
{
	return job->partial && job->got >= PARTIAL_WORTH &&
	       (job->index->closing || job->err.kind == ERR_UPSTREAM ||
		job->err.kind == ERR_TIMEOUT);
}

static void job_free(struct wheel_job *job)
{
	struct index *index = job->index;

	for (struct wheel_job **p = &index->jobs; *p; p = &(*p)->next)
		if (*p == job) {
			*p = job->next;
			break;
		}
	if (job->temp && !is_worth_keeping(job))
		unlink(job->temp);
	free(job->temp);
	fd_close(&job->fd); /* its lock, too */
	sha_free(job->sum);
	settings_unref(job->settings);
	free(job->url);
	free(job->filename);
	free(job->path);
	free(job);
	index_unref(index);
}

static void job_end(struct wheel_job *job, const struct err *err)
{
	struct waiter *w;

	if (err && !job->index->closing)
		cache_distrust(job->index);
	if (job->downloading) {
		job->downloading = false;
		job->index->downloads--;
		next_download(job->index);
	}
	while ((w = job->waiters)) {
		job->waiters = w->next;
		w->done(w->arg, err ? NULL : job->path, err ? NULL : job->have, err);
		free(w);
	}
	job_free(job);
}

static void run(struct wheel_job *job, uv_work_cb work, uv_after_work_cb after)
{
	job->work.data = job;
	must(uv_queue_work(job->index->loop, &job->work, work, after) == 0);
}

/* On the pool. The file is complete in temp and its sum is in have. */
static int publish(struct wheel_job *job)
{
	auto_free char *dir = mem_printf("%s/wheels/%s", job->index->cache_dir, job->have);

	if (job->sha256[0] && strcmp(job->sha256, job->have) != 0)
		return err_set(&job->err, ERR_CORRUPT,
			       "%s has sha256 %s, but %s was expected; it is not used",
			       job->filename, job->have, job->sha256);
	fchmod(job->fd, 0644); /* not synced: who takes it out of the cache sums it again */
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return err_sys(&job->err, errno, "mkdir '%s'", dir);
	free(job->path);
	job->path = wheel_path(job->index, job->have, job->filename);
	if (rename(job->temp, job->path) < 0)
		return err_sys(&job->err, errno, "renaming to '%s'", job->path);
	free(steal(job->temp));
	return 0;
}

static void work_publish(uv_work_t *work)
{
	struct wheel_job *job = work->data;

	sha_hex(job->sum, job->have);
	job->found = publish(job) == 0;
}

static void fetch_wheel(struct wheel_job *job);
static int on_restart(void *arg, struct err *err);

static void on_published(uv_work_t *work, int status)
{
	struct wheel_job *job = work->data;

	/* A server that changed the file between two pieces gives a mixture of both. */
	if (!job->found && job->resumed && job->err.kind == ERR_CORRUPT && !job->whole_only &&
	    !job->index->closing) {
		job->whole_only = true;
		job->err = ERR_INIT;
		if (on_restart(job, &job->err) == 0) {
			fetch_wheel(job);
			return;
		}
	}
	job_end(job, job->found ? NULL : &job->err);
}

/* How much of it is there, to all who wait; not more often than an eye can follow. */
static void tell(struct wheel_job *job, bool always)
{
	uint64_t now = uv_hrtime() / 1000;
	auto_free char *version = NULL, *name = NULL;
	struct progress p = { .what = "download",
			      .done = job->got,
			      .total = job->size ? job->size : job->expected };
	char line[PROGRESS_LINE];

	if (!always && now - job->told_us < PROGRESS_US)
		return;
	job->told_us = now;
	p.version = version = name_is_wheel(job->filename) ? name_wheel_version(job->filename)
							   : NULL;
	p.name = name = version ? mem_strndup(job->filename, strcspn(job->filename, "-"))
				: mem_strdup(job->filename);
	progress_print(&p, line);
	for (struct waiter *w = job->waiters; w; w = w->next)
		if (w->progress)
			w->progress(w->arg, line);
}

static void on_length(void *arg, uint64_t bytes)
{
	struct wheel_job *job = arg;

	job->expected = bytes;
}

static int on_data(void *arg, const char *data, size_t len, struct err *err)
{
	struct wheel_job *job = arg;

	sha_add(job->sum, data, len);
	if (fd_write_all(job->fd, data, len, err) < 0)
		return -1;
	job->got += len;
	tell(job, false);
	return 0;
}

static int on_restart(void *arg, struct err *err)
{
	struct wheel_job *job = arg;

	sha_restart(job->sum);
	job->got = 0;
	if (ftruncate(job->fd, 0) < 0 || lseek(job->fd, 0, SEEK_SET) < 0)
		return err_sys(err, errno, "emptying '%s'", job->temp);
	return 0;
}

static void on_fetched(void *arg, struct fetch_reply *reply, const struct err *err)
{
	struct wheel_job *job = arg;

	if (err)
		job->err = *err;
	else if (reply->status != (reply->resumed ? 206 : 200))
		err_set(&job->err, reply->status == 404 ? ERR_NOT_FOUND : ERR_UPSTREAM,
			"%s answered %ld; resolve again, the index may have changed", job->url,
			reply->status);
	if (job->err.kind) {
		err_wrap(&job->err, "downloading %s", job->filename);
		job_end(job, &job->err);
		return;
	}
	job->resumed = reply->resumed;
	tell(job, true);
	run(job, work_publish, on_published);
}

static void fetch_wheel(struct wheel_job *job)
{
	struct fetch_spec spec = { .url = job->url,
				   .settings = job->settings,
				   .max_bytes = job->size ? job->size : LIMIT_WHEEL_BYTES,
				   .max_ms = LIMIT_FETCH_WHEEL_MS,
				   .length = on_length,
				   .data = on_data,
				   .restart = on_restart,
				   .begun = job->got,
				   .resume = !job->whole_only };

	tell(job, true);
	if (job->got && job->got == job->size) { /* its daemon ended just then */
		job->resumed = true;
		run(job, work_publish, on_published);
		return;
	}
	fetch_start(job->index->fetcher, &spec, on_fetched, job);
}

static void download(struct wheel_job *job)
{
	job->queued = false;
	job->downloading = true;
	job->index->downloads++;
	if (job->fd < 0 && job->sha256[0])
		job->fd = partial_open(job->index, job->sha256, true, &job->temp);
	job->partial = job->fd >= 0;
	if (job->fd < 0)
		job->fd = cache_temp(job->index, &job->temp, &job->err);
	if (!job->sum)
		job->sum = sha_new();
	/* What came there since it was looked for has no sum. */
	if (job->fd < 0 || (!job->got && on_restart(job, &job->err) < 0))
		job_end(job, &job->err);
	else
		fetch_wheel(job);
}

static void next_download(struct index *index)
{
	struct wheel_job *largest = NULL; /* first: all together end sooner */

	for (struct wheel_job *job = index->jobs; job; job = job->next)
		if (job->queued && (!largest || job->size > largest->size))
			largest = job;
	if (largest && index->downloads < LIMIT_DOWNLOADS && !index->closing)
		download(largest);
}

/* On the pool: a wheel of a find-links directory is copied into the cache. */
static int copy_local(struct wheel_job *job)
{
	auto_free char *path = digest_file_path(job->url);
	auto_close int from = open(path ? path : "", O_RDONLY | O_CLOEXEC | O_NOCTTY);
	auto_free char *room = mem_zero(1, 256 * KIB);
	struct stat st;
	ssize_t n;

	if (from < 0 || fstat(from, &st) < 0)
		return err_sys(&job->err, errno, "open '%s'", job->url);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > LIMIT_WHEEL_BYTES)
		return err_set(&job->err, ERR_LIMIT, "%s is no file, or too large", job->url);
	job->fd = cache_temp(job->index, &job->temp, &job->err);
	if (job->fd < 0)
		return -1;
	job->sum = sha_new();
	while ((n = read(from, room, 256 * KIB)) > 0)
		if (on_data(job, room, (size_t)n, &job->err) < 0)
			return -1;
	if (n < 0)
		return err_sys(&job->err, errno, "read '%s'", job->url);
	sha_hex(job->sum, job->have);
	return publish(job);
}

static void work_local(uv_work_t *work)
{
	struct wheel_job *job = work->data;

	job->found = copy_local(job) == 0;
}

/* On the pool: what an earlier daemon left of it. */
static void look_for_part(struct wheel_job *job)
{
	job->fd = partial_open(job->index, job->sha256, false, &job->temp);
	if (job->fd < 0)
		return;
	job->sum = sha_new();
	if (partial_sum(job->fd, job->sum, &job->got) == 0 && (!job->size || job->got <= job->size))
		return;
	if (on_restart(job, &job->err) < 0)
		job->err = ERR_INIT; /* a new one is made */
}

/* On the pool: is it in the cache, whole? After a crash of the machine it may be there in part,
 * so it is summed again. */
static void work_look(uv_work_t *work)
{
	struct wheel_job *job = work->data;
	auto_free char *path = wheel_path(job->index, job->sha256, job->filename);
	struct err err;

	if (access(path, R_OK) == 0) {
		job->found = sha_file(path, job->have, &err) == 0 &&
			     strcmp(job->have, job->sha256) == 0;
		if (!job->found)
			unlink(path);
	}
	if (job->found)
		job->path = steal(path);
	else if (strncmp(job->url, "http", 4) == 0)
		look_for_part(job);
}

static void job_proceed(struct wheel_job *job)
{
	if (job->index->closing) {
		err_set(&job->err, ERR_SYSTEM, "shutting down");
		job_end(job, &job->err);
	} else if (!job->url[0]) {
		err_set(&job->err, ERR_NOT_FOUND,
			"%s was built here and is in the cache no more; resolve again (--upgrade, "
			"or deploy again)",
			job->filename);
		job_end(job, &job->err);
	} else if (strncmp(job->url, "file://", 7) == 0) {
		run(job, work_local, on_published);
	} else if (job->index->downloads < LIMIT_DOWNLOADS) {
		download(job);
	} else {
		job->queued = true;
	}
}

static void on_looked(uv_work_t *work, int status)
{
	struct wheel_job *job = work->data;

	if (job->found || job->err.kind)
		job_end(job, job->found ? NULL : &job->err);
	else
		job_proceed(job);
}

static void work_nothing(uv_work_t *work)
{
}

static struct wheel_job *job_find(struct index *index, const struct wheel_want *want)
{
	for (struct wheel_job *job = index->jobs; job; job = job->next)
		if (strcmp(job->sha256, want->sha256) == 0 && strcmp(job->url, want->url) == 0 &&
		    strcmp(job->filename, want->filename) == 0)
			return job;
	return NULL;
}

void wheel_get(struct index *index, const struct wheel_want *want, index_progress_fn progress,
	       wheel_fn done, void *arg)
{
	struct wheel_job *job = job_find(index, want);
	struct waiter *w = mem_new(struct waiter);

	*w = (struct waiter){ .progress = progress, .done = done, .arg = arg };
	if (job) {
		w->next = job->waiters;
		job->waiters = w;
		return;
	}
	job = mem_new(struct wheel_job);
	job->index = index_ref(index);
	job->waiters = w;
	job->url = mem_strdup(want->url);
	job->filename = mem_strdup(want->filename);
	memcpy(job->sha256, want->sha256, strlen(want->sha256) + 1);
	job->size = want->size;
	job->settings = settings_ref(want->settings);
	job->fd = -1;
	job->next = index->jobs;
	index->jobs = job;
	if (!name_is_dist(job->filename))
		err_set(&job->err, ERR_USAGE, "'%.200s' is not the name of a wheel or sdist",
			job->filename);
	run(job, job->sha256[0] && !job->err.kind ? work_look : work_nothing, on_looked);
}

struct early {
	struct index *index;
	uint64_t size;
};

static void on_early(void *arg, const char *path, const char *sha256, const struct err *err)
{
	struct early *e = arg;

	e->index->early_bytes -= e->size; /* failed: who needs it asks again and is told why */
	free(e);
}

void wheel_expect(struct index *index, const struct wheel_want *want)
{
	struct early *e;

	if (!want->sha256[0] || !want->size || index->closing ||
	    want->size > LIMIT_EARLY_BYTES - index->early_bytes || job_find(index, want))
		return;
	e = mem_new(struct early);
	*e = (struct early){ index, want->size }; /* the job holds a reference */
	index->early_bytes += want->size;
	wheel_get(index, want, NULL, on_early, e);
}

static struct wheel_job *find_queued(struct index *index)
{
	struct wheel_job *job = index->jobs;

	while (job && !job->queued)
		job = job->next;
	return job;
}

void wheels_close(struct index *index)
{
	struct wheel_job *job;
	struct err err;

	err_set(&err, ERR_SYSTEM, "shutting down");
	while ((job = find_queued(index))) { /* what is under way ends by itself */
		job->queued = false;
		job_end(job, &err);
	}
}
