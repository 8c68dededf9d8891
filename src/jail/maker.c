/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/maker.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "jail/enter.h"
#include "jail/job.h"
#include "jail/maker_spawn.h"
#include "jail/rootfs.h"
#include "wire/messages.h"
#include "wire/wire.h"

/* What the maker has of the daemon. */
struct ends {
	int sock;
	int daemon; /* its pidfd */
};

struct cell_request {
	uint64_t mode;
	struct maker_extent extents[MAKER_EXTENTS];
	size_t nextents;
	uint32_t uid, gid;
	char *prefix;
	uint64_t tmp_bytes;
	int in_user, copy_mnt;
};

int maker_clone(uint64_t flags, int *pidfd, uint64_t tid)
{
	pid_t want = (pid_t)tid;
	struct clone_args args = { .flags = flags };

	if (pidfd) {
		args.flags |= CLONE_PIDFD;
		args.pidfd = (uint64_t)(uintptr_t)pidfd;
	}
	if (tid) {
		args.set_tid = (uint64_t)(uintptr_t)&want;
		args.set_tid_size = 1;
	}
	return (int)syscall(SYS_clone3, &args, sizeof(args));
}

void maker_fail(int sock, uint32_t id, const struct err *err)
{
	auto_msg struct wire_msg m;
	struct err lost;

	wire_init(&m, WIRE_MAKE_FAILED, id);
	wire_put_err(&m, err);
	/* A daemon that has just ended wants no answer. */
	if (wire_send(sock, &m, &lost) < 0 && lost.sys != EPIPE)
		log_error("maker", "%s (for: %s)", lost.text, err->text);
}

static int read_cell_request(struct wire_msg *m, struct cell_request *r, struct err *err)
{
	struct wire_field f;
	int next = 0;

	memset(r, 0, sizeof(*r));
	r->mode = wire_get_u64(m, WIRE_T_MODE, 0);
	r->uid = (uint32_t)wire_get_u64(m, WIRE_T_UID, 0);
	r->gid = (uint32_t)wire_get_u64(m, WIRE_T_GID, 0);
	r->tmp_bytes = wire_get_u64(m, WIRE_T_TMP_BYTES, 0);
	r->prefix = wire_get_str(m, WIRE_T_PATH);
	r->in_user = r->mode & MAKER_IN_USER ? wire_take_fd(m, next++) : -1;
	next += r->mode & MAKER_IN_PID ? 1 : 0; /* joined already */
	r->copy_mnt = r->mode & MAKER_COPY_MNT ? wire_take_fd(m, next++) : -1;
	if (!wire_get(m, WIRE_T_BODY, &f) || f.len % sizeof(struct maker_extent) || !f.len ||
	    f.len > sizeof(r->extents))
		return err_set(err, ERR_CORRUPT, "broken id map");
	memcpy(r->extents, f.data, f.len);
	r->nextents = f.len / sizeof(struct maker_extent);
	return 0;
}

static int write_map(int proc, pid_t pid, const char *file, const struct cell_request *r,
		     struct err *err)
{
	char path[64], text[128];
	size_t n = 0;

	snprintf(path, sizeof(path), "%d/%s", pid, file);
	for (size_t i = 0; i < r->nextents; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%u %u %u\n",
				      r->extents[i].inside, r->extents[i].outside,
				      r->extents[i].count);
	return fd_write_file(proc, path, text, err);
}

static int loopback_up(struct err *err)
{
	auto_close int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };

	if (sock < 0 || ioctl(sock, SIOCSIFFLAGS, &ifr) < 0)
		return err_sys(err, errno, "bringing the loopback up");
	return 0;
}

/* No way to 169.254.0.0/16, where a cloud's machines tell their credentials: pasta would pass it on
 * like any other address. Routes are not the sandboxed code's to change. */
static int fence(struct err *err)
{
	struct {
		struct nlmsghdr head;
		struct rtmsg route;
		struct rtattr attr;
		unsigned char to[4];
	} ask = {
		.head = { .nlmsg_len = sizeof(ask),
			  .nlmsg_type = RTM_NEWROUTE,
			  .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL },
		.route = { .rtm_family = AF_INET,
			   .rtm_dst_len = 16,
			   .rtm_table = RT_TABLE_MAIN,
			   .rtm_protocol = RTPROT_STATIC,
			   .rtm_scope = RT_SCOPE_UNIVERSE,
			   .rtm_type = RTN_UNREACHABLE },
		.attr = { .rta_len = RTA_LENGTH(4), .rta_type = RTA_DST },
		.to = { 169, 254, 0, 0 },
	};
	auto_close int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	struct {
		struct nlmsghdr head;
		struct nlmsgerr said;
	} answer;

	if (sock < 0 || send(sock, &ask, sizeof(ask), 0) < 0)
		return err_sys(err, errno, "asking for a route");
	if (recv(sock, &answer, sizeof(answer), 0) < (ssize_t)sizeof(answer.head) + 4 ||
	    answer.head.nlmsg_type != NLMSG_ERROR)
		return err_set(err, ERR_SYSTEM, "the kernel's answer about a route is broken");
	if (answer.said.error)
		return err_sys(err, -answer.said.error, "adding a route");
	return 0;
}

