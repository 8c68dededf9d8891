/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (libuv loop; nothing blocks).
 *
 * Tier 3, the mechanism: roots, nodes, forks. Which node to use, make or drop is decided elsewhere
 * (room policy, asked by room function). A node is a sleeping interpreter; a child is a process
 * forked from one into a cell, checked from outside (DESIGN 3.1 step 5) before anything secret or
 * any user code reaches it.
 *
 * Life of a child: zygote_fork() -> born callback (entered its cell, checked, limits hold, waits
 * for GO) -> zygote_child_send(GO ...) -> messages -> ended callback (reaped, its cell destroyed).
 * After `ended` the pointer is dead.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/err.h"
#include "wire/messages.h"
#include "wire/wire.h"

struct jail;
struct zygotes;
struct zygote_node;
struct zygote_child;

struct zygote_python {
	const char *path;   /* the interpreter inside sandboxes, e.g. /usr/bin/python3.11 */
	const char *prefix; /* its prefix, shown read-only at the same path */
};

/* What an import or a first call loaded and asked for; parsed from a PROFILE message. Strings are
 * the sender's and so untrusted: names only, never paths to open. */
struct zygote_profile {
	size_t nmodules;
	char **modules;	   /* in import order */
	char **origins;	   /* parallel: __file__, or "" */
	uint64_t *self_us; /* parallel: self time of the import */
	char **absent;	   /* NULL-terminated: "import:x", "meta:x", "group:x", "file:path" */
	char **env_read;   /* NULL-terminated: names of variables */
	char **reads; /* NULL-terminated: dists whose metadata was read; "*": all were listed */
	char **left;  /* NULL-terminated: what makes it unforkable, e.g. "threads=2"; empty: fine */
};
warn_unused int zygote_profile_parse(const struct wire_msg *m, struct zygote_profile *out,
				     struct err *err);
void zygote_profile_done(struct zygote_profile *p);

warn_unused int zygotes_open(uv_loop_t *loop, struct jail *jail, struct zygotes **out,
			     struct err *err);
/* Stops everything that sleeps; children that run a call are killed: call after draining. */
void zygotes_close(struct zygotes *z);

/* Messages so far that their sender's role in its phase may not send, or that were none (S7). Each
 * ended its sender, and is in the log. */
uint64_t zygotes_violations(const struct zygotes *z);

typedef void (*zygote_node_fn)(void *arg, struct zygote_node *node,
			       const struct zygote_profile *profile, const struct err *err);
/* A root for this interpreter. env_path (may be NULL) is mounted at JAIL_ENV and on sys.path: only
 * for our own tools' root (the resolver), never for users' packages. */
void zygote_root(struct zygotes *z, const struct zygote_python *python, const char *env_path,
		 zygote_node_fn done, void *arg);
/* A node below parent: imports modules in this order with env_path mounted at JAIL_ENV. */
struct zygote_grow {
	const char *env_path;
	const char *const *modules; /* NULL-terminated */
	uint64_t memory_bytes;	    /* it may take no more, by its cgroup; 0: as much as there is */
	const char *const *cold;    /* NULL-terminated dists that are not warmed up; NULL: none */
	bool watch; /* it only finds out which modules cannot sleep: "blame=", "way=" in `left` */
};
void zygote_grow(struct zygotes *z, struct zygote_node *parent, const struct zygote_grow *spec,
		 zygote_node_fn done, void *arg);

enum zygote_role { ZYGOTE_INSTANCE, ZYGOTE_RUN, ZYGOTE_RESOLVER };
enum zygote_net {
	ZYGOTE_NET_NONE,
	ZYGOTE_NET_LOOPBACK,
	ZYGOTE_NET_FULL,
	ZYGOTE_NET_ANY /* full where that can be had, else loopback */
};

#define ZYGOTE_MOUNTS 26
struct zygote_mount {
	int tree;	  /* a detached mount (open_tree); or -1 and then: */
	const char *from; /* a path as the daemon sees it; a detached mount is made of it */
	const char *to;	  /* absolute path inside */
	bool writable;
};

struct zygote_limits {
	uint64_t memory_bytes; /* 0: none */
	uint64_t pids;	       /* 0: none */
	uint64_t cpu_milli;    /* thousandths of a core; 0: none */
	bool count_cpu;	       /* zygote_child_cpu() will be asked */
	bool background;       /* others come first where processors are short */
	uint64_t tmp_bytes;    /* 0: LIMIT_TMP_BYTES */
	uint64_t open_files;   /* 0: 1024 */
};

