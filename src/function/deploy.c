/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "function/capture.h"
#include "function/locals.h"
#include "function/logs.h"
#include "function/priv.h"
#include "function/upload.h"
#include "index/index.h"

#define COMPILE_MS (60 * 1000)
#define TOML_MS (20 * 1000)

/* Prints pipsqueak.toml as JSON; a TOML error is its last line. */
static const char toml_program[] =
	"import sys, json, tomllib\n"
	"try:\n"
	"    with open('/app/pipsqueak.toml', 'rb') as f:\n"
	"        print(json.dumps(tomllib.load(f)))\n"
	"except (tomllib.TOMLDecodeError, TypeError, UnicodeDecodeError) as e:\n"
	"    sys.exit(f'pipsqueak.toml: {e}')\n";

/* One deploy: unpack -> settings -> interpreter -> lock -> environment -> bytecode -> activate. */
struct deploy {
	uv_work_t work; /* first */
	struct functions *f;
	struct function *fn;
	struct version *v;
	char *tmp;	      /* directory while it is not activated */
	const char *env_path; /* the store's; NULL: no packages */
	void *zip;
	size_t zip_bytes;
	char *python, *prefix, *index_url, *pip_settings, *options;
	struct upload_needs needs;
	struct locals locals;
	struct interp *interp;
	struct lock *lock;
	functions_progress_fn progress;
	functions_done_fn done;
	void *arg;
	struct err err;
};

static void deploy_free(struct deploy *d)
{
	struct functions *f = d->f;
	struct err err;

	if (d->v) { /* not activated */
		logs_close(d->v);
		subject_unref(d->v->subject);
		function_settings_done(&d->v->set);
		free(d->v->dir);
		free(d->v);
	}
	if (d->tmp && fd_remove_tree(AT_FDCWD, d->tmp, &err) < 0)
		log_warn("function", "removing an upload: %s", err.text);
	if (d->fn)
		d->fn->deploying = false;
	lock_free(d->lock);
	upload_needs_done(&d->needs);
	locals_done(&d->locals);
	free(d->tmp);
	free(d->zip);
	free(d->python);
	free(d->prefix);
	free(d->index_url);
	free(d->pip_settings);
	free(d->options);
	free(d);
	f->deploys--;
	functions_went_quiet(f);
}

static void deploy_fail(struct deploy *d)
{
	if (d->err.kind == ERR_NONE)
		err_set(&d->err, ERR_SYSTEM, "the deploy failed");
	d->done(d->arg, NULL, &d->err);
	deploy_free(d);
}

static void say(struct deploy *d, const char *line)
{
	if (d->progress)
		d->progress(d->arg, line);
}

static int store_version(struct deploy *d)
{
	struct version *v = d->v;
	auto_buf struct buf lock = { 0 }, settings = { 0 };
	struct state_function row = { .name = d->fn->name,
				      .version = v->number,
				      .python = d->interp->path,
				      .prefix = d->interp->prefix,
				      .deployed = v->deployed };

	if (lock_print(v->subject->lock, &lock, &d->err) < 0 ||
	    function_settings_print(&v->set, &settings, &d->err) < 0)
		return -1;
	row.lock = lock.data;
	row.settings = settings.data;
	if (rename(d->tmp, v->dir) < 0)
		return err_sys(&d->err, errno, "publishing the version");
	free(steal(d->tmp));
	if (state_put_function(d->f->state, &row, &d->err) < 0) {
		d->tmp = mem_strdup(v->dir); /* to be removed */
		return -1;
	}
	return 0;
}

