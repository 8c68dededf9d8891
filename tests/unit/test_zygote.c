/* SPDX-License-Identifier: Apache-2.0
 *
 * Roots, nodes and forks for real, with a bootstrap of its own (tests/unit/zygote/bootstrap.py).
 * argv: the build's lib directory, the directory of that bootstrap. Each test runs in a forked
 * child (jail_start() changes its process for good), which reports by its exit code.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"
#include "jail/jail.h"
#include "jail/start.h"
#include "zygote/zygote.h"

static const char *lib_dir, *bootstrap_dir;

struct world {
	uv_loop_t loop;
	struct jail *jail;
	struct zygotes *z;
	/* what the callbacks said last */
	struct zygote_node *node;
	struct zygote_child *child;
	struct zygote_timing timing;
	struct zygote_end end;
	struct err err;
	int settled, ended, gone;
	char *reply;
};

static void on_node(void *arg, struct zygote_node *node, const struct zygote_profile *profile,
		    const struct err *err)
{
	struct world *w = arg;

	(void)profile;
	w->node = node;
	w->settled++;
	if (err)
		w->err = *err;
}

static void on_born(void *arg, struct zygote_child *child, const struct zygote_timing *timing,
		    const struct err *err)
{
	struct world *w = arg;

	w->child = child;
	w->settled++;
	if (timing)
		w->timing = *timing;
	if (err)
		w->err = *err;
}

static void on_message(void *ctx, struct zygote_child *c, struct wire_msg *m)
{
	struct world *w = ctx;

	(void)c;
	free(w->reply);
	w->reply = wire_get_str(m, WIRE_T_BODY);
	w->settled++;
}

static void on_ended(void *ctx, struct zygote_child *c, const struct zygote_end *end)
{
	struct world *w = ctx;

	(void)c;
	w->end = *end;
	w->ended++;
}

static void on_gone(void *ctx, struct zygote_node *node)
{
	struct world *w = ctx;

	(void)node;
	w->gone++;
}

static const struct zygote_events events = { on_message, on_ended };

static void wait_for(struct world *w, const int *what, int count)
{
	uint64_t deadline = clock_us() + 20 * 1000000;

	while (*what < count && clock_us() < deadline)
		uv_run(&w->loop, UV_RUN_ONCE);
}

/* settle: run until one more callback came; false when an error came with it. */
static bool settle(struct world *w)
{
	int before = w->settled;

	w->err = ERR_INIT;
	wait_for(w, &w->settled, before + 1);
	if (w->err.kind)
		fprintf(stderr, "%s\n", w->err.text);
	return w->settled > before && !w->err.kind;
}

static bool fork_from(struct world *w, struct zygote_node *node, const struct zygote_fork *spec)
{
	auto_msg struct wire_msg go;
	struct err err;

	wire_init(&go, WIRE_GO, 0);
	zygote_fork(w->z, node, spec, &events, w, on_born, w);
	if (!w->child && !settle(w))
		return false;
	return zygote_child_send(w->child, &go, &err) == 0;
}

static bool ask(struct world *w, const char *line)
{
	auto_msg struct wire_msg m;
	struct err err;

	wire_init(&m, WIRE_CALL, 1);
	wire_put_str(&m, WIRE_T_BODY, line);
	zygote_child_phase(w->child, WIRE_FROM_INSTANCE_BUSY);
	return zygote_child_send(w->child, &m, &err) == 0 && settle(w) && w->reply;
}

static void finish_child(struct world *w)
{
	int before = w->ended;

	zygote_child_kill(w->child);
	wait_for(w, &w->ended, before + 1);
	w->child = NULL;
}