/* A node's mounts are its root's, but nothing writable is shared. */
static int renew_private(struct err *err)
{
	static const char *const dirs[] = { "/tmp", "/dev/shm", JAIL_HOME };

	for (size_t i = 0; i < array_len(dirs); i++)
		if (mount("tmpfs", dirs[i], "tmpfs", MS_NOSUID | MS_NODEV,
			  "size=64m,nr_inodes=10000,mode=1777") < 0)
			return err_sys(err, errno, "tmpfs on '%s'", dirs[i]);
	return 0;
}

static int build_cell(const struct cell_request *r, struct err *err)
{
	struct rootfs_cell cell = { .prefix = r->prefix,
				    .tmp_bytes = r->tmp_bytes,
				    .own_pid = (r->mode & MAKER_NEW_PID) != 0,
				    .hide_pids = !(r->mode & MAKER_IN_PID) };

	if (syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM)
		return err_sys(err, errno, "dropping groups");
	if (syscall(SYS_setresgid, r->gid, r->gid, r->gid) < 0 ||
	    syscall(SYS_setresuid, r->uid, r->uid, r->uid) < 0)
		return err_sys(err, errno, "taking the cell's id");
	if (r->mode & MAKER_COPY_MNT) {
		if (renew_private(err) < 0)
			return -1;
	} else if (rootfs_enter_cell(&cell, err) < 0) {
		return -1;
	}
	if (r->mode & MAKER_IN_PID)
		enter_share_inotify(LIMIT_CELL_INOTIFY);
	if (r->mode & MAKER_FENCE_NET && fence(err) < 0)
		return -1;
	return r->mode & MAKER_NEW_NET ? loopback_up(err) : 0;
}

/* proc: this process's own /proc, whose pid namespace knows it as pid. */
static int put_namespaces(struct wire_msg *m, int proc, const struct cell_request *r,
			  struct err *err)
{
	char path[64];

	for (int i = 0; i < NS_COUNT; i++) {
		int fd;

		if ((i == NS_PID && !(r->mode & MAKER_NEW_PID)) ||
		    (i == NS_NET && !(r->mode & MAKER_NEW_NET)))
			continue;
		snprintf(path, sizeof(path), "%d/ns/%s", getpid(), enter_ns_name((enum enter_ns)i));
		fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return err_sys(err, errno, "opening /proc/%s", path);
		wire_put_fd(m, fd);
	}
	return 0;
}

/* A cell's init: reaps what is orphaned inside, is killed from outside, and ends with the daemon,
 * whose pidfd is all it holds. The parent-death signal alone is not enough: a cell may be under way
 * while the daemon dies, and belongs to another parent then. */
static void __attribute__((noreturn)) init_main(int daemon)
{
	struct pollfd fds[2];
	struct err err;
	sigset_t set;

	if (dup2(daemon, 0) < 0)
		_exit(1);
	syscall(SYS_close_range, 1, ~0U, 0);
	prctl(PR_SET_NAME, "pipsqueak-init");
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fds[0] = (struct pollfd){ .fd = 0, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = signalfd(-1, &set, SFD_NONBLOCK), .events = POLLIN };
	if (fds[1].fd < 0 || enter_drop_capabilities(&err) < 0)
		_exit(1);
	while (!fds[0].revents) {
		struct signalfd_siginfo info;

		while (waitpid(-1, NULL, WNOHANG) > 0)
			continue;
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
		while (read(fds[1].fd, &info, sizeof(info)) > 0)
			continue;
	}
	_exit(0);
}

static int finish_cell(int proc, const struct cell_request *r, struct wire_msg *m, struct err *err)
{
	auto_close int own = -1;
	int pidfd;

	if (build_cell(r, err) < 0)
		return -1;
	/* Whoever kills the daemon kills all cells. Set after the change of ids, which clears it.
	 */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!(r->mode & MAKER_NEW_PID))
		return put_namespaces(m, proc, r, err);
	own = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (own < 0 || pidfd < 0)
		return err_sys(err, errno, "opening the cell's init");
	if (put_namespaces(m, own, r, err) < 0) {
		close(pidfd);
		return -1;
	}
	wire_put_fd(m, pidfd);
	return 0;
}

