/* SPDX-License-Identifier: Apache-2.0
 *
 * fault.so: preloaded, it makes the n-th call of one kind fail, or kills the process group there.
 *
 *   FAULT_CALL     what is counted: "open", "write", ... as in the table below
 *   FAULT_UNDER    only calls on files below this directory count
 *   FAULT_AT       which one: 1 is the first
 *   FAULT_STAYS    if "1", all calls from the n-th on fail
 *   FAULT_ERRNO    what it fails with; 0: kill -9 of the whole process group, before the call
 *   FAULT_COUNTER  a file of 16 bytes: how many there were, and whether it happened. It is shared
 *                  by all processes that inherit this environment.
 *
 * Without FAULT_STAYS a caller that tries again gets what it asks for: as on a disk that was full
 * for a moment.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct shared {
	unsigned long calls, happened;
};

static struct shared *shared;
static const char *wanted, *under;
static unsigned long at;
static int error;
static bool stays;

#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void start(void)
{
	const char *counter = getenv("FAULT_COUNTER"), *n = getenv("FAULT_AT");
	const char *code = getenv("FAULT_ERRNO");
	int fd = counter ? REAL(open)(counter, O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	shared = REAL(mmap)(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	at = n ? strtoul(n, NULL, 10) : 0;
	error = code ? atoi(code) : EIO;
	stays = getenv("FAULT_STAYS") && strcmp(getenv("FAULT_STAYS"), "1") == 0;
	under = getenv("FAULT_UNDER");
	wanted = getenv("FAULT_CALL");
	if (shared == MAP_FAILED || !under)
		wanted = NULL;
}

static bool is_under(const char *path)
{
	size_t n = strlen(under);

	return strncmp(path, under, n) == 0 && (!path[n] || path[n] == '/');
}

static bool fd_counts(int fd)
{
	char name[64], path[4096];
	ssize_t n;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	n = readlink(name, path, sizeof(path) - 1);
	if (n < 0)
		return false;
	path[n] = '\0';
	return is_under(path);
}

static bool path_counts(int dirfd, const char *path)
{
	return path[0] == '/' ? is_under(path) : dirfd != AT_FDCWD && fd_counts(dirfd);
}

/* It is the n-th: fail. */
static bool now(void)
{
	unsigned long n = __atomic_add_fetch(&shared->calls, 1, __ATOMIC_SEQ_CST);

	if (stays ? n < at : n != at)
		return false;
	shared->happened = 1;
	if (!error)
		kill(0, SIGKILL);
	errno = error;
	return true;
}

static bool is_wanted(const char *call)
{
	return wanted && strcmp(wanted, call) == 0;
}

static bool fails_at(const char *call, int dirfd, const char *path)
{
	return is_wanted(call) && path_counts(dirfd, path) && now();
}

static bool fails_on(const char *call, int fd)
{
	return is_wanted(call) && fd_counts(fd) && now();
}

#define MODE_OF(flags, mode)                                                       \
	do {                                                                       \
		va_list ap;                                                        \
		va_start(ap, flags);                                               \
		mode = (flags) & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0; \
		va_end(ap);                                                        \
	} while (0)

#define OPEN(name)                                    \
	int name(const char *path, int flags, ...)    \
	{                                             \
		mode_t mode;                          \
		MODE_OF(flags, mode);                 \
		if (fails_at("open", AT_FDCWD, path)) \
			return -1;                    \
		return REAL(name)(path, flags, mode); \
	}
#define OPENAT(name)                                          \
	int name(int dirfd, const char *path, int flags, ...) \
	{                                                     \
		mode_t mode;                                  \
		MODE_OF(flags, mode);                         \
		if (fails_at("open", dirfd, path))            \
			return -1;                            \
		return REAL(name)(dirfd, path, flags, mode);  \
	}
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

