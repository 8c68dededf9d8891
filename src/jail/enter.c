/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/enter.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "jail/landlock.h"

static const struct {
	const char *name;
	int flag;
} namespaces[NS_COUNT] = {
	[NS_USER] = { "user", CLONE_NEWUSER }, [NS_MNT] = { "mnt", CLONE_NEWNS },
	[NS_PID] = { "pid", CLONE_NEWPID },    [NS_IPC] = { "ipc", CLONE_NEWIPC },
	[NS_UTS] = { "uts", CLONE_NEWUTS },    [NS_NET] = { "net", CLONE_NEWNET },
};

int enter_ns_flag(enum enter_ns ns)
{
	return namespaces[ns].flag;
}

const char *enter_ns_name(enum enter_ns ns)
{
	return namespaces[ns].name;
}

int enter_namespaces(const int ns[NS_COUNT], struct err *err)
{
	for (int i = 0; i < NS_COUNT; i++)
		if (ns[i] >= 0 && syscall(SYS_setns, ns[i], namespaces[i].flag) < 0)
			return err_sys(err, errno, "joining the cell's %s namespace",
				       namespaces[i].name);
	return 0;
}

static int take_ids(const struct enter_spec *s, struct err *err)
{
	/* EPERM: a user namespace made without privilege forbids setgroups for good; then the only
	 * groups there are the user's own. */
	if (syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM)
		return err_sys(err, errno, "dropping groups");
	if (syscall(SYS_setresgid, s->gid, s->gid, s->gid) < 0)
		return err_sys(err, errno, "taking group %u", s->gid);
	if (syscall(SYS_setresuid, s->uid, s->uid, s->uid) < 0)
		return err_sys(err, errno, "taking id %u", s->uid);
	return 0;
}

/* Make the mount point: directories down to it, and itself a file or a directory. */
static int make_target(const char *target, bool is_dir, struct err *err)
{
	char path[4096];
	size_t len = strlen(target);
	int fd;

	if (len >= sizeof(path) || target[0] != '/')
		return err_set(err, ERR_USAGE, "mount point '%.100s' is not usable", target);
	memcpy(path, target, len + 1);
	for (char *p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return err_sys(err, errno, "making mount point '%s'", path);
		*p = '/';
	}
	if (is_dir) {
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return err_sys(err, errno, "making mount point '%s'", path);
		return 0;
	}
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0 && errno != EACCES && errno != EROFS && errno != ENXIO)
		return err_sys(err, errno, "making mount point '%s'", path);
	if (fd >= 0)
		close(fd);
	return 0;
}

