/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/keeper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "jail/keeper_v2.h"
#include "wire/messages.h"
#include "wire/wire.h"

#define MAX_SLOTS 4096

/* The last only counts, and only where it is asked for: each is one more write for each sandbox. */
static const char *const controllers[] = { "memory", "pids", "cpu", "cpuacct" };

#define DIR_NAME "pipsqueak-" /* and the daemon's pid */
#define NLIMITS 3
#define CPUACCT 3
#define NCONTROLLERS 4

struct keeper {
	const struct keeper_config *config;
	int v2;			/* the delegated directory; -1: v1 */
	int dirs[NCONTROLLERS]; /* our directory in each hierarchy; -1: not v1 */
	int parents[NCONTROLLERS];
	char name[32];
	uint64_t peaks[MAX_SLOTS]; /* v2: the highest of all uses so far */
	bool counted[MAX_SLOTS];   /* v1: its CPU time */
};

/* "8:pids:/some/path" -> /sys/fs/cgroup/pids/some/path; false when it is no v1 hierarchy. */
static bool hierarchy(const char *controller, char *out, size_t size)
{
	auto_buf struct buf text = BUF_MAX(64 * KIB);
	struct err err;
	char *save = NULL;

	if (buf_read_file(&text, AT_FDCWD, "/proc/self/cgroup", &err) < 0)
		return false;
	for (char *line = strtok_r(text.data, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		char *names = strchr(line, ':');
		char *path = names ? strchr(names + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = '\0';
		for (char *inner = NULL, *w = strtok_r(names + 1, ",", &inner); w;
		     w = strtok_r(NULL, ",", &inner))
			if (strcmp(w, controller) == 0) {
				snprintf(out, size, "/sys/fs/cgroup/%s%s", controller, path);
				return access(out, W_OK) == 0;
			}
	}
	return false;
}

int keeper_controllers(void)
{
	char path[4096];
	int n = 0;

	for (int i = 0; i < NLIMITS; i++)
		n += hierarchy(controllers[i], path, sizeof(path));
	return n;
}

/* The slots below a directory (closed here): are all of them gone? */
static bool remove_slots(int fd)
{
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	bool gone = true;

	while (dir && (e = readdir(dir)))
		if (e->d_name[0] >= '0' && e->d_name[0] <= '9' &&
		    unlinkat(fd, e->d_name, AT_REMOVEDIR) < 0 && errno != ENOENT)
			gone = false;
	if (dir)
		closedir(dir);
	return gone;
}

/* Keepers that were killed left theirs: nobody holds its lock. What still has processes stays. */
static void remove_dead(int parent)
{
	int copy = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;

	if (copy >= 0 && !dir)
		close(copy);
	while (dir && (e = readdir(dir))) {
		auto_close int fd = -1;

		if (strncmp(e->d_name, DIR_NAME, strlen(DIR_NAME)) != 0)
			continue;
		fd = openat(parent, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
			continue;
		remove_slots(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
		if (unlinkat(parent, e->d_name, AT_REMOVEDIR) < 0)
			log_debug("keeper", "%s is in use: %m", e->d_name);
	}
	if (dir)
		closedir(dir);
}

/* Made, opened and locked; false: another keeper took it for a dead one's in between. */
static bool lock_own(struct keeper *k, int i)
{
	struct stat own, named;

	/* Refused where two controllers are one hierarchy: then it is locked already. */
	(void)!flock(k->dirs[i], LOCK_EX | LOCK_NB);
	if (fstat(k->dirs[i], &own) == 0 && fstatat(k->parents[i], k->name, &named, 0) == 0 &&
	    own.st_ino == named.st_ino)
		return true;
	fd_close(&k->dirs[i]);
	return false;
}

static int open_own(struct keeper *k, int i, const char *path, struct err *err)
{
	remove_dead(k->parents[i]);
	do {
		if (mkdirat(k->parents[i], k->name, 0711) < 0 && errno != EEXIST)
			return err_sys(err, errno, "mkdir '%s/%s'", path, k->name);
		k->dirs[i] = openat(k->parents[i], k->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (k->dirs[i] < 0 && errno != ENOENT)
			return err_sys(err, errno, "open '%s/%s'", path, k->name);
	} while (k->dirs[i] < 0 || !lock_own(k, i));
	return 0;
}

static int open_hierarchies(struct keeper *k, struct err *err)
{
	char path[4096];

	snprintf(k->name, sizeof(k->name), DIR_NAME "%d", getppid());
	for (int i = 0; i < NCONTROLLERS; i++) {
		k->dirs[i] = k->parents[i] = -1;
		if (!hierarchy(controllers[i], path, sizeof(path)))
			continue;
		k->parents[i] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (k->parents[i] < 0)
			return err_sys(err, errno, "open '%s'", path);
		if (open_own(k, i, path, err) < 0)
			return -1;
	}
	return 0;
}

static int make(struct keeper *k, unsigned int slot, struct err *err)
{
	char name[16];

	snprintf(name, sizeof(name), "%u", slot);
	for (int i = 0; i < NCONTROLLERS; i++)
		if (k->dirs[i] >= 0 && mkdirat(k->dirs[i], name, 0755) < 0 && errno != EEXIST)
			return err_sys(err, errno, "making cgroup %s/%s", controllers[i], name);
	return 0;
}

static int put(struct keeper *k, int controller, unsigned int slot, const char *file, int64_t value,
	       struct err *err)
{
	char path[64], text[32];

	if (k->dirs[controller] < 0)
		return 0;
	snprintf(path, sizeof(path), "%u/%s", slot, file);
	snprintf(text, sizeof(text), "%lld", (long long)value);
	return fd_write_file(k->dirs[controller], path, text, err);
}

static int limit(struct keeper *k, unsigned int slot, const struct wire_msg *m, struct err *err)
{
	uint64_t memory = wire_get_u64(m, WIRE_T_MEMORY, 0);
	uint64_t pids = wire_get_u64(m, WIRE_T_PIDS, 0);
	uint64_t cpu = wire_get_u64(m, WIRE_T_CPU, 0);
	struct err ignored;

	k->counted[slot] = wire_get_u64(m, WIRE_T_CPU_TIME, 0) != 0;
	/* memory+swap may not fall below memory nor memory rise above it: open both, then close. */
	if (put(k, 0, slot, "memory.memsw.limit_in_bytes", -1, &ignored) < 0)
		ignored = ERR_INIT; /* kernels without swap accounting */
	if (put(k, 0, slot, "memory.limit_in_bytes", memory ? (int64_t)memory : -1, err) < 0)
		return -1;
	if (memory && put(k, 0, slot, "memory.memsw.limit_in_bytes", (int64_t)memory, &ignored) < 0)
		ignored = ERR_INIT;
	if (k->dirs[1] >= 0) {
		char path[64], text[32];

		snprintf(path, sizeof(path), "%u/pids.max", slot);
		snprintf(text, sizeof(text), pids ? "%llu" : "max", (unsigned long long)pids);
		if (fd_write_file(k->dirs[1], path, text, err) < 0)
			return -1;
	}
	if (put(k, 2, slot, "cpu.shares", wire_get_u64(m, WIRE_T_MODE, 0) ? 128 : 1024, err) < 0)
		return -1;
	return put(k, 2, slot, "cpu.cfs_quota_us", cpu ? (int64_t)(cpu * 100) : -1, err);
}

static int pid_behind(int pidfd, pid_t *out, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(64 * KIB);
	char path[64];
	const char *p;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	if (buf_read_file(&text, AT_FDCWD, path, err) < 0)
		return -1;
	p = strstr(text.data, "\nPid:");
	if (!p || sscanf(p, "\nPid: %d", out) != 1 || *out <= 0)
		return err_set(err, ERR_DENIED, "not the pidfd of a living process");
	return 0;
}

/* Do all its user ids lie in the daemon's range? */
static int check_process(struct keeper *k, pid_t pid, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(64 * KIB);
	char path[64];
	const char *p;
	unsigned int id[4];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (buf_read_file(&text, AT_FDCWD, path, err) < 0)
		return -1;
	p = strstr(text.data, "\nUid:");
	if (!p || sscanf(p, "\nUid: %u %u %u %u", &id[0], &id[1], &id[2], &id[3]) != 4)
		return err_set(err, ERR_CORRUPT, "unreadable /proc/%d/status", pid);
	for (int i = 0; i < 4; i++)
		if (id[i] < k->config->first_id || id[i] - k->config->first_id >= k->config->ids)
			return err_set(err, ERR_DENIED, "process %d is not the daemon's", pid);
	return 0;
}

static int attach(struct keeper *k, unsigned int slot, struct wire_msg *m, struct err *err)
{
	auto_close int pidfd = wire_take_fd(m, 0);
	pid_t pid = 0;

	if (pidfd < 0)
		return err_set(err, ERR_CORRUPT, "no process given");
	if (pid_behind(pidfd, &pid, err) < 0)
		return -1;
	if (k->v2 >= 0)
		return v2_attach(k->v2, slot, pid, err);
	if (check_process(k, pid, err) < 0)
		return -1;
	for (int i = 0; i < (k->counted[slot] ? NCONTROLLERS : NLIMITS); i++)
		if (put(k, i, slot, "cgroup.procs", pid, err) < 0)
			return -1;
	return 0;
}

static uint64_t read_number(int dir, unsigned int slot, const char *file, const char *key)
{
	auto_buf struct buf text = BUF_MAX(16 * KIB);
	char path[64];
	struct err err;
	const char *p;

	snprintf(path, sizeof(path), "%u/%s", slot, file);
	if (dir < 0 || buf_read_file(&text, dir, path, &err) < 0)
		return 0;
	p = key ? strstr(text.data, key) : text.data;
	return p ? strtoull(p + (key ? strlen(key) : 0), NULL, 10) : 0;
}

/* What the peak is counted from cannot be put back before Linux 6.12: a use that stayed below one
 * before it has no peak that is known. */
static void read_v2(struct keeper *k, unsigned int slot, struct wire_msg *out)
{
	uint64_t peak = read_number(k->v2, slot, "memory.peak", NULL);

	wire_put_u64(out, WIRE_T_MEMORY_PEAK, peak > k->peaks[slot] ? peak : 0);
	if (peak > k->peaks[slot])
		k->peaks[slot] = peak;
	wire_put_u64(out, WIRE_T_STATUS, read_number(k->v2, slot, "memory.events", "oom_kill "));
}

static void read_slot(struct keeper *k, unsigned int slot, struct wire_msg *out)
{
	struct err err;

	if (k->v2 >= 0) {
		read_v2(k, slot, out);
		return;
	}
	wire_put_u64(out, WIRE_T_MEMORY_PEAK,
		     read_number(k->dirs[0], slot, "memory.max_usage_in_bytes", NULL));
	wire_put_u64(out, WIRE_T_STATUS,
		     read_number(k->dirs[0], slot, "memory.oom_control", "oom_kill "));
	/* The next user of the slot starts its peak from here. */
	if (put(k, 0, slot, "memory.max_usage_in_bytes", 0, &err) < 0)
		log_debug("keeper", "%s", err.text);
}

static int read_time(struct keeper *k, unsigned int slot, struct wire_msg *out, struct err *err)
{
	uint64_t us;

	if (k->v2 < 0 && k->dirs[CPUACCT] < 0)
		return err_set(err, ERR_NOT_FOUND, "this host does not count CPU time by cgroup");
	us = k->v2 < 0 ? read_number(k->dirs[CPUACCT], slot, "cpuacct.usage", NULL) / 1000
		       : read_number(k->v2, slot, "cpu.stat", "usage_usec ");
	wire_put_u64(out, WIRE_T_CPU_TIME, us);
	return 0;
}

static int remove_slot(struct keeper *k, unsigned int slot, struct err *err)
{
	char name[16];

	snprintf(name, sizeof(name), "%u", slot);
	for (int i = 0; i < NCONTROLLERS; i++)
		if (k->dirs[i] >= 0 && unlinkat(k->dirs[i], name, AT_REMOVEDIR) < 0 &&
		    errno != ENOENT)
			return err_sys(err, errno, "removing cgroup %s/%s", controllers[i], name);
	if (k->v2 >= 0 && unlinkat(k->v2, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return err_sys(err, errno, "removing cgroup %s", name);
	return 0;
}

static int serve(struct keeper *k, struct wire_msg *m, struct wire_msg *reply, struct err *err)
{
	uint64_t slot = wire_get_u64(m, WIRE_T_STATUS, MAX_SLOTS);

	if (slot >= MAX_SLOTS)
		return err_set(err, ERR_CORRUPT, "no such slot");
	switch (m->type) {
	case WIRE_CG_MAKE:
		return k->v2 >= 0 ? v2_make(k->v2, (unsigned int)slot, err)
				  : make(k, (unsigned int)slot, err);
	case WIRE_CG_LIMIT:
		return k->v2 >= 0 ? v2_limit(k->v2, (unsigned int)slot, m, err)
				  : limit(k, (unsigned int)slot, m, err);
	case WIRE_CG_ATTACH:
		return attach(k, (unsigned int)slot, m, err);
	case WIRE_CG_READ:
		read_slot(k, (unsigned int)slot, reply);
		return 0;
	case WIRE_CG_TIME:
		return read_time(k, (unsigned int)slot, reply, err);
	case WIRE_CG_REMOVE:
		return remove_slot(k, (unsigned int)slot, err);
	default:
		return err_set(err, ERR_CORRUPT, "message %s is not for the keeper",
			       wire_type_name(m->type));
	}
}

static bool remove_round(struct keeper *k)
{
	bool gone = true;

	if (k->v2 >= 0) /* the directory is not ours to remove, and this process is in it */
		return remove_slots(openat(k->v2, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	for (int i = 0; i < NCONTROLLERS; i++) {
		if (k->dirs[i] < 0)
			continue;
		remove_slots(openat(k->parents[i], k->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
		if (unlinkat(k->parents[i], k->name, AT_REMOVEDIR) < 0 && errno != ENOENT)
			gone = false;
	}
	return gone;
}

/* All processes of the daemon are being killed with it; a cgroup can go when its last one is
 * reaped, which nothing announces on v1: so try again, for at most ten seconds. */
static void remove_all(struct keeper *k)
{
	for (int round = 0; round < 1000; round++) {
		if (remove_round(k))
			return;
		usleep(10000);
	}
	log_warn("keeper", "some cgroups of the daemon are still in use");
}

void keeper_main(const struct keeper_config *config)
{
	struct keeper k = { .config = config, .v2 = config->v2, .dirs = { -1, -1, -1 } };
	struct err err;

	prctl(PR_SET_NAME, "pipsqueak-keep");
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (k.v2 < 0 && open_hierarchies(&k, &err) < 0) {
		log_error("keeper", "%s", err.text);
		_exit(1);
	}
	for (;;) {
		auto_msg struct wire_msg m, reply;
		int rc = wire_recv(config->sock, &m, &err);

		wire_init(&reply, WIRE_CG_DONE, 0);
		if (rc <= 0)
			break;
		reply.id = m.id;
		if (serve(&k, &m, &reply, &err) < 0)
			wire_put_err(&reply, &err);
		if (m.id && wire_send(config->sock, &reply, &err) < 0)
			break;
	}
	remove_all(&k);
	_exit(0);
}
