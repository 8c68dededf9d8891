/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/delegate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"

#define ROOT "/sys/fs/cgroup"
#define SYSTEMD_RUN "/usr/bin/systemd-run"
#define SYSTEMD_MS (10 * 1000)

/* The directory of a process's cgroup ("0::/a/b"); -1 also where v2 is not mounted. */
static int open_cgroup_of(pid_t pid, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(64 * KIB);
	char file[64], path[4096];
	char *p;
	int fd;

	snprintf(file, sizeof(file), "/proc/%d/cgroup", pid);
	if (buf_read_file(&text, AT_FDCWD, file, err) < 0)
		return -1;
	p = strstr(text.data, "0::");
	if (!p || (p != text.data && p[-1] != '\n'))
		return err_set(err, ERR_NOT_FOUND, "this host has no cgroup v2");
	p[strcspn(p, "\n")] = '\0';
	snprintf(path, sizeof(path), ROOT "%s", p + 3);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? err_sys(err, errno, "open '%s'", path) : fd;
}

static bool is_alone(int dir)
{
	auto_buf struct buf text = BUF_MAX(MIB);
	char me[16];
	struct err err;

	snprintf(me, sizeof(me), "%d\n", getpid());
	return buf_read_file(&text, dir, "cgroup.procs", &err) == 0 && strcmp(text.data, me) == 0;
}

static bool offers(int dir, const char *controller)
{
	auto_buf struct buf text = BUF_MAX(16 * KIB);
	char *save = NULL;
	struct err err;

	if (buf_read_file(&text, dir, "cgroup.controllers", &err) < 0)
		return false;
	for (char *w = strtok_r(text.data, " \n", &save); w; w = strtok_r(NULL, " \n", &save))
		if (strcmp(w, controller) == 0)
			return true;
	return false;
}

static int enter_leaf(int dir, struct err *err)
{
	if (mkdirat(dir, "daemon", 0755) < 0 && errno != EEXIST)
		return err_sys(err, errno, "making a cgroup");
	if (fd_write_file(dir, "daemon/cgroup.procs", "0", err) < 0) {
		unlinkat(dir, "daemon", AT_REMOVEDIR);
		return -1;
	}
	return 0;
}

/* The files that whoever is delegated to must own (Documentation/admin-guide/cgroup-v2.rst): with
 * them it moves its processes about inside, and cannot take one from outside. */
static int give(int dir, uint32_t owner, struct err *err)
{
	static const char *const files[] = { "cgroup.procs", "cgroup.subtree_control",
					     "cgroup.threads" };

	if (owner == geteuid())
		return 0;
	if (fchown(dir, owner, owner) < 0)
		return err_sys(err, errno, "giving a cgroup to the daemon");
	for (size_t i = 0; i < array_len(files); i++)
		if (fchownat(dir, files[i], owner, owner, 0) < 0)
			return err_sys(err, errno, "giving '%s' to the daemon", files[i]);
	return 0;
}

static int enable(int dir, struct err *err)
{
	if (fd_write_file(dir, "cgroup.subtree_control", "+memory +pids", err) < 0)
		return -1;
	return offers(dir, "cpu") ? fd_write_file(dir, "cgroup.subtree_control", "+cpu", err) : 0;
}

/* A process in a new scope, which says a byte once it is there and stays until go ends. */
static pid_t start_in_scope(int ready[2], int go[2], struct err *err)
{
	auto_free char *unit = mem_printf("--unit=pipsqueak-%d", getpid());
	const char *argv[] = { SYSTEMD_RUN,
			       "--scope",
			       "--quiet",
			       "--collect",
			       unit,
			       "--description=Pipsqueak's daemon",
			       "--property=Delegate=yes",
			       "--property=TasksMax=infinity",
			       "/bin/sh",
			       "-c",
			       "echo; read x",
			       NULL };
	pid_t pid = fork();

	if (pid < 0)
		return err_sys(err, errno, "fork");
	if (pid == 0) {
		if (dup2(go[0], 0) < 0 || dup2(ready[1], 1) < 0)
			_exit(126);
		execv(SYSTEMD_RUN, (char *const *)argv);
		_exit(127);
	}
	fd_close(&ready[1]);
	fd_close(&go[0]);
	return pid;
}

/* The new scope's directory, with this process in its leaf. */
static int move_to_scope(pid_t pid, int ready, struct err *err)
{
	struct pollfd wait = { .fd = ready, .events = POLLIN };
	auto_close int dir = -1;
	char byte;

	if (poll(&wait, 1, SYSTEMD_MS) != 1 || read(ready, &byte, 1) != 1)
		return err_set(err, ERR_SYSTEM, "systemd made no scope for the daemon");
	dir = open_cgroup_of(pid, err);
	if (dir < 0 || enter_leaf(dir, err) < 0)
		return -1;
	return fd_steal(&dir);
}

static int open_scope(struct err *err)
{
	int ready[2] = { -1, -1 }, go[2] = { -1, -1 };
	int dir = -1;
	pid_t pid;

	if (access("/run/systemd/system", F_OK) < 0 || access(SYSTEMD_RUN, X_OK) < 0)
		return err_set(err, ERR_DENIED,
			       "others are in the daemon's cgroup, and no systemd could make one");
	if (pipe2(ready, O_CLOEXEC) < 0 || pipe2(go, O_CLOEXEC) < 0) {
		err_sys(err, errno, "pipe");
	} else if ((pid = start_in_scope(ready, go, err)) > 0) {
		dir = move_to_scope(pid, ready[0], err);
		fd_close(&go[1]); /* it ends: then only leaves have processes */
		if (dir < 0)
			kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	for (int i = 0; i < 2; i++) {
		fd_close(&ready[i]);
		fd_close(&go[i]);
	}
	return dir;
}

int delegate_open(uint32_t owner, struct err *err)
{
	auto_close int dir = open_cgroup_of(getpid(), err);

	if (dir < 0)
		return -1;
	if (!is_alone(dir)) {
		fd_close(&dir);
		if (geteuid() != 0)
			return err_set(
				err, ERR_DENIED,
				"others are in the daemon's cgroup; it is alone by systemd-run "
				"--user --scope -p Delegate=yes");
		dir = open_scope(err);
		if (dir < 0)
			return -1;
	} else if (faccessat(dir, "cgroup.procs", W_OK, 0) < 0) {
		return err_sys(err, errno, "this cgroup is not delegated");
	}
	if (!offers(dir, "memory") || !offers(dir, "pids"))
		return err_set(err, ERR_DENIED, "cgroup v2 does not offer memory and pids here");
	if (enter_leaf(dir, err) < 0 || enable(dir, err) < 0 || give(dir, owner, err) < 0)
		return -1;
	return fd_steal(&dir);
}
