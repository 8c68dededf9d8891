/* SPDX-License-Identifier: Apache-2.0
 *
 * One call's life, and what is learnt from it, with stand-ins for the rooms below.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>
#include <zip.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "function/function.h"
#include "function_doubles.h"
#include "zygote/zygote.h"

struct fixture {
	uv_loop_t loop;
	char dir[64];
	struct zygotes *zygotes;
	struct functions *f;
};

struct answer {
	int times;
	enum err_kind kind;
	char text[2048], body[4096];
	const char *start;
	uint64_t handler_us;
};

static void reopen(struct fixture *x)
{
	struct functions_config config = { .loop = &x->loop,
					   .state_dir = x->dir,
					   .zygotes = x->zygotes,
					   .python = "/usr/bin/python3",
					   .memory_bytes = 1 * GIB };
	struct err err = ERR_INIT;

	if (functions_open(&config, &x->f, &err) < 0)
		fail_msg("%s", err.text);
}

/* Turn the loop until *flag is at least want, or nothing more happens for a while. */
static void turn(struct fixture *x, const int *flag, int want)
{
	int quiet = 0;

	for (int i = 0; i < 5000 && (!flag || *flag < want); i++) {
		if (!uv_run(&x->loop, UV_RUN_NOWAIT))
			break;
		/* what is planned on a thread counts as being busy */
		quiet = !x->f || functions_idle_us(x->f) > 0 ? quiet + 1 : 0;
		if (!flag && (quiet > 300 || i > 2000))
			break;
		usleep(200);
	}
	if (flag)
		assert_int_equal(*flag, want);
}

static int set_up(void **state)
{
	struct fixture *x = mem_new(struct fixture);
	struct err err;

	memset(&doubles, 0, sizeof(doubles));
	strcpy(x->dir, "/tmp/test_function.XXXXXX");
	assert_non_null(mkdtemp(x->dir));
	uv_loop_init(&x->loop);
	assert_int_equal(zygotes_open(&x->loop, NULL, &x->zygotes, &err), 0);
	reopen(x);
	turn(x, NULL, 0);
	*state = x;
	return 0;
}

static void close_functions(struct fixture *x)
{
	functions_drain(x->f, 1000, NULL, NULL);
	turn(x, NULL, 0);
	zygotes_close(x->zygotes);
	functions_close(x->f);
	x->f = NULL;
	turn(x, NULL, 0);
}

static int tear_down(void **state)
{
	struct fixture *x = *state;
	struct err err;

	close_functions(x);
	assert_int_equal(fd_remove_tree(AT_FDCWD, x->dir, &err), 0);
	uv_loop_close(&x->loop);
	free(x);
	return 0;
}

/* A zip of name, text pairs; NULL ends. */
static void *make_zip(size_t *len, const char *const *members)
{
	zip_error_t ze;
	zip_source_t *src;
	zip_t *z;
	zip_stat_t st;
	void *out;

	zip_error_init(&ze);
	src = zip_source_buffer_create(NULL, 0, 0, &ze);
	z = zip_open_from_source(src, ZIP_TRUNCATE, &ze);
	assert_non_null(z);
	zip_source_keep(src);
	for (; members[0]; members += 2) {
		zip_source_t *m = zip_source_buffer(z, members[1], strlen(members[1]), 0);

		assert_true(zip_file_add(z, members[0], m, 0) >= 0);
	}
	assert_int_equal(zip_close(z), 0);
	zip_source_stat(src, &st);
	out = malloc(st.size);
	zip_source_open(src);
	zip_source_read(src, out, st.size);
	zip_source_close(src);
	zip_source_free(src);
	*len = st.size;
	return out;
}

static void on_done(void *arg, const char *json, const struct err *err)
{
	struct answer *a = arg;

	a->times++;
	a->kind = err ? err->kind : ERR_NONE;
	snprintf(a->text, sizeof(a->text), "%s", err ? err->text : json);
}

static struct answer deploy(struct fixture *x, const char *name, const char *const *members)
{
	struct answer a = { 0 };
	size_t len;
	void *zip = make_zip(&len, members);
	struct function_upload up = { .name = name, .zip = zip, .zip_bytes = len };

	functions_deploy(x->f, &up, NULL, on_done, &a);
	free(zip);
	turn(x, &a.times, 1);
	return a;
}

