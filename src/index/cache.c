/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"
#include "index/private.h"

char *cache_path(const struct index *index, const char *kind, const char *name)
{
	return mem_printf("%s/%s/%s", index->cache_dir, kind, name);
}

int cache_temp(const struct index *index, char **out_path, struct err *err)
{
	char *path = cache_path(index, "tmp", "XXXXXX");
	int fd = mkostemp(path, O_CLOEXEC);

	if (fd < 0) {
		err_sys(err, errno, "making a file in %s/tmp", index->cache_dir);
		free(path);
		return -1;
	}
	*out_path = path;
	return fd;
}

int cache_put(const struct index *index, const char *path, const struct buf *data, struct err *err)
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
	return 0;
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