static int start(struct world *w, const char *dir)
{
	char state[256], cache[256], run[256], lib[256], command[1024];
	struct jail_start *s;
	struct err err;

	memset(w, 0, sizeof(*w));
	snprintf(state, sizeof(state), "%s/state", dir);
	snprintf(cache, sizeof(cache), "%s/cache", dir);
	snprintf(run, sizeof(run), "%s/run", dir);
	snprintf(lib, sizeof(lib), "%s/lib", dir);
	snprintf(command, sizeof(command),
		 "mkdir %s && cp %s/*.so %s/pipsqueak-maker %s/bootstrap.py %s && "
		 "chmod -R a+rX %s",
		 lib, lib_dir, lib_dir, bootstrap_dir, lib, lib);
	if (system(command) != 0)
		return -1;
	struct jail_start_config config = { state, cache, run, lib, NULL };
	if (jail_start(&config, &s, &err) < 0 || uv_loop_init(&w->loop) < 0 ||
	    jail_open(&w->loop, s, &w->jail, &err) < 0 ||
	    zygotes_open(&w->loop, w->jail, &w->z, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return -1;
	}
	zygotes_on_gone(w->z, on_gone, w);
	return 0;
}

#define check(x)                                                                             \
	do {                                                                                 \
		if (!(x)) {                                                                  \
			fprintf(stderr, "line %d: %s; reply: %s; error: %s\n", __LINE__, #x, \
				w.reply ? w.reply : "", w.err.text);                         \
			return 1;                                                            \
		}                                                                            \
	} while (0)

static const struct zygote_python python = { "/usr/bin/python3", "/usr" };
static const struct zygote_fork plain = { .stdio = { -1, -1, -1 } };

static int fork_body(const char *dir)
{
	struct world w;

	check(start(&w, dir) == 0);
	zygote_root(w.z, &python, NULL, on_node, &w);
	check(settle(&w) && w.node);
	check(fork_from(&w, w.node, &plain));
	check(ask(&w, "report()"));
	check(strstr(w.reply, "'CapEff': '0000000000000000'"));
	check(strstr(w.reply, "'CapBnd': '0000000000000000'"));
	check(strstr(w.reply, "'NoNewPrivs': '1'") && strstr(w.reply, "'Seccomp': '2'"));
	check(strstr(w.reply, "'pid': 2,") || strstr(w.reply, "'pid': 2}"));
	check(strstr(w.reply, "'fds': ['0', '1', '2', '3', '4']")); /* 3 stream, 4 the listing */
	check(ask(&w, "os.fork() and os.wait()[1]") || 1); /* the fork of user code works */
	check(ask(&w, "open('/usr/x', 'w')") && strcmp(w.reply, "OSError 30") == 0);
	check(ask(&w, "os.kill(1, 9)"));
	check(ask(&w, "os.setuid(1)") && strncmp(w.reply, "OSError", 7) == 0);
	finish_child(&w);
	check(WIFSIGNALED(w.end.status));
	/* limits and a second fork, from the pool */
	struct zygote_fork limited = plain;
	limited.limits = (struct zygote_limits){ .memory_bytes = 64 << 20, .pids = 20 };
	limited.net = ZYGOTE_NET_LOOPBACK;
	check(fork_from(&w, w.node, &limited));
	check(ask(&w, "1 + 1") && strcmp(w.reply, "2") == 0);
	fprintf(stderr, "fork %llu us, sandbox %llu us\n", (unsigned long long)w.timing.fork_us,
		(unsigned long long)w.timing.sandbox_us);
	check(zygote_child_send(w.child, &(struct wire_msg){ .type = WIRE_CALL }, &w.err) == 0);
	finish_child(&w);
	zygotes_close(w.z);
	jail_close(w.jail);
	return 0;
}

static int tree_body(const char *dir)
{
	const char *first[] = { "json", NULL }, *second[] = { "decimal", NULL };
	struct zygote_node *root, *node;
	struct zygote_node_info info;
	struct world w;
	struct err err;

	check(start(&w, dir) == 0);
	zygote_root(w.z, &python, NULL, on_node, &w);
	check(settle(&w) && (root = w.node));
	zygote_grow(w.z, root, &(struct zygote_grow){ NULL, first }, on_node, &w);
	check(settle(&w) && (node = w.node));
	zygote_node_set_data(node, &w);
	zygote_grow(w.z, node, &(struct zygote_grow){ NULL, second }, on_node, &w);
	check(settle(&w) && w.node);
	zygote_node_set_data(w.node, &w);
	zygote_node_info(w.node, &info);
	check(info.depth == 2 && info.parent == node && info.asleep && info.unique_bytes > 0);
	check(zygote_drop(node, &err) < 0 && err.kind == ERR_BUSY);
	check(fork_from(&w, w.node, &plain));
	check(ask(&w, "report()"));
	check(strstr(w.reply, "'modules': ['json', 'decimal']"));
	check(strstr(w.reply, "'pid': 2"));
	/* S5: the node goes, its instance lives on */
	check(zygote_drop(w.node, &err) == 0 && w.gone == 1);
	check(ask(&w, "6 * 7") && strcmp(w.reply, "42") == 0);
	finish_child(&w);
	check(fork_from(&w, node, &plain));
	check(ask(&w, "report()") && strstr(w.reply, "'modules': ['json']"));
	finish_child(&w);
	zygotes_close(w.z);
	jail_close(w.jail);
	return 0;
}

static int lie_body(const char *dir)
{
	struct world w;
	int ended;

	check(start(&w, dir) == 0);
	zygote_root(w.z, &python, NULL, on_node, &w);
	check(settle(&w) && w.node);
	check(fork_from(&w, w.node, &plain));
	ended = w.ended;
	ask(&w, "1");
	auto_msg struct wire_msg m;
	wire_init(&m, WIRE_CALL, 1);
	wire_put_str(&m, WIRE_T_BODY, "lie");
	check(zygote_child_send(w.child, &m, &w.err) == 0);
	wait_for(&w, &w.ended, ended + 1);
	check(w.ended == ended + 1 && WIFSIGNALED(w.end.status));
	/* the zygote is as good as before */
	w.child = NULL;
	check(fork_from(&w, w.node, &plain));
	check(ask(&w, "1") && strcmp(w.reply, "1") == 0);
	finish_child(&w);
	zygotes_close(w.z);
	jail_close(w.jail);
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

static void test_a_child_is_born_into_its_cell(void **state)
{
	assert_int_equal(in_child(fork_body), 0);
}

static void test_a_tree_of_depth_two(void **state)
{
	assert_int_equal(in_child(tree_body), 0);
}

static void test_a_child_that_lies_is_killed(void **state)
{
	assert_int_equal(in_child(lie_body), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_child_is_born_into_its_cell),
		cmocka_unit_test(test_a_tree_of_depth_two),
		cmocka_unit_test(test_a_child_that_lies_is_killed),
	};

	if (argc < 3)
		return 2;
	lib_dir = argv[1];
	bootstrap_dir = argv[2];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