static void on_reply(void *arg, const struct function_reply *r)
{
	struct answer *a = arg;

	a->times++;
	a->kind = r->err ? r->err->kind : ERR_NONE;
	a->start = r->timing.start;
	a->handler_us = r->timing.handler_us;
	snprintf(a->text, sizeof(a->text), "%s", r->err ? r->err->text : "");
	snprintf(a->body, sizeof(a->body), "%.*s", (int)r->body_len, r->body ? r->body : "");
}

static struct answer call(struct fixture *x, const char *name, const char *event)
{
	struct answer a = { 0 };

	functions_call(x->f, name, event, strlen(event), on_reply, &a);
	turn(x, &a.times, 1);
	return a;
}

/* Instances that were forked ahead of their calls. */
static int spares(struct fixture *x)
{
	auto_buf struct buf text = { 0 };
	struct err err;

	turn(x, NULL, 0);
	assert_int_equal(functions_status(x->f, &text, &err), 0);
	json_t *root = json_loads(text.data, 0, NULL);
	int n = (int)json_integer_value(json_object_get(root, "spares"));

	json_decref(root);
	return n;
}

static const char *const plain[] = { "main.py", "def handler(e): return e", NULL };
static const char *const with_numpy[] = { "main.py", "def handler(e): return e", "requirements.txt",
					  "numpy", NULL };

static void test_deploy_and_call(void **state)
{
	struct fixture *x = *state;
	struct answer a = deploy(x, "echo", plain);

	assert_int_equal(a.kind, ERR_NONE);
	assert_non_null(strstr(a.text, "\"version\": 1"));
	a = call(x, "echo", "{\"a\": 1}");
	assert_int_equal(a.kind, ERR_NONE);
	assert_string_equal(a.body, "{\"a\": 1}");
	assert_string_equal(a.start, "cold");
	assert_int_equal(a.handler_us, 22);
	a = call(x, "echo", "[]");
	assert_string_equal(a.start, "warm");
	assert_int_equal(doubles.forks, 1);
}

static void test_bad_calls(void **state)
{
	struct fixture *x = *state;
	auto_free char *big = malloc(LIMIT_EVENT_BYTES + 1);
	struct answer a = { 0 };

	deploy(x, "echo", plain);
	assert_int_equal(call(x, "other", "{}").kind, ERR_NOT_FOUND);
	assert_int_equal(call(x, "echo", "{").kind, ERR_USAGE);
	assert_int_equal(call(x, "echo", "").kind, ERR_USAGE);
	functions_call(x->f, "echo", big, LIMIT_EVENT_BYTES + 1, on_reply, &a);
	assert_int_equal(a.times, 1);
	assert_int_equal(a.kind, ERR_TOO_BIG);
	assert_int_equal(doubles.forks, 0);
}

static void test_failing_handlers(void **state)
{
	struct fixture *x = *state;
	struct answer a;

	deploy(x, "echo", plain);
	a = call(x, "echo", "\"raise\"");
	assert_int_equal(a.kind, ERR_HANDLER);
	assert_string_equal(a.text, "ValueError: no");
	assert_string_equal(a.body, "Traceback ...");
	a = call(x, "echo", "\"die\"");
	assert_int_equal(a.kind, ERR_DIED);
	a = call(x, "echo", "\"oom\"");
	assert_int_equal(a.kind, ERR_DIED);
	assert_non_null(strstr(a.text, "out of memory"));
	a = call(x, "echo", "\"start\"");
	assert_int_equal(a.kind, ERR_START);
	assert_int_equal(spares(x), doubles.alive); /* an instance without a handler is not kept */
	deploy(x, "other", plain);
	doubles.fail_forks = 2;
	assert_int_equal(call(x, "other", "1").kind, ERR_START);
	doubles.fail_forks = 0;
	assert_int_equal(call(x, "other", "1").kind, ERR_NONE);
}

static void test_timeout(void **state)
{
	struct fixture *x = *state;
	static const char *const members[] = { "main.py", "x", "pipsqueak.toml", "timeout", NULL };
	struct answer a;

	doubles.job_output = "{\"timeout\": 0.05, \"concurrency\": 1}";
	assert_int_equal(deploy(x, "slow", members).kind, ERR_NONE);
	a = call(x, "slow", "\"hang\"");
	assert_int_equal(a.kind, ERR_TIMEOUT);
	assert_int_equal(doubles.kills, 1);
	assert_int_equal(call(x, "slow", "1").kind, ERR_NONE);
}

