/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "api/api.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "daemon/notify.h"
#include "daemon/options.h"
#include "daemon/pressure.h"
#include "daemon/resolver.h"
#include "function/function.h"
#include "index/index.h"
#include "jail/jail.h"
#include "jail/start.h"
#include "store/store.h"
#include "zygote/zygote.h"

#define VERSION "0.1.0"
#define LOCK_WAIT_S 1
#define GRACE_MS (10 * 1000)

struct daemon {
	struct options opt;
	uv_loop_t loop;
	struct jail_start *start;
	struct jail *jail;
	struct resolvers *resolvers;
	struct index *index;
	struct store *store;
	struct zygotes *zygotes;
	struct functions *functions;
	struct api *api;
	uv_signal_t term, interrupt;
	uv_timer_t idle, stop_timer;
	bool stopping;
	int lock;
	char *index_dir, *store_dir, *downloads;
	struct buf tree;
	struct pressure pressure;
};

static void on_alarm(int signo)
{
}

/* A daemon that was just killed holds its lock until the kernel has taken it apart: wait for that a
 * moment (flock() ends by EINTR when the alarm comes). */
static bool lock_soon(int fd)
{
	struct sigaction alarm_action = { .sa_handler = on_alarm }, before;
	bool locked;

	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return true;
	sigaction(SIGALRM, &alarm_action, &before);
	alarm(LOCK_WAIT_S);
	locked = flock(fd, LOCK_EX) == 0;
	alarm(0);
	sigaction(SIGALRM, &before, NULL);
	return locked;
}

/* One daemon per run directory. Before the start-up changes anything of a running one's. */
static int check_not_running(const struct options *o, struct err *err)
{
	auto_free char *path = mem_printf("%s/lock", o->run_dir);
	auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && !lock_soon(fd))
		return err_set(err, ERR_CONFLICT, "a daemon runs already in %s", o->run_dir);
	return 0;
}

/* Taken after the start-up, so that no helper process has the descriptor, too. */
static int take_lock(struct daemon *d, const char *run_dir, struct err *err)
{
	auto_free char *path = mem_printf("%s/lock", run_dir);

	d->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (d->lock < 0)
		return err_sys(err, errno, "opening the lock file");
	if (flock(d->lock, LOCK_EX | LOCK_NB) < 0)
		return err_set(err, ERR_CONFLICT, "a daemon runs already in %s", d->opt.run_dir);
	return 0;
}

static int start_jail(struct daemon *d, struct err *err)
{
	struct jail_start_config config = {
		.state_dir = d->opt.state_dir,
		.cache_dir = d->opt.cache_dir,
		.run_dir = d->opt.run_dir,
		.lib_dir = d->opt.lib,
		.prefixes = (const char *const *)d->opt.prefix,
	};

	return jail_start(&config, &d->start, err) < 0 ? err_wrap(err, "starting up") : 0;
}

static bool is_env_in_use(void *ctx, const char *env_path)
{
	return functions_use_env(ctx, env_path);
}

/* An environment for a build: from the index room's view to the store's, and back. */
struct build_env {
	struct daemon *d;
	struct lock *lock;
	index_progress_fn progress;
	index_env_fn done;
	void *arg;
};

static void on_build_progress(void *arg, const char *line)
{
	struct build_env *b = arg;

	b->progress(b->arg, line);
}

static void on_build_env(void *arg, const struct store_env *env, const struct err *err)
{
	struct build_env *b = arg;

	if (!env)
		store_hold(b->d->store, b->lock, false);
	b->done(b->arg, env ? env->path : NULL, err);
	lock_free(b->lock);
	free(b);
}

static void make_build_env(void *ctx, const struct lock *lock, const struct index_python *p,
			   index_progress_fn progress, index_env_fn done, void *arg)
{
	struct store_python python = { p->path, p->prefix, p->cache_tag, p->version };
	struct build_env *b = mem_new(struct build_env);

	*b = (struct build_env){ ctx, lock_copy(lock), progress, done, arg };
	store_hold(b->d->store, b->lock, true);
	store_make_env(b->d->store, b->lock, &python, on_build_progress, on_build_env, b);
}

static void drop_build_env(void *ctx, const struct lock *lock)
{
	struct daemon *d = ctx;

	store_hold(d->store, lock, false);
}

static bool loads_of(void *ctx, const char *dist, const char *version, struct buf *out)
{
	return functions_loads(ctx, dist, version, out);
}

