/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * A job: one program, run once in a sandbox of its own, with no network, no capability, its own
 * user, mount, pid, ipc and uts namespaces and a read-only view of /usr and of one interpreter's
 * prefix. It sees only the mounts and descriptors named here. Used for installing wheels and for
 * asking an interpreter what it is (S1: code of packages runs in sandboxes only).
 *
 * Files that a job creates belong to the store's id (JAIL_ID_STORE), which no zygote and no
 * instance ever has, nor a hostile job: that is JAIL_ID_BUILD, which owns nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct jail;
struct jail_job;

struct jail_mount {
	const char *from; /* a path as the daemon sees it: file or directory */
	const char *to;	  /* absolute path inside; created on the sandbox's own root */
	bool writable;
};

#define JAIL_JOB_MOUNTS 8
#define JAIL_JOB_FDS 8

struct jail_job_spec {
	const char *const *argv; /* NULL-terminated; argv[0] is a path inside */
	const char *prefix; /* interpreter prefix to show ("/usr" is always there); may be NULL */
	struct jail_mount mounts[JAIL_JOB_MOUNTS];
	size_t nmounts;
	int fds[JAIL_JOB_FDS]; /* become 0, 1, 2, ... inside; borrowed, not closed; -1: /dev/null */
	size_t nfds;
	uint64_t memory_bytes; /* of one process; hostile: of all; 0: no limit beyond the daemon's
				  own */
	uint64_t deadline_ms;  /* then it is killed: ERR_TIMEOUT */
	uint64_t tmp_bytes;    /* of its /tmp, /dev/shm and HOME together; 0: LIMIT_TMP_BYTES */
	/* It will run code of packages: with a cgroup and a network (loopback) of its own. The
	 * descriptor behind those named reads end of file as soon as the limits hold; before that
	 * the program must not begin. Too much memory: ERR_LIMIT. Where there are no cgroups, each
	 * process is limited. */
	bool hostile;
	uint64_t pids; /* processes and threads, if hostile */
};

/* Called once on the daemon's loop when the job has ended and every process of it is dead.
 * err is NULL when it ran; then status is as of wait(2). */
typedef void (*jail_job_fn)(void *arg, int status, const struct err *err);

/* Starts; done() is not called when this returns -1. The program's LIBDIR (where our own helper
 * programs, the extension and the bootstrap live) is always visible, read-only, at JAIL_LIB. */
warn_unused int jail_job_start(struct jail *jail, const struct jail_job_spec *spec,
			       jail_job_fn done, void *arg, struct err *err);

#ifndef JAIL_LIB		  /* tests run the installer in no sandbox */
#define JAIL_LIB "/pipsqueak/lib" /* our own files, inside every sandbox */
#endif
#define JAIL_ENV "/pipsqueak/env" /* the environment tree, inside every sandbox */
#define JAIL_APP "/app"		  /* a function's code */
#define JAIL_HOME "/home/user"
/* Cells ask this address for names; pasta passes that on to the first resolver of the host. Of a
 * block that nobody routes (RFC 6890). */
#define JAIL_RESOLVER "192.0.0.53"

/* Children of cells are pid 2 of theirs, and what they start comes next; no zygote may have a pid
 * that one of them has (forksafety rule 1). So programs, and the nodes below a root, begin here. */
#define JAIL_FIRST_PID 10000