static void test_queue(void **state)
{
	struct fixture *x = *state;
	static const char *const members[] = { "main.py", "x", "pipsqueak.toml", "", NULL };
	struct answer *all = mem_zero(LIMIT_QUEUE + 2, sizeof(*all)), cancelled = { 0 };
	struct function_call *first;
	int full = 0;

	doubles.job_output = "{\"concurrency\": 1, \"timeout\": 0.3}";
	deploy(x, "one", members);
	functions_call(x->f, "one", "\"hang\"", 6, on_reply, &all[0]);
	first = functions_call(x->f, "one", "1", 1, on_reply, &cancelled);
	for (int i = 1; i <= LIMIT_QUEUE; i++)
		functions_call(x->f, "one", "1", 1, on_reply, &all[i]);
	for (int i = 1; i <= LIMIT_QUEUE; i++)
		full += all[i].kind == ERR_BUSY;
	assert_int_equal(full, 1);
	functions_cancel(first);
	turn(x, &all[LIMIT_QUEUE - 1].times, 1);
	assert_int_equal(all[0].kind, ERR_TIMEOUT);
	for (int i = 0; i <= LIMIT_QUEUE; i++)
		assert_int_equal(all[i].times, 1);
	assert_int_equal(cancelled.times, 0);
	assert_true(functions_idle_us(x->f) > 0);
	free(all);
}

static void test_fresh_instance_each_time(void **state)
{
	struct fixture *x = *state;
	static const char *const members[] = { "main.py", "x", "pipsqueak.toml", "", NULL };

	doubles.job_output = "{\"reuse\": false}";
	deploy(x, "fresh", members);
	for (int i = 0; i < 3; i++) {
		struct answer a = call(x, "fresh", "1");

		assert_int_equal(a.kind, ERR_NONE);
		assert_string_equal(a.start, i ? "spare" : "cold");
		assert_int_equal(spares(x), 1); /* for the next call */
		assert_int_equal(doubles.alive, 1);
	}
	assert_int_equal(doubles.forks,
			 5); /* one spare was of the root, before there was the node */
}

/* Once nothing is learnt any more, one spare forks for call after call. */
static void test_a_spare_that_forks(void **state)
{
	struct fixture *x = *state;
	static const char *const members[] = { "main.py", "x", "pipsqueak.toml", "", NULL };
	struct answer pair[2] = { 0 };
	int forks, more;

	doubles.job_output = "{\"reuse\": false}";
	deploy(x, "fresh", members);
	assert_int_equal(call(x, "fresh", "1").kind, ERR_NONE);
	turn(x, NULL, 0); /* its node is planned on a thread */
	for (int i = 0; i < 8; i++)
		assert_int_equal(call(x, "fresh", "1").kind, ERR_NONE);
	forks = doubles.forks;
	for (int i = 0; i < 20; i++)
		assert_string_equal(call(x, "fresh", "1").start, "spare");
	assert_int_equal(doubles.forks, forks);
	more = spares(x) < 2;
	/* Two at once: the second finds none, if there is but one, and makes one more, which stays.
	 */
	for (int round = 1; round <= 3; round++) {
		functions_call(x->f, "fresh", "1", 1, on_reply, &pair[0]);
		functions_call(x->f, "fresh", "1", 1, on_reply, &pair[1]);
		turn(x, &pair[0].times, round);
		turn(x, &pair[1].times, round);
	}
	assert_int_equal(doubles.forks, forks + more);
	assert_int_equal(call(x, "fresh", "\"die\"").kind, ERR_DIED);
	assert_int_equal(call(x, "fresh", "1").kind, ERR_NONE);
	/* A cell that is worn out is nobody's fault: however many, the next spare forks, too. */
	doubles.cell = WIRE_AGAIN_WORN;
	for (int i = 0; i < 6; i++)
		assert_int_equal(call(x, "fresh", "1").kind, ERR_NONE);
	doubles.cell = WIRE_AGAIN_CLEAN;
	assert_int_equal(call(x, "fresh", "1").kind, ERR_NONE);
	forks = doubles.forks;
	for (int i = 0; i < 6; i++)
		assert_int_equal(call(x, "fresh", "1").kind, ERR_NONE);
	assert_int_equal(doubles.forks, forks);
	/* Two calls in a row on a cell that is thrown away: the one that waits goes elsewhere. */
	doubles.cell = WIRE_AGAIN_UNTIDY;
	for (int round = 4; round <= 8; round++) {
		functions_call(x->f, "fresh", "1", 1, on_reply, &pair[0]);
		turn(x, &pair[0].times, round);
		functions_call(x->f, "fresh", "1", 1, on_reply, &pair[1]);
		turn(x, &pair[1].times, round);
		assert_int_equal(pair[0].kind | pair[1].kind, ERR_NONE);
	}
	/* Such a function's instances are made anew, as cells that must be thrown away are. */
	forks = doubles.forks;
	for (int i = 0; i < 3; i++)
		assert_int_equal(call(x, "fresh", "1").kind, ERR_NONE);
	assert_true(doubles.forks >= forks + 3);
	assert_int_equal(doubles.alive, spares(x));
}

