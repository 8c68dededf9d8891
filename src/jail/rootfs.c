/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/rootfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "jail/job.h"

#define BUILD "/mnt"  /* where the template is put together, before the pivot */
#define TEMPLATE "/t" /* in the maker afterwards */
#define PREFIXES "/p" /* one directory per prefix, '/' written as '%' */
#define CELL "/c"     /* a cell's root while it is built */
#define EMPTY "/empty"

static int make_dir(const char *path, struct err *err)
{
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return err_sys(err, errno, "mkdir '%s'", path);
	return 0;
}

static int make_file(const char *path, struct err *err)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0)
		return err_sys(err, errno, "creating '%s'", path);
	close(fd);
	return 0;
}

static int bind(const char *from, const char *to, struct err *err)
{
	if (mount(from, to, NULL, MS_BIND | MS_REC, NULL) < 0)
		return err_sys(err, errno, "binding '%s' to '%s'", from, to);
	return 0;
}

static int tmpfs(const char *at, const char *options, unsigned long flags, struct err *err)
{
	if (mount("tmpfs", at, "tmpfs", flags, options) < 0)
		return err_sys(err, errno, "tmpfs on '%s'", at);
	return 0;
}

static int read_only(const char *path, struct err *err)
{
	struct mount_attr ro = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID };

	if (syscall(SYS_mount_setattr, AT_FDCWD, path, AT_RECURSIVE, &ro, sizeof(ro)) < 0)
		return err_sys(err, errno, "making '%s' read-only", path);
	return 0;
}

/* Cover everything that matches with an empty directory; what is absent needs no cover. */
static int cover(const char *empty, const char *pattern, struct err *err)
{
	glob_t found;
	int rc = 0;

	if (glob(pattern, GLOB_NOSORT, NULL, &found) != 0)
		return 0;
	for (size_t i = 0; i < found.gl_pathc && rc == 0; i++) {
		struct stat st;

		if (lstat(found.gl_pathv[i], &st) == 0 && S_ISDIR(st.st_mode))
			rc = bind(empty, found.gl_pathv[i], err);
	}
	globfree(&found);
	return rc;
}

static int cover_packages(const char *empty, const char *prefix, struct err *err)
{
	static const char *const hidden[] = {
		"lib/python3*/site-packages",
		"lib/python3*/dist-packages",
		"lib64/python3*/site-packages",
		"local/lib/python3*/dist-packages",
		"local/lib/python3*/site-packages",
		"lib/python3*/ensurepip/_bundled",
		"share/python-wheels",
	};
	char pattern[4096];

	for (size_t i = 0; i < array_len(hidden); i++) {
		snprintf(pattern, sizeof(pattern), "%s/%s", prefix, hidden[i]);
		if (cover(empty, pattern, err) < 0)
			return -1;
	}
	return 0;
}

static int copy_file(const char *from, const char *to, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(MIB);
	auto_close int fd = -1;

	if (access(from, R_OK) < 0)
		return 0; /* not on this host: programs cope */
	if (buf_read_file(&text, AT_FDCWD, from, err) < 0)
		return -1;
	fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_sys(err, errno, "creating '%s'", to);
	return fd_write_all(fd, text.data, text.len, err);
}

static int write_file(const char *path, const char *text, struct err *err)
{
	auto_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0)
		return err_sys(err, errno, "creating '%s'", path);
	return fd_write_all(fd, text, strlen(text), err);
}

