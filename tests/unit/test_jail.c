/* SPDX-License-Identifier: Apache-2.0
 *
 * The start-up and jobs, for real: namespaces, ids, mounts. Each test runs in a forked child,
 * because jail_start() changes its process for good; the child reports by its exit code.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/mem.h"
#include "jail/cell.h"
#include "jail/ids.h"
#include "jail/jail.h"
#include "jail/jail_priv.h"
#include "jail/job.h"
#include "jail/start.h"

static const char *lib_dir; /* the build's, from the command line */

struct outcome {
	int calls, status;
	struct err err;
};

static void on_job(void *arg, int status, const struct err *err)
{
	struct outcome *o = arg;

	o->calls++;
	o->status = status;
	if (err)
		o->err = *err;
}

/* Run a shell line in a job; its output to out. Returns the wait status or -1. */
static int run_line(uv_loop_t *loop, struct jail *jail, const char *line, const char *share,
		    struct buf *out)
{
	const char *argv[] = { "/bin/sh", "-c", line, NULL };
	struct outcome o = { .err = ERR_INIT };
	struct err err;
	int pipefd[2];

	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return -1;
	struct jail_job_spec spec = {
		.argv = argv, .fds = { -1, pipefd[1], pipefd[1] }, .nfds = 3, .deadline_ms = 5000
	};
	if (share) {
		spec.mounts[0] = (struct jail_mount){ share, "/out", true };
		spec.nmounts = 1;
	}
	if (jail_job_start(jail, &spec, on_job, &o, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return -1;
	}
	close(pipefd[1]);
	while (!o.calls)
		uv_run(loop, UV_RUN_ONCE);
	if (buf_read_fd(out, pipefd[0], &err) < 0)
		return -1;
	close(pipefd[0]);
	if (o.err.kind) {
		fprintf(stderr, "%s\n", o.err.text);
		return -1;
	}
	return o.calls == 1 ? o.status : -1;
}

#define check(x)                                                                   \
	do {                                                                       \
		if (!(x)) {                                                        \
			fprintf(stderr, "line %d: %s; output: %s\n", __LINE__, #x, \
				out.data ? out.data : "");                         \
			return 1;                                                  \
		}                                                                  \
	} while (0)

static int start(const char *dir, uv_loop_t *loop, struct jail **jail)
{
	char state[256], cache[256], run[256];
	struct jail_start *s;
	struct err err;

	snprintf(state, sizeof(state), "%s/state", dir);
	snprintf(cache, sizeof(cache), "%s/cache", dir);
	snprintf(run, sizeof(run), "%s/run", dir);
	struct jail_start_config config = { state, cache, run, lib_dir, NULL };
	if (jail_start(&config, &s, &err) < 0 || uv_loop_init(loop) < 0 ||
	    jail_open(loop, s, jail, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return -1;
	}
	return 0;
}

static int job_in_child(const char *dir)
{
	auto_buf struct buf out = { 0 };
	struct jail *jail;
	uv_loop_t loop;
	int status;

	check(start(dir, &loop, &jail) == 0);
	status = run_line(&loop, jail, "echo pid $$; ls /; id -u; cat /proc/self/status", NULL,
			  &out);
	check(status == 0);
	check(strstr(out.data, "pid 10000\n"));
	check(strstr(out.data, "CapEff:\t0000000000000000"));
	check(strstr(out.data, "NoNewPrivs:\t1"));
	check(strstr(out.data, "Seccomp:\t2"));
	check(!strstr(out.data, "root\n"));
	buf_reset(&out);
	status = run_line(&loop, jail,
			  "touch /x; touch /usr/x; kill -9 1; ls /proc | grep -c '^[0-9]'", NULL,
			  &out);
	check(strstr(out.data, "'/x': Read-only") && strstr(out.data, "'/usr/x': Read-only"));
	buf_reset(&out);
	status = run_line(&loop, jail, "exit 7", NULL, &out);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	status = run_line(&loop, jail, "ls /usr/lib/python3/dist-packages /sys /home/user", NULL,
			  &out);
	check(status == 0 && !strstr(out.data, "packaging"));
	jail_close(jail);
	return 0;
}

static int share_in_child(const char *dir)
{
	auto_buf struct buf out = { 0 };
	char share[256], file[300];
	struct jail *jail;
	uv_loop_t loop;
	struct stat st;

	check(start(dir, &loop, &jail) == 0);
	snprintf(share, sizeof(share), "%s",
		 geteuid() == 0 && access("/mnt/state", F_OK) == 0 ? "/mnt/cache/share"
								   : "/nonexistent");
	if (access("/mnt/state", F_OK) < 0)
		snprintf(share, sizeof(share), "%s/cache/share", dir);
	check(mkdir(share, 0777) == 0 && chmod(share, 0777) == 0);
	check(run_line(&loop, jail, "echo hi > /out/f && chmod 4755 /out/f; ls -l /out", share,
		       &out) == 0);
	snprintf(file, sizeof(file), "%s/f", share);
	check(stat(file, &st) == 0 && (st.st_mode & S_ISUID) == 0);
	check(strstr(out.data, "not permitted")); /* seccomp refuses set-id bits */
	jail_close(jail);
	return 0;
}

static int in_child(int (*body)(const char *dir))
{
	char dir[] = "/tmp/pipsqueak-test-XXXXXX";
	struct err err;
	int status;
	pid_t pid;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(chmod(dir, 0755), 0);
	pid = fork();
	if (pid == 0)
		_exit(body(dir));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(fd_remove_tree(AT_FDCWD, dir, &err), 0);
	return status;
}

static void test_a_job_is_caged(void **state)
{
	assert_int_equal(in_child(job_in_child), 0);
}

static void test_a_job_writes_where_it_may(void **state)
{
	assert_int_equal(in_child(share_in_child), 0);
}

static void take_all(struct id_block *b, uint32_t size, uint32_t least, bool wide)
{
	static uint32_t firsts[1000], sizes[1000];
	const uint32_t own = 1;
	uint32_t n = 0, sum = 0;

	id_block_init(b, size, own, wide);
	while (n < 1000 && id_take_block(b, &firsts[n], &sizes[n])) {
		assert_true(sizes[n] && firsts[n] >= own && firsts[n] + sizes[n] <= size);
		for (uint32_t i = 0; i < n; i++)
			assert_true(firsts[n] + sizes[n] <= firsts[i] ||
				    firsts[i] + sizes[i] <= firsts[n]);
		sum += sizes[n++];
	}
	assert_int_equal(sum, size - own);
	assert_true(n >= least);
	for (uint32_t i = 0; i < n; i += 2) /* neighbours on both sides come later */
		id_give_block(b, firsts[i], sizes[i]);
	for (uint32_t i = 1; i < n; i += 2)
		id_give_block(b, firsts[i], sizes[i]);
}

static void test_ids(void **state)
{
	struct id_block b;
	struct id_pool p;
	static const uint32_t least[] = { 900, 35, 20, 5 };
	uint32_t first, size = 1 << 21, id, n = 0;

	for (int depth = 0; depth < 4; depth++) { /* wide */
		take_all(&b, size, least[depth], depth == 0);
		assert_int_equal(b.nfree, 1);
		assert_int_equal(b.free[0].size, size - 1);
		assert_true(id_take_block(&b, &first, &size));
		id_block_done(&b);
	}
	for (int i = 0; i < 2; i++) {	      /* and deep */
		size = i ? 1 << 13 : 1 << 21; /* of 65536 in all */
		for (int depth = 1; depth <= LIMIT_TREE_DEPTH; depth++) {
			id_block_init(&b, size, 1, depth == 1);
			assert_true(id_take_block(&b, &first, &size));
			id_block_done(&b);
		}
	}
	id_block_init(&b, 1, 1, false);
	assert_false(id_take_block(&b, &first, &size));
	id_block_done(&b);
	id_pool_init(&p, 100);
	while (id_take(&p, &id))
		assert_int_equal(id, n++);
	assert_int_equal(n, 100);
	id_give(&p, 17);
	assert_true(id_take(&p, &id));
	assert_int_equal(id, 17);
	id_pool_done(&p);
}

/* A child of this pid (0: of any), which waits to be killed. -1: this pid cannot be had. */
static pid_t child_of_pid(pid_t pid)
{
	struct clone_args args = { .exit_signal = SIGCHLD };
	long made;

	if (pid) {
		args.set_tid = (uint64_t)(uintptr_t)&pid;
		args.set_tid_size = 1;
	}
	made = syscall(SYS_clone3, &args, sizeof(args));
	while (made == 0)
		pause();
	return (pid_t)made;
}

static void note_status(void *arg, int status)
{
	*(int *)arg = status;
}

static void turn_until(uv_loop_t *loop, pid_t pid)
{
	for (int i = 0; i < 1000; i++) {
		uv_run(loop, UV_RUN_NOWAIT);
		if (kill(pid, 0) < 0)
			return;
		usleep(1000);
	}
	fail_msg("process %d is not reaped", pid);
}

/* The end of a helper that nobody claimed was taken for that of a later process of its pid: an
 * installer was believed to be done before it began, and an empty entry was published. */
static void test_r001_a_pid_comes_again(void **state)
{
	struct jail jail = { 0 };
	int status = -1;
	struct err err;
	uv_loop_t loop;
	pid_t pid;

	assert_int_equal(uv_loop_init(&loop), 0);
	jail.loop = &loop;
	assert_int_equal(reaper_open(&jail, &err), 0);
	pid = child_of_pid(0);
	assert_true(pid > 0);
	kill(pid, SIGKILL);
	turn_until(&loop, pid); /* unclaimed */
	if (child_of_pid(pid) < 0) {
		/* Not ours to choose here (EPERM), or taken by now (EEXIST). */
		assert_true(errno == EPERM || errno == EEXIST);
	} else {
		jail_watch(&jail, pid, note_status, &status);
		uv_run(&loop, UV_RUN_NOWAIT);
		assert_int_equal(status, -1);
		kill(pid, SIGTERM);
		turn_until(&loop, pid);
		assert_int_equal(status, SIGTERM);
	}
	/* One that ended before it was asked for is still told. */
	status = -1;
	pid = child_of_pid(0);
	kill(pid, SIGKILL);
	turn_until(&loop, pid);
	jail_watch(&jail, pid, note_status, &status);
	assert_int_equal(status, SIGKILL);
	reaper_close(&jail);
	uv_close((uv_handle_t *)jail.reaper, NULL); /* its first member is the signal's handle */
	uv_run(&loop, UV_RUN_DEFAULT);
	free(jail.reaper);
	assert_int_equal(uv_loop_close(&loop), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_r001_a_pid_comes_again),
		cmocka_unit_test(test_a_job_is_caged),
		cmocka_unit_test(test_a_job_writes_where_it_may),
	};

	if (argc < 2)
		return 2;
	lib_dir = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
