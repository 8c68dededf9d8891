/* SPDX-License-Identifier: Apache-2.0
 * Runs in: every process.
 *
 * Descriptors. Everything we open is CLOEXEC; processes are held as pidfds.
 */
#pragma once

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

static inline int fd_steal(int *fd)
{
	int n = *fd;

	*fd = -1;
	return n;
}

void fd_close(int *fd); /* closes when >= 0, sets -1, keeps errno */
#define auto_close __attribute__((cleanup(fd_close)))

warn_unused int fd_nonblock(int fd, struct err *err);
/* Write all of data to a blocking descriptor. */
warn_unused int fd_write_all(int fd, const void *data, size_t len, struct err *err);
/* Replace a small file (procfs, cgroupfs, or plain): open O_WRONLY, one write. */
warn_unused int fd_write_file(int dirfd, const char *path, const char *text, struct err *err);
/* mkdir -p; an existing directory is success. */
warn_unused int fd_mkdirs(const char *path, mode_t mode, struct err *err);
/* Remove a tree below dirfd without following symlinks or crossing mounts; missing is success. */
warn_unused int fd_remove_tree(int dirfd, const char *name, struct err *err);
bool fd_is_dir(int fd);
/* The next entry of a directory, "." and ".." left out: 1, at its end 0, and -1 when it cannot be
 * read: what readdir() alone does not tell from the end. */
warn_unused int fd_next_entry(DIR *dir, struct dirent **out, struct err *err);
