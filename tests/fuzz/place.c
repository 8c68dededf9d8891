/* SPDX-License-Identifier: Apache-2.0
 *
 * A directory for targets that unpack files.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "fuzz.h"

static char place[] = "/dev/shm/pqfuzz-XXXXXX";

static void remove_place(void)
{
	struct err err;

	if (fd_remove_tree(AT_FDCWD, place, &err) < 0)
		fprintf(stderr, "%s\n", err.text);
}

const char *fuzz_dir(void)
{
	static bool made;

	if (!made) {
		must(mkdtemp(place));
		must(atexit(remove_place) == 0);
		made = true;
	}
	return place;
}

char *fuzz_file(const char *name, const void *data, size_t size)
{
	char *path = mem_printf("%s/%s", fuzz_dir(), name);
	auto_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct err err;

	must(fd >= 0 && fd_write_all(fd, data, size, &err) == 0);
	return path;
}

static size_t count(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	size_t n = 0;

	must(dir);
	while ((e = readdir(dir))) {
		struct stat st;

		if (e->d_name[0] == '.' &&
		    (!e->d_name[1] || (e->d_name[1] == '.' && !e->d_name[2])))
			continue;
		must(fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0);
		must(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
		must(!(st.st_mode & 07022));
		n += 1 + (S_ISDIR(st.st_mode) ? count(fd, e->d_name) : 0);
	}
	closedir(dir);
	return n;
}

size_t fuzz_empty(void)
{
	size_t n = count(AT_FDCWD, fuzz_dir());
	struct err err;

	must(fd_remove_tree(AT_FDCWD, place, &err) == 0 && mkdir(place, 0700) == 0);
	return n;
}
