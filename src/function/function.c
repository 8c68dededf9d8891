/* SPDX-License-Identifier: Apache-2.0 */
#include "function/function.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "function/logs.h"
#include "function/priv.h"
#include "function/upload.h"

#define HOUSEKEEPING_MS 1000

bool function_name_ok(const char *name)
{
	static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
	static const char rest[] = "abcdefghijklmnopqrstuvwxyz0123456789_-";

	return *name && strchr(first, *name) && strlen(name) <= 63 &&
	       strspn(name, rest) == strlen(name);
}

struct function *function_find(struct functions *f, const char *name)
{
	uint32_t id = intern_find(&f->fn_names, name);

	return id == INTERN_NONE || id >= f->by_name_cap ? NULL : f->by_name[id];
}

struct function *function_make(struct functions *f, const char *name)
{
	struct function *fn = function_find(f, name);
	uint32_t id, cap = f->by_name_cap;

	if (fn || f->nfunctions >= LIMIT_FUNCTIONS)
		return fn;
	id = intern_put(&f->fn_names, name);
	if (id == INTERN_NONE)
		return NULL;
	while (id >= cap)
		cap = cap ? cap * 2 : 64;
	if (cap > f->by_name_cap) {
		f->by_name = mem_resize(f->by_name, cap * sizeof(*f->by_name));
		memset(f->by_name + f->by_name_cap, 0,
		       (cap - f->by_name_cap) * sizeof(*f->by_name));
		f->by_name_cap = cap;
	}
	fn = mem_new(struct function);
	fn->f = f;
	fn->name = mem_strdup(name);
	fn->ring.text.max = LIMIT_LOG_BYTES + KIB;
	f->by_name[id] = fn;
	f->nfunctions++;
	return fn;
}

struct version *version_new(struct function *fn, uint32_t number)
{
	struct version *v = mem_new(struct version);

	v->fn = fn;
	v->number = number;
	v->dir = mem_printf("%s/%s/%u", fn->f->apps_dir, fn->name, number);
	v->log_w = -1;
	function_settings_init(&v->set);
	return v;
}

char *version_key(const struct version *v)
{
	return mem_printf("function %s %u %.3f", v->fn->name, v->number, v->deployed);
}

struct removal {
	uv_work_t work;
	struct functions *f;
	char *dir;
};

static void remove_dir(uv_work_t *work)
{
	struct removal *r = (struct removal *)work;
	struct err err;

	if (fd_remove_tree(AT_FDCWD, r->dir, &err) < 0)
		log_warn("function", "removing a version's directory: %s", err.text);
}

static void removed_dir(uv_work_t *work, int status)
{
	struct removal *r = (struct removal *)work;

	free(r->dir);
	free(r);
}

/* Nothing of this version runs any more (S5: only now may its files go). */
void version_check(struct version *v)
{
	struct removal *r;

	if (!v->retired || v->ninstances || v->nspares)
		return;
	*v->link = v->next;
	if (v->next)
		v->next->link = v->link;
	logs_close(v);
	if (!v->fn->f->closing) {
		r = mem_new(struct removal);
		r->dir = steal(v->dir);
		uv_queue_work(v->fn->f->config.loop, &r->work, remove_dir, removed_dir);
	}
	subject_unref(v->subject);
	function_settings_done(&v->set);
	free(v->dir);
	free(v);
}

void version_retire(struct version *v)
{
	struct instance *inst = v->instances, *next;
	struct functions *f = v->fn->f;

	v->retired = true;
	v->link = &f->retired;
	v->next = f->retired;
	if (v->next)
		v->next->link = &v->next;
	f->retired = v;
	for (; inst; inst = next) {
		next = inst->next;
		if (inst->state == INSTANCE_IDLE || inst->state == INSTANCE_SPARE)
			instance_end(inst);
	}
	version_check(v);
}

void version_activate(struct version *v)
{
	struct version *old = v->fn->live;

	v->fn->live = v;
	if (old)
		version_retire(old);
	call_next(v->fn);
}

int functions_remove(struct functions *f, const char *name, struct err *err)
{
	struct function *fn = function_find(f, name);
	struct version *v = fn ? fn->live : NULL;

	if (!v)
		return err_set(err, ERR_NOT_FOUND, "there is no function '%.80s'", name);
	if (state_remove_function(f->state, name, err) < 0)
		return -1;
	fn->live = NULL;
	functions_keep_envs(f);
	version_retire(v);
	call_next(fn); /* what waits is told */
	buf_reset(&fn->ring.text);
	functions_housekeep(f);
	return 0;
}

static void on_housekeeping(uv_timer_t *timer)
{
	struct functions *f = timer->data;

	f->housekeeping_on = false;
	grow_kick(f);
	optimise_tick(f);
	if (python_tidy(f) || f->calls || f->runs || f->growths || f->opt.anew || f->opt.nnoted)
		functions_housekeep(f);
}

