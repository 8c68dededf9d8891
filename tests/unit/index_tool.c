/* SPDX-License-Identifier: Apache-2.0
 * Runs in: tests. The index room by hand: resolve and fetch, with the resolver as a plain
 * subprocess (no sandbox, a stand-in for the extension).
 *
 *     index_tool [options] REQUIREMENT...
 *       --cache DIR  --info FILE  --settings FILE  --index-url URL  --resolver DIR:DIR
 *       --requirements FILE  --pyproject FILE  --pep723 FILE  --pylock FILE  --inputs FILE
 *       --wheel FILE  a local wheel, known to the resolver by its absolute path; repeatable
 *       --offline
 *       --fetch      have every wheel in the cache too
 *       --early      begin with wheels that are likely
 *       --twice      ask for every wheel twice
 *       --close MS   close the index so long after the resolver is up, whatever is under way
 *       --at-lock    count these MS from when the lock is there, so among the downloads
 *       --repeat N   resolve N times in one process
 * Prints the lock as JSON; times and progress go to standard error.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "index/index.h"

struct tool {
	uv_loop_t loop;
	struct index *index;
	struct index_request request;
	const char *python_path; /* for the resolver: where resolver.py and the stand-in are */
	struct lock *lock;
	bool fetch, twice, at_lock, done;
	int close_ms; /* -1: not before the end */
	uv_timer_t closer;
	uint64_t up_us; /* when the resolver was up */
	size_t wheels_left;
	struct index_local locals[8];
	size_t nlocals;
	int status;
};

