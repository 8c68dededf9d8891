/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * What the files of this room share. One struct functions, one loop; the pool unpacks and plans.
 */
#pragma once

#include <uv.h>

#include "base/limits.h"
#include "base/mem.h"
#include "function/function.h"
#include "function/intern.h"
#include "function/knowledge.h"
#include "function/python.h"
#include "function/settings.h"
#include "function/state.h"
#include "jail/jail.h"
#include "store/store.h"
#include "zygote/zygote.h"

struct function;
struct instance;

/* What a script's requirements were resolved to, by index_request_key(). */
struct kept_lock {
	char key[65];
	struct lock *lock; /* NULL: none */
};

struct functions {
	struct functions_config config; /* its strings are copies */
	char *state_dir, *python, *apps_dir;
	struct state *state;
	struct intern names;	/* modules, dists, absent things, variables, locks */
	struct intern fn_names; /* function names -> by_name */
	struct function **by_name;
	struct version *retired; /* those that still work on something */
	uint32_t by_name_cap, nfunctions;
	struct interp *interps;
	uint32_t next_interp_id;
	struct subject *scripts;
	uint32_t nscripts;
	struct kept_lock locks[LIMIT_LOCKS]; /* a ring */
	uint32_t next_lock;
	struct node *nodes[LIMIT_NODES];
	uint32_t nnodes, next_node_id, growing;
	uint64_t gen, views_gen;   /* gen counts changes of the tree */
	struct ids absent_known;   /* every absent thing of any node, in order of arrival */
	struct policy_node *views; /* of the nodes, as of views_gen */
	struct growth *growths;	   /* waiting or being made */
	struct items items;
	struct optimiser opt;
	char **unforkable; /* lines for `tree` */
	uint32_t nunforkable;
	struct cold_dist *cold; /* warm.c */
	uint32_t ncold;
	uv_timer_t housekeeping, renewal;
	bool housekeeping_on, draining, closing;
	uint32_t calls, runs, instances, idle_instances, spares, deploys, asking; /* going on now */
	uint64_t total_calls, total_errors, total_runs, started_us, last_end_us, last_call_us;
	uint64_t choose_ns, grow_ns; /* CPU time of choosing a node; of what makes the tree */
	struct starts call_starts, run_starts;
	struct instance *idle_oldest, *idle_newest; /* warm ones, of all functions */
	void (*drained)(void *arg);
	void *drained_arg;
	uv_timer_t drain_timer;
	int open_timers;
	uint32_t next_request;
};

/* A deployed version of a function. Lives until its last instance has ended. */
struct version {
	struct function *fn;
	uint32_t number;
	char *dir;
	struct subject *subject;
	struct function_settings set;
	double deployed;
	int log_w;	/* instances' stdout and stderr */
	uv_poll_t *log; /* reads the other end */
	struct instance *instances;
	uint32_t ninstances, nspares, want_spares;
	uint32_t recent_starts, untidy; /* calls in a row that left something in their cell */
	uint64_t last_start_us;
	uint32_t untimed_starts; /* since imports were last timed, at timed_us (times.c) */
	uint64_t timed_us;
	bool retired;		      /* no new instances; ends when idle */
	struct version *next, **link; /* while it is retired: of all that are */
};

struct log_ring {
	struct buf text;
	uint64_t second, in_second; /* flood limit */
	bool mid_line, dropping;
};

struct function {
	struct functions *f;
	char *name;
	struct version *live; /* NULL: removed, or its first deploy goes on */
	uint32_t last_number; /* a version's number is never given again */
	bool deploying;
	struct function_call *first, *last; /* queue */
	uint32_t queued, running;
	uint64_t calls, errors;
	struct log_ring ring;
};

struct function_call {
	struct function *fn;
	struct function_call *next;
	struct instance *inst; /* NULL: queued */
	char *event;
	size_t event_bytes;
	uint32_t id;
	uint64_t begin_us, placed_us;
	struct function_timing timing;
	function_reply_fn done; /* NULL: cancelled */
	void *arg;
};

enum instance_state {
	INSTANCE_STARTING,
	INSTANCE_SPARE, /* born ahead of any call, waits for its first */
	INSTANCE_BUSY,
	INSTANCE_SWEEPING, /* a spare that forks ends what its call left */
	INSTANCE_IDLE,
	INSTANCE_ENDING
};

struct instance {
	struct version *v;
	struct instance *next, **link;	/* of its version */
	struct instance *older, *newer; /* while idle, or a spare */
	struct zygote_child *child;	/* NULL: not born, or ended */
	struct function_call *call;	/* what it works on */
	enum instance_state state;
	uint32_t node_id, calls;
	bool from_root, is_spare, is_listed;
	struct cpu_watch *cpu;		   /* of the call that it works on; NULL: not limited */
	bool timed;			   /* this call tells how long what it imports takes */
	bool recorded, profile_due, forks; /* forks: a child of its own for each call */
	uv_timer_t timer; /* BUSY: the deadline; SPARE, IDLE: retirement; else: patience */
};

/* instance.c */
void instance_start(struct version *v, struct function_call *call);
void instance_call(struct instance *inst, struct function_call *call);
void instance_end(struct instance *inst);    /* kills; what it works on is answered by `ended` */
void instance_forget(struct instance *inst); /* at the close: nobody calls back any more */
struct instance *instance_idle(struct version *v); /* the warmest, or NULL */
bool instance_spare(struct version *v); /* forks one ahead; false: it cannot be done now */
void instance_count(struct instance *inst);
void instance_uncount(struct instance *inst);

/* Its call has used too much of something: answered, and the instance ended. */
void instance_exceeds(struct instance *inst, const struct err *err);

/* cpu.c: CPU time of a call */
void cpu_begin(struct instance *inst); /* a call is being sent */
void cpu_end(struct instance *inst);
void cpu_describe(const struct instance *inst, struct err *err);

/* spare.c */
void spare_become(struct instance *inst);	/* its call is answered */
struct instance *spare_take(struct version *v); /* for a call that starts cold; NULL: none */
void spare_refill(struct version *v);
void spare_unused(struct instance *inst); /* it waited long enough */
void spare_node_made(struct functions *f, const struct subject *s);

/* call.c */
void call_place(struct function *fn, struct function_call *call);
void call_next(struct function *fn); /* an instance became free or ended: serve the queue */
void call_answer(struct function_call *call, struct function_reply *reply); /* frees the call */
void call_fail(struct function_call *call, const struct err *err);

/* function.c */
struct function *function_find(struct functions *f, const char *name);
struct function *function_make(struct functions *f, const char *name);
bool function_name_ok(const char *name);
struct version *version_new(struct function *fn, uint32_t number);
/* Of its profile; a name that is removed and deployed again has another. Free it. */
char *version_key(const struct version *v);
void version_activate(struct version *v); /* retires the version before */
void version_retire(struct version *v);	  /* frees it when nothing runs any more */
void version_check(struct version *v);
void functions_went_quiet(struct functions *f); /* a call, run or deploy ended */
void functions_housekeep(struct functions *f);	/* arm the timer */
void functions_housekeep_soon(struct functions *f, uint64_t ms);

/* envs.c: tell the store, after functions came or went. */
void functions_keep_envs(struct functions *f);

/* describe.c */
warn_unused int describe_version(const struct version *v, struct buf *out, struct err *err);

/* script.c */
void scripts_close(struct functions *f);