/* One shot, armed by activity: an idle daemon has no timer and uses no CPU. */
void functions_housekeep(struct functions *f)
{
	if (f->housekeeping_on || f->closing)
		return;
	f->housekeeping_on = true;
	uv_timer_start(&f->housekeeping, on_housekeeping, HOUSEKEEPING_MS, 0);
}

void functions_housekeep_soon(struct functions *f, uint64_t ms)
{
	if (f->closing || ms >= HOUSEKEEPING_MS)
		return;
	f->housekeeping_on = true;
	uv_timer_start(&f->housekeeping, on_housekeeping, ms, 0);
}

static void drained(struct functions *f)
{
	void (*done)(void *arg) = f->drained;

	f->drained = NULL;
	uv_timer_stop(&f->drain_timer);
	if (done)
		done(f->drained_arg);
}

/* Somebody waits for an answer, or a sandbox's answer is on its way to us. */
static bool is_at_work(const struct functions *f)
{
	return f->calls || f->runs || f->deploys || f->asking || optimise_busy(f);
}

void functions_went_quiet(struct functions *f)
{
	f->last_end_us = clock_us();
	if (f->closing)
		return;
	functions_housekeep(f);
	if (!f->calls && f->growths)
		grow_kick(f);
	if (f->drained && !is_at_work(f))
		drained(f);
}

uint64_t functions_idle_us(struct functions *f)
{
	if (is_at_work(f))
		return 0;
	return clock_us() - f->last_end_us + 1;
}

static void on_drain_timer(uv_timer_t *timer)
{
	struct functions *f = timer->data;

	log_warn("function", "%u calls and %u scripts did not end in time", f->calls, f->runs);
	drained(f);
}

void functions_drain(struct functions *f, uint64_t grace_ms, void (*done)(void *arg), void *arg)
{
	f->draining = true;
	f->drained = done;
	f->drained_arg = arg;
	demand_save(f, true);
	while (f->idle_oldest)
		instance_end(f->idle_oldest);
	uv_timer_start(&f->drain_timer, on_drain_timer, grace_ms, 0);
	if (!is_at_work(f))
		drained(f);
}

static void on_gone(void *ctx, struct zygote_node *z)
{
	struct functions *f = ctx;

	struct node *n = zygote_node_data(z);

	for (uint32_t i = 0; n && i < f->nnodes; i++)
		if (f->nodes[i] == n) {
			knowledge_gone(f, n);
			return;
		}
	if (f->config.other_node_gone)
		f->config.other_node_gone(f->config.other_ctx, z);
}

static struct interp *record_of(struct functions *f, const struct state_function *row,
				const struct function_settings *set, struct err *err)
{
	struct interp *p = python_record(
		f, &(struct python_name){ row->python, row->prefix,
					  set->own_root ? set->tenant : NULL });

	if (p)
		p->kept = true;
	else
		err_set(err, ERR_CORRUPT, "'%s' cannot be its interpreter", row->python);
	return p;
}