struct newborn {
	int sock, daemon, proc, go;
	uint32_t id;
};

/* In the new namespaces. */
static void __attribute__((noreturn)) cell_child(const struct newborn *n, struct cell_request *r)
{
	struct wire_msg m;
	struct err err;
	char byte;

	wire_init(&m, WIRE_MADE, n->id);
	if (read(n->go, &byte, 1) != 1)
		_exit(1); /* its maker failed and has said why */
	if (finish_cell(n->proc, r, &m, &err) < 0 || wire_send(n->sock, &m, &err) < 0) {
		maker_fail(n->sock, n->id, &err);
		_exit(1);
	}
	if (!(r->mode & MAKER_NEW_PID))
		_exit(0);
	init_main(n->daemon);
}

/* Become the asking node's id in the node's user namespace: what it then makes, the node owns. */
static int become_node(const struct cell_request *r, struct err *err)
{
	/* First: the rights over it come from the daemon's user namespace. */
	if (r->copy_mnt >= 0 && syscall(SYS_setns, r->copy_mnt, CLONE_NEWNS) < 0)
		return err_sys(err, errno, "joining the root's mount namespace");
	if (r->in_user < 0)
		return 0;
	if (syscall(SYS_setns, r->in_user, CLONE_NEWUSER) < 0)
		return err_sys(err, errno, "joining the node's user namespace");
	if (syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM)
		return err_sys(err, errno, "dropping groups");
	if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
		return err_sys(err, errno, "taking the node's id");
	return 0;
}

/* The process behind a pidfd, by the numbers of the pid namespace that proc shows. */
static int pid_in(int proc, int pidfd, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(4096);
	char path[64];
	const char *p;
	int pid;

	snprintf(path, sizeof(path), "self/fdinfo/%d", pidfd);
	if (buf_read_file(&text, proc, path, err) < 0)
		return -1;
	p = strstr(text.data, "\nPid:");
	if (!p || sscanf(p, "\nPid: %d", &pid) != 1 || pid <= 0)
		return err_set(err, ERR_SYSTEM, "the new cell's process ended at once");
	return pid;
}

static int make_cell(const struct ends *ends, uint32_t id, struct cell_request *r, struct err *err)
{
	uint64_t flags = CLONE_PARENT | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS;
	auto_close int proc = open(ROOTFS_PROC, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_close int pidfd = -1;
	int go[2], pid;

	if (proc < 0)
		return err_sys(err, errno, "opening /proc");
	if (become_node(r, err) < 0)
		return -1;
	/* /proc/PID/uid_map must belong to the writer, and the change of ids made us undumpable. */
	prctl(PR_SET_DUMPABLE, 1);
	if (pipe2(go, O_CLOEXEC) < 0)
		return err_sys(err, errno, "pipe");
	if (r->mode & MAKER_NEW_PID)
		flags |= CLONE_NEWPID;
	if (r->mode & MAKER_NEW_NET)
		flags |= CLONE_NEWNET;
	pid = maker_clone(flags, &pidfd, 0);
	if (pid < 0)
		return err_sys(err, errno, "making namespaces");
	if (pid == 0) {
		struct newborn n = { ends->sock, ends->daemon, proc, go[0], id };

		close(go[1]);
		cell_child(&n, r);
	}
	pid = pid_in(proc, pidfd, err);
	if (pid < 0)
		return -1;
	if (write_map(proc, pid, "uid_map", r, err) < 0 ||
	    write_map(proc, pid, "gid_map", r, err) < 0)
		return err_wrap(err, "mapping ids");
	if (write(go[1], "g", 1) != 1)
		return err_sys(err, errno, "pipe");
	return 0;
}

static void serve(const struct ends *ends, struct wire_msg *m)
{
	struct cell_request r;
	struct err err;
	int rc;

	if (m->type == WIRE_SPAWN) {
		rc = maker_spawn(ends->sock, m, &err);
	} else if (m->type == WIRE_MOUNT) {
		rc = maker_mount(ends->sock, m, &err);
	} else {
		rc = read_cell_request(m, &r, &err);
		if (rc == 0)
			rc = make_cell(ends, m->id, &r, &err);
	}
	if (rc < 0)
		maker_fail(ends->sock, m->id, &err);
}

static void add_prefix(int sock, struct wire_msg *m)
{
	auto_free char *prefix = wire_get_str(m, WIRE_T_PATH);
	auto_msg struct wire_msg reply;
	struct err err;
	int tree = wire_take_fd(m, 0);

	if (!prefix || prefix[0] != '/' || tree < 0)
		err_set(&err, ERR_CORRUPT, "broken prefix");
	else if (rootfs_add_prefix(prefix, tree, &err) == 0) {
		wire_init(&reply, WIRE_MADE, m->id);
		if (wire_send(sock, &reply, &err) == 0)
			return;
	}
	maker_fail(sock, m->id, &err);
}

static int set_up(const char *lib_dir, struct err *err)
{
	/* The maker's network namespace is dead: no interface is ever up. Cells without a network
	 * share it; Landlock scopes keep abstract sockets from being a channel there. */
	if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0)
		return err_sys(err, errno, "making the maker's namespaces");
	return rootfs_template(lib_dir, err);
}

