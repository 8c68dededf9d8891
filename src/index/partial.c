/* SPDX-License-Identifier: Apache-2.0
 *
 * Downloads that may outlive their daemon: DIR/partial/<sha256>, while somebody works at it under a
 * lock. The next download of that file goes on behind what is there; its sum is the judge, as ever.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "index/private.h"

/* Locked, and still what is called so: who had it before may have published or removed it. */
static bool take(int fd, const char *path, struct stat *st)
{
	struct stat named;

	return flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, st) == 0 && S_ISREG(st->st_mode) &&
	       lstat(path, &named) == 0 && named.st_ino == st->st_ino && named.st_dev == st->st_dev;
}

int partial_open(const struct index *index, const char *sha256, bool make, char **out_path)
{
	auto_free char *path = cache_path(index, "partial", sha256);
	int flags = O_RDWR | O_NOFOLLOW | O_CLOEXEC | (make ? O_CREAT : 0);
	auto_close int fd = open(path, flags, 0600);
	struct stat st;

	if (fd < 0 || !take(fd, path, &st))
		return -1;
	*out_path = steal(path);
	return fd_steal(&fd);
}

int partial_sum(int fd, struct sha *sum, uint64_t *out_bytes)
{
	auto_free char *room = mem_zero(1, 256 * KIB);
	uint64_t bytes = 0;
	ssize_t n;

	while ((n = read(fd, room, 256 * KIB)) > 0) {
		sha_add(sum, room, (size_t)n);
		bytes += (uint64_t)n;
	}
	if (n < 0)
		return -1;
	*out_bytes = bytes;
	return 0;
}

void partial_clean(const struct index *index, uint64_t to_bytes)
{
	auto_free char *all = cache_path(index, "partial", "");
	DIR *dir = opendir(all);
	struct dirent *e;
	uint64_t kept = 0;

	while (dir && (e = readdir(dir))) {
		auto_free char *path = mem_printf("%s%s", all, e->d_name);
		auto_close int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		struct stat st;

		if (fd < 0 || !take(fd, path, &st))
			continue; /* "." and "..", too */
		kept += (uint64_t)st.st_size;
		if (st.st_size >= PARTIAL_WORTH && kept <= to_bytes &&
		    time(NULL) - st.st_mtim.tv_sec < LIMIT_PARTIAL_S)
			continue;
		kept -= (uint64_t)st.st_size;
		unlink(path);
	}
	if (dir)
		closedir(dir);
}
