/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/workdir.h"
#include "index/private.h"

/* The names of cached pages are sums of URL and credentials, salted: a name must not help to guess
 * a password. One salt per cache, whoever makes it first. */
static int load_salt(struct index *index, const char *path)
{
	auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -1 : read(fd, index->salt, sizeof(index->salt)) == sizeof(index->salt);
}

static int open_salt(struct index *index, struct err *err)
{
	auto_free char *path = mem_printf("%s/salt", index->cache_dir), *temp = NULL;
	auto_close int fd = -1;
	bool linked;

	if (load_salt(index, path) == 1)
		return 0;
	fd = cache_temp(index, &temp, err); /* mode 0600 */
	if (fd < 0)
		return -1;
	linked = getrandom(index->salt, sizeof(index->salt), 0) == sizeof(index->salt) &&
		 fd_write_all(fd, index->salt, sizeof(index->salt), err) == 0 &&
		 fdatasync(fd) == 0 && link(temp, path) == 0;
	unlink(temp);
	if (!linked && load_salt(index, path) != 1)
		return err_set(err, ERR_SYSTEM, "'%s' cannot be made, or is damaged: remove it",
			       path);
	return 0;
}

int cache_open(struct index *index, struct err *err)
{
	static const char *const below[] = { "pages",  "metadata", "wheels",
					     "builds", "partial",  "tmp" };
	auto_free char *all = mem_printf("%s/tmp", index->cache_dir);

	for (size_t i = 0; i < array_len(below); i++) {
		auto_free char *path = mem_printf("%s/%s", index->cache_dir, below[i]);

		if (fd_mkdirs(path, 0755, err) < 0)
			return -1;
	}
	partial_clean(index, LIMIT_PARTIAL_BYTES);
	return workdir_open(all, 0700, &index->tmp, &index->tmp_lock, err) < 0
		       ? -1
		       : open_salt(index, err);
}

void cache_close(struct index *index)
{
	struct err err;

	if (index->tmp && fd_remove_tree(AT_FDCWD, index->tmp, &err) < 0)
		log_warn("index", "cleaning up: %s", err.text);
	free(index->tmp);
	fd_close(&index->tmp_lock);
}

char *cache_path(const struct index *index, const char *kind, const char *name)
{
	return mem_printf("%s/%s/%s", index->cache_dir, kind, name);
}

int cache_temp(const struct index *index, char **out_path, struct err *err)
{
	char *path = mem_printf("%s/XXXXXX", index->tmp);
	int fd = mkostemp(path, O_CLOEXEC);

	if (fd < 0) {
		err_sys(err, errno, "making a file in %s", index->tmp);
		free(path);
		return -1;
	}
	*out_path = path;
	return fd;
}

int cache_put(struct index *index, const char *path, const struct buf *data, struct err *err)
{
	auto_free char *temp = NULL;
	auto_close int fd = cache_temp(index, &temp, err);

	if (fd < 0)
		return -1;
	if (fd_write_all(fd, data->data, data->len, err) < 0) {
		unlink(temp);
		return err_wrap(err, "writing '%s'", path);
	}
	if (rename(temp, path) < 0) {
		err_sys(err, errno, "renaming to '%s'", path);
		unlink(temp);
		return -1;
	}
	atomic_fetch_add(&index->put_bytes, data->len);
	return 0;
}

void cache_distrust(const struct index *index)
{
	auto_free char *path = mem_printf("%s/distrust", index->cache_dir);
	auto_close int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);

	if (fd >= 0)
		futimens(fd, NULL);
}

bool cache_is_distrusted(const struct index *index, const char *path)
{
	auto_free char *mark = mem_printf("%s/distrust", index->cache_dir);
	struct stat since, st;

	if (stat(mark, &since) < 0 || stat(path, &st) < 0)
		return false;
	return st.st_mtim.tv_sec < since.st_mtim.tv_sec ||
	       (st.st_mtim.tv_sec == since.st_mtim.tv_sec &&
		st.st_mtim.tv_nsec <= since.st_mtim.tv_nsec);
}

double cache_age_s(const char *path)
{
	struct stat st;
	double age;

	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return -1;
	age = clock_wall_s() - ((double)st.st_mtim.tv_sec + (double)st.st_mtim.tv_nsec / 1e9);
	return age < 0 ? 1e9 : age; /* a file of the future says nothing about its age */
}