/* A function as it was before the restart. A row that does not parse is left out, and said. */
static void load_function(void *ctx, const struct state_function *row)
{
	struct functions *f = ctx;
	auto_free char *key = NULL;
	struct function *fn;
	struct version *v;
	struct lock *lock = NULL;
	struct interp *interp;
	struct err err = ERR_INIT;
	const struct store_env *env;

	fn = function_name_ok(row->name) ? function_make(f, row->name) : NULL;
	if (!fn || lock_parse(row->lock, strlen(row->lock), &lock, &err) < 0) {
		log_error("function", "cannot load function '%s': %s", row->name, err.text);
		return;
	}
	v = version_new(fn, row->version);
	function_settings_done(&v->set);
	if (function_settings_parse(row->settings, strlen(row->settings), &v->set, &err) < 0 ||
	    !(interp = record_of(f, row, &v->set, &err)) || logs_open(v, &err) < 0 ||
	    access(v->dir, R_OK) < 0) {
		log_error("function", "cannot load function '%s': %s", row->name,
			  err.kind ? err.text : "its directory is gone");
		lock_free(lock);
		logs_close(v);
		function_settings_done(&v->set);
		free(v->dir);
		free(v);
		return;
	}
	v->deployed = row->deployed;
	key = version_key(v);
	v->subject = subject_new(f, key, interp, lock);
	auto_close int dirfd = open(v->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	v->subject->own = upload_own_names(dirfd);
	subject_set_env(v->subject, (const char *const *)v->set.env);
	subject_set_tenant(v->subject, v->set.isolate ? v->set.tenant : NULL);
	env = lock->ndists ? store_find_env(f->config.store, lock) : NULL;
	v->subject->env_path = env ? env->path : NULL;
	subject_load(v->subject);
	demand_load(f, v->subject);
	fn->live = v;
	if (v->subject->env_path)
		priors_match(f, v->subject);
}

/* Whatever below apps/ is not a live version was left by a deploy or a removal cut short. */
static void remove_leftovers_of(struct functions *f, int appsfd, const char *name)
{
	struct function *fn = function_find(f, name);
	int fd = openat(appsfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	struct err err;
	char live[16] = "";

	if (fn && fn->live)
		snprintf(live, sizeof(live), "%u", fn->live->number);
	while (dir && (e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		    strcmp(e->d_name, live) != 0 && fd_remove_tree(fd, e->d_name, &err) < 0)
			log_warn("function", "removing a leftover: %s", err.text);
	if (dir)
		closedir(dir);
	if (!*live && unlinkat(appsfd, name, AT_REMOVEDIR) < 0)
		log_warn("function", "removing a leftover: '%s': %s", name, strerror(errno));
}

static int load_all(struct functions *f, struct err *err)
{
	struct dirent *e;
	DIR *dir;

	if (state_each_function(f->state, load_function, f, err) < 0)
		return -1;
	dir = opendir(f->apps_dir);
	if (!dir)
		return err_sys(err, errno, "opening the directory of functions");
	while ((e = readdir(dir)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			remove_leftovers_of(f, dirfd(dir), e->d_name);
	closedir(dir);
	return 0;
}

static void on_first_root(void *arg, struct interp *interp, const struct err *err)
{
	struct functions *f = arg;

	if (!interp && !f->draining)
		log_error("function", "%s", err->text);
	if (interp)
		optimise_kick(f); /* what was called before the restart */
}

int functions_open(const struct functions_config *config, struct functions **out, struct err *err)
{
	struct functions *f = mem_new(struct functions);
	auto_free char *path = mem_printf("%s/state.db", config->state_dir);

	f->config = *config;
	f->state_dir = mem_strdup(config->state_dir);
	f->python = mem_strdup(config->python);
	f->apps_dir = mem_printf("%s/apps", config->state_dir);
	f->config.state_dir = f->state_dir;
	f->config.python = f->python;
	f->started_us = f->last_end_us = clock_us();
	f->gen = 1;
	intern_put(&f->names, ""); /* 0 means "none" in room policy's views */
	uv_timer_init(config->loop, &f->housekeeping);
	uv_timer_init(config->loop, &f->drain_timer);
	f->housekeeping.data = f->drain_timer.data = f;
	uv_unref((uv_handle_t *)&f->housekeeping);
	renew_open(f);
	zygotes_on_gone(config->zygotes, on_gone, f);
	if (fd_mkdirs(f->apps_dir, 0700, err) < 0 || state_open(path, &f->state, err) < 0) {
		functions_close(f);
		return err_wrap(err, "opening the functions");
	}
	optimise_open(f);
	if (priors_open(f, config->tree, err) < 0 || load_all(f, err) < 0) {
		functions_close(f);
		return err_wrap(err, "opening the functions");
	}
	functions_keep_envs(f);
	log_info("function", "%u functions", f->nfunctions);
	/* The default interpreter's root: the first call should find it asleep. */
	python_get(f, &(struct python_name){ NULL }, on_first_root, f);
	*out = f;
	return 0;
}

static void free_functions(uv_handle_t *handle)
{
	struct functions *f = handle->data;

	if (--f->open_timers) /* libuv closes handles in an order of its own */
		return;
	free(f->state_dir);
	free(f->python);
	free(f->apps_dir);
	free(f);
}

static void close_version(struct version *v)
{
	while (v->instances) { /* their processes end with the zygotes */
		struct instance *inst = v->instances;

		v->instances = inst->next;
		instance_forget(inst);
	}
	v->ninstances = v->nspares = 0;
	version_check(v);
}

static void close_function(struct function *fn)
{
	buf_done(&fn->ring.text);
	free(fn->name);
	free(fn);
}

/* Call after zygotes_close(): no child of ours is left to call back. */
void functions_close(struct functions *f)
{
	if (!f)
		return;
	f->closing = true;
	optimise_close(f);
	priors_close(f);
	grow_close(f);
	for (uint32_t i = 0; i < f->by_name_cap; i++)
		if (f->by_name[i] && f->by_name[i]->live)
			version_retire(f->by_name[i]->live);
	while (f->retired)
		close_version(f->retired);
	for (uint32_t i = 0; i < f->by_name_cap; i++)
		if (f->by_name[i])
			close_function(f->by_name[i]);
	free(f->by_name);
	scripts_close(f);
	while (f->scripts) {
		struct subject *s = f->scripts;

		f->scripts = s->next;
		subject_unref(s);
	}
	while (f->nnodes)
		knowledge_gone(f, f->nodes[f->nnodes - 1]);
	free(f->views);
	items_done(&f->items);
	python_close(f);
	ids_done(&f->absent_known);
	intern_done(&f->names);
	intern_done(&f->fn_names);
	state_close(f->state);
	f->open_timers = 3;
	renew_close(f, free_functions);
	uv_close((uv_handle_t *)&f->housekeeping, free_functions);
	uv_close((uv_handle_t *)&f->drain_timer, free_functions);
}
