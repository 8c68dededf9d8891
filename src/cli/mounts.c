/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "cli/cli.h"

static int write_maps(pid_t pid, unsigned int host_id, struct err *err)
{
	static const char *const files[] = { "uid_map", "gid_map" };
	char path[64], text[64];

	snprintf(text, sizeof(text), "0 %u 1\n", host_id);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/proc/%d/%s", pid, files[i]);
		if (fd_write_file(AT_FDCWD, path, text, err) < 0)
			return -1;
	}
	return 0;
}

/* A user namespace is held by a process until we have a descriptor of it. */
int mounts_open(struct mounts *m, unsigned int host_id, struct err *err)
{
	char path[64], byte;
	int ready[2], rc;
	pid_t pid, parent = getpid();

	if (pipe2(ready, O_CLOEXEC) < 0)
		return err_sys(err, errno, "pipe");
	pid = fork();
	if (pid < 0)
		return err_sys(err, errno, "fork");
	if (pid == 0) {
		/* It must not outlive a client that is killed just now. After unshare(), which may
		 * clear the signal. */
		if (unshare(CLONE_NEWUSER) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
		    getppid() != parent || write(ready[1], "r", 1) != 1)
			_exit(1);
		pause();
		_exit(0);
	}
	close(ready[1]);
	rc = read(ready[0], &byte, 1) == 1 ? 0 : -1;
	close(ready[0]);
	if (rc < 0)
		err_set(err, ERR_DENIED, "no user namespace can be made for the script's files");
	else
		rc = write_maps(pid, host_id, err);
	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	m->userns = rc == 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (rc == 0 && m->userns < 0)
		rc = err_sys(err, errno, "opening '%s'", path);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return rc;
}

static int detach(const char *path, struct mount_attr *attr, bool recursive, int *out)
{
	unsigned int below = recursive ? AT_RECURSIVE : 0;
	auto_close int fd = (int)syscall(SYS_open_tree, AT_FDCWD, path,
					 OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | below);

	if (fd < 0 ||
	    syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | below, attr, sizeof(*attr)) < 0)
		return -1;
	*out = fd_steal(&fd);
	return 0;
}

int mounts_detach(const struct mounts *m, const char *path, bool writable, int *out,
		  struct err *err)
{
	struct mount_attr attr = {
		.attr_set = MOUNT_ATTR_IDMAP | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
			    (writable ? 0 : MOUNT_ATTR_RDONLY),
		.userns_fd = (unsigned long long)m->userns,
	};

	if (detach(path, &attr, true, out) == 0)
		return 0;
	/* A file system below may refuse the mapping (proc, some overlays): then only this one. */
	if ((errno == EINVAL || errno == EPERM) && detach(path, &attr, false, out) == 0)
		return 0;
	if (errno == EINVAL || errno == EPERM)
		return err_set(err, ERR_DENIED,
			       "the file system of '%s' does not allow mapped ids; run the script "
			       "from another file system, or as a plain user",
			       path);
	return err_sys(err, errno, "preparing '%s' for the script", path);
}

int mounts_detach_plain(const char *path, int *out, struct err *err)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
					       MOUNT_ATTR_NODEV };

	if (detach(path, &attr, true, out) < 0)
		return err_sys(err, errno, "preparing '%s'", path);
	return 0;
}