/* /etc: what libraries look up, and nothing about this host's users or services. */
static int build_etc(struct err *err)
{
	static const char *const files[] = { "ld.so.cache", "localtime",      "timezone",
					     "mime.types",  "services",	      "protocols",
					     "os-release",  "debian_version", "gai.conf" };
	static const char *const dirs[] = { "ssl", "ca-certificates", "fonts", "alternatives",
					    "python3" };
	static const char *const texts[][2] = {
		{ "passwd", "root:x:0:0:root:" JAIL_HOME ":/bin/sh\n"
			    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n" },
		{ "group", "root:x:0:\nnogroup:x:65534:\n" },
		{ "hosts", "127.0.0.1 localhost\n::1 localhost\n" },
		{ "hostname", "sandbox\n" },
		{ "nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n" },
		{ "host.conf", "multi on\n" },
		/* Where there is no network, nobody is asked. */
		{ "resolv.conf", "nameserver " JAIL_RESOLVER "\n" },
	};
	char from[128], to[128];

	if (make_dir(BUILD TEMPLATE "/etc", err) < 0 ||
	    bind(BUILD TEMPLATE "/etc", BUILD TEMPLATE "/etc", err) < 0)
		return -1;
	for (size_t i = 0; i < array_len(files); i++) {
		snprintf(from, sizeof(from), "/etc/%s", files[i]);
		snprintf(to, sizeof(to), BUILD TEMPLATE "/etc/%s", files[i]);
		if (copy_file(from, to, err) < 0)
			return -1;
	}
	for (size_t i = 0; i < array_len(texts); i++) {
		snprintf(to, sizeof(to), BUILD TEMPLATE "/etc/%s", texts[i][0]);
		if (write_file(to, texts[i][1], err) < 0)
			return -1;
	}
	for (size_t i = 0; i < array_len(dirs); i++) {
		snprintf(from, sizeof(from), "/etc/%s", dirs[i]);
		snprintf(to, sizeof(to), BUILD TEMPLATE "/etc/%s", dirs[i]);
		if (access(from, X_OK) == 0 && (make_dir(to, err) < 0 || bind(from, to, err) < 0))
			return -1;
	}
	return read_only(BUILD TEMPLATE "/etc", err);
}

static int build_dev(struct err *err)
{
	static const char *const nodes[] = { "null", "zero", "full", "random", "urandom", "tty" };
	static const char *const links[][2] = { { "/proc/self/fd", "fd" },
						{ "/proc/self/fd/0", "stdin" },
						{ "/proc/self/fd/1", "stdout" },
						{ "/proc/self/fd/2", "stderr" },
						{ "pts/ptmx", "ptmx" } };
	char from[64], to[64];

	if (make_dir(BUILD TEMPLATE "/dev", err) < 0 ||
	    make_dir(BUILD TEMPLATE "/dev/shm", err) < 0 ||
	    make_dir(BUILD TEMPLATE "/dev/pts", err) < 0)
		return -1;
	for (size_t i = 0; i < array_len(nodes); i++) {
		snprintf(from, sizeof(from), "/dev/%s", nodes[i]);
		snprintf(to, sizeof(to), BUILD TEMPLATE "/dev/%s", nodes[i]);
		if (make_file(to, err) < 0 || bind(from, to, err) < 0)
			return -1;
	}
	for (size_t i = 0; i < array_len(links); i++) {
		snprintf(to, sizeof(to), BUILD TEMPLATE "/dev/%s", links[i][1]);
		if (symlink(links[i][0], to) < 0)
			return err_sys(err, errno, "symlink '%s'", to);
	}
	return 0;
}

static int build_usr(struct err *err)
{
	if (make_dir(BUILD TEMPLATE "/usr", err) < 0 ||
	    bind("/usr", BUILD TEMPLATE "/usr", err) < 0)
		return -1;
	if (cover_packages(BUILD EMPTY, BUILD TEMPLATE "/usr", err) < 0)
		return -1;
	return read_only(BUILD TEMPLATE "/usr", err);
}

int rootfs_template(const char *lib_dir, struct err *err)
{
	static const char *const dirs[] = { TEMPLATE,	      PREFIXES, CELL,  EMPTY,
					    "/lib-pipsqueak", "/proc",	"/old" };
	char path[64];

	if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
		return err_sys(err, errno, "making mounts private");
	/* lib_dir may lie below BUILD: hold it while BUILD is covered. */
	auto_close int lib = (int)syscall(SYS_open_tree, AT_FDCWD, lib_dir,
					  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	if (lib < 0)
		return err_sys(err, errno, "opening '%s'", lib_dir);
	if (tmpfs(BUILD, "size=8m,mode=755", 0, err) < 0)
		return -1;
	for (size_t i = 0; i < array_len(dirs); i++) {
		snprintf(path, sizeof(path), BUILD "%s", dirs[i]);
		if (make_dir(path, err) < 0)
			return -1;
	}
	if (build_usr(err) < 0 || build_etc(err) < 0 || build_dev(err) < 0)
		return -1;
	if (syscall(SYS_move_mount, lib, "", AT_FDCWD, BUILD "/lib-pipsqueak",
		    MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_sys(err, errno, "mounting our own files");
	if (read_only(BUILD "/lib-pipsqueak", err) < 0 || bind("/proc", BUILD "/proc", err) < 0)
		return -1;
	if (syscall(SYS_pivot_root, BUILD, BUILD "/old") < 0)
		return err_sys(err, errno, "pivoting into the template");
	if (chdir("/") < 0 || umount2("/old", MNT_DETACH) < 0)
		return err_sys(err, errno, "leaving the host's tree");
	return 0;
}

static void prefix_dir(const char *prefix, char *out, size_t size)
{
	snprintf(out, size, PREFIXES "/%s", prefix + 1);
	for (char *p = out + strlen(PREFIXES) + 1; *p; p++)
		if (*p == '/')
			*p = '%';
}

int rootfs_add_prefix(const char *prefix, int tree, struct err *err)
{
	auto_close int own = tree;
	char dir[4096];

	prefix_dir(prefix, dir, sizeof(dir));
	if (access(dir, F_OK) == 0)
		return 0;
	if (make_dir(dir, err) < 0)
		return -1;
	if (syscall(SYS_move_mount, own, "", AT_FDCWD, dir, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_sys(err, errno, "showing interpreter prefix '%s'", prefix);
	if (cover_packages(EMPTY, dir, err) < 0)
		return -1;
	return read_only(dir, err);
}

/* mkdir -p below the cell's root, then a bind there. */
static int show(const char *from, const char *at, struct err *err)
{
	char to[4096];

	snprintf(to, sizeof(to), CELL "%s", at);
	if (fd_mkdirs(to, 0755, err) < 0)
		return -1;
	return bind(from, to, err);
}

static int cell_links(struct err *err)
{
	static const char *const links[] = { "bin", "sbin", "lib", "lib32", "lib64", "libx32" };
	char to[32], target[32];
	struct stat st;

	for (size_t i = 0; i < array_len(links); i++) {
		snprintf(target, sizeof(target), TEMPLATE "/usr/%s", links[i]);
		if (stat(target, &st) < 0)
			continue;
		snprintf(to, sizeof(to), CELL "/%s", links[i]);
		snprintf(target, sizeof(target), "usr/%s", links[i]);
		if (symlink(target, to) < 0)
			return err_sys(err, errno, "symlink '%s'", to);
	}
	return 0;
}

/* Writable directories are places of the root's own file system, which is mounted read-only
 * itself: one tmpfs costs a third of three, and "size" bounds all of them together. */
static int cell_private(struct err *err)
{
	static const struct {
		const char *from, *to;
		mode_t mode;
	} dirs[] = { { CELL "/tmp", CELL "/tmp", 01777 },
		     { CELL "/run/shm", CELL "/dev/shm", 01777 },
		     { CELL JAIL_HOME, CELL JAIL_HOME, 0700 } };

	for (size_t i = 0; i < array_len(dirs); i++) {
		if (chmod(dirs[i].from, dirs[i].mode) < 0)
			return err_sys(err, errno, "chmod '%s'", dirs[i].from);
		if (bind(dirs[i].from, dirs[i].to, err) < 0)
			return -1;
	}
	/* Not every kernel or host lets a user namespace have pseudo terminals: then there are
	 * none. */
	if (mount("devpts", CELL "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		  "newinstance,ptmxmode=0666,mode=620") < 0 &&
	    errno != EPERM && errno != EINVAL)
		return err_sys(err, errno, "mounting /dev/pts");
	return 0;
}

static int cell_proc(const struct rootfs_cell *cell, struct err *err)
{
	if (!cell->own_pid)
		return bind(ROOTFS_PROC, CELL "/proc", err);
	/* The nodes of a root share its /proc, in which the instances of all of them are, too: what
	 * others' programs are told in their arguments anybody could read. */
	if (mount("proc", CELL "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  cell->hide_pids ? "hidepid=2" : NULL) < 0)
		return err_sys(err, errno,
			       "mounting /proc (a host whose /proc is masked forbids it)");
	return 0;
}

static int cell_shared(const struct rootfs_cell *cell, struct err *err)
{
	char dir[4096];

	if (show(TEMPLATE "/usr", "/usr", err) < 0 || show(TEMPLATE "/etc", "/etc", err) < 0 ||
	    show(TEMPLATE "/dev", "/dev", err) < 0 || cell_links(err) < 0)
		return -1;
	if (bind("/lib-pipsqueak", CELL JAIL_LIB, err) < 0)
		return -1;
	if (!cell->prefix || strcmp(cell->prefix, "/usr") == 0)
		return 0;
	prefix_dir(cell->prefix, dir, sizeof(dir));
	return show(dir, cell->prefix, err);
}

/* The cell's root is moved over the template's: whoever joins this mount namespace gets the topmost
 * root (mntns_install() follows mounts down), and without rights over mounts nobody sees what lies
 * under it. pivot_root would look at every thread of the host (chroot_fs_refs()), for each cell. */
static int cell_cover(struct err *err)
{
	if (chdir(CELL) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		return err_sys(err, errno, "moving the cell's root over the template");
	return 0;
}

int rootfs_enter_cell(const struct rootfs_cell *cell, struct err *err)
{
	static const char *const dirs[] = { CELL "/tmp",   CELL "/proc",   CELL "/sys",
					    CELL "/home",  CELL JAIL_HOME, CELL "/pipsqueak",
					    CELL JAIL_ENV, CELL JAIL_LIB,  CELL JAIL_APP,
					    CELL "/var",   CELL "/run",	   CELL "/run/shm" };
	char options[96];

	snprintf(options, sizeof(options), "size=%llu,nr_inodes=%d,mode=755",
		 (unsigned long long)(cell->tmp_bytes ? cell->tmp_bytes : LIMIT_TMP_BYTES),
		 LIMIT_TMP_INODES);
	if (tmpfs(CELL, options, MS_NOSUID | MS_NODEV, err) < 0)
		return -1;
	for (size_t i = 0; i < array_len(dirs); i++)
		if (make_dir(dirs[i], err) < 0)
			return -1;
	if (symlink("/tmp", CELL "/var/tmp") < 0)
		return err_sys(err, errno, "symlink /var/tmp");
	if (cell_shared(cell, err) < 0 || cell_private(err) < 0 || cell_proc(cell, err) < 0)
		return -1;
	return cell_cover(err);
}
