/* SPDX-License-Identifier: Apache-2.0
 *
 * store_steps DIR INSTALLER PYTHON TAG VERSION WHEEL...: what the daemon does for a lock of these
 * wheels: opens the store at DIR, has each installed (by the real installer, but in no
 * sandbox: that is not what is tested here) and merges an environment. Prints the environment's
 * path, exit 0; or says what is wrong, exit 1. STEPS_BUDGET: keeps so many bytes.
 * store_steps DIR INSTALLER prune TO OLDER | verify: `pipsqueak cache`; prints the answer.
 * Downloads are in DIR/downloads. Run with fault.so preloaded by test_store.py and test_prune.py.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "index/name.h"
#include "index/sha.h"
#include "store/store.h"

struct job {
	uv_process_t process;
	jail_job_fn done;
	void *arg;
	int status;
};

struct fetch {
	uv_timer_t timer;
	const char *path;
	index_wheel_fn done;
	void *arg;
};

static uv_loop_t loop;
static const char *installer;
static char **wheels; /* paths, in the lock's order as added */
static int status = 1;

static void on_job_closed(uv_handle_t *handle)
{
	struct job *job = handle->data;

	job->done(job->arg, job->status, NULL);
	free(job);
}

static void on_job_exit(uv_process_t *process, int64_t code, int signal)
{
	struct job *job = process->data;

	job->status = signal ? signal : (int)(code << 8);
	uv_close((uv_handle_t *)process, on_job_closed);
}

/* What a word of the job's command line is without the sandbox. */
static const char *outside(const struct jail_job_spec *spec, const char *inside)
{
	static const char lib[] = JAIL_LIB "/";
	static char path[4096]; /* one word of a job is a path of ours */

	if (strncmp(inside, lib, strlen(lib)) == 0) {
		snprintf(path, sizeof(path), BUILD_LIB "/%s", inside + strlen(lib));
		return path;
	}
	for (size_t i = 0; i < spec->nmounts; i++)
		if (strcmp(spec->mounts[i].to, inside) == 0)
			return spec->mounts[i].from;
	return inside;
}

int jail_job_start(struct jail *jail, const struct jail_job_spec *spec, jail_job_fn done, void *arg,
		   struct err *err)
{
	struct job *job = mem_new(struct job);
	bool install = strstr(spec->argv[0], "/pipsqueak-install") != NULL;
	char *argv[16] = { (char *)(install ? installer : spec->argv[0]) };
	uv_stdio_container_t stdio[3];
	uv_process_options_t options = { .file = argv[0],
					 .args = argv,
					 .exit_cb = on_job_exit,
					 .stdio = stdio,
					 .stdio_count = 3 };
	int rc;

	for (size_t i = 1; spec->argv[i]; i++)
		argv[i] = (char *)outside(spec, spec->argv[i]);
	for (int i = 0; i < 3; i++) {
		stdio[i].flags = spec->fds[i] < 0 ? UV_IGNORE : UV_INHERIT_FD;
		stdio[i].data.fd = spec->fds[i];
	}
	*job = (struct job){ .process.data = job, .done = done, .arg = arg };
	rc = uv_spawn(&loop, &job->process, &options);
	if (rc == 0)
		return 0;
	job->done = NULL;
	return err_set(err, ERR_SYSTEM, "uv_spawn: %s", uv_strerror(rc));
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct fetch *f = handle->data;

	f->done(f->arg, f->path, NULL);
	free(f);
}

static void on_timer(uv_timer_t *timer)
{
	uv_close((uv_handle_t *)timer, on_timer_closed);
}

void index_fetch(struct index *index, const struct lock_dist *dist, index_progress_fn progress,
		 index_wheel_fn done, void *arg)
{
	struct fetch *f = mem_new(struct fetch);

	*f = (struct fetch){ .timer.data = f, .done = done, .arg = arg };
	for (char **w = wheels; *w; w++)
		if (strcmp(strrchr(*w, '/') + 1, dist->filename) == 0)
			f->path = *w;
	must(f->path && uv_timer_init(&loop, &f->timer) == 0);
	must(uv_timer_start(&f->timer, on_timer, 0, 0) == 0);
}

static void on_env(void *arg, const struct store_env *env, const struct err *err)
{
	if (env)
		printf("%s\n", env->path);
	else
		fprintf(stderr, "%s\n", err->text);
	status = env ? 0 : 1;
}

static struct lock *make_lock(const char *tag, struct err *err)
{
	struct lock *lock = lock_new(tag);

	for (char **w = wheels; *w; w++) {
		char *filename = strrchr(*w, '/') + 1;
		size_t n = strcspn(filename, "-");
		auto_free char *name = mem_zero(1, n + 1), *version = name_wheel_version(filename);
		struct lock_dist dist = {
			.name = name, .version = version, .filename = filename, .url = *w
		};

		name_normalize(filename, n, name);
		if (sha_file(*w, dist.sha256, err) < 0) {
			lock_free(lock);
			return NULL;
		}
		lock_add(lock, &dist);
	}
	lock_seal(lock);
	return lock;
}

static void on_text(void *arg, const char *text, const struct err *err)
{
	if (text)
		printf("%s\n", text);
	else
		fprintf(stderr, "%s\n", err->text);
	status = text ? 0 : 1;
}

/* Between two calls nothing here needs an environment. */
static bool in_use(void *ctx, const char *env_path)
{
	return false;
}

static void start(struct store *store, char **argv, struct lock *lock)
{
	struct store_python python = { argv[3], "/usr", argv[4], argv[5] };

	if (lock) {
		store_make_env(store, lock, &python, NULL, on_env, NULL);
	} else if (strcmp(argv[3], "verify") == 0) {
		store_verify(store, on_text, NULL);
	} else {
		struct store_prune ask = { .to_bytes = strtoull(argv[4], NULL, 10),
					   .older_s = strtod(argv[5], NULL) };

		store_prune(store, &ask, on_text, NULL);
	}
}

int main(int argc, char **argv)
{
	auto_free char *downloads = argc > 3 ? mem_printf("%s/downloads", argv[1]) : NULL;
	const char *budget = getenv("STEPS_BUDGET");
	struct store_config config = { .dir = argv[1], .downloads = downloads };
	struct lock *lock = NULL;
	struct store *store;
	struct err err;

	if (argc < 4)
		return 2;
	must(uv_loop_init(&loop) == 0);
	config.budget_bytes = budget ? strtoull(budget, NULL, 10) : UINT64_MAX;
	installer = argv[2];
	wheels = argv + 6;
	if ((argc > 6 && !(lock = make_lock(argv[4], &err))) ||
	    store_open(&loop, &config, &store, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		lock_free(lock);
		return 1;
	}
	store_ask(store, &(struct store_asks){ .in_use = in_use });
	start(store, argv, lock);
	must(uv_run(&loop, UV_RUN_DEFAULT) == 0);
	store_close(store);
	lock_free(lock);
	uv_loop_close(&loop);
	return status;
}
