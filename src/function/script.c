/* SPDX-License-Identifier: Apache-2.0 */
#include "function/script.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "function/locals.h"
#include "function/priv.h"
#include "function/times.h"
#include "function/upload.h"
#include "jail/jail.h"
#include "jail/job.h"

#define RUN_PIDS 4096

/* One script's life: interpreter -> lock -> environment -> fork -> GO -> its end. */
struct run {
	struct functions *f;
	struct script script;
	struct locals locals;
	struct interp *interp;
	struct lock *lock;
	struct subject *subject;
	const char *env_path;
	struct zygote_child *child;
	uint32_t node_id;
	bool from_root, cancelled, ended;
	struct wire_msg profile; /* learnt from after the client has its answer */
	bool has_profile;
	char lock_key[65];
	uint64_t begin_us, stage_us;
	struct run_result result;
	const struct run_events *events;
	void *arg;
};

static void run_free(struct run *run)
{
	struct functions *f = run->f;

	if (run->has_profile)
		wire_done(&run->profile);
	script_done(&run->script);
	locals_done(&run->locals);
	lock_free(run->lock);
	if (run->subject)
		subject_unref(run->subject);
	free(run);
	f->runs--;
	functions_went_quiet(f);
}

static bool wants_lock(const struct run *run)
{
	return strcmp(run->script.r.kind, "lock") == 0;
}

static void run_end(struct run *run, const struct err *err)
{
	run->result.err = err;
	run->result.timing.total_us = clock_us() - run->begin_us;
	if (!run->ended && run->script.r.kind && !wants_lock(run) && !run->result.again)
		usage_run(run->f, run->result.timing.start);
	run->ended = true;
	if (!run->cancelled)
		run->events->ended(run->arg, &run->result);
	run->cancelled = true;
}

static void run_fail(struct run *run, const struct err *err)
{
	run_end(run, err);
	run_free(run);
}

static void learn(struct run *run)
{
	struct zygote_profile profile;
	struct err err;

	if (!run->has_profile)
		return;
	if (zygote_profile_parse(&run->profile, &profile, &err) < 0) {
		log_debug("function", "a script's profile: %s", err.text);
		return;
	}
	times_learn(run->subject, &profile);
	zygote_profile_done(&profile);
}

static void on_message(void *ctx, struct zygote_child *child, struct wire_msg *m)
{
	struct run *run = ctx;
	struct err err = ERR_INIT;

	if (m->type == WIRE_PROFILE && !run->has_profile && m->body.len <= LIMIT_PROFILE_BYTES) {
		wire_init(&run->profile, m->type, m->id);
		must(buf_put(&run->profile.body, m->body.data, m->body.len, &err) == 0);
		run->has_profile = true;
	} else if (m->type == WIRE_DONE) {
		/* It has let go of all it held; nobody waits until its memory is freed. Whatever it
		 * is, it does not outlive this. */
		run->result.status = (int)wire_get_u64(m, WIRE_T_STATUS, 0) & 0xffff;
		run_end(run, NULL);
		zygote_child_kill(child);
	} else if (m->type == WIRE_FAILED) {
		if (wire_get_err(m, &err) == 0)
			err_set(&err, ERR_START, "the script could not be started");
		run_end(run, &err);
		zygote_child_kill(child);
	}
}

static void on_ended(void *ctx, struct zygote_child *child, const struct zygote_end *end)
{
	struct run *run = ctx;

	run->child = NULL;
	run->result.status = end->status;
	run->result.oom = end->oom;
	run_end(run, NULL);
	learn(run); /* after the answer: the shell's prompt does not wait for it */
	run_free(run);
}

static void on_stopped(void *ctx)
{
	struct run *run = ctx;

	if (!run->cancelled && run->events->stopped)
		run->events->stopped(run->arg);
}

static const struct zygote_events run_child_events = { on_message, on_ended, on_stopped };

static void put_list(struct wire_msg *m, uint8_t tag, const char *const *list)
{
	auto_buf struct buf text = { 0 };

	for (; list && *list; list++)
		wire_list_add(&text, *list);
	wire_put(m, tag, text.data, text.len);
}

static void put_flags(struct run *run, struct wire_msg *m)
{
	auto_buf struct buf flags = { 0 };

	for (const char *const *f = run->script.r.flags; f && *f; f++)
		wire_list_add(&flags, *f);
	if (run->subject->profiles < PROFILES_ENOUGH)
		wire_list_add(&flags, "record");
	wire_put(m, WIRE_T_FLAGS, flags.data, flags.len);
}

