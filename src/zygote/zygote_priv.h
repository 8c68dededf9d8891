/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon. Private to the room.
 */
#pragma once

#include "jail/cell.h"
#include "jail/ids.h"
#include "zygote/zygote.h"

#define CELL_KINDS 8 /* network x own id */
/* In every node's user namespace the id that scripts of `run` carry has this number. */
#define OWN_INSIDE 0x40000000U
/* And there, from here on, are the ids that instances of the whole tree take. */
#define INSTANCES_INSIDE 0x20000000U
#define INSTANCES 8192U /* of one root at once, or a quarter of its ids */

struct growing; /* node.c */

struct zygote_node {
	struct zygotes *z;
	struct zygote_node *next, *parent, *root;
	int depth;
	struct cell *cell;
	struct zygote_node *ids_from; /* in whose block its own lies; kept for that. A root: NULL */
	uint32_t first, size;	      /* its block, as numbered there; size 0: none of its own */
	struct id_block ids;	      /* for nodes below */
	struct id_pool instances;     /* of a root, for its whole tree */
	uint32_t host_base, instances_base; /* first ids in the daemon's user namespace */
	int slot;			    /* its cgroup; -1: none */
	char *prefix;
	int control; /* our end */
	uv_poll_t poll;
	int pidfd;
	pid_t pid;
	enum wire_phase phase;
	uint32_t forking, growing, children;
	uint64_t forks;
	bool asleep, gone, listening;
	void *data;
	uint64_t unique_bytes, rss_bytes, measured_us;
	struct cell *pool[CELL_KINDS][LIMIT_CELL_POOL];
	int pooled[CELL_KINDS], making[CELL_KINDS], wanted[CELL_KINDS];
	struct zygote_child *waiting; /* forks under way */
	struct ahead *ahead[CELL_KINDS];
	struct growing *grower; /* while it is being made */
	struct says *says;	/* what it prints */
	int refs;		/* itself while it lives, its poll handle, each cell made in it */
};

enum child_step { CHILD_WANTS_CELL, CHILD_FORKING, CHILD_ALIVE, CHILD_ENDING };

struct zygote_child {
	struct zygotes *z;
	struct zygote_node *node; /* NULL after birth: it no longer needs it */
	struct zygote_child *next;
	struct zygote_child *sibling, **link; /* of all children there are */
	enum child_step step;
	uint32_t id;
	struct zygote_fork spec;
	char *env_path;
	char *mount_from[ZYGOTE_MOUNTS], *mount_to[ZYGOTE_MOUNTS];
	struct cell *cell;
	int slot;
	int stream, pidfd, node_control;
	pid_t pid;
	uint64_t expect_pid_ns, expect_net_ns;
	bool forked, ready, attached, told, exited, is_node, polling;
	bool is_ahead; /* forked for nobody yet */
	bool adopted;  /* and then by somebody */
	int status;
	enum wire_phase phase;
	const struct zygote_events *events;
	void *ctx;
	zygote_born_fn born;
	void *born_arg;
	uint64_t asked_us, forked_us;
	struct buf in, out;
	uv_poll_t poll;
	uv_timer_t timer;
	int open_handles;
};

/* What was put in the log in one second. */
struct says_budget {
	uint64_t second, bytes;
};

struct zygotes {
	uv_loop_t *loop;
	struct jail *jail;
	struct zygote_node *nodes;
	struct zygote_child *children; /* each until its memory goes */
	void (*on_gone)(void *ctx, struct zygote_node *node);
	void *on_gone_ctx;
	uint32_t next_id;
	uint64_t violations;
	struct says_budget says; /* of all */
	struct aheads *aheads;
	bool closing;
};

/* node.c */
struct zygote_node *node_new(struct zygotes *z, struct zygote_node *parent);
void node_unref(struct zygote_node *node);
/* The process is known: watch it, and listen on its control socket. */
void node_alive(struct zygote_node *node, int pidfd, pid_t pid);
/* It ended, or never came to be: whatever waits for it fails, what it holds is freed. */
void node_dead(struct zygote_node *node, const struct err *why);

pid_t node_pid(const struct zygote_node *node); /* also while it is being made; 0: none yet */

/* says.c: listen to what a node prints. Returns the node's end, which the caller closes. */
warn_unused int says_open(struct zygote_node *node, struct err *err);
void says_close(struct zygote_node *node);

/* ahead.c: children made ahead */
void ahead_open(struct zygotes *z);
void ahead_close(struct zygotes *z);
/* Is there one for this? It is the caller's then, as one whose fork is under way. NULL: fork. */
struct zygote_child *ahead_take(struct zygote_node *node, const struct zygote_fork *spec);
/* A child of this was asked for: others may follow. */
void ahead_note(struct zygote_node *node, const struct zygote_fork *spec);
void ahead_drop(struct zygote_node *node); /* it is going */
uint32_t ahead_count(const struct zygote_node *node);

/* pool.c: cells made ahead */
int pool_kind(const struct zygote_fork *spec);
void pool_get(struct zygote_node *node, int kind, cell_fn done, void *arg);
void pool_refill(struct zygote_node *node, int kind);
void pool_empty(struct zygote_node *node);

/* child.c */
#define CHILD_READ_BYTES 65536		       /* at once */
void child_free(struct zygote_child *c);       /* when its last handle is closed */
void child_expect(struct zygote_child *c);     /* its birth, within LIMIT_FORK_MS */
void child_listen(struct zygote_child *c);     /* to its stream */
void child_maybe_born(struct zygote_child *c); /* something that it waits for has come */

/* ask.c */
struct zygote_child *child_new(struct zygote_node *node, const struct zygote_fork *spec);
/* Get a cell and fork into it. */
void child_fork(struct zygote_child *c, const struct zygote_events *events, void *ctx,
		zygote_born_fn born, void *arg);
/* One that was forked ahead becomes this; `born` follows. */
void child_adopt(struct zygote_child *c, struct zygote_node *node, const struct zygote_fork *spec);
void child_to_foreground(struct zygote_child *c); /* it does nothing in the background any more */
int child_tell_adopted(struct zygote_child *c, struct err *err); /* when all is prepared */
void child_start(struct zygote_child *c);			 /* with its cell: send FORK */

/* child.c, too */
void child_on_forked(struct zygote_child *c, struct wire_msg *m);
/* At the close: nobody is told anything any more, whatever still comes. */
void child_forget_all(struct zygotes *z);
/* Kill it and forget it: no callback of it is called any more. */
void child_abandon(struct zygote_child *c);
void child_fail(struct zygote_child *c, const struct err *err);
/* Give up everything but the process: it lives on as a node. */
void child_becomes_node(struct zygote_child *c, struct zygote_node *node);

/* sweep.c: kill what a node has left in its root's pid namespace, in its own user namespace or
 * below.
 */
void sweep_node(const struct zygotes *z, uint64_t pid_ns, uint64_t user_ns);

/* check.c: what the daemon takes from /proc before it believes (DESIGN 3.1 step 5) */
struct check_expected {
	pid_t pid;
	uint32_t host_id;
	uint64_t ns[NS_COUNT]; /* inode; 0: not checked */
	bool is_node;
};
warn_unused int check_child(const struct check_expected *want, struct err *err);
