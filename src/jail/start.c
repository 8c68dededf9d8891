/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/start.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/mount.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "jail/delegate.h"
#include "jail/enter.h"
#include "jail/keeper.h"
#include "jail/pasta.h"
#include "jail/start_priv.h"

/* Ids that Debian's useradd and systemd leave alone (systemd's UIDS-GIDS.md): 0x70000000 up. */
#define RANGE_FIRST 0x70000000U
#define RANGE_IDS 0x01000000U
#define RANGES 15U
#define OWN_ID 2 /* of the daemon's range, where root has one */
#define HIDDEN \
	"/mnt" /* covered, in the daemon's own mount namespace, by what it needs of the host */

/* /etc/subuid: "name:first:count". The line must be whole; the first that is large enough wins. */
static bool subordinate(const char *file, const char *user, uid_t uid, uint32_t *first,
			uint32_t *count)
{
	auto_buf struct buf text = BUF_MAX(MIB);
	struct err err;
	char number[16];
	char *save = NULL;

	snprintf(number, sizeof(number), "%u", uid);
	if (buf_read_file(&text, AT_FDCWD, file, &err) < 0)
		return false;
	for (char *line = strtok_r(text.data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		char name[64];

		if (sscanf(line, "%63[^:]:%u:%u", name, first, count) == 3 && *count >= 4096 &&
		    ((user && strcmp(name, user) == 0) || strcmp(name, number) == 0))
			return true;
	}
	return false;
}

/* Is [first, first+count) mapped in the user namespace we were started in (a container's root
 * may have few ids)? If not, out gets the largest range that is, above id 0. */
static bool is_mapped(uint32_t *first, uint32_t *count)
{
	auto_buf struct buf text = BUF_MAX(64 * KIB);
	uint32_t best_first = 0, best = 0;
	struct err err;
	char *save = NULL;

	if (buf_read_file(&text, AT_FDCWD, "/proc/self/uid_map", &err) < 0)
		return false;
	for (char *line = strtok_r(text.data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		uint32_t in, out, n;

		if (sscanf(line, "%u %u %u", &in, &out, &n) != 3)
			continue;
		if (*first >= in && *first - in < n && n - (*first - in) >= *count)
			return true;
		if (n > best) {
			best = n;
			best_first = in;
		}
	}
	/* The upper half: the lower one is where a container's own users are. */
	*first = best_first + best / 2;
	*count = best / 2;
	return *count >= 4096;
}

static int choose_range(struct jail_start *s, const struct jail_start_config *c, struct err *err)
{
	struct stat st;
	uint32_t hash = 5381;

	if (subordinate("/etc/subuid", "root", 0, &s->host_first, &s->ids)) {
		if (!is_mapped(&s->host_first, &s->ids))
			return err_set(err, ERR_DENIED,
				       "the ids of root in /etc/subuid are not mapped");
		return 0;
	}
	s->ids = RANGE_IDS;
	/* What is on disk belongs to the range that it was made with; else by the place's name, so
	 * that daemons of different places have different ids. */
	if (stat(c->cache_dir, &st) == 0 && st.st_uid >= RANGE_FIRST &&
	    (st.st_uid - RANGE_FIRST) % RANGE_IDS == 0) {
		s->host_first = st.st_uid;
		return 0;
	}
	for (const char *p = c->cache_dir; *p; p++)
		hash = hash * 33 + (unsigned char)*p;
	s->host_first = RANGE_FIRST + hash % RANGES * RANGE_IDS;
	if (!is_mapped(&s->host_first, &s->ids))
		return err_set(err, ERR_DENIED,
			       "this user namespace has too few ids for sandboxes (want 8192)");
	return 0;
}

/* Run f in a helper that stays what we are now, while we unshare: maps must be written from
 * outside. Returns the helper's go-pipe; the helper exits 0 when the maps are written. */
struct map_helper {
	pid_t pid;
	int go;
};

static int map_as_root(pid_t target, const struct jail_start *s, struct err *err)
{
	char path[64], text[64];

	snprintf(text, sizeof(text), "0 %u %u\n", s->host_first, s->ids);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", target);
	if (fd_write_file(AT_FDCWD, path, text, err) < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/gid_map", target);
	return fd_write_file(AT_FDCWD, path, text, err);
}

static int run_tool(const char *const *argv, struct err *err)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return err_sys(err, errno, "fork");
	if (pid == 0) {
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) < 0)
		return err_sys(err, errno, "waiting for %s", argv[0]);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return err_set(err, ERR_DENIED, "%s failed (package uidmap)", argv[0]);
	return 0;
}

static int map_by_tool(const char *tool, pid_t target, uint32_t own, uint32_t first, uint32_t ids,
		       struct err *err)
{
	char pid[16], me[16], sub[16], count[16];
	const char *argv[] = { tool, pid, "0", me, "1", "1", sub, count, NULL };

	snprintf(pid, sizeof(pid), "%d", target);
	snprintf(me, sizeof(me), "%u", own);
	snprintf(sub, sizeof(sub), "%u", first);
	snprintf(count, sizeof(count), "%u", ids - 1);
	return run_tool(argv, err);
}

static int map_from_outside(pid_t target, const struct jail_start *s, struct err *err)
{
	if (s->mode == JAIL_ROOT)
		return map_as_root(target, s, err);
	if (map_by_tool("newuidmap", target, getuid(), s->host_first, s->ids, err) < 0)
		return -1;
	return map_by_tool("newgidmap", target, getgid(), s->host_first, s->ids, err);
}

static int start_map_helper(const struct jail_start *s, struct map_helper *out, struct err *err)
{
	pid_t target = getpid();
	int go[2];

	if (pipe2(go, O_CLOEXEC) < 0)
		return err_sys(err, errno, "pipe");
	out->pid = fork();
	if (out->pid < 0)
		return err_sys(err, errno, "fork");
	if (out->pid == 0) {
		char byte;

		close(go[1]);
		if (read(go[0], &byte, 1) != 1)
			_exit(1);
		if (map_from_outside(target, s, err) < 0) {
			log_error("start", "%s", err->text);
			_exit(1);
		}
		_exit(0);
	}
	close(go[0]);
	out->go = go[1];
	return 0;
}

static int finish_maps(const struct jail_start *s, struct map_helper *helper, gid_t gid,
		       struct err *err)
{
	auto_close int go = helper->go;
	char text[64];
	int status;

	if (s->mode != JAIL_ONE_ID) {
		if (write(go, "g", 1) != 1)
			return err_sys(err, errno, "pipe");
		if (waitpid(helper->pid, &status, 0) < 0 || status != 0)
			return err_set(err, ERR_DENIED,
				       "the ids of the daemon could not be mapped");
		return 0;
	}
	if (fd_write_file(AT_FDCWD, "/proc/self/setgroups", "deny", err) < 0)
		return -1;
	snprintf(text, sizeof(text), "0 %u 1\n", s->host_first);
	if (fd_write_file(AT_FDCWD, "/proc/self/uid_map", text, err) < 0)
		return -1;
	snprintf(text, sizeof(text), "0 %u 1\n", gid);
	return fd_write_file(AT_FDCWD, "/proc/self/gid_map", text, err);
}

static int start_keeper(struct jail_start *s, struct err *err)
{
	struct keeper_config config = { .v2 = s->cgroup, .first_id = s->host_first, .ids = s->ids };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(err, errno, "socketpair");
	s->keeper_pid = fork();
	if (s->keeper_pid < 0)
		return err_sys(err, errno, "fork");
	if (s->keeper_pid == 0) {
		close(pair[0]);
		config.sock = pair[1];
		keeper_main(&config);
	}
	close(pair[1]);
	fd_close(&s->cgroup);
	s->keeper = pair[0];
	return 0;
}

/* Before anything is forked: on v2 this process moves to another cgroup. On v1 the keeper must be
 * host root and starts here; on v2 it starts with the other helpers. */
static int start_cgroups(struct jail_start *s, struct err *err)
{
	s->controllers = s->mode == JAIL_ROOT ? keeper_controllers() : 0;
	if (s->controllers > 0)
		return start_keeper(s, err);
	s->cgroup = delegate_open(s->mode == JAIL_ROOT ? s->host_first : geteuid(), &s->no_cgroups);
	s->delegated = s->cgroup >= 0;
	if (!s->delegated)
		log_info("start", "no cgroups: %s", s->no_cgroups.text);
	return 0;
}

static int own_dir(const char *path, uint32_t owner, mode_t mode, struct err *err)
{
	if (fd_mkdirs(path, 0755, err) < 0)
		return -1;
	if (lchown(path, owner, owner) < 0 || chmod(path, mode) < 0)
		return err_sys(err, errno, "giving '%s' to the daemon", path);
	return 0;
}

static int open_tree_at(const char *path, struct err *err)
{
	int fd = (int)syscall(SYS_open_tree, AT_FDCWD, path,
			      OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

	if (fd < 0)
		err_sys(err, errno, "opening '%s'", path);
	return fd;
}

static int place(int tree, const char *at, struct err *err)
{
	if (mkdir(at, 0755) < 0 && errno != EEXIST)
		return err_sys(err, errno, "mkdir '%s'", at);
	if (syscall(SYS_move_mount, tree, "", AT_FDCWD, at, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_sys(err, errno, "mounting '%s'", at);
	close(tree);
	return 0;
}

/* The device that pasta makes a cell's interface with. Where udev has not opened it to all, root's
 * daemon, which is nobody, could not use it: so while still host root a node of its own is made, on
 * a file system that nobody else sees. What can be done with it is up to rights over the network
 * namespace, as ever. -1: then it is as it is on this host. */
static int make_tun(void)
{
	auto_close int fs = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
	auto_close int fd = -1;

	if (fs < 0 || syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "size", "4096", 0) < 0 ||
	    syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -1;
	fd = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	if (fd < 0 || mknodat(fd, "tun", S_IFCHR | 0600, makedev(10, 200)) < 0 ||
	    fchmodat(fd, "tun", 0666, 0) < 0)
		return -1;
	return fd_steal(&fd);
}

static void place_tun(int tun, struct err *err)
{
	if (tun >= 0 && (place(tun, HIDDEN "/net", err) < 0 ||
			 mount(HIDDEN "/net/tun", "/dev/net/tun", NULL, MS_BIND, NULL) < 0))
		log_debug("start", "/dev/net/tun stays as it is: %s", strerror(errno));
}

#define PLACES (4 + START_PREFIXES)

/* Root's daemon is nobody on the host: it may not walk to directories below root's home, say. So
 * while still host root by id, every place it needs is opened as a mount, ... */
static int open_places(const struct jail_start *s, const struct jail_start_config *c,
		       int trees[PLACES], struct err *err)
{
	const char *from[4] = { c->state_dir, c->cache_dir, c->run_dir, c->lib_dir };
	int n = 0;

	for (int i = 0; i < 4; i++)
		if ((trees[n++] = open_tree_at(from[i], err)) < 0)
			return -1;
	for (int i = 0; i < s->nprefixes; i++)
		if ((trees[n++] = open_tree_at(s->prefixes[i].prefix, err)) < 0)
			return -1;
	return 0;
}

/* ... and then, as the daemon's id (files cannot be made as an id that is not mapped), put where it
 * can go. */
static int place_all(struct jail_start *s, const int trees[PLACES], struct err *err)
{
	static const char *const to[4] = { HIDDEN "/state", HIDDEN "/cache", HIDDEN "/run",
					   HIDDEN "/lib" };
	char at[64];

	if (mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0 ||
	    mount("tmpfs", HIDDEN, "tmpfs", 0, "size=1m,mode=755") < 0)
		return err_sys(err, errno, "preparing the daemon's mounts");
	for (int i = 0; i < 4; i++)
		if (place(trees[i], to[i], err) < 0)
			return -1;
	for (int i = 0; i < s->nprefixes; i++) {
		snprintf(at, sizeof(at), HIDDEN "/prefix%d", i);
		if (place(trees[4 + i], at, err) < 0)
			return -1;
		s->prefixes[i].path = mem_strdup(at);
	}
	place_tun(s->tun, err);
	s->paths = (struct jail_paths){ to[0], to[1], to[2], to[3] };
	return 0;
}

/* Without pasta no sandbox has a network: that is said when one is asked for. */
static int start_net(struct jail_start *s, struct err *err)
{
	int pair[2];

	if (!pasta_is_installed())
		return 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(err, errno, "socketpair");
	s->net_pid = fork();
	if (s->net_pid < 0)
		return err_sys(err, errno, "fork");
	if (s->net_pid == 0) {
		close(pair[0]);
		fd_close(&s->keeper);
		pasta_main(pair[1]);
	}
	close(pair[1]);
	s->net = pair[0];
	return 0;
}

static void exec_maker(const struct jail_start *s, int sock)
{
	auto_free char *path = mem_printf("%s/pipsqueak-maker", s->paths.lib);
	char number[16];
	int fd = fcntl(sock, F_DUPFD, 3); /* the one descriptor that outlives the exec */

	snprintf(number, sizeof(number), "%d", fd);
	execl(path, "pipsqueak-maker", number, s->paths.lib, (char *)NULL);
	log_error("start", "starting '%s': %s", path, strerror(errno));
	_exit(127);
}

static int start_maker(struct jail_start *s, struct err *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(err, errno, "socketpair");
	s->maker_pid = fork();
	if (s->maker_pid < 0)
		return err_sys(err, errno, "fork");
	if (s->maker_pid == 0)
		exec_maker(s, pair[1]);
	close(pair[1]);
	s->maker = pair[0];
	return 0;
}

static int start_helpers(struct jail_start *s, struct err *err)
{
	if (s->delegated && start_keeper(s, err) < 0)
		return -1;
	return start_net(s, err) < 0 ? -1 : start_maker(s, err);
}

static int choose_mode(struct jail_start *s, const struct jail_start_config *c, struct err *err)
{
	struct passwd *pw = getpwuid(geteuid());
	uint32_t gid_first, gid_count;

	if (geteuid() == 0) {
		s->mode = JAIL_ROOT;
		s->own_id = OWN_ID;
		return choose_range(s, c, err);
	}
	s->own_id = 0;
	if (access("/usr/bin/newuidmap", X_OK) == 0 &&
	    subordinate("/etc/subuid", pw ? pw->pw_name : NULL, geteuid(), &s->host_first,
			&s->ids) &&
	    subordinate("/etc/subgid", pw ? pw->pw_name : NULL, geteuid(), &gid_first,
			&gid_count) &&
	    gid_first == s->host_first && gid_count >= s->ids) {
		s->mode = JAIL_SUBIDS;
		s->ids++; /* id 0 is the user */
		return 0;
	}
	s->mode = JAIL_ONE_ID;
	s->host_first = geteuid();
	s->ids = 1;
	return 0;
}

static int make_dirs(const struct jail_start *s, const struct jail_start_config *c, struct err *err)
{
	const char *const dirs[] = { c->state_dir, c->cache_dir, c->run_dir };

	for (size_t i = 0; i < array_len(dirs); i++) {
		if (s->mode == JAIL_ROOT) {
			/* The cache is searched by the store's id too; the other two are private.
			 */
			if (own_dir(dirs[i], s->host_first, i == 1 ? 0711 : 0700, err) < 0)
				return -1;
		} else if (fd_mkdirs(dirs[i], 0700, err) < 0) {
			return -1;
		}
	}
	return 0;
}

/* What this host says about user namespaces, and what to do about it. */
static const char *why_restricted(enum jail_mode mode)
{
	static const struct {
		const char *file, *value, *what;
	} knobs[] = {
		{ "/proc/sys/user/max_user_namespaces", "0\n",
		  "this host has no user namespaces: set sysctl user.max_user_namespaces" },
		{ "/proc/sys/kernel/unprivileged_userns_clone", "0\n",
		  "this host keeps user namespaces from plain users: set sysctl "
		  "kernel.unprivileged_userns_clone=1" },
		{ "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n",
		  "AppArmor keeps user namespaces from programs without a profile: load the one "
		  "that comes with pipsqueak, share/pipsqueak/pipsqueakd.apparmor (see "
		  "README.md)" },
	};
	auto_buf struct buf text = BUF_MAX(KIB);
	struct err lost;

	/* All but the first are for plain users only. */
	for (size_t i = 0; i < (mode == JAIL_ROOT ? 1 : array_len(knobs)); i++) {
		buf_reset(&text);
		if (buf_read_file(&text, AT_FDCWD, knobs[i].file, &lost) == 0 &&
		    strcmp(text.data, knobs[i].value) == 0)
			return knobs[i].what;
	}
	return "becoming nobody";
}

static int become_nobody(struct jail_start *s, const struct jail_start_config *c, gid_t gid,
			 struct err *err)
{
	struct map_helper helper = { .go = -1 };
	int trees[PLACES];

	if (s->mode != JAIL_ONE_ID && start_map_helper(s, &helper, err) < 0)
		return -1;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return err_sys(err, errno, "making a user namespace");
	if (finish_maps(s, &helper, gid, err) < 0)
		return -1;
	if (s->mode == JAIL_ROOT && open_places(s, c, trees, err) < 0)
		return -1;
	if (s->mode != JAIL_ROOT) {
		s->paths = (struct jail_paths){ c->state_dir, c->cache_dir, c->run_dir,
						c->lib_dir };
		for (int i = 0; i < s->nprefixes; i++)
			s->prefixes[i].path = mem_strdup(s->prefixes[i].prefix);
	}
	if (setgroups(0, NULL) < 0 && errno != EPERM)
		return err_sys(err, errno, "dropping groups");
	if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return err_sys(err, errno, "taking the daemon's id");
	enter_share_inotify(LIMIT_INOTIFY);
	return s->mode == JAIL_ROOT ? place_all(s, trees, err) : 0;
}

static void note_prefixes(struct jail_start *s, const char *const *prefixes)
{
	for (; prefixes && *prefixes && s->nprefixes < START_PREFIXES; prefixes++)
		if (strcmp(*prefixes, "/usr") != 0)
			s->prefixes[s->nprefixes++].prefix = mem_strdup(*prefixes);
}

int jail_start(const struct jail_start_config *c, struct jail_start **out, struct err *err)
{
	struct jail_start *s = mem_new(struct jail_start);
	gid_t gid = getegid();

	s->maker = s->keeper = s->net = s->tun = s->cgroup = -1;
	s->user = geteuid();
	s->group = gid;
	note_prefixes(s, c->prefixes);
	if (choose_mode(s, c, err) < 0 || make_dirs(s, c, err) < 0 || start_cgroups(s, err) < 0)
		return -1;
	if (s->mode == JAIL_ROOT) {
		s->tun = make_tun();
		/* Inherited by the maker and the inits, which must outlive what they hold; programs
		 * in sandboxes put it back to 0. */
		if (fd_write_file(AT_FDCWD, "/proc/self/oom_score_adj", "-500", err) < 0)
			log_debug("start", "%s", err->text);
	}
	if (become_nobody(s, c, gid, err) < 0)
		return err_wrap(err, "%s", why_restricted(s->mode));
	if (start_helpers(s, err) < 0)
		return -1;
	*out = s;
	return 0;
}

const struct jail_paths *jail_start_paths(const struct jail_start *start)
{
	return &start->paths;
}
