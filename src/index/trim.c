/* SPDX-License-Identifier: Apache-2.0
 *
 * What indexes answered is nobody's in particular: pages, METADATA, and what became of sdists. The
 * least recently used go when they are too much. Whoever misses one asks the index again.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "index/private.h"

static const char *const kinds[] = { "pages", "metadata", "builds" };

struct answer {
	char *path;
	double used_s;
	uint64_t bytes;
};

struct answers {
	struct answer *v;
	size_t n, room;
	uint64_t bytes;
};

struct trim {
	struct index *index;
	uint64_t to_bytes;
	size_t to_files;
	uv_work_t work;
	index_trimmed_fn done; /* NULL: nobody asked */
	void *arg;
	struct err err;
};

static double seconds(const struct timespec *t)
{
	return (double)t->tv_sec + (double)t->tv_nsec / 1e9;
}

/* A file's time of access is kept at least daily where the file system keeps it at all. */
static void add(struct answers *all, const char *dir, const char *name, const struct stat *st)
{
	double read_s = seconds(&st->st_atim), written_s = seconds(&st->st_mtim);

	if (all->n == all->room) {
		all->room = all->room ? 2 * all->room : 1024;
		all->v = mem_resize(all->v, all->room * sizeof(*all->v));
	}
	all->v[all->n++] = (struct answer){ .path = mem_printf("%s/%s", dir, name),
					    .used_s = read_s > written_s ? read_s : written_s,
					    .bytes = (uint64_t)st->st_size };
	all->bytes += (uint64_t)st->st_size;
}

static int load(const struct index *index, const char *kind, struct answers *all, struct err *err)
{
	auto_free char *path = cache_path(index, kind, "");
	DIR *dir = opendir(path);
	struct dirent *e;
	int more;

	if (!dir)
		return err_sys(err, errno, "reading '%s'", path);
	while ((more = fd_next_entry(dir, &e, err)) > 0) {
		struct stat st;

		if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode))
			add(all, path, e->d_name, &st);
	}
	closedir(dir);
	return more;
}

static int by_use(const void *a, const void *b)
{
	const struct answer *x = a, *y = b;

	return x->used_s < y->used_s ? -1 : x->used_s > y->used_s;
}

static void work_trim(uv_work_t *work)
{
	struct trim *t = work->data;
	struct answers all = { 0 };
	size_t left;
	int rc = 0;

	for (size_t i = 0; i < array_len(kinds) && rc == 0; i++)
		rc = load(t->index, kinds[i], &all, &t->err);
	left = all.n;
	if (rc == 0 && all.n)
		qsort(all.v, all.n, sizeof(*all.v), by_use);
	for (size_t i = 0; i < all.n; i++) {
		if (rc == 0 && (all.bytes > t->to_bytes || left > t->to_files)) {
			if (unlink(all.v[i].path) < 0 && errno != ENOENT)
				rc = err_sys(&t->err, errno, "removing '%s'", all.v[i].path);
			all.bytes -= all.v[i].bytes;
			left--;
		}
		free(all.v[i].path);
	}
	free(all.v);
	if (!t->to_bytes)
		partial_clean(t->index, 0);
	if (rc == 0)
		t->err.kind = ERR_NONE;
}

static void on_trimmed(uv_work_t *work, int status)
{
	struct trim *t = work->data;
	struct index *index = t->index;

	(void)status; /* it is never cancelled */
	if (t->done)
		t->done(t->arg, t->err.kind ? &t->err : NULL);
	else if (t->err.kind)
		log_warn("index", "trimming what is kept: %s", t->err.text);
	free(t);
	index_unref(index);
}

static void start(struct index *index, const struct trim *spec)
{
	struct trim *t = mem_new(struct trim);

	*t = *spec;
	t->index = index_ref(index);
	t->work.data = t;
	must(uv_queue_work(index->loop, &t->work, work_trim, on_trimmed) == 0);
}

void index_trim(struct index *index, uint64_t to_bytes, index_trimmed_fn done, void *arg)
{
	start(index,
	      &(struct trim){
		      .to_bytes = to_bytes, .to_files = SIZE_MAX, .done = done, .arg = arg });
}

void trim_if_due(struct index *index)
{
	unsigned long put = atomic_load(&index->put_bytes);

	if (put < LIMIT_ANSWERS_BYTES / 16 && index->trimmed)
		return;
	index->trimmed = true;
	atomic_fetch_sub(&index->put_bytes, put);
	start(index, &(struct trim){ .to_bytes = LIMIT_ANSWERS_BYTES / 16 * 15,
				     .to_files = LIMIT_ANSWERS });
}
