/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "store/prune.h"
#include "store/store_priv.h"

#define HALF_LIFE_S (7 * 86400.0)
/* What fetching a wheel is taken to cost: nobody measured each. */
#define FETCH_MS 300
#define FETCH_BYTES_PER_MS (20 * 1000)
/* A download whose sources are unpacked saves little: only another unpacking of them. */
#define UNPACKED_ALREADY 0.05

static const char *const kind_names[OBJECT_KINDS] = { "downloads", "wheels", "bytecode", "envs" };

const char *object_kind_name(enum object_kind kind)
{
	return kind_names[kind];
}

/* Without a fact: measured. Of an environment only what is not a link into an entry. */
static uint64_t tree_bytes(int dirfd, const char *name, bool links)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	uint64_t total = 0;
	struct dirent *e;
	struct stat st;

	while (dir && (e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
		    fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (links || S_ISDIR(st.st_mode) || st.st_nlink == 1)
			total += (uint64_t)st.st_blocks * 512;
		if (S_ISDIR(st.st_mode))
			total += tree_bytes(fd, e->d_name, links);
	}
	if (dir)
		closedir(dir);
	return total;
}

static double seconds(const struct timespec *t)
{
	return (double)t->tv_sec + (double)t->tv_nsec / 1e9;
}

static void read_fact(const char *dir, struct object *o, int kind_fd)
{
	auto_free char *path = mem_printf("%s/facts/%s.%s", dir, kind_names[o->kind], o->name);
	auto_buf struct buf text = BUF_MAX(128);
	unsigned long long bytes = 0, cost = 0;
	struct stat st;

	if (stat(path, &st) == 0 && buf_read_file(&text, AT_FDCWD, path, &(struct err){ 0 }) == 0 &&
	    text.data && sscanf(text.data, "%llu %llu", &bytes, &cost) == 2 && bytes) {
		o->bytes = bytes;
		o->cost_ms = cost;
		o->used_s = seconds(&st.st_mtim);
		return;
	}
	if (fstatat(kind_fd, o->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		o->used_s = seconds(&st.st_mtim);
	o->bytes = tree_bytes(kind_fd, o->name, o->kind != OBJECT_ENV);
	o->cost_ms = o->kind == OBJECT_DOWNLOAD ? FETCH_MS + o->bytes / FETCH_BYTES_PER_MS : 500;
}

/* What an environment is made of protects its entries: not to know it is a failure. */
static int read_entries(struct object *o, int kind_fd, struct err *err)
{
	auto_free char *path = mem_printf("%s/.entries", o->name);
	auto_buf struct buf text = BUF_MAX(LIMIT_LOCK_DISTS * 128);
	char *save = NULL;
	size_t n = 0;

	o->entries = mem_zero(LIMIT_LOCK_DISTS + 1, sizeof(char *));
	if (buf_read_file(&text, kind_fd, path, err) < 0 && err->sys != ENOENT)
		return -1; /* ENOENT: it goes just now */
	for (char *line = text.data ? strtok_r(text.data, "\n", &save) : NULL;
	     line && n < LIMIT_LOCK_DISTS; line = strtok_r(NULL, "\n", &save))
		o->entries[n++] = mem_strdup(line);
	o->entries = mem_resize(o->entries, (n + 1) * sizeof(char *));
	return 0;
}

static int load_kind(struct objects *all, const char *dir, const char *place, enum object_kind kind,
		     struct err *err)
{
	DIR *d = opendir(place);
	struct dirent *e;
	int more = 0, rc = 0;

	if (!d)
		return errno == ENOENT ? 0 : err_sys(err, errno, "reading '%s'", place);
	while (rc == 0 && (more = fd_next_entry(d, &e, err)) > 0) {
		struct object *o;

		if (e->d_name[0] == '.')
			continue;
		all->v = mem_resize(all->v, (all->n + 1) * sizeof(*all->v));
		o = &all->v[all->n++];
		*o = (struct object){ .kind = kind, .name = mem_strdup(e->d_name) };
		read_fact(dir, o, dirfd(d));
		if (kind == OBJECT_ENV)
			rc = read_entries(o, dirfd(d), err);
		all->bytes += o->bytes;
	}
	closedir(d);
	return more < 0 ? -1 : rc;
}

const struct object *objects_find(const struct objects *o, enum object_kind kind, const char *name)
{
	for (size_t i = 0; i < o->n; i++)
		if (o->v[i].kind == kind && strcmp(o->v[i].name, name) == 0)
			return &o->v[i];
	return NULL;
}

/* An entry and its bytecode were used when an environment made of it was. */
static void spread_use(struct objects *o)
{
	for (size_t i = 0; i < o->n; i++)
		for (char **name = o->v[i].entries; name && *name; name++)
			for (size_t k = 0; k < o->n; k++)
				if (o->v[k].kind != OBJECT_ENV &&
				    strncmp(o->v[k].name, *name, 64) == 0 &&
				    o->v[k].used_s < o->v[i].used_s &&
				    o->v[k].kind != OBJECT_DOWNLOAD)
					o->v[k].used_s = o->v[i].used_s;
}

void objects_judge(struct objects *o)
{
	struct timespec now;

	spread_use(o);
	clock_gettime(CLOCK_REALTIME, &now);
	for (size_t i = 0; i < o->n; i++) {
		struct object *one = &o->v[i];
		double age = seconds(&now) - one->used_s;

		one->value = (double)one->cost_ms / 1e3 / (double)(one->bytes ? one->bytes : 1) *
			     exp2(-(age > 0 ? age : 0) / HALF_LIFE_S);
		if (one->kind == OBJECT_DOWNLOAD && objects_find(o, OBJECT_WHEEL, one->name))
			one->value *= UNPACKED_ALREADY;
	}
}

int objects_load(const char *dir, const char *downloads, struct objects *out, struct err *err)
{
	*out = (struct objects){ 0 };
	for (int kind = 0; kind < OBJECT_KINDS; kind++) {
		if (kind == OBJECT_DOWNLOAD && !downloads)
			continue;
		auto_free char *place = kind == OBJECT_DOWNLOAD
						? mem_strdup(downloads)
						: mem_printf("%s/%s", dir, kind_names[kind]);

		if (load_kind(out, dir, place, kind, err) < 0) {
			objects_free(out);
			return -1;
		}
	}
	return 0;
}

void objects_free(struct objects *o)
{
	for (size_t i = 0; i < o->n; i++) {
		for (char **name = o->v[i].entries; name && *name; name++)
			free(*name);
		free(o->v[i].entries);
		free(o->v[i].name);
	}
	free(o->v);
	*o = (struct objects){ 0 };
}