static int attach(const struct enter_mount *m, struct err *err)
{
	struct stat st;

	if (fstat(m->tree, &st) < 0)
		return err_sys(err, errno, "looking at the mount for '%s'", m->target);
	if (make_target(m->target, S_ISDIR(st.st_mode), err) < 0)
		return -1;
	if (syscall(SYS_move_mount, m->tree, "", AT_FDCWD, m->target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return err_sys(err, errno, "mounting '%s'", m->target);
	close(m->tree);
	return 0;
}

int enter_mounts(const struct enter_spec *s, struct err *err)
{
	char options[64];

	for (size_t i = 0; i < s->nmounts; i++)
		if (attach(&s->mounts[i], err) < 0)
			return -1;
	if (s->tmp_bytes) {
		snprintf(options, sizeof(options), "size=%llu", (unsigned long long)s->tmp_bytes);
		if (syscall(SYS_mount, NULL, "/tmp", NULL, MS_REMOUNT | MS_NOSUID | MS_NODEV,
			    options) < 0)
			return err_sys(err, errno, "sizing /tmp");
	}
	/* Not by mount_setattr, which a zygote's filter refuses (seccomp.c). */
	if (syscall(SYS_mount, NULL, "/", NULL,
		    MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
		return err_sys(err, errno, "making the root read-only");
	return 0;
}

static int limit_one(int what, uint64_t value, struct err *err)
{
	struct rlimit rl, now;

	/* Only host root may raise a hard limit: what we were started with is the ceiling. */
	if (getrlimit((__rlimit_resource_t)what, &now) == 0 && value > now.rlim_max)
		value = now.rlim_max;
	rl.rlim_cur = rl.rlim_max = value;
	if (syscall(SYS_prlimit64, 0, what, &rl, NULL) < 0)
		return err_sys(err, errno, "setting limit %d to %llu", what,
			       (unsigned long long)value);
	return 0;
}

/* What the kernel counts for all ids that one user namespace was made by, too: every sandbox has
 * its share, and one cannot take all. */
static int limit_share(int what, uint64_t part, struct err *err)
{
	struct rlimit now;

	if (getrlimit((__rlimit_resource_t)what, &now) < 0 || now.rlim_max == RLIM_INFINITY)
		return 0;
	return limit_one(what, now.rlim_max / part, err);
}

static int set_limits(const struct enter_spec *s, struct err *err)
{
	static const struct {
		int what;
		uint64_t part;
	} shared[] = { { RLIMIT_SIGPENDING, 64 }, { RLIMIT_MEMLOCK, 8 }, { RLIMIT_MSGQUEUE, 8 } };

	if (limit_one(RLIMIT_CORE, 0, err) < 0)
		return -1;
	/* A zygote's children set theirs. */
	if (!s->zygote && limit_one(RLIMIT_NOFILE, s->open_files ? s->open_files : 1024, err) < 0)
		return -1;
	for (size_t i = 0; !s->zygote && i < array_len(shared); i++)
		if (limit_share(shared[i].what, shared[i].part, err) < 0)
			return -1;
	if (s->pids && limit_one(RLIMIT_NPROC, s->pids, err) < 0)
		return -1;
	if (s->memory_bytes && limit_one(RLIMIT_AS, s->memory_bytes, err) < 0)
		return -1;
	return 0;
}

/* Why it is safe to have had them: until here only our own code ran with them. From here on none
 * can come back: the bounding set is empty, no_new_privs is on, nothing is ambient. */
int enter_drop_capabilities(struct err *err)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct none[2];

	for (int cap = 0; cap < 64; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
			if (errno == EINVAL)
				break; /* past the last capability of this kernel */
			return err_sys(err, errno, "dropping capability %d", cap);
		}
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	memset(none, 0, sizeof(none));
	if (syscall(SYS_capset, &head, none) < 0)
		return err_sys(err, errno, "dropping capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_sys(err, errno, "setting no_new_privs");
	return 0;
}

static int set_filter(const struct enter_spec *s, struct err *err)
{
	struct sock_fprog prog = { .len = (unsigned short)(s->filter_bytes / 8),
				   .filter = (struct sock_filter *)s->filter };

	if (!s->filter || s->filter_bytes % 8)
		return s->filter ? err_set(err, ERR_CORRUPT, "broken seccomp filter") : 0;
	/* Without SECCOMP_FILTER_FLAG_SPEC_ALLOW nothing changes on current kernels, and there are
	 * no threads to synchronise. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
		return err_sys(err, errno, "installing the seccomp filter");
	return 0;
}

int enter_sandbox(const struct enter_spec *s, struct err *err)
{
	if (take_ids(s, err) < 0)
		return -1;
	syscall(SYS_setsid);
	if (enter_mounts(s, err) < 0)
		return -1;
	if (chdir("/") < 0)
		return err_sys(err, errno, "chdir /");
	umask(022);
	if (set_limits(s, err) < 0 || enter_drop_capabilities(err) < 0)
		return -1;
	if (landlock_enter(s, err) < 0)
		return -1;
	if (set_filter(s, err) < 0)
		return -1;
	/* A zygote stays undumpable: nobody reads its memory. An instance is a plain process of
	 * its cell: /proc/self must belong to it, as programs expect. */
	prctl(PR_SET_DUMPABLE, s->zygote ? 0 : 1, 0, 0, 0);
	return 0;
}

void enter_share_inotify(int most)
{
	char text[16];
	struct err err;

	snprintf(text, sizeof(text), "%d", most);
	if (fd_write_file(AT_FDCWD, "/proc/sys/user/max_inotify_instances", text, &err) < 0)
		log_debug("jail", "%s", err.text);
}