static int open_rooms(struct daemon *d, struct err *err)
{
	const struct jail_paths *paths = jail_start_paths(d->start);
	struct index_config index = { 0 };
	struct store_config store = { 0 };
	struct functions_config functions = { 0 };

	if (take_lock(d, paths->run, err) < 0 || jail_open(&d->loop, d->start, &d->jail, err) < 0 ||
	    (d->opt.strict && jail_require_all(d->jail, err) < 0) ||
	    zygotes_open(&d->loop, d->jail, &d->zygotes, err) < 0 ||
	    resolvers_open(&d->loop, paths->cache, &d->resolvers, err) < 0)
		return -1;
	resolvers_attach(d->resolvers, d->zygotes);
	d->index_dir = mem_printf("%s/index", paths->cache);
	d->store_dir = mem_printf("%s/store", paths->cache);
	index.cache_dir = d->index_dir;
	index.resolver = resolvers_source(d->resolvers);
	index.builds = (struct index_builds){ .jail = d->jail,
					      .make_env = make_build_env,
					      .drop_env = drop_build_env,
					      .ctx = d,
					      .always = d->opt.allow_sdist,
					      .memory_bytes = d->opt.build_memory_bytes,
					      .ms = d->opt.build_s * 1000 };
	if (index_open(&d->loop, &index, &d->index, err) < 0)
		return -1;
	d->downloads = mem_printf("%s/wheels", d->index_dir);
	store = (struct store_config){
		.dir = d->store_dir,
		.jail = d->jail,
		.index = d->index,
		.downloads = d->downloads,
		.budget_bytes = d->opt.cache_bytes,
		.accept_record = (const char *const *)d->opt.accept_record,
		.strict = d->opt.strict_packages,
	};
	if (store_open(&d->loop, &store, &d->store, err) < 0)
		return -1;
	functions = (struct functions_config){
		.loop = &d->loop,
		.state_dir = paths->state,
		.jail = d->jail,
		.index = d->index,
		.store = d->store,
		.zygotes = d->zygotes,
		.python = d->opt.python[0],
		.memory_bytes = d->opt.memory_bytes,
		.lib_dir = paths->lib,
		.root_age_s = d->opt.root_age_s,
		.tree = d->opt.no_tree ? NULL : d->tree.data,
		.no_tree = d->opt.no_tree,
		.other_node_gone = resolvers_node_gone,
		.other_ctx = d->resolvers,
	};
	if (functions_open(&functions, &d->functions, err) < 0)
		return -1;
	store_ask(d->store, &(struct store_asks){ is_env_in_use, loads_of, d->functions });
	return 0;
}

static int open_api(struct daemon *d, struct err *err)
{
	const char *token = getenv("PIPSQUEAK_TOKEN");
	struct api_config config = {
		.loop = &d->loop,
		.functions = d->functions,
		.store = d->store,
		.index = d->index,
		.jail = d->jail,
		.run_dir = jail_start_paths(d->start)->run,
		.listen = d->opt.listen,
		.token = token && *token ? token : NULL,
		.version = VERSION,
	};

	return api_open(&config, &d->api, err);
}

static void stop_now(uv_timer_t *timer);

/* Close what is open, last first; the loop then runs out of handles and ends. */
static void close_all(struct daemon *d)
{
	bool busy = (d->functions && functions_idle_us(d->functions) == 0) ||
		    (d->store && store_is_busy(d->store)) || (d->index && index_is_busy(d->index));

	api_close(d->api);
	if (busy) {
		/* Something of the outside (an index, a build) still holds callbacks into the
		 * rooms. What is on disk is whole at any moment; processes end with their links. */
		zygotes_close(d->zygotes);
		jail_close(d->jail);
		log_warn("daemon", "stopped with work unfinished");
		_exit(0);
	}
	if (d->index)
		index_close(d->index);
	if (d->store)
		store_close(d->store);
	if (d->zygotes)
		zygotes_close(d->zygotes);
	functions_close(d->functions);
	resolvers_close(d->resolvers);
	if (d->jail)
		jail_close(d->jail);
}

static void on_drained(void *arg)
{
	struct daemon *d = arg;

	/* Not from inside a call's own stack: rooms are closed from the loop. */
	uv_timer_start(&d->stop_timer, stop_now, 0, 0);
}

static void stop_now(uv_timer_t *timer)
{
	struct daemon *d = timer->data;

	uv_close((uv_handle_t *)&d->term, NULL);
	uv_close((uv_handle_t *)&d->interrupt, NULL);
	uv_close((uv_handle_t *)&d->idle, NULL);
	uv_close((uv_handle_t *)&d->stop_timer, NULL);
	pressure_close(&d->pressure);
	close_all(d);
}

