/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (libuv loop; nothing blocks).
 *
 * Functions, their versions, instances and queues, one call's life; and scripts (`run`), which are
 * functions of one call with descriptors. Knows what nodes hold and what functions load (profiles,
 * kept in SQLite) and asks room policy which node to fork from, to make, or to drop.
 *
 * Every accepted call is answered exactly once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"

struct functions;
struct index;
struct jail;
struct store;
struct zygote_node;
struct zygotes;

struct functions_config {
	uv_loop_t *loop;
	const char *state_dir; /* state.db, apps/<name>/<version>/ */
	struct jail *jail;
	struct index *index;
	struct store *store;
	struct zygotes *zygotes;
	const char *python;    /* the default interpreter, absolute */
	uint64_t memory_bytes; /* budget for sleeping nodes and warm instances */
	const char *lib_dir;   /* for what it says of modules (forksafe.json); NULL: none */
	const char *tree;      /* text of a tree to start from (`pipsqueak fit`); NULL: none */
	bool no_tree;	       /* nothing sleeps but the interpreters' roots */
	uint64_t root_age_s;   /* roots older than this are made anew; 0: never */
	/* A node died that is not this room's (the resolver's); may be NULL. */
	void (*other_node_gone)(void *ctx, struct zygote_node *node);
	void *other_ctx;
};

warn_unused int functions_open(const struct functions_config *config, struct functions **out,
			       struct err *err);
/* Refuse new calls, let running ones end (at most grace_ms), then call done. */
void functions_drain(struct functions *f, uint64_t grace_ms, void (*done)(void *arg), void *arg);
/* For the store: does anything here that lives, or a deployed function, need the environment? */
bool functions_use_env(const struct functions *f, const char *env_path);
/* For the store: append the modules of this dist that anything was seen loading, one a line; those
 * of another version when nothing is known of this one. Is it this one? */
bool functions_loads(const struct functions *f, const char *dist, const char *version,
		     struct buf *out);
/* The machine is short of memory: the tree shrinks first. */
void functions_pressed(struct functions *f);
void functions_close(struct functions *f);

typedef void (*functions_progress_fn)(void *arg, const char *line);
/* json describes the deployed version, or NULL and err says why nothing changed. */
typedef void (*functions_done_fn)(void *arg, const char *json, const struct err *err);

struct function_upload {
	const char *name; /* [a-z0-9][a-z0-9_-]{0,62} */
	const void *zip;  /* the directory as a zip file; checked member by member */
	size_t zip_bytes;
	const char *python;	  /* NULL: pipsqueak.toml's, else the default */
	const char *prefix;	  /* its prefix; NULL: two levels above python */
	const char *index_url;	  /* NULL: pip's */
	const char *pip_settings; /* JSON of the client's pip configuration, or NULL */
	/* JSON of what else counts for the requirements: groups, extras, exclude_newer, pre (see
	 * index/index.h), offline, and env: the variables that a requirements file names. NULL:
	 * none */
	const char *options;
};
void functions_deploy(struct functions *f, const struct function_upload *upload,
		      functions_progress_fn progress, functions_done_fn done, void *arg);
warn_unused int functions_remove(struct functions *f, const char *name, struct err *err);

/* Stages of one call in microseconds; UINT64_MAX: did not happen. */
struct function_timing {
	uint64_t queue_us, fork_us, sandbox_us, import_us, handler_us, total_us;
	const char *start; /* "warm", "fork" or "cold" (from a root) */
};

struct function_reply {
	const struct err *err; /* NULL: success */
	const char *body; /* JSON, or bytes when is_bytes; a traceback when err is ERR_HANDLER */
	size_t body_len;
	bool is_bytes;
	struct function_timing timing;
};
typedef void (*function_reply_fn)(void *arg, const struct function_reply *reply);

struct function_call;
/* Never NULL; done is called exactly once, maybe before this returns. */
struct function_call *functions_call(struct functions *f, const char *name, const void *event,
				     size_t event_bytes, function_reply_fn done, void *arg);
/* The client is gone: done is not called any more; a running handler is ended (its instance killed
 * when it does not return before its timeout). */
void functions_cancel(struct function_call *call);

/* A script. Strings NULL when absent; descriptors are borrowed for the call of functions_run(). */
struct run_mount {
	int tree;	  /* detached mount, or -1: `path` as the daemon sees it */
	const char *path; /* where it is, outside and inside */
	bool writable;
};
/* A wheel that the requirements name: where it is, and open for reading. */
struct run_wheel {
	const char *path;
	int fd;
};
struct run_request {
	/* "file" "stdin" "code" "module" "prompt" "command"; "lock": nothing runs, the lock goes to
	 * result */
	const char *kind;
	const char *code;	 /* path, code or module name */
	const char *const *argv; /* sys.argv, NULL-terminated */
	const char *const *orig_argv;
	const char *const *env; /* NAME=VALUE for the script, NULL-terminated */
	const char *cwd;
	const char *python, *prefix;
	const char *const *with; /* requirement lines */
	const char *requirements, *pep723, *index_url, *pip_settings;
	const char *inputs; /* more of what is required: see index/index.h */
	struct run_wheel wheels[LIMIT_LOCAL_WHEELS];
	size_t nwheels;
	int result;		  /* a memfd for pylock.toml; -1: none */
	const char *const *flags; /* words, e.g. "allow-all"; "upgrade", "offline" */
	int stdio[3];
	struct run_mount mounts[24];
	size_t nmounts;
	int tty; /* detached mount of what is to be /dev/tty; -1: none */
};
struct run_result {
	const struct err *err; /* NULL: it ran */
	int status;	       /* wait status when err is NULL */
	bool oom;
	bool again; /* not started, and what the client sent is used up: it may ask once more */
	struct function_timing timing;
	uint64_t resolve_us, install_us; /* of this run; 0: nothing to do */
};
struct run_events {
	functions_progress_fn progress;
	void (*started)(void *arg, const struct run_result *so_far); /* user code begins */
	void (*stopped)(void *arg);				     /* by a signal, as by Ctrl-Z */
	void (*ended)(void *arg, const struct run_result *result);   /* exactly once, last */
};
struct run;
struct run *functions_run(struct functions *f, const struct run_request *r,
			  const struct run_events *events, void *arg);
void run_signal(struct run *run, int signo);
void run_cancel(struct run *run); /* the client is gone: end the script; no more events */

/* Descriptions as JSON objects (shapes in docs/API.md). */
warn_unused int functions_list(struct functions *f, struct buf *out, struct err *err);
warn_unused int functions_logs(struct functions *f, const char *name, struct buf *out,
			       struct err *err); /* plain text */
warn_unused int functions_tree(struct functions *f, struct buf *out, struct err *err);
/* What a function's next cold start would be, and why; ERR_NOT_FOUND. */
warn_unused int functions_explain(struct functions *f, const char *name, struct buf *out,
				  struct err *err);
/* A node: who uses it, what it saves and costs; ERR_NOT_FOUND. */
warn_unused int functions_node(struct functions *f, uint32_t id, struct buf *out, struct err *err);
warn_unused int functions_history(struct functions *f, struct buf *out, struct err *err);
warn_unused int functions_status(struct functions *f, struct buf *out, struct err *err);
uint64_t functions_idle_us(struct functions *f); /* since the last call or run ended; 0: busy */
