/* SPDX-License-Identifier: Apache-2.0
 * Runs in: zygotes. The fork of DESIGN 3.1: a child is born into a prepared cell.
 */
#pragma once

#include <stddef.h>

#include "base/err.h"
#include "wire/wire.h"

/* What a FORK message asks for, and what became of it. */
struct fork_result {
	char role[16];
	int stream;  /* the child's end of its stream */
	int control; /* role node: its control socket; else -1 */
	int has_env, has_app;
};

/* Fork as the message says. 0: in the zygote, done (or told the daemon why not). 1: in the child,
 * which has entered its sandbox and said READY; out is filled. The at-fork handlers of libc are
 * run here; before and after are Python's (PyOS_BeforeFork and so on), called in the right order.
 */
struct fork_hooks {
	void (*before)(void), (*after_parent)(void), (*after_child)(void);
};
/* Descriptors of regular files, open for reading, that the child is to have opened anew, where they
 * stand: an inherited one shares its offset with the zygote and all its children. */
struct fork_kept {
	int *fds;
	size_t n;
};
int fork_serve(int control, struct wire_msg *m, const struct fork_hooks *hooks,
	       const struct fork_kept *kept, struct fork_result *out);

/* In a child that was forked ahead (role "ahead"): wait for who wants it, and be that. Its standard
 * descriptors are placed; role and has_env are filled. Ends with the daemon. */
warn_unused int fork_adopt(int stream, struct fork_result *out, struct err *err);

/* Run the recorded prepare handlers and then the parent ones: libraries' idle threads end. */
void fork_cycle(void);
