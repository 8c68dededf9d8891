/* SPDX-License-Identifier: Apache-2.0
 * Runs in: a child just forked, inside its cell, before any code but ours (the extension and the
 * cell maker's spawned programs link this). Raw system calls only: the process may hold locks
 * of threads that are gone, and glibc's setuid() would wait for them (forksafety rule 5).
 *
 * The caller has joined the cell's namespaces and so has every capability in the cell's user
 * namespace and none outside it. enter_sandbox() uses them for the last time and gives them up.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum enter_ns { NS_USER, NS_MNT, NS_PID, NS_IPC, NS_UTS, NS_NET, NS_COUNT };

/* The CLONE_NEW* flag of each, and its name in /proc/PID/ns. */
int enter_ns_flag(enum enter_ns ns);
const char *enter_ns_name(enum enter_ns ns);

/* Join every namespace given (-1: stay), user first: a user namespace's owner has all
 * capabilities in it, and those allow the others. The pid namespace is for children. */
warn_unused int enter_namespaces(const int ns[NS_COUNT], struct err *err);

#define ENTER_MOUNTS 28
struct enter_mount {
	int tree;	    /* detached mount; consumed */
	const char *target; /* absolute, no "..": its mount point is made on the cell's own root */
	bool writable;
};

struct enter_spec {
	uint32_t uid, gid; /* of the cell's map */
	struct enter_mount mounts[ENTER_MOUNTS];
	size_t nmounts;
	uint64_t tmp_bytes;    /* size of /tmp; 0: as the cell was made */
	uint64_t memory_bytes; /* RLIMIT_AS when there is no cgroup for it; 0: none */
	uint64_t pids;	       /* RLIMIT_NPROC; 0: none */
	uint64_t open_files;   /* RLIMIT_NOFILE; 0: 1024 */
	const void *filter;    /* struct sock_filter array, or NULL */
	size_t filter_bytes;
	bool zygote; /* will fork into cells itself: no Landlock paths, dumpable stays off */
};

/* Of that: attach the mounts, size /tmp, make the root read-only. Also for a process in the cell's
 * mount namespace that makes them for another. */
warn_unused int enter_mounts(const struct enter_spec *spec, struct err *err);

/* Ids, mounts, limits, capabilities, Landlock, seccomp: in this order, all or an error. After an
 * error the process must end. */
warn_unused int enter_sandbox(const struct enter_spec *spec, struct err *err);

/* Give up every capability for good and set no_new_privs. */
warn_unused int enter_drop_capabilities(struct err *err);

/* Landlock ABI of this kernel; 0: none. */
int enter_landlock_abi(void);

/* So many inotify instances this user namespace, and all below it, may have: each cell its own
 * share, and all together one, for the kernel counts them as the starter's, too, who on the host
 * may be root. Where /proc/sys cannot be written, one sandbox can take all. */
void enter_share_inotify(int most);