/* AT(return type, name, counted as, dirfd, path, parameters, arguments) */
#define AT(type, name, call, dirfd, path, params, args) \
	type name params                                \
	{                                               \
		if (fails_at(call, dirfd, path))        \
			return (type)-1;                \
		return REAL(name) args;                 \
	}
AT(int, mkdir, "mkdir", AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
AT(int, mkdirat, "mkdir", dirfd, path, (int dirfd, const char *path, mode_t mode),
   (dirfd, path, mode))
AT(int, mkostemp, "open", AT_FDCWD, path, (char *path, int flags), (path, flags))
AT(int, mkostemp64, "open", AT_FDCWD, path, (char *path, int flags), (path, flags))
AT(int, rename, "rename", AT_FDCWD, to, (const char *from, const char *to), (from, to))
AT(int, renameat, "rename", to_dir, to,
   (int from_dir, const char *from, int to_dir, const char *to), (from_dir, from, to_dir, to))
AT(int, link, "link", AT_FDCWD, to, (const char *from, const char *to), (from, to))
AT(int, linkat, "link", to_dir, to,
   (int from_dir, const char *from, int to_dir, const char *to, int flags),
   (from_dir, from, to_dir, to, flags))
AT(int, symlinkat, "symlink", dirfd, path, (const char *target, int dirfd, const char *path),
   (target, dirfd, path))
AT(int, unlinkat, "unlink", dirfd, path, (int dirfd, const char *path, int flags),
   (dirfd, path, flags))
AT(int, unlink, "unlink", AT_FDCWD, path, (const char *path), (path))
AT(int, rmdir, "unlink", AT_FDCWD, path, (const char *path), (path))
AT(int, chmod, "chmod", AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
AT(int, chown, "chmod", AT_FDCWD, path, (const char *path, uid_t uid, gid_t gid), (path, uid, gid))

char *mkdtemp(char *path)
{
	return fails_at("mkdir", AT_FDCWD, path) ? NULL : REAL(mkdtemp)(path);
}

/* Whoever sees the end of a directory in a failure has read half of it. */
#define READDIR(name, type)                                                      \
	type *name(DIR *dir)                                                     \
	{                                                                        \
		return fails_on("readdir", dirfd(dir)) ? NULL : REAL(name)(dir); \
	}
READDIR(readdir, struct dirent)
READDIR(readdir64, struct dirent64)

#define ON(type, name, call, params, args) \
	type name params                   \
	{                                  \
		if (fails_on(call, fd))    \
			return (type)-1;   \
		return REAL(name) args;    \
	}
ON(ssize_t, write, "write", (int fd, const void *data, size_t size), (fd, data, size))
ON(ssize_t, pwrite, "write", (int fd, const void *data, size_t size, off_t where),
   (fd, data, size, where))
ON(ssize_t, read, "read", (int fd, void *data, size_t size), (fd, data, size))
ON(int, fsync, "sync", (int fd), (fd))
ON(int, fdatasync, "sync", (int fd), (fd))
ON(int, syncfs, "sync", (int fd), (fd))
ON(ssize_t, pwrite64, "write", (int fd, const void *data, size_t size, off64_t where),
   (fd, data, size, where))
ON(int, ftruncate, "truncate", (int fd, off_t size), (fd, size))
ON(int, ftruncate64, "truncate", (int fd, off64_t size), (fd, size))
ON(int, fchmod, "chmod", (int fd, mode_t mode), (fd, mode))

/* Giving a lock up cannot fail; if it did, who waits for it would wait for ever. */
int flock(int fd, int what)
{
	return what != LOCK_UN && fails_on("lock", fd) ? -1 : REAL(flock)(fd, what);
}

#define MMAP(name, offset)                                                             \
	void *name(void *where, size_t size, int prot, int flags, int fd, offset from) \
	{                                                                              \
		if (fd >= 0 && shared && fails_on("mmap", fd))                         \
			return MAP_FAILED;                                             \
		return REAL(name)(where, size, prot, flags, fd, from);                 \
	}
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)
