/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

void fd_close(int *fd)
{
	int keep = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = keep;
}

int fd_nonblock(int fd, struct err *err)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return err_sys(err, errno, "making descriptor %d non-blocking", fd);
	return 0;
}

int fd_write_all(int fd, const void *data, size_t len, struct err *err)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, errno, "write");
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int fd_write_file(int dirfd, const char *path, const char *text, struct err *err)
{
	auto_close int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);
	size_t len = strlen(text);

	if (fd < 0)
		return err_sys(err, errno, "open '%s'", path);
	if (write(fd, text, len) != (ssize_t)len)
		return err_sys(err, errno, "writing '%.*s' to '%s'", (int)(len > 60 ? 60 : len),
			       text, path);
	return 0;
}

int fd_mkdirs(const char *path, mode_t mode, struct err *err)
{
	auto_free char *copy = mem_strdup(path);

	for (char *p = copy + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(copy, mode) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
			return err_sys(err, errno, "mkdir '%s'", copy);
		*p = '/';
	}
	if (mkdir(copy, mode) < 0 && errno != EEXIST)
		return err_sys(err, errno, "mkdir '%s'", copy);
	return 0;
}

static void close_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* A tree may have made itself unreadable: then it is made readable first. */
static int open_doomed(int dirfd, const char *name, dev_t dev, struct err *err)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	auto_close int fd = openat(dirfd, name, flags);
	struct stat st;

	if (fd < 0 && errno == EACCES && fchmodat(dirfd, name, 0700, 0) == 0)
		fd = openat(dirfd, name, flags);
	if (fd < 0)
		return err_sys(err, errno, "open '%s'", name);
	if (fstat(fd, &st) < 0 || st.st_dev != dev)
		return err_set(err, ERR_DENIED, "'%s' is another file system", name);
	if ((st.st_mode & 0700) != 0700 && fchmod(fd, 0700) < 0)
		return err_sys(err, errno, "chmod '%s'", name);
	return fd_steal(&fd);
}

static int remove_children(int dirfd, const char *name, dev_t dev, int depth, struct err *err);

static int remove_entry(int fd, const char *name, dev_t dev, int depth, struct err *err)
{
	if (unlinkat(fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return err_sys(err, errno, "unlink '%s'", name);
	if (remove_children(fd, name, dev, depth + 1, err) < 0)
		return -1;
	if (unlinkat(fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return err_sys(err, errno, "rmdir '%s'", name);
	return 0;
}

static int remove_children(int dirfd, const char *name, dev_t dev, int depth, struct err *err)
{
	__attribute__((cleanup(close_dir))) DIR *dir = NULL;
	struct dirent *e;
	int fd;

	if (depth > 128)
		return err_set(err, ERR_LIMIT, "'%s' is nested too deeply", name);
	fd = open_doomed(dirfd, name, dev, err);
	if (fd < 0)
		return err->sys == ENOENT ? 0 : -1;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return err_sys(err, errno, "reading '%s'", name);
	}
	while ((e = readdir(dir))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (remove_entry(fd, e->d_name, dev, depth, err) < 0)
			return -1;
	}
	return 0;
}

int fd_remove_tree(int dirfd, const char *name, struct err *err)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "stat '%s'", name);
	if (!S_ISDIR(st.st_mode)) {
		if (unlinkat(dirfd, name, 0) < 0 && errno != ENOENT)
			return err_sys(err, errno, "unlink '%s'", name);
		return 0;
	}
	if (remove_children(dirfd, name, st.st_dev, 0, err) < 0)
		return -1;
	if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return err_sys(err, errno, "rmdir '%s'", name);
	return 0;
}

bool fd_is_dir(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

int fd_next_entry(DIR *dir, struct dirent **out, struct err *err)
{
	struct dirent *e;

	do {
		errno = 0;
		e = readdir(dir);
	} while (e && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0));
	if (!e && errno)
		return err_sys(err, errno, "reading a directory");
	*out = e;
	return e ? 1 : 0;
}
