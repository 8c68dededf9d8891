/* SPDX-License-Identifier: Apache-2.0 */
#include "base/workdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"

static void clean(int all)
{
	int copy = openat(all, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	struct err err;

	if (copy >= 0 && !dir)
		close(copy);
	while (dir && (e = readdir(dir))) {
		auto_close int fd = -1;

		if (e->d_name[0] == '.' && strspn(e->d_name, ".") == strlen(e->d_name))
			continue;
		fd = openat(all, e->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
			continue;
		if (fd_remove_tree(all, e->d_name, &err) < 0)
			log_warn("base", "cleaning up: %s", err.text);
	}
	if (dir)
		closedir(dir);
}

int workdir_open(const char *all, mode_t mode, char **out_path, int *out_lock, struct err *err)
{
	auto_close int dir = open(all, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_close int own = -1;
	auto_free char *path = mem_printf("%s/%d-XXXXXX", all, getpid());

	/* While this is held nobody's new directory is without its lock. */
	if (dir < 0 || flock(dir, LOCK_EX) < 0)
		return err_sys(err, errno, "locking '%s'", all);
	clean(dir);
	if (!mkdtemp(path))
		return err_sys(err, errno, "mkdir '%s'", path);
	own = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (own < 0 || flock(own, LOCK_EX | LOCK_NB) < 0 || chmod(path, mode) < 0) {
		err_sys(err, errno, "making '%s'", path);
		rmdir(path);
		return -1;
	}
	*out_lock = fd_steal(&own);
	*out_path = steal(path);
	return 0;
}