/* The daemon waits for this: from now on our namespaces are what they will be. */
static void say_ready(int sock)
{
	auto_msg struct wire_msg m;
	struct err err;

	wire_init(&m, WIRE_MADE, 0);
	if (wire_send(sock, &m, &err) < 0)
		_exit(1);
}

static void hand_on(const struct ends *ends, struct wire_msg *m)
{
	struct err err;
	int pid = maker_clone(CLONE_PARENT, NULL, 0);

	if (pid == 0) {
		serve(ends, m);
		_exit(0);
	}
	if (pid < 0) {
		err_sys(&err, errno, "cloning a maker");
		maker_fail(ends->sock, m->id, &err);
	}
}

/* A pid namespace can only be made by a process inside the one it is to descend from, and joining
 * one counts for children only. So the maker joins it and clones; but into the daemon's own there
 * is no way back, for nobody here has rights over that: what belongs there is passed on to a second
 * process, which never leaves. */
static bool join_pids(int sock, const struct wire_msg *m)
{
	uint64_t mode = wire_get_u64(m, WIRE_T_MODE, 0);
	int index = mode & MAKER_IN_USER ? 1 : 0;
	struct err err;

	if (index < m->nfds && syscall(SYS_setns, m->fds[index], CLONE_NEWPID) == 0)
		return true;
	err_sys(&err, errno, "joining the root's pid namespace");
	maker_fail(sock, m->id, &err);
	return false;
}

static void __attribute__((noreturn)) stay(const struct ends *ends, int front)
{
	struct err err;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		auto_msg struct wire_msg m;
		int rc = wire_recv(front, &m, &err);

		if (rc <= 0)
			_exit(rc < 0);
		hand_on(ends, &m);
	}
}

static int start_second(const struct ends *ends, int *out, struct err *err)
{
	int pair[2], pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(err, errno, "socketpair");
	pid = maker_clone(CLONE_PARENT, NULL, 0);
	if (pid == 0) {
		close(pair[0]);
		stay(ends, pair[1]);
	}
	close(pair[1]);
	*out = pair[0];
	return pid < 0 ? err_sys(err, errno, "cloning the maker") : 0;
}

static void dispatch(const struct ends *ends, int second, struct wire_msg *m)
{
	struct err err;

	if (m->type == WIRE_ADD_PREFIX) {
		add_prefix(ends->sock, m);
	} else if (m->type == WIRE_MOUNT) {
		hand_on(ends, m); /* in whose pid namespace does not matter */
	} else if (m->type == WIRE_MAKE_CELL && wire_get_u64(m, WIRE_T_MODE, 0) & MAKER_IN_PID) {
		if (join_pids(ends->sock, m))
			hand_on(ends, m);
	} else if (wire_send(second, m, &err) < 0) {
		maker_fail(ends->sock, m->id, &err);
	}
}

void maker_main(int sock, const char *lib_dir)
{
	struct ends ends = { sock, (int)syscall(SYS_pidfd_open, getppid(), 0) };
	struct err err;
	int second = -1;

	fcntl(sock, F_SETFD, FD_CLOEXEC);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGINT, SIG_IGN); /* the daemon decides when to end */
	signal(SIGTERM, SIG_IGN);
	if (ends.daemon < 0)
		err_sys(&err, errno, "opening the daemon");
	if (ends.daemon < 0 || set_up(lib_dir, &err) < 0 ||
	    start_second(&ends, &second, &err) < 0) {
		maker_fail(sock, 0, &err);
		_exit(1);
	}
	say_ready(sock);
	for (;;) {
		auto_msg struct wire_msg m;
		int rc = wire_recv(sock, &m, &err);

		if (rc <= 0)
			_exit(rc < 0);
		dispatch(&ends, second, &m);
	}
}
