/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon. For rooms jail and zygote.
 *
 * Cells as the daemon holds them, programs started in them, processes watched, cgroup slots.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "jail/enter.h"
#include "jail/jail.h"
#include "jail/job.h"
#include "jail/maker.h"
#include "jail/seccomp.h"

struct cell {
	struct jail *jail;
	int ns[NS_COUNT];	/* -1: it has none of its own */
	uint64_t ino[NS_COUNT]; /* identity of each namespace; 0 where ns is -1 */
	int network;		/* its way out: closed, there is none; -1: it has none */
	int init;		/* pidfd; -1: a node's cell has no init */
	pid_t init_pid;
	uint32_t uid, gid; /* what its process is, in the cell's own map */
	uint32_t host_id;  /* what that is in the daemon's user namespace: as /proc shows it */
	/* Set by the owner: called once when the cell is freed and its last process is reaped;
	 * only then may its ids be given out again. */
	void (*gone)(void *arg, uint32_t id);
	void *gone_arg;
	uint32_t gone_id;
	bool freed, ended;
};

struct cell_spec {
	uint64_t mode;		       /* enum maker_bits */
	int in_user, in_pid, copy_mnt; /* borrowed; used if their bit is set */
	struct maker_extent extents[MAKER_EXTENTS];
	size_t nextents;
	uint32_t uid, gid, host_id;
	uint64_t tmp_bytes;
	const char *prefix;
};

typedef void (*cell_fn)(void *arg, struct cell *cell, const struct err *err);
/* The callee owns the cell. done is always called later, never from inside. */
void jail_make_cell(struct jail *jail, const struct cell_spec *spec, cell_fn done, void *arg);
/* Give a cell that has a network namespace the way out of it, through pasta. done is called later;
 * on failure the cell is as it was. */
void jail_connect_cell(struct cell *cell, cell_fn done, void *arg);
/* Mount these trees, which are taken over, read-only ones, in a cell whose process is there
 * already. */
struct cell_mounts {
	const char *targets[ENTER_MOUNTS];
	int trees[ENTER_MOUNTS];
	size_t n;
	uint64_t tmp_bytes; /* new size of its /tmp; 0: as it is */
};
typedef void (*mounted_fn)(void *arg, const struct err *err);
void jail_mount(struct cell *cell, const struct cell_mounts *mounts, mounted_fn done, void *arg);
/* Closes it; its init, and so every process in it, is killed. NULL is fine. */
void jail_free_cell(struct cell *cell);

struct spawn_spec {
	const struct cell *cell;
	const char *const *argv, *const *env;
	struct jail_mount mounts[JAIL_JOB_MOUNTS];
	size_t nmounts;
	const int *fds; /* borrowed; -1: /dev/null */
	size_t nfds;
	uint64_t memory_bytes, pids;
	bool zygote;
};
typedef void (*spawn_fn)(void *arg, int pidfd, pid_t pid, const struct err *err);
/* The callee owns the pidfd. */
void jail_spawn(struct jail *jail, const struct spawn_spec *spec, spawn_fn done, void *arg);

/* A detached copy of a path of the daemon's, to be moved into a cell. With writable false it is
 * read-only, and no set-id bit counts in either. */
warn_unused int jail_detach(const char *path, bool writable, int *out, struct err *err);

/* Tell when a child of the daemon has ended (it is reaped by then). Also when it already has. */
typedef void (*exit_fn)(void *arg, int status);
void jail_watch(struct jail *jail, pid_t pid, exit_fn done, void *arg);
void jail_unwatch(struct jail *jail, pid_t pid);
/* Tell too when a watched child is stopped, with its wait status; arg is the watch's. */
void jail_watch_stops(struct jail *jail, pid_t pid, exit_fn stopped);
/* A process of this pid is the daemon's child as it should be (a cell's init, say): the search for
 * children that nobody asked for leaves it alone. */
bool jail_is_watched(struct jail *jail, pid_t pid);

/* cgroup slots. -1: this host gives no cgroups; then limits are rlimits only. */
struct slot_limits {
	uint64_t memory_bytes, pids, cpu_milli; /* 0: none */
	uint64_t count_cpu;			/* not 0: its CPU time will be asked for */
	uint64_t background; /* not 0: an eighth of another's share, where processors are short */
};
struct slot_usage {
	uint64_t memory_peak_bytes, oom_kills; /* of this use of the slot */
};
typedef void (*slot_fn)(void *arg, const struct err *err);
typedef void (*usage_fn)(void *arg, const struct slot_usage *usage);
int jail_slot_take(struct jail *jail, const struct slot_limits *limits);
/* Other limits for a slot in use. Returns true, and done is not called, if they are what it has;
 * else done is called when they hold. Whether CPU time is counted cannot change. */
bool jail_slot_limit(struct jail *jail, int slot, const struct slot_limits *limits, slot_fn done,
		     void *arg);
void jail_slot_attach(struct jail *jail, int slot, int pidfd, slot_fn done, void *arg);
/* CPU time of all that was ever in it, in microseconds; err: it is not counted. */
typedef void (*cpu_fn)(void *arg, uint64_t us, const struct err *err);
void jail_slot_time(struct jail *jail, int slot, cpu_fn done, void *arg);
/* Ends the use: reports it, and the slot may be taken again. */
void jail_slot_give(struct jail *jail, int slot, usage_fn done, void *arg);

const struct buf *jail_filter(const struct jail *jail, enum seccomp_profile profile);
/* Ids: a block of the daemon's range for a root; the extent that all nodes map for `run`. */
bool jail_take_ids(struct jail *jail, uint32_t *out_first, uint32_t *out_size);
void jail_give_ids(struct jail *jail, uint32_t first, uint32_t size);
uint32_t jail_own_id(const struct jail *jail);
uint32_t jail_user(const struct jail *jail, uint32_t *out_gid); /* who started the daemon */
uint64_t jail_dead_net(const struct jail *jail); /* inode of the maker's network namespace */
uv_loop_t *jail_loop(const struct jail *jail);