struct zygote_fork {
	enum zygote_role role;
	enum zygote_net net;
	const char *env_path; /* mounted at JAIL_ENV; NULL: none */
	struct zygote_mount mounts[ZYGOTE_MOUNTS];
	size_t nmounts;
	int stdio[3]; /* given to the child as 0, 1, 2; borrowed; -1: /dev/null */
	bool own_id;  /* run: carries the id of the daemon's user (DESIGN 3), not one of its own */
	bool unhurried; /* nobody waits for it: a child that was forked ahead is not for this one */
	struct zygote_limits limits;
};

/* Why a child ended, for the typed answer. */
struct zygote_end {
	int status;		    /* as of wait(2) */
	bool oom;		    /* the memory limit killed it */
	uint64_t memory_peak_bytes; /* 0: not known */
};

struct zygote_events {
	/* A message, already checked by wire_may() against the child's phase. The callee may take
	 * nothing from m but copies. */
	void (*message)(void *ctx, struct zygote_child *child, struct wire_msg *m);
	void (*ended)(void *ctx, struct zygote_child *child, const struct zygote_end *end);
	void (*stopped)(void *ctx); /* by a signal, until a SIGCONT; NULL: nobody cares */
};

struct zygote_timing {
	uint64_t fork_us;    /* request sent -> the child exists; UINT64_MAX: it was there */
	uint64_t sandbox_us; /* exists -> checked and limits hold */
};

/* child NULL: it could not be started and err says why (ended is not called then). */
typedef void (*zygote_born_fn)(void *arg, struct zygote_child *child,
			       const struct zygote_timing *timing, const struct err *err);
/* The node counts as busy from here to `born`. events and ctx are for the child's whole life. An
 * instance may be a child that was forked ahead, into a cell of its kind, checked, and in a cgroup:
 * then only its mounts and limits are still to be made. */
void zygote_fork(struct zygotes *z, struct zygote_node *node, const struct zygote_fork *spec,
		 const struct zygote_events *events, void *ctx, zygote_born_fn born, void *arg);

warn_unused int zygote_child_send(struct zygote_child *c, const struct wire_msg *m,
				  struct err *err); /* queued; LIMIT_FRAME_BYTES */
void zygote_child_phase(struct zygote_child *c, enum wire_phase phase); /* what it may now say */
/* To the child and its group. A SIGTSTP that the child neither catches nor ignores becomes SIGSTOP:
 * the kernel stops no orphaned group by the former, and the group of a sandbox is one. */
void zygote_child_signal(struct zygote_child *c, int signo);
void zygote_child_kill(struct zygote_child *c); /* the whole cell; `ended` follows */
/* CPU time that all of its processes have used so far, in microseconds; err: nothing here counts
 * it, or it is gone. `done` is called once in any case, maybe after the child is gone. */
typedef void (*zygote_cpu_fn)(void *arg, uint64_t us, const struct err *err);
void zygote_child_cpu(struct zygote_child *c, zygote_cpu_fn done, void *arg);
/* Where nothing counts it: each process may use so much more (RLIMIT_CPU, whole seconds). */
void zygote_child_cpu_limit(struct zygote_child *c, uint64_t us);
int zygote_child_pid(const struct zygote_child *c);
/* Resolver only: hand the stream over to the caller, no more messages here; `ended` still comes. */
int zygote_child_take_stream(struct zygote_child *c);

/* Memory is scarce: children forked ahead end. They come again when their nodes are forked from. */
void zygotes_relax(struct zygotes *z);

/* Nodes as data. */
struct zygote_node_info {
	int pid;
	int depth; /* 0: root */
	struct zygote_node *parent;
	uint64_t unique_bytes; /* private memory; refreshed at most once a second */
	uint64_t rss_bytes;
	uint32_t busy;	   /* forks in flight + nodes being grown from it */
	uint32_t children; /* nodes below */
	uint32_t ahead;	   /* children that wait for who wants them */
	uint64_t forks;	   /* children born so far */
	bool asleep, gone;
};
void zygote_node_info(struct zygote_node *node, struct zygote_node_info *out);
/* The same without measuring: memory as it was last measured. */
void zygote_node_peek(struct zygote_node *node, struct zygote_node_info *out);
/* No ids are left for nodes below it: they can be grown from one above it. */
bool zygote_node_full(const struct zygote_node *node);
/* The owner's record for a node (room function keeps its knowledge there). */
void zygote_node_set_data(struct zygote_node *node, void *data);
void *zygote_node_data(const struct zygote_node *node);
/* Called when a node dies for any reason, its data still set; the pointer is dead afterwards. */
void zygotes_on_gone(struct zygotes *z, void (*gone)(void *ctx, struct zygote_node *node),
		     void *ctx);
/* Remove a sleeping, unused leaf (S5); ERR_BUSY when it is in use or has children. */
warn_unused int zygote_drop(struct zygote_node *node, struct err *err);