static void activate(struct deploy *d, const char *env_path)
{
	struct version *v = d->v;
	auto_free char *key = NULL;
	auto_close int dirfd = open(d->tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_buf struct buf json = { 0 };

	v->deployed = clock_wall_s();
	key = version_key(v);
	v->subject = subject_new(d->f, key, d->interp, steal(d->lock));
	v->subject->env_path = env_path;
	v->subject->own = upload_own_names(dirfd);
	subject_set_env(v->subject, (const char *const *)v->set.env);
	subject_set_tenant(v->subject, v->set.isolate ? v->set.tenant : NULL);
	if (logs_open(v, &d->err) < 0 || store_version(d) < 0 ||
	    describe_version(v, &json, &d->err) < 0) {
		deploy_fail(d);
		return;
	}
	logs_note(d->fn, "pipsqueak: version %u deployed", v->number);
	version_activate(steal(d->v));
	functions_keep_envs(d->f);
	priors_match(d->f, d->fn->live->subject);
	d->done(d->arg, json.data, NULL);
	deploy_free(d);
}

static void on_compiled(void *arg, int status, const struct err *err)
{
	struct deploy *d = arg;

	/* Without bytecode it is slower, not wrong. */
	if (err || status)
		log_info("function", "%s: compiling it: %s (status %d)", d->fn->name,
			 err ? err->text : "failed", status);
	activate(d, d->env_path);
}

/* Each instance imports the function's own modules anew: bytecode beside them, as the packages
 * have it. The compiler reads code that is not ours, so it runs in a sandbox. */
static void compile_app(struct deploy *d, const char *env_path)
{
	const char *argv[] = { d->interp->path,
			       "-I",
			       "-S",
			       JAIL_LIB "/compile_wheel.py",
			       JAIL_APP,
			       JAIL_APP,
			       JAIL_APP,
			       "all",
			       "1",
			       NULL };
	struct jail_job_spec spec = { .argv = argv,
				      .prefix = d->interp->prefix,
				      .mounts = { { d->tmp, JAIL_APP, true } },
				      .nmounts = 1,
				      .memory_bytes = GIB,
				      .deadline_ms = COMPILE_MS };

	d->env_path = env_path;
	if (jail_job_start(d->f->config.jail, &spec, on_compiled, d, &d->err) < 0)
		deploy_fail(d);
}

static void on_env(void *arg, const struct store_env *env, const struct err *err)
{
	struct deploy *d = arg;

	if (env) {
		compile_app(d, env->path);
		return;
	}
	d->err = *err;
	deploy_fail(d);
}

static void on_progress(void *arg, const char *line)
{
	say(arg, line);
}

static void on_lock(void *arg, struct lock *lock, const struct err *err)
{
	struct deploy *d = arg;
	struct store_python python;

	if (!lock) {
		must(err);
		d->err = *err;
		deploy_fail(d);
		return;
	}
	d->lock = lock;
	if (!lock->ndists) {
		compile_app(d, NULL);
		return;
	}
	python_store_view(d->interp, &python);
	store_make_env(d->f->config.store, d->lock, &python, on_progress, on_env, d);
}

static bool is_offline(const char *options)
{
	json_error_t jerr;
	json_t *object = options ? json_loads(options, 0, &jerr) : NULL;
	bool offline = json_is_true(json_object_get(object, "offline"));

	json_decref(object);
	return offline;
}

static void on_locals(void *arg, const struct err *err)
{
	struct deploy *d = arg;
	struct index_request r = {
		.inputs = d->needs.inputs,
		.index_url = d->index_url,
		.python_info = d->interp->info,
		.pip_settings = d->pip_settings,
		.locals = d->locals.list,
		.nlocals = d->locals.n,
		.offline = is_offline(d->options),
		.wheels = true,
	};

	if (err) {
		d->err = *err;
		deploy_fail(d);
		return;
	}
	index_resolve(d->f->config.index, &r, on_progress, on_lock, d);
}

static void on_python(void *arg, struct interp *interp, const struct err *err)
{
	struct deploy *d = arg;
	struct locals_wanted wanted = { d->f->config.index, d->needs.wheels, d->needs.nwheels,
					&d->locals };
	struct lock *lock;

	if (!interp) {
		d->err = *err;
		deploy_fail(d);
		return;
	}
	d->interp = interp;
	if (!d->needs.inputs) {
		lock = lock_new(interp->cache_tag);
		lock_seal(lock);
		on_lock(d, lock, NULL);
		return;
	}
	locals_take(&wanted, on_locals, d);
}

static void have_settings(struct deploy *d)
{
	const struct function_settings *set = &d->v->set;
	struct python_name name = { d->python ? d->python : set->python, d->prefix,
				    set->own_root ? set->tenant : NULL };

	if (upload_find_entry(d->tmp, &d->v->set, &d->err) < 0 ||
	    upload_find_needs(d->tmp, d->options, &d->needs, &d->err) < 0)
		deploy_fail(d);
	else
		python_get(d->f, &name, on_python, d);
}

static void on_toml(void *arg, struct buf *out, const struct err *err)
{
	struct deploy *d = arg;

	if (err) {
		d->err = *err;
		if (err->kind == ERR_CORRUPT)
			d->err.kind = ERR_USAGE; /* the program's own message */
		deploy_fail(d);
		return;
	}
	function_settings_done(&d->v->set);
	if (function_settings_parse(out->data ? out->data : "", out->len, &d->v->set, &d->err) < 0)
		deploy_fail(d);
	else
		have_settings(d);
}

static void unpacked(uv_work_t *work, int status)
{
	struct deploy *d = (struct deploy *)work;
	auto_free char *toml = mem_printf("%s/pipsqueak.toml", d->tmp);
	const char *argv[] = { "/usr/bin/python3", "-I", "-c", toml_program, NULL };
	struct jail_job_spec spec = { .argv = argv,
				      .mounts = { { .from = d->tmp, .to = JAIL_APP } },
				      .nmounts = 1,
				      .memory_bytes = 256 * MIB,
				      .deadline_ms = TOML_MS };

	free(steal(d->zip));
	if (d->err.kind != ERR_NONE)
		deploy_fail(d);
	else if (access(toml, F_OK) < 0)
		have_settings(d);
	else if (capture_start(d->f->config.loop, d->f->config.jail, &spec, on_toml, d, &d->err) <
		 0)
		deploy_fail(d);
}

static void unpack(uv_work_t *work)
{
	struct deploy *d = (struct deploy *)work;
	auto_free char *parent = mem_strndup(d->tmp, (size_t)(strrchr(d->tmp, '/') - d->tmp));

	if (fd_mkdirs(parent, 0700, &d->err) == 0 &&
	    upload_unpack(d->zip, d->zip_bytes, d->tmp, &d->err) == 0)
		d->err.kind = ERR_NONE;
}

static int begin(struct deploy *d, const struct function_upload *up, struct err *err)
{
	struct functions *f = d->f;
	struct function *fn;
	uint32_t number;

	if (f->draining)
		return err_set(err, ERR_BUSY, "the daemon is shutting down; try again");
	if (!function_name_ok(up->name))
		return err_set(err, ERR_USAGE,
			       "'%.80s' is not a function's name: use a-z, 0-9, '-' and '_', at "
			       "most 63, beginning with a letter or digit",
			       up->name);
	fn = function_make(f, up->name);
	if (!fn)
		return err_set(err, ERR_LIMIT, "there are %d functions already; remove some",
			       LIMIT_FUNCTIONS);
	if (fn->deploying)
		return err_set(err, ERR_CONFLICT, "'%s' is being deployed already; wait for it",
			       up->name);
	if (fn->live && fn->live->number > fn->last_number)
		fn->last_number = fn->live->number;
	number = ++fn->last_number;
	fn->deploying = true;
	d->fn = fn;
	d->v = version_new(fn, number);
	d->tmp = mem_printf("%s.tmp", d->v->dir);
	return 0;
}

void functions_deploy(struct functions *f, const struct function_upload *up,
		      functions_progress_fn progress, functions_done_fn done, void *arg)
{
	struct deploy *d = mem_new(struct deploy);

	f->deploys++;
	d->f = f;
	d->progress = progress;
	d->done = done;
	d->arg = arg;
	if (begin(d, up, &d->err) < 0) {
		deploy_fail(d);
		return;
	}
	d->zip = mem_zero(up->zip_bytes + 1, 1);
	memcpy(d->zip, up->zip, up->zip_bytes);
	d->zip_bytes = up->zip_bytes;
	d->python = mem_strdup(up->python);
	d->prefix = mem_strdup(up->prefix);
	d->index_url = mem_strdup(up->index_url);
	d->pip_settings = mem_strdup(up->pip_settings);
	d->options = mem_strdup(up->options);
	uv_queue_work(f->config.loop, &d->work, unpack, unpacked);
}