static int send_go(struct run *run, struct err *err)
{
	const struct run_request *r = &run->script.r;
	auto_msg struct wire_msg m;

	wire_init(&m, WIRE_GO, 0);
	wire_put_str(&m, WIRE_T_KIND, r->kind);
	wire_put_str(&m, WIRE_T_CODE, r->code);
	wire_put_str(&m, WIRE_T_CWD, r->cwd);
	put_list(&m, WIRE_T_ARGV, r->argv);
	put_list(&m, WIRE_T_TEXT, r->orig_argv);
	put_list(&m, WIRE_T_ENV, r->env);
	put_flags(run, &m);
	if (zygote_child_send(run->child, &m, err) < 0)
		return -1;
	zygote_child_phase(run->child, WIRE_FROM_RUN_CHILD);
	return 0;
}

static void fork_from(struct run *run, struct node *n);

/* Mounts that root's client made: each can be put into one sandbox only. */
static bool has_trees(const struct run_request *r)
{
	for (size_t i = 0; i < r->nmounts; i++)
		if (r->mounts[i].tree >= 0)
			return true;
	return r->tty >= 0;
}

static void on_born(void *arg, struct zygote_child *child, const struct zygote_timing *timing,
		    const struct err *err)
{
	struct run *run = arg;
	struct node *n = knowledge_find(run->f, run->node_id), *root = run->interp->root;
	struct err failed = ERR_INIT;

	if (n)
		n->busy--;
	if (n && !child)
		knowledge_failed(run->f, n);
	run->child = child;
	if (!child && !run->from_root && root && !run->cancelled) {
		log_warn("function", "%s: %s; trying again", run->subject->key, err->text);
		run->result.again = has_trees(&run->script.r);
		if (!run->result.again) {
			fork_from(run, root);
			return;
		}
	}
	if (!child) {
		failed = *err;
		err_wrap(&failed, "starting the script");
		run_fail(run, &failed);
		return;
	}
	if (run->cancelled) {
		zygote_child_kill(child);
		return;
	}
	run->result.timing.fork_us = timing->fork_us;
	run->result.timing.sandbox_us = timing->sandbox_us;
	run->result.timing.start = run->from_root ? "cold" : "fork";
	if (send_go(run, &failed) < 0) {
		run_end(run, &failed);
		zygote_child_kill(child);
		return;
	}
	for (int i = 0; i < 3; i++) /* a pipe must end when the script lets go of it */
		fd_close(&run->script.r.stdio[i]);
	if (run->events->started)
		run->events->started(run->arg, &run->result);
}

/* What -A allows is what there is. */
static enum zygote_net network_of(const struct run *run)
{
	if (script_has_flag(&run->script, "allow-net"))
		return ZYGOTE_NET_FULL;
	if (script_has_flag(&run->script, "allow-all") && jail_has_network(run->f->config.jail))
		return ZYGOTE_NET_ANY;
	return ZYGOTE_NET_LOOPBACK;
}

/* With -A a script sees the host's /etc. The resolver that is named there may be on the host's
 * loopback, which is not the script's: so a file with the sandbox's own stands in its place. */
static bool have_resolver(const char *file)
{
	static const char text[] = "nameserver " JAIL_RESOLVER "\n";
	auto_close int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	struct err err;

	if (fd >= 0 && (fchmod(fd, 0644) < 0 || fd_write_all(fd, text, strlen(text), &err) < 0)) {
		log_warn("function", "'%s' cannot be written", file);
		unlink(file);
	}
	return access(file, R_OK) == 0;
}

static void fork_from(struct run *run, struct node *n)
{
	const struct run_request *r = &run->script.r;
	auto_free char *resolver = mem_printf("%s/resolv.conf", run->f->state_dir), *hidden = NULL;
	struct zygote_fork spec = {
		.role = ZYGOTE_RUN,
		.net = network_of(run),
		.env_path = run->env_path,
		.stdio = { r->stdio[0], r->stdio[1], r->stdio[2] },
		.own_id = true,
		.limits = { .pids = RUN_PIDS },
	};

	for (size_t i = 0; i < r->nmounts; i++)
		spec.mounts[spec.nmounts++] = (struct zygote_mount){
			.tree = r->mounts[i].tree,
			.from = r->mounts[i].tree < 0 ? r->mounts[i].path : NULL,
			.to = r->mounts[i].path,
			.writable = r->mounts[i].writable,
		};
	if (r->tty >= 0)
		spec.mounts[spec.nmounts++] = (struct zygote_mount){
			.tree = r->tty,
			.to = "/dev/tty",
			.writable = true,
		};
	if (spec.net != ZYGOTE_NET_LOOPBACK && script_has_flag(&run->script, "allow-all"))
		hidden = realpath("/etc/resolv.conf", NULL);
	if (hidden && have_resolver(resolver))
		spec.mounts[spec.nmounts++] = (struct zygote_mount){ -1, resolver, hidden, false };
	run->node_id = n->id;
	run->from_root = !n->parent;
	n->busy++;
	usage_fork(n, run->subject);
	zygote_fork(run->f->config.zygotes, n->z, &spec, &run_child_events, run, on_born, run);
}