static char *slurp(const char *path)
{
	struct buf b = { 0 };
	struct err err;

	if (buf_read_file(&b, AT_FDCWD, path, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		exit(2);
	}
	return buf_steal(&b);
}

static void start_resolver(void *ctx, uint64_t patience_ms, index_resolver_ready_fn ready,
			   void *arg)
{
	static const char code[] = "import os, sys\n"
				   "sys.path[:0] = os.environ['TOOL_PATH'].split(':')\n"
				   "import resolver\n"
				   "os.write(3, b'!')\n"
				   "resolver.main(3)\n";
	struct tool *t = ctx;
	int pair[2];
	pid_t pid;
	char ok;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	setenv("TOOL_PATH", t->python_path, 1);
	pid = fork();
	if (pid == 0) {
		dup2(pair[1], 3);
		fcntl(3, F_SETFD, 0);
		execl("/usr/bin/python3", "python3", "-c", code, NULL);
		_exit(127);
	}
	close(pair[1]);
	/* as a forked resolver, it is up when it is handed over */
	if (read(pair[0], &ok, 1) != 1)
		fprintf(stderr, "the resolver did not start\n");
	t->up_us = clock_us();
	ready(arg, pair[0], NULL);
}

static void say(void *arg, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

static void on_wheel(void *arg, const char *path, const struct err *err)
{
	struct tool *t = arg;

	if (err) {
		fprintf(stderr, "error: %s: %s\n", err_kind_name(err->kind), err->text);
		t->status = err_exit_code(err->kind);
	} else {
		fprintf(stderr, "wheel %s\n", path);
	}
	if (--t->wheels_left == 0)
		t->done = true;
}

static void on_close_time(uv_timer_t *timer)
{
	struct tool *t = timer->data;

	index_close(steal(t->index));
}

static void start_closer(struct tool *t)
{
	uv_update_time(&t->loop); /* starting a resolver took its time */
	uv_timer_start(&t->closer, on_close_time, (uint64_t)t->close_ms, 0);
}

static void on_lock(void *arg, struct lock *lock, const struct err *err)
{
	struct tool *t = arg;

	if (err) {
		fprintf(stderr, "error: %s: %s\n", err_kind_name(err->kind), err->text);
		t->status = err_exit_code(err->kind);
		t->done = true;
		return;
	}
	lock_free(t->lock);
	t->lock = lock;
	t->wheels_left = t->fetch ? lock->ndists * (t->twice ? 2 : 1) : 0;
	t->done = t->wheels_left == 0;
	if (t->close_ms >= 0 && t->at_lock)
		start_closer(t);
	for (size_t i = 0; i < t->wheels_left; i++)
		index_fetch(t->index, &lock->dists[i % lock->ndists], say, on_wheel, t);
}

/* Of this program alone: getrusage() would count what the parent had before exec. */
static void say_peak(void)
{
	auto_free char *status = slurp("/proc/self/status");
	const char *line = strstr(status, "VmHWM:");

	fprintf(stderr, "peak %ld KiB\n", line ? strtol(line + 6, NULL, 10) : 0);
}

static void run_once(struct tool *t)
{
	uint64_t began = clock_us();

	t->done = false;
	index_resolve(t->index, &t->request, say, on_lock, t);
	if (t->close_ms >= 0 && !t->at_lock)
		start_closer(t);
	while (!t->done && uv_run(&t->loop, UV_RUN_ONCE))
		continue;
	fprintf(stderr, "took %.1f ms and %.1f ms to start the resolver\n",
		(double)(clock_us() - (t->up_us ? t->up_us : began)) / 1e3,
		t->up_us ? (double)(t->up_us - began) / 1e3 : 0.0);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		continue;
}

static void on_taken(void *arg, const struct index_local *local, const struct err *err)
{
	struct tool *t = arg;

	if (err) {
		fprintf(stderr, "error: %s: %s\n", err_kind_name(err->kind), err->text);
		t->status = err_exit_code(err->kind);
	} else {
		memcpy(t->locals[t->nlocals].sha256, local->sha256, sizeof(local->sha256));
		t->locals[t->nlocals].size_bytes = local->size_bytes;
	}
	t->done = true;
}

static void take_wheels(struct tool *t)
{
	size_t n = t->nlocals;

	for (t->nlocals = 0; t->nlocals < n && t->status == 0; t->nlocals++) {
		int fd = open(t->locals[t->nlocals].path, O_RDONLY | O_CLOEXEC);

		t->done = false;
		index_take(t->index, t->locals[t->nlocals].path, fd, on_taken, t);
		while (!t->done && uv_run(&t->loop, UV_RUN_ONCE))
			continue;
		close(fd);
	}
	t->request.locals = t->locals;
	t->request.nlocals = t->nlocals;
}

struct option {
	const char *name;
	const char **to;
	bool file; /* the value is in the file */
};

static bool set_switch(struct tool *t, const char *arg)
{
	const struct {
		const char *name;
		bool *to;
	} switches[] = { { "--fetch", &t->fetch },
			 { "--early", &t->request.wheels },
			 { "--offline", &t->request.offline },
			 { "--twice", &t->twice },
			 { "--at-lock", &t->at_lock } };

	for (size_t i = 0; i < array_len(switches); i++)
		if (strcmp(arg, switches[i].name) == 0)
			return (*switches[i].to = true);
	return false;
}

/* Everything that is not an option is a requirement. Returns how often to resolve. */
static int read_args(struct tool *t, char **argv, const struct option *options, const char **with)
{
	int repeat = 1;

	for (int i = 1; argv[i]; i++) {
		const struct option *o = options;

		while (o->name && strcmp(argv[i], o->name) != 0)
			o++;
		if (o->name && argv[i + 1]) {
			i++;
			*o->to = o->file ? slurp(argv[i]) : argv[i];
		} else if (set_switch(t, argv[i])) {
			continue;
		} else if (strcmp(argv[i], "--wheel") == 0 && argv[i + 1]) {
			t->locals[t->nlocals++].path = argv[++i];
		} else if (strcmp(argv[i], "--close") == 0 && argv[i + 1]) {
			t->close_ms = atoi(argv[++i]);
		} else if (strcmp(argv[i], "--repeat") == 0 && argv[i + 1]) {
			repeat = atoi(argv[++i]);
		} else {
			*with++ = argv[i];
		}
	}
	return repeat;
}

static void work(struct tool *t, int repeat)
{
	auto_buf struct buf out = { 0 };
	struct err err;

	take_wheels(t);
	for (int i = 0; i < repeat && t->status == 0; i++)
		run_once(t);
	if (t->status == 0 && lock_print(t->lock, &out, &err) == 0)
		printf("%s\n", out.data);
	lock_free(t->lock);
	index_close(t->index);
	say_peak();
}

int main(int argc, char **argv)
{
	struct tool t = { .close_ms = -1 };
	struct index_config config = { .resolver = { start_resolver, &t } };
	const char **with = mem_zero((size_t)argc + 1, sizeof(*with));
	struct option options[] = {
		{ "--cache", &config.cache_dir, false },
		{ "--info", &t.request.python_info, true },
		{ "--settings", &t.request.pip_settings, true },
		{ "--index-url", &t.request.index_url, false },
		{ "--resolver", &t.python_path, false },
		{ "--requirements", &t.request.requirements, true },
		{ "--pyproject", &t.request.pyproject, true },
		{ "--pep723", &t.request.pep723, true },
		{ "--pylock", &t.request.pylock, true },
		{ "--inputs", &t.request.inputs, true },
		{ NULL, NULL, false },
	};
	int repeat = read_args(&t, argv, options, with);
	struct err err;

	t.request.with = with;
	uv_loop_init(&t.loop);
	uv_timer_init(&t.loop, &t.closer);
	t.closer.data = &t;
	if (index_open(&t.loop, &config, &t.index, &err) < 0) {
		fprintf(stderr, "error: %s\n", err.text);
		t.status = 2;
	} else {
		work(&t, repeat);
	}
	uv_close((uv_handle_t *)&t.closer, NULL);
	uv_run(&t.loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&t.loop) != 0) {
		fprintf(stderr, "error: handles are left open\n");
		t.status = 99;
	}
	free(with);
	for (const struct option *o = options; o->name; o++)
		if (o->file)
			free((char *)*o->to);
	return t.status;
}