static void test_spares_keep_out_of_the_way(void **state)
{
	struct fixture *x = *state;
	static const char *const members[] = { "main.py", "x", "pipsqueak.toml", "", NULL };
	struct answer all[8] = { 0 };

	doubles.job_output = "{\"reuse\": false}";
	deploy(x, "fresh", members);
	for (int round = 0; round < 3; round++) { /* bursts: more are wanted, up to a limit */
		for (int i = 0; i < 8; i++)
			functions_call(x->f, "fresh", "1", 1, on_reply, &all[i]);
		for (int i = 0; i < 8; i++)
			turn(x, &all[i].times, round + 1);
	}
	assert_int_equal(spares(x), LIMIT_SPARES);
	deploy(x, "fresh", members); /* of the old version none stays */
	assert_int_equal(spares(x), 0);
	assert_int_equal(doubles.alive, 0);
	doubles.fail_forks = 100; /* a spare that cannot be made is no one's error */
	assert_int_equal(call(x, "fresh", "1").kind, ERR_START);
	doubles.fail_forks = 0;
	assert_int_equal(call(x, "fresh", "1").kind, ERR_NONE);
	assert_int_equal(spares(x), 1);
}

static void test_bad_deploys(void **state)
{
	struct fixture *x = *state;
	static const char *const no_handler[] = { "a.py", "", "b.py", "", NULL };
	static const char *const escape[] = { "../main.py", "", NULL };
	static const char *const toml[] = { "main.py", "", "pipsqueak.toml", "", NULL };
	struct answer a = { 0 };
	struct function_upload up = { .name = "x", .zip = "nonsense", .zip_bytes = 8 };

	assert_int_equal(deploy(x, "Bad Name", plain).kind, ERR_USAGE);
	assert_int_equal(deploy(x, "x", no_handler).kind, ERR_USAGE);
	assert_int_equal(deploy(x, "x", escape).kind, ERR_USAGE);
	functions_deploy(x->f, &up, NULL, on_done, &a);
	turn(x, &a.times, 1);
	assert_int_equal(a.kind, ERR_USAGE);
	doubles.job_output = "{\"memry\": 1}";
	a = deploy(x, "x", toml);
	assert_int_equal(a.kind, ERR_USAGE);
	assert_non_null(strstr(a.text, "memry"));
	assert_int_equal(call(x, "x", "1").kind, ERR_NOT_FOUND);
}

static void test_redeploy(void **state)
{
	struct fixture *x = *state;
	struct answer running = { 0 }, a;

	deploy(x, "echo", plain);
	call(x, "echo", "1");
	functions_call(x->f, "echo", "\"x\"", 3, on_reply, &running);
	a = deploy(x, "echo", plain);
	assert_non_null(strstr(a.text, "\"version\": 2"));
	turn(x, &running.times, 1);
	assert_int_equal(running.kind, ERR_NONE); /* S5: the old version ended its call */
	doubles.resolve_error = "no such package";
	a = deploy(x, "echo", with_numpy);
	assert_int_equal(a.kind, ERR_NOT_FOUND);
	assert_int_equal(call(x, "echo", "1").kind, ERR_NONE); /* and version 2 still serves */
	turn(x, NULL, 0);
	auto_free char *apps = mem_printf("ls %s/apps/echo | tr '\\n' ' ' > %s/ls", x->dir, x->dir);
	auto_free char *ls = mem_printf("%s/ls", x->dir);
	auto_buf struct buf text = { 0 };
	struct err err;

	assert_int_equal(system(apps), 0);
	assert_int_equal(buf_read_file(&text, AT_FDCWD, ls, &err), 0);
	assert_string_equal(text.data, "2 ");
}

