/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line (pipsqueak), a client of the daemon.
 *
 * What the verbs share. Start-up time matters: the whole command adds a few milliseconds to a run,
 * so nothing heavy is linked and nothing is done before it is needed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

struct view;

struct dirs {
	char *state, *cache, *run; /* the daemon's */
	char *user_cache;	   /* the caller's own: what the client itself keeps */
	char *base;		   /* --dir or PIPSQUEAK_DIR; NULL: the defaults */
	char *lib;		   /* our files for sandboxes; NULL: not found */
	char *daemon;		   /* pipsqueakd; NULL: not found */
};

/* dirs.c */
warn_unused int dirs_find(const char *dir_option, struct dirs *out, struct err *err);
void dirs_done(struct dirs *d);

/* connect.c: a connection to one of the daemon's sockets ("api.sock": stream, "run.sock": packets).
 * With start, a daemon is started when none runs. */
warn_unused int connect_daemon(const struct dirs *d, const char *socket_name, bool start,
			       int *out_fd, struct err *err);

/* http.c: one HTTP/1.1 request over the API socket. */
struct http_ask {
	const char *method, *path;
	const char *headers;	/* whole lines; NULL: none beyond the usual */
	const struct buf *body; /* NULL: none */
	struct view *view;	/* what goes on meanwhile is shown here; NULL: it is not asked */
};
struct http_reply {
	int status;
	struct buf body;
	char timing[512]; /* the Server-Timing header, or "" */
};
warn_unused int http_request(int fd, const struct http_ask *ask, struct http_reply *out,
			     struct err *err);
void http_reply_done(struct http_reply *r);
/* The error that a reply with status >= 400 carries; prints a traceback to stderr when there is
 * one. */
int http_error(const struct http_reply *r, struct err *err);
/* connect + request + error check in one, for the simple verbs. */
warn_unused int api_call(const struct dirs *d, bool start, const char *method, const char *path,
			 struct http_reply *out, struct err *err);

/* pep723.c: the script block's TOML with comment marks removed; NULL: none. More than one block is
 * an error. Reference implementation's meaning (packaging.python.org, inline script metadata). */
warn_unused int pep723_extract(const char *script, size_t len, char **out, struct err *err);

/* zip.c: a directory or a file as a zip archive with stored members. */
warn_unused int zip_make(const char *path, struct buf *out, struct err *err);

/* lock.c: the whole file at once, by a temporary one beside it. */
warn_unused int file_replace(const char *path, const void *data, size_t len, struct err *err);

/* interpreter.c: --python PATH or VERSION: the real interpreter and its prefix; the caller frees.
 */
warn_unused int interpreter_find(const char *asked, char **out_path, char **out_prefix,
				 struct err *err);
/* pip's settings as JSON, from python/pipconf.py, cached by what they depend on. */
warn_unused int pip_settings(const struct dirs *d, char **out, struct err *err);
/* Begin with that, for the next pip_settings() to find, while a daemon starts: a process to be
 * waited for first. 0: it is cached. */
pid_t pip_settings_ahead(const struct dirs *d);
/* With --offline and these --index URLs. */
warn_unused int pip_settings_adjust(char **settings, bool offline, const char *const *indexes,
				    int n, struct err *err);

/* mounts.c (root only): detached mounts whose files show as the host id that scripts carry. */
struct mounts {
	int userns; /* maps 0 -> that id; -1 until needed */
};
warn_unused int mounts_open(struct mounts *m, unsigned int host_id, struct err *err);
warn_unused int mounts_detach(const struct mounts *m, const char *path, bool writable, int *out,
			      struct err *err);
/* Without a change of ids: an interpreter's prefix. */
warn_unused int mounts_detach_plain(const char *path, int *out, struct err *err);

/* verbs.c */
bool is_function_name(const char *s);

/* The verbs: argv[0] is the verb. They return an exit code. */
int verb_run(const struct dirs *d, int argc, char **argv);
int verb_lock(const struct dirs *d, int argc, char **argv);
int verb_deploy(const struct dirs *d, int argc, char **argv);
int verb_invoke(const struct dirs *d, int argc, char **argv);
int verb_ls(const struct dirs *d, int argc, char **argv);
int verb_rm(const struct dirs *d, int argc, char **argv);
int verb_logs(const struct dirs *d, int argc, char **argv);
int verb_status(const struct dirs *d, int argc, char **argv);
int verb_tree(const struct dirs *d, int argc, char **argv);
int verb_top(const struct dirs *d, int argc, char **argv);
int verb_cache(const struct dirs *d, int argc, char **argv);
int verb_simulate(const struct dirs *d, int argc, char **argv);
int verb_history(const struct dirs *d, int argc, char **argv);
int verb_fit(const struct dirs *d, int argc, char **argv);
int verb_daemon(const struct dirs *d, int argc, char **argv);

/* "pipsqueak: text" to stderr; returns the exit code of the error's kind. */
int complain(const struct err *err);
int usage_error(const char *verb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
