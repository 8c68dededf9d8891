/* SPDX-License-Identifier: Apache-2.0
 *
 * Wheels that are on the caller's disk: copied into the cache, and from then on like any other.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "index/name.h"
#include "index/private.h"

struct taking {
	uv_work_t work;
	struct index *index;
	struct index_local local;
	int fd;
	index_local_fn done;
	void *arg;
	int rc;
	struct err err;
};

static int copy(struct taking *t, int to, struct sha *sum)
{
	auto_free char *room = mem_zero(1, 256 * KIB);
	off_t at = 0;
	ssize_t n;

	while ((n = pread(t->fd, room, 256 * KIB, at)) > 0) {
		sha_add(sum, room, (size_t)n);
		if (fd_write_all(to, room, (size_t)n, &t->err) < 0)
			return -1;
		at += n;
		if ((uint64_t)at > LIMIT_WHEEL_BYTES)
			return err_set(&t->err, ERR_LIMIT, "it has more than %lu bytes",
				       LIMIT_WHEEL_BYTES);
	}
	if (n < 0)
		return err_sys(&t->err, errno, "reading it");
	t->local.size_bytes = (uint64_t)at;
	sha_hex(sum, t->local.sha256);
	return fdatasync(to) < 0 ? err_sys(&t->err, errno, "syncing it") : fchmod(to, 0644);
}

static int publish(struct taking *t, const char *temp)
{
	const char *name = strrchr(t->local.path, '/') + 1;
	auto_free char *path = wheel_path(t->index, t->local.sha256, name);
	auto_free char *dir = mem_strndup(path, (size_t)(strrchr(path, '/') - path));

	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return err_sys(&t->err, errno, "mkdir '%s'", dir);
	return rename(temp, path) < 0 ? err_sys(&t->err, errno, "renaming to '%s'", path) : 0;
}

/* On the pool. */
static int take(struct taking *t)
{
	const char *slash = strrchr(t->local.path, '/');
	auto_free char *temp = NULL;
	auto_close int to = -1;
	struct sha *sum;
	struct stat st;
	int rc;

	if (!slash || !name_is_dist(slash + 1))
		return err_set(&t->err, ERR_USAGE, "this is not the file name of a wheel or sdist");
	if (fstat(t->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(&t->err, ERR_USAGE, "it is not a file");
	to = cache_temp(t->index, &temp, &t->err);
	if (to < 0)
		return -1;
	sum = sha_new();
	rc = copy(t, to, sum);
	sha_free(sum);
	if (rc == 0)
		rc = publish(t, temp);
	if (rc < 0)
		unlink(temp);
	return rc;
}

static void work_take(uv_work_t *work)
{
	struct taking *t = work->data;

	t->rc = take(t);
	if (t->rc < 0)
		err_wrap(&t->err, "taking '%s'", t->local.path);
}

static void on_taken(uv_work_t *work, int status)
{
	struct taking *t = work->data;

	t->done(t->arg, t->rc < 0 ? NULL : &t->local, t->rc < 0 ? &t->err : NULL);
	index_unref(t->index);
	free(t->local.path);
	free(t);
}

void index_take(struct index *index, const char *path, int fd, index_local_fn done, void *arg)
{
	struct taking *t = mem_new(struct taking);

	t->index = index_ref(index);
	t->local.path = mem_strdup(path);
	t->fd = fd;
	t->done = done;
	t->arg = arg;
	t->work.data = t;
	must(uv_queue_work(index->loop, &t->work, work_take, on_taken) == 0);
}