static void test_a_node_grows_and_serves(void **state)
{
	struct fixture *x = *state;
	auto_buf struct buf tree = { 0 };
	struct answer a;
	struct err err;

	assert_int_equal(deploy(x, "num", with_numpy).kind, ERR_NONE);
	assert_int_equal(doubles.resolves, 1);
	assert_int_equal(doubles.envs, 1);
	a = call(x, "num", "1");
	assert_string_equal(a.start, "cold");
	turn(x, &doubles.grown, 1);
	/* in import order; not the function's own modules */
	assert_string_equal(doubles.modules, "json numpy numpy.linalg");
	turn(x, NULL, 0);
	assert_int_equal(doubles.dropped, 0);
	call(x, "num", "\"die\"");
	a = call(x, "num", "1");
	assert_string_equal(a.start, "fork");
	assert_int_equal(functions_tree(x->f, &tree, &err), 0);
	assert_non_null(strstr(tree.data, "numpy 2.0"));
	turn(x, NULL, 0);
	assert_int_equal(doubles.grown, 1); /* the same profile again makes no other node */
	/* A node whose forks fail: the root serves. */
	doubles.fail_node_forks = 1;
	deploy(x, "other", with_numpy);
	a = call(x, "other", "1");
	assert_int_equal(a.kind, ERR_NONE);
	assert_string_equal(a.start, "cold");
}

static void test_what_cannot_sleep(void **state)
{
	struct fixture *x = *state;
	auto_buf struct buf tree = { 0 };
	struct err err;

	doubles.left = "threads=2";
	deploy(x, "num", with_numpy);
	call(x, "num", "1");
	turn(x, &doubles.dropped, 2); /* the second only looks for what is to blame */
	turn(x, NULL, 0);
	assert_int_equal(doubles.grown, 2);
	assert_int_equal(functions_tree(x->f, &tree, &err), 0);
	assert_non_null(strstr(tree.data, "threads=2"));
	call(x, "num", "\"die\"");
	assert_string_equal(call(x, "num", "1").start, "cold");
}

static void own_node_is(struct fixture *x, const char *name, const char *state, const char *text)
{
	auto_buf struct buf out = { 0 };
	struct err err;
	json_t *o, *own;

	assert_int_equal(functions_explain(x->f, name, &out, &err), 0);
	o = json_loads(out.data, 0, NULL);
	own = json_object_get(o, "own_node");
	assert_string_equal(json_string_value(json_object_get(own, "state")), state);
	assert_non_null(strstr(json_string_value(json_object_get(own, "text")), text));
	json_decref(o);
}

/* What `tree --explain` says of it, from one state to the next. */
static void test_what_became_of_a_node(void **state)
{
	struct fixture *x = *state;
	struct err err;
	auto_buf struct buf out = { 0 };

	assert_int_equal(functions_explain(x->f, "num", &out, &err), -1);
	assert_int_equal(err.kind, ERR_NOT_FOUND);
	deploy(x, "num", with_numpy);
	own_node_is(x, "num", "unknown", "not called yet");
	doubles.busy_grows = 1;
	call(x, "num", "1");
	turn(x, &doubles.grown, 1);
	turn(x, NULL, 0);
	own_node_is(x, "num", "put off", "no ids are left");
	call(x, "num", "\"die\"");
	call(x, "num", "1"); /* a cold start asks again */
	turn(x, &doubles.grown, 2);
	turn(x, NULL, 0);
	own_node_is(x, "num", "asleep", "it is node 2");
	deploy(x, "num", with_numpy); /* another version: the old one's node serves it */
	call(x, "num", "1");
	turn(x, NULL, 0);
	own_node_is(x, "num", "not needed", "0.0 ms more, less than 2");
}

/* Under memory pressure the tree shrinks first, and no call fails. */
static void test_pressure(void **state)
{
	struct fixture *x = *state;

	deploy(x, "num", with_numpy);
	call(x, "num", "1");
	turn(x, &doubles.grown, 1);
	turn(x, NULL, 0);
	assert_int_equal(doubles.dropped, 0);
	functions_pressed(x->f);
	turn(x, &doubles.dropped, 1);
	assert_string_equal(call(x, "num", "1").start, "warm");
	call(x, "num", "\"die\"");
	assert_string_equal(call(x, "num", "1").start, "cold");
	assert_int_equal(doubles.grown, 1); /* not again while it lasts */
}