/* The script's record, newest first; the oldest beyond LIMIT_SCRIPTS is forgotten (not on disk). */
static struct subject *find_subject(struct run *run, const char *key)
{
	struct functions *f = run->f;
	struct subject **link = &f->scripts, *s;

	while (*link && ((*link)->interp != run->interp || strcmp((*link)->key, key) != 0))
		link = &(*link)->next;
	s = *link;
	if (s) {
		*link = s->next;
	} else {
		s = subject_new(f, key, run->interp, lock_copy(run->lock));
		s->replace = true;
		subject_load(s);
		demand_load(f, s);
		f->nscripts++;
	}
	s->next = f->scripts;
	f->scripts = s;
	if (f->nscripts > LIMIT_SCRIPTS) {
		for (link = &f->scripts; (*link)->next; link = &(*link)->next)
			continue;
		subject_unref(*link);
		*link = NULL;
		f->nscripts--;
	}
	s->refs++;
	return s;
}

static void ready_to_fork(struct run *run, const char *env_path)
{
	auto_free char *key = script_key(&run->script, run->lock);
	auto_close int dirfd = script_open_dir(&run->script);
	struct subject *s = find_subject(run, key);
	struct err err = ERR_INIT;
	struct node *n;

	run->env_path = env_path;
	run->subject = s;
	s->env_path = env_path;
	upload_names_free(s->own);
	s->own = upload_own_names(dirfd);
	subject_set_env(s, run->script.r.env);
	demand_note(run->f, s, 1);
	s->gen = 0; /* its directory and variables may be others than last time */
	n = knowledge_choose(run->f, s);
	if (!n) {
		err_set(&err, ERR_START, "the interpreter's zygote is gone; try again");
		run_fail(run, &err);
		return;
	}
	run->result.timing.queue_us = clock_us() - run->begin_us - run->result.resolve_us -
				      run->result.install_us;
	fork_from(run, n);
}

static void on_env(void *arg, const struct store_env *env, const struct err *err)
{
	struct run *run = arg;

	run->result.install_us = clock_us() - run->stage_us;
	if (run->cancelled)
		run_free(run);
	else if (!env)
		run_fail(run, err);
	else
		ready_to_fork(run, env->path);
}

static void on_progress(void *arg, const char *line)
{
	struct run *run = arg;

	if (!run->cancelled && run->events->progress)
		run->events->progress(run->arg, line);
}

/* Nothing runs: the lock itself was asked for. */
static void give_lock(struct run *run)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_INPUTS_BYTES);
	struct err err = ERR_INIT;

	if (lock_print_pylock(run->lock, run->interp->info, &text, &err) < 0 ||
	    fd_write_all(run->script.r.result, text.data, text.len, &err) < 0) {
		run_fail(run, &err);
		return;
	}
	run_end(run, NULL);
	run_free(run);
}

static void have_lock(struct run *run)
{
	struct store_python python;
	const struct store_env *env;

	if (wants_lock(run)) {
		give_lock(run);
		return;
	}
	if (!run->lock->ndists) {
		ready_to_fork(run, NULL);
		return;
	}
	env = store_find_env(run->f->config.store, run->lock);
	if (env) {
		ready_to_fork(run, env->path);
		return;
	}
	run->stage_us = clock_us();
	python_store_view(run->interp, &python);
	store_make_env(run->f->config.store, run->lock, &python, on_progress, on_env, run);
}

static void keep_ready(struct functions *f, const char *key, const struct lock *lock)
{
	struct kept_lock *kept = NULL;

	for (size_t i = 0; i < LIMIT_LOCKS && !kept; i++)
		if (strcmp(f->locks[i].key, key) == 0)
			kept = &f->locks[i];
	if (!kept)
		kept = &f->locks[f->next_lock++ % LIMIT_LOCKS];
	lock_free(kept->lock);
	memcpy(kept->key, key, sizeof(kept->key));
	kept->lock = lock_copy(lock);
}

static void on_lock(void *arg, struct lock *lock, const struct err *err)
{
	struct run *run = arg;
	auto_buf struct buf text = { 0 };
	struct err ignored;

	run->result.resolve_us = clock_us() - run->stage_us;
	run->lock = lock;
	if (lock &&
	    (lock_print(lock, &text, &ignored) < 0 ||
	     state_put(run->f->state, STATE_LOCK, run->lock_key, 0, text.data, &ignored) < 0))
		log_warn("function", "keeping a lock: %s", ignored.text);
	if (lock)
		keep_ready(run->f, run->lock_key, lock);
	if (run->cancelled)
		run_free(run);
	else if (!lock)
		run_fail(run, err);
	else
		have_lock(run);
}

