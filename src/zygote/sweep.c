/* SPDX-License-Identifier: Apache-2.0
 *
 * What a node leaves behind. The nodes of a root share its pid namespace, so no init of their own
 * ends with them that would take their processes along; and their cgroup may hold scripts that were
 * forked from them and run on (S5).
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "zygote/zygote_priv.h"

/* Who has a SIGKILL pending cannot fork: the second finds what was forked behind the first's back.
 */
#define ROUNDS 4

static bool is_in(int pid, const char *ns, uint64_t ino)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, ns);
	return stat(path, &st) == 0 && st.st_ino == ino;
}

/* Is its user namespace the node's, or one below, which only the node could enter? */
static bool is_below(int pid, uint64_t user_ns)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	while (fd >= 0) {
		struct stat st;
		int parent = -1;

		if (fstat(fd, &st) == 0 && st.st_ino == user_ns) {
			close(fd);
			return true;
		}
		parent = ioctl(fd, NS_GET_PARENT);
		close(fd);
		fd = parent;
	}
	return false;
}

static int sweep_once(uint64_t pid_ns, uint64_t user_ns)
{
	DIR *dir = opendir("/proc");
	struct dirent *e;
	int killed = 0;

	while (dir && (e = readdir(dir))) {
		int pid = atoi(e->d_name);
		auto_close int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

		/* The process is held before it is looked at: its pid may be another's by then. */
		if (pidfd < 0 || !is_in(pid, "pid", pid_ns) || !is_below(pid, user_ns))
			continue;
		if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) == 0)
			killed++;
	}
	if (dir)
		closedir(dir);
	return killed;
}

void sweep_node(const struct zygotes *z, uint64_t pid_ns, uint64_t user_ns)
{
	if (z->closing || !pid_ns || !user_ns)
		return; /* the root's init takes all along */
	for (int round = 0; round < ROUNDS; round++)
		if (sweep_once(pid_ns, user_ns) == 0)
			return;
}