static void test_own_files_shadow(void **state)
{
	struct fixture *x = *state;
	static const char *const shadow[] = { "main.py",	  "x",	   "json.py", "y",
					      "requirements.txt", "numpy", NULL };

	deploy(x, "num", with_numpy);
	call(x, "num", "1");
	turn(x, &doubles.grown, 1);
	turn(x, NULL, 0);
	deploy(x, "own", shadow);
	call(x, "own", "1");
	turn(x, NULL, 0);
	call(x, "own", "\"die\"");
	doubles.forks_from_nodes = 0;
	/* the node of `num` has the standard json: wrong here. Its own node leaves json out. */
	call(x, "own", "1");
	assert_null(strstr(doubles.modules, "json"));
}

static void test_absent_things(void **state)
{
	struct fixture *x = *state;

	doubles.absent = "import:simplejson import:numpy.missing";
	deploy(x, "num", with_numpy);
	call(x, "num", "1");
	turn(x, &doubles.grown, 1);
	turn(x, NULL, 0);
	call(x, "num", "\"die\"");
	assert_string_equal(call(x, "num", "1").start, "fork");
	/* A function whose closure has simplejson must not see what was imported without it. */
	doubles.provided = "simplejson";
	doubles.absent = NULL;
	deploy(x, "other", with_numpy);
	call(x, "other", "1");
	turn(x, &doubles.grown, 2);
	turn(x, NULL, 0);
	call(x, "other", "\"die\"");
	assert_string_equal(call(x, "other", "1").start, "fork");
}

static void test_state_survives(void **state)
{
	struct fixture *x = *state;
	auto_free char *half = mem_printf("%s/apps/num/9.tmp", x->dir);
	auto_buf struct buf list = { 0 };
	struct err err;

	deploy(x, "num", with_numpy);
	deploy(x, "gone", plain);
	call(x, "num", "1");
	turn(x, NULL, 0);
	assert_int_equal(functions_remove(x->f, "gone", &err), 0);
	assert_int_equal(functions_remove(x->f, "gone", &err), -1);
	close_functions(x);
	assert_int_equal(mkdir(half, 0700), 0);
	reopen(x);
	assert_int_equal(access(half, F_OK), -1);
	assert_int_equal(functions_list(x->f, &list, &err), 0);
	assert_non_null(strstr(list.data, "\"num\""));
	assert_null(strstr(list.data, "\"gone\""));
	assert_non_null(strstr(list.data, "\"import_ms\": 62")); /* its profile, too */
	assert_int_equal(call(x, "num", "1").kind, ERR_NONE);
	assert_int_equal(doubles.resolves, 1);
}

/* 62 ms by profiles; then by half what a call takes, or, where there is a node, what it took there.
 */
static void test_times_are_corrected(void **state)
{
	static const char *const members[] = {
		"main.py", "x", "requirements.txt", "numpy", "pipsqueak.toml", "", NULL
	};
	auto_buf struct buf list = { 0 };
	struct fixture *x = *state;
	struct err err;

	doubles.job_output = "{\"reuse\": false}";
	doubles.slower = -90;
	for (int sleeps = 0; sleeps < 2; sleeps++) {
		doubles.left = sleeps ? NULL : "threads=2";
		deploy(x, sleeps ? "num" : "other", members);
		for (int i = 0; i < 60; i++) {
			call(x, sleeps ? "num" : "other", "1");
			turn(x, sleeps ? &doubles.grown : &doubles.dropped, 2 + sleeps);
		}
		assert_int_equal(functions_list(x->f, &list, &err), 0);
		assert_non_null(strstr(list.data, "_ms\": 34.1\n"));
	}
}

struct run_answer {
	int times, started, status;
	enum err_kind kind;
	char text[1100];
};

static void on_started(void *arg, const struct run_result *so_far)
{
	((struct run_answer *)arg)->started++;
}

static void on_run_ended(void *arg, const struct run_result *result)
{
	struct run_answer *a = arg;

	a->times++;
	a->status = result->status;
	a->kind = result->err ? result->err->kind : ERR_NONE;
	snprintf(a->text, sizeof(a->text), "%s", result->err ? result->err->text : "");
}