static void stop(struct daemon *d, const char *why)
{
	if (d->stopping)
		return;
	d->stopping = true;
	log_info("daemon", "stopping: %s", why);
	notify("STOPPING=1");
	api_quiesce(d->api);
	functions_drain(d->functions, GRACE_MS, on_drained, d);
}

static void on_signal(uv_signal_t *handle, int signo)
{
	struct daemon *d = handle->data;

	if (d->stopping) /* asked twice: without the grace */
		uv_timer_start(&d->stop_timer, stop_now, 0, 0);
	else
		stop(d, signo == SIGTERM ? "SIGTERM" : "SIGINT");
}

/* One timer for the time that is left; a busy daemon looks again after the whole time. */
static void on_idle(uv_timer_t *timer)
{
	struct daemon *d = timer->data;
	uint64_t idle_ms = functions_idle_us(d->functions) / 1000;
	uint64_t want_ms = d->opt.idle_s * 1000;

	if (idle_ms >= want_ms)
		stop(d, "idle");
	else
		uv_timer_start(timer, on_idle, want_ms - idle_ms, 0);
}

static void on_pressure(void *arg)
{
	struct daemon *d = arg;

	functions_pressed(d->functions);
}

static void serve(struct daemon *d)
{
	uv_signal_init(&d->loop, &d->term);
	uv_signal_init(&d->loop, &d->interrupt);
	uv_timer_init(&d->loop, &d->idle);
	uv_timer_init(&d->loop, &d->stop_timer);
	d->term.data = d->interrupt.data = d->idle.data = d->stop_timer.data = d;
	uv_signal_start(&d->term, on_signal, SIGTERM);
	uv_signal_start(&d->interrupt, on_signal, SIGINT);
	pressure_open(&d->pressure, &d->loop, on_pressure, d);
	if (d->opt.idle_s)
		uv_timer_start(&d->idle, on_idle, d->opt.idle_s * 1000, 0);
	printf("ready %s %d\n", d->opt.run_dir, api_tcp_port(d->api));
	fflush(stdout);
	notify("READY=1");
	uv_run(&d->loop, UV_RUN_DEFAULT);
	uv_loop_close(&d->loop);
	log_info("daemon", "stopped");
}

static void say_facts(struct daemon *d)
{
	auto_buf struct buf host = { 0 };
	struct err err;

	log_info("daemon", "pipsqueakd " VERSION ", pid %d, in %s, budget %llu MiB", (int)getpid(),
		 d->opt.run_dir, (unsigned long long)(d->opt.memory_bytes / MIB));
	if (jail_describe(d->jail, &host, &err) == 0)
		log_info("daemon", "host: %s", host.data);
}

static int run(struct daemon *d, int argc, char **argv, struct err *err)
{
	if (options_parse(&d->opt, argc, argv, err) < 0)
		return -1;
	if (d->opt.help) {
		options_help();
		return 0;
	}
	if (d->opt.version) {
		printf("pipsqueakd " VERSION "\n");
		return 0;
	}
	log_set_level(d->opt.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	signal(SIGPIPE, SIG_IGN);
	umask(022); /* the directories of sandboxes are for other ids than their maker's */
	d->tree.max = LIMIT_TREE_BYTES;
	/* now: afterwards the caller's files are out of reach */
	if (d->opt.tree && buf_read_file(&d->tree, AT_FDCWD, d->opt.tree, err) < 0)
		return err_wrap(err, "the tree to start from");
	if (check_not_running(&d->opt, err) < 0 || start_jail(d, err) < 0)
		return -1;
	if (uv_loop_init(&d->loop) != 0)
		return err_set(err, ERR_SYSTEM, "starting the loop failed");
	if (open_rooms(d, err) < 0 || open_api(d, err) < 0)
		return -1;
	say_facts(d);
	serve(d);
	return 0;
}

int main(int argc, char **argv)
{
	/* Not on the stack: room jail keeps handles on the loop to the very end. */
	static struct daemon d = { .lock = -1, .pressure = { .fd = -1 } };
	struct err err = ERR_INIT;

	if (run(&d, argc, argv, &err) < 0) {
		fprintf(stderr, "pipsqueakd: %s\n", err.text);
		return err_exit_code(err.kind);
	}
	options_done(&d.opt);
	free(d.index_dir);
	free(d.store_dir);
	free(d.downloads);
	buf_done(&d.tree);
	fd_close(&d.lock);
	return 0;
}
