/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the cell maker, a single-threaded child of the daemon that makes every namespace.
 *
 * Id 0 of the daemon's user namespace, in a mount namespace of its own that holds nothing but what
 * cells show. For each request it clones a child of its own with CLONE_PARENT (so the daemon reaps
 * it) and is at once ready for the next. That child enters the asking node's user namespace, as the
 * node's id, and makes the cell there: so the node owns the cell (DESIGN 3.1 step 2).
 *
 * Cells below a root descend from that root's pid namespace, which the maker joins; what belongs to
 * the daemon's own it passes on to a second process, which never leaves there.
 *
 * It says MADE (id 0) once it is ready. Requests (packets on one socket, wire/messages.h):
 *   MAKE_CELL   MODE (bits below) BODY (struct maker_extent array) UID GID TMP_BYTES PATH (prefix);
 *               descriptors, each if its bit is set: user namespace to be its parent, pid namespace
 *               to descend from, mount namespace to copy
 *   SPAWN       ARGV ENV UID GID BODY (seccomp filter) MEMORY PIDS NET (bit per enum enter_ns)
 *               RDWR+RDONLY (lists of mount targets); descriptors: the namespaces of NET, then the
 *               mounts of RDWR, of RDONLY, then those that become 0, 1, 2 ...
 *   ADD_PREFIX  PATH; descriptor: detached mount
 *   MOUNT       RDONLY (list of mount targets) TMP_BYTES; descriptors: a cell's user namespace, its
 *               mount namespace, the mounts. Answered by MADE without anything
 * Answers, by the maker's children: MADE (PID; descriptors: MAKE_CELL: the namespaces in the order
 * of enum enter_ns without those it did not make, then its init's pidfd; SPAWN: pidfd) or
 * MAKE_FAILED.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"

enum maker_bits {
	MAKER_IN_USER = 1,    /* the parent user namespace comes along; else the daemon's */
	MAKER_IN_PID = 2,     /* the pid namespace to descend from comes along; else the daemon's */
	MAKER_COPY_MNT = 4,   /* a node: copies its root's mounts, no root of its own */
	MAKER_NEW_PID = 8,    /* has a pid namespace and an init */
	MAKER_FENCE_NET = 32, /* with it: link-local addresses cannot be reached */
	MAKER_NEW_NET = 16,   /* has a network namespace, loopback up; else the maker's dead one */
};

/* One line of a uid_map, used for gids too. */
struct maker_extent {
	uint32_t inside, outside, count;
};
#define MAKER_EXTENTS 3

/* Never returns: exits when the socket ends. */
__attribute__((noreturn)) void maker_main(int sock, const char *lib_dir);