static const struct run_events events = { .started = on_started, .ended = on_run_ended };

static void test_run(void **state)
{
	struct fixture *x = *state;
	static const char *const with[] = { "numpy", NULL };
	struct run_request r = { .kind = "code",
				 .code = "print(1)",
				 .cwd = "/srv",
				 .with = with,
				 .stdio = { -1, -1, -1 },
				 .tty = -1,
				 .result = -1 };
	struct run_answer a = { 0 }, b = { 0 }, c = { 0 };
	struct run *run = functions_run(x->f, &r, &events, &a);

	turn(x, &a.started, 1);
	assert_int_equal(functions_idle_us(x->f), 0);
	run_signal(run, SIGTERM);
	turn(x, &a.times, 1);
	assert_int_equal(a.kind, ERR_NONE);
	assert_int_equal(a.status, SIGTERM);
	run = functions_run(x->f, &r, &events, &b);
	turn(x, &b.started, 1);
	assert_int_equal(doubles.resolves, 1); /* the lock is found by its inputs */
	run_cancel(run);
	turn(x, NULL, 0);
	assert_int_equal(b.times, 0);
	assert_true(functions_idle_us(x->f) > 0);
	r.python = "python3";
	functions_run(x->f, &r, &events, &c);
	assert_int_equal(c.times, 1);
	assert_int_equal(c.kind, ERR_USAGE);
}

static void refused(struct fixture *x, struct run_request *r, enum err_kind kind)
{
	struct run_answer a = { 0 };

	functions_run(x->f, r, &events, &a);
	turn(x, &a.times, 1);
	assert_int_equal(a.kind, kind);
}

static void test_run_refusals(void **state)
{
	struct fixture *x = *state;
	static const char *const all[] = { "allow-all", NULL };
	struct run_request r = { .kind = "file", .code = "/srv/x.py", .cwd = "/srv", .tty = -1 };
	auto_close int dir = open("/", O_RDONLY | O_DIRECTORY);

	memcpy(r.stdio, (int[]){ -1, -1, -1 }, sizeof(r.stdio));
	r.nmounts = 1;
	r.mounts[0] = (struct run_mount){ -1, "/usr/lib", false };
	refused(x, &r, ERR_DENIED);
	r.mounts[0].path = "/srv/../etc";
	refused(x, &r, ERR_USAGE);
	r.mounts[0].path = "/tmp";
	refused(x, &r, ERR_DENIED);
	r.flags = all;
	r.mounts[0].path = "/proc/1";
	refused(x, &r, ERR_USAGE);
	r.nmounts = 0;
	r.stdio[0] = dir;
	refused(x, &r, ERR_USAGE);
	r.stdio[0] = -1;
	r.kind = "poem";
	refused(x, &r, ERR_USAGE);
	r.kind = "file";
	r.cwd = "srv";
	refused(x, &r, ERR_USAGE);
	assert_int_equal(doubles.forks, 0);
}

static void on_drained(void *arg)
{
	++*(int *)arg;
}

static void test_drain(void **state)
{
	struct fixture *x = *state;
	struct answer a = { 0 };
	int drained = 0;

	deploy(x, "echo", plain);
	functions_call(x->f, "echo", "1", 1, on_reply, &a);
	functions_drain(x->f, 2000, on_drained, &drained);
	assert_int_equal(drained, 0);
	assert_int_equal(call(x, "echo", "1").kind, ERR_BUSY);
	turn(x, &drained, 1);
	assert_int_equal(a.kind, ERR_NONE);
	assert_int_equal(a.times, 1);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_deploy_and_call),
		TEST(test_bad_calls),
		TEST(test_failing_handlers),
		TEST(test_timeout),
		TEST(test_queue),
		TEST(test_fresh_instance_each_time),
		TEST(test_a_spare_that_forks),
		TEST(test_spares_keep_out_of_the_way),
		TEST(test_bad_deploys),
		TEST(test_redeploy),
		TEST(test_a_node_grows_and_serves),
		TEST(test_what_cannot_sleep),
		TEST(test_what_became_of_a_node),
		TEST(test_pressure),
		TEST(test_own_files_shadow),
		TEST(test_absent_things),
		TEST(test_state_survives),
		TEST(test_times_are_corrected),
		TEST(test_run),
		TEST(test_run_refusals),
		TEST(test_drain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