void scripts_close(struct functions *f)
{
	for (size_t i = 0; i < LIMIT_LOCKS; i++)
		lock_free(steal(f->locks[i].lock));
}

/* Wheels that were built here may have been pruned: resolving again builds them again. */
static bool is_of_use(struct run *run)
{
	if (wants_lock(run) || index_has_built(run->f->config.index, run->lock) ||
	    store_find_env(run->f->config.store, run->lock))
		return true;
	lock_free(steal(run->lock));
	return false;
}

/* A set of requirements that was locked before is found by the hash of its inputs. */
static bool known_lock(struct run *run, const struct index_request *request)
{
	auto_buf struct buf text = { 0 };
	struct err err;

	index_request_key(request, run->lock_key);
	if (request->refresh)
		return false;
	for (size_t i = 0; i < LIMIT_LOCKS; i++)
		if (strcmp(run->f->locks[i].key, run->lock_key) == 0) {
			run->lock = lock_copy(run->f->locks[i].lock);
			if (!is_of_use(run))
				return false;
			index_use(run->f->config.index, request, run->lock);
			return true;
		}
	if (state_get(run->f->state, STATE_LOCK, run->lock_key, 0, &text, &err) != 1)
		return false;
	if (lock_parse(text.data, text.len, &run->lock, &err) < 0) {
		log_warn("function", "a kept lock does not parse: %s", err.text);
		return false;
	}
	if (!is_of_use(run))
		return false;
	index_use(run->f->config.index, request, run->lock);
	keep_ready(run->f, run->lock_key, run->lock);
	return true;
}

static void resolve(struct run *run)
{
	struct index_request request;

	script_index_request(&run->script, run->interp->info, &request);
	request.locals = run->locals.list;
	request.nlocals = run->locals.n;
	run->stage_us = clock_us();
	request.wheels = !wants_lock(run); /* those of a lock are not fetched */
	index_resolve(run->f->config.index, &request, on_progress, on_lock, run);
}

static void on_locals(void *arg, const struct err *err)
{
	struct run *run = arg;

	if (run->cancelled)
		run_free(run);
	else if (err)
		run_fail(run, err);
	else if (run->lock)
		have_lock(run);
	else
		resolve(run);
}

/* The caller's own wheels are read only when something is made of them. */
static void take_locals(struct run *run)
{
	struct locals_wanted wanted = { run->f->config.index, run->script.r.wheels,
					run->script.r.nwheels, &run->locals };

	locals_take(&wanted, on_locals, run);
}

static void on_python(void *arg, struct interp *interp, const struct err *err)
{
	struct run *run = arg;
	struct index_request request;

	if (run->cancelled || !interp) {
		run_fail(run, err);
		return;
	}
	run->interp = interp;
	script_index_request(&run->script, interp->info, &request);
	if (!request.with && !request.requirements && !request.pep723 && !request.inputs) {
		run->lock = lock_new(interp->cache_tag);
		lock_seal(run->lock);
		have_lock(run);
	} else if (known_lock(run, &request) &&
		   (wants_lock(run) || store_find_env(run->f->config.store, run->lock))) {
		have_lock(run);
	} else {
		take_locals(run);
	}
}

struct run *functions_run(struct functions *f, const struct run_request *r,
			  const struct run_events *events, void *arg)
{
	struct run *run = mem_new(struct run);
	struct err err = ERR_INIT;

	run->f = f;
	run->events = events;
	run->arg = arg;
	run->begin_us = clock_us();
	run->result.timing = (struct function_timing){ UINT64_MAX, UINT64_MAX, UINT64_MAX,
						       UINT64_MAX, UINT64_MAX, UINT64_MAX,
						       NULL };
	run->script.r = (struct run_request){ .stdio = { -1, -1, -1 }, .tty = -1, .result = -1 };
	f->runs++;
	f->last_call_us = clock_us();
	if (f->draining)
		err_set(&err, ERR_BUSY, "the daemon is shutting down; try again");
	else if (script_check(r, &err) == 0 && script_copy(&run->script, r, &err) == 0)
		err.kind = ERR_NONE;
	if (err.kind != ERR_NONE)
		run_fail(run, &err);
	else
		python_get(f, &(struct python_name){ run->script.r.python, run->script.r.prefix },
			   on_python, run);
	return run;
}

void run_signal(struct run *run, int signo)
{
	if (run->child)
		zygote_child_signal(run->child, signo);
}

void run_cancel(struct run *run)
{
	run->cancelled = true;
	if (run->child)
		zygote_child_kill(run->child);
}
