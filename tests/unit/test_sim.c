/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "sim/replay.h"

/* What CPython 3.11 gives for random.Random(seed): l = list(range(12)); shuffle(l); random();
 * randrange(1000); randrange(2**31 + 5). */
static void test_random_is_pythons(void **state)
{
	static const struct {
		uint64_t seed;
		uint32_t order[12];
		double unit;
		uint32_t below, wide;
	} known[] = {
		{ 0, { 1, 9, 8, 5, 10, 2, 3, 7, 4, 0, 11, 6 }, 0.5046868558173903, 288, 600203567 },
		{ 1,
		  { 7, 11, 0, 8, 5, 6, 3, 10, 4, 1, 9, 2 },
		  0.48785665652414756,
		  914,
		  1674216077 },
		{ 5,
		  { 10, 2, 11, 7, 1, 3, 6, 0, 8, 5, 4, 9 },
		  0.3717933555623072,
		  889,
		  1059022248 },
		{ 12345678901,
		  { 3, 8, 0, 4, 2, 7, 11, 1, 10, 6, 5, 9 },
		  0.2718204149920097,
		  487,
		  1520474858 },
	};

	for (size_t i = 0; i < array_len(known); i++) {
		struct sim_random r;
		uint32_t v[12];

		for (uint32_t k = 0; k < 12; k++)
			v[k] = k;
		sim_random_seed(&r, known[i].seed);
		sim_random_shuffle(&r, v, 12);
		assert_memory_equal(v, known[i].order, sizeof(v));
		assert_true(sim_random_unit(&r) == known[i].unit);
		assert_int_equal(sim_random_below(&r, 1000), known[i].below);
		assert_int_equal(sim_random_below(&r, (1u << 31) + 5), known[i].wide);
	}
}

/* As the splits of 880 functions are made; beyond one block of the generator. */
static void test_a_long_shuffle(void **state)
{
	struct sim_random r;
	uint32_t v[880];
	uint64_t sum = 0;

	for (uint32_t k = 0; k < 880; k++)
		v[k] = k;
	sim_random_seed(&r, 3);
	sim_random_shuffle(&r, v, 880);
	for (uint32_t k = 0; k < 880; k++)
		sum += (uint64_t)k * v[k];
	assert_int_equal(v[0], 400);
	assert_int_equal(v[879], 243);
	assert_int_equal(sum, 172614861);
}

static char dir[64];

static void put(const char *name, const char *text)
{
	char path[128];
	struct err err;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, text, strlen(text), &err), 0);
	close(fd);
}

static const char packages[] = "{\"a==1\": {\"import_ms\": 100, \"heap_mb\": 10},"
			       " \"b==1\": {\"import_ms\": 40, \"heap_mb\": 1},"
			       " \"c==1\": {\"import_ms\": 0.05, \"heap_mb\": 0}}";
static const char closures[] = "{\"a==1\": [[\"a==1\"]], \"b==1\": [[\"a==1\", \"b==1\"]],"
			       " \"c==1\": [[\"c==1\"]]}";
static const char functions[] = "{\"name\": \"f\", \"requirements\": [\"a==1\", \"b==1\"]}\n"
				"{\"name\": \"g\", \"requirements\": [\"a==1\", \"c==1\"]}\n"
				"{\"name\": \"h\", \"requirements\": [\"b==1\", \"a==1\"]}\n";

static int setup(void **state)
{
	strcpy(dir, "/tmp/test_sim.XXXXXX");
	assert_non_null(mkdtemp(dir));
	put("packages.json", packages);
	put("closures.json", closures);
	put("functions.jsonl", functions);
	return 0;
}

static int teardown(void **state)
{
	struct err err;

	return fd_remove_tree(AT_FDCWD, dir, &err);
}

static struct sim_result replay(const struct workload *w, enum sim_kind kind, double memory)
{
	struct sim_policy policy = { .kind = kind };
	struct sim_run run = {
		.work = w, .policy = &policy, .memory_bytes = (uint64_t)memory, .half_life = 1000
	};
	struct sim_result r;

	sim_replay(&run, &r);
	return r;
}

#define near(a, b) assert_true((a) - (b) < 1e-6 && (b) - (a) < 1e-6)

/* Three calls by hand: {a, b}, {a, c}, {a, b}; 140, 100.05 and 140 ms to import. */
static void test_replay_by_hand(void **state)
{
	struct workload w;
	struct err err;
	struct sim_result r;

	assert_int_equal(workload_load(dir, &w, &err), 0);
	r = replay(&w, SIM_NONE, 1e9);
	near(r.mean_ms, (140 + 100.05 + 140) / 3);
	near(r.p50_ms, 140);
	near(r.memory_bytes, 0);
	near(replay(&w, SIM_BOUND, 1e9).mean_ms, 0);
	near(replay(&w, SIM_ROOT, 1e9).memory_bytes, 66.65e6);
	/* the third call finds the first one's node, the second none */
	r = replay(&w, SIM_LRU, 1e9);
	near(r.mean_ms, (140 + 100.05 + 0) / 3);
	near(r.hits, 1.0 / 3);
	near(r.made, 2);
	near(r.made_ms, 240.05);
	near(r.memory_bytes, 66.65e6 + 2 * 3.65e6 + 4.73e6 * (11 + 10));
	near(replay(&w, SIM_SOCK, 1e9).mean_ms, (140 + 100.05 + 0) / 3);
	/* room for one of them: the second drives out the first */
	r = replay(&w, SIM_LRU, 66.65e6 + 3.65e6 + 4.73e6 * 11 + 1e5);
	near(r.mean_ms, (140 + 100.05 + 140) / 3);
	near(r.made, 3);
	near(r.hits, 0);
	/* c is not worth a node */
	near(replay(&w, SIM_FITTED, 1e9).mean_ms, 0.05 / 3);
	workload_done(&w);
}

static void test_first_fit_is_not_best_fit(void **state)
{
	struct sim_policy policy = { .kind = SIM_FIRST };
	struct sim_run run = { .policy = &policy, .memory_bytes = 1 };
	struct workload w;
	struct sim_result r;
	struct err err;
	char path[128];

	put("tree.json", "{\"packages\": [], \"children\": ["
			 "{\"packages\": [\"c==1\"], \"children\": []},"
			 "{\"packages\": [\"a==1\"], \"children\": ["
			 "{\"packages\": [\"b==1\"], \"children\": []}]}]}");
	snprintf(path, sizeof(path), "%s/tree.json", dir);
	assert_int_equal(workload_load(dir, &w, &err), 0);
	assert_int_equal(sim_tree_load(path, &w, &policy.tree, &err), 0);
	run.work = &w;
	sim_replay(&run, &r);
	near(r.mean_ms, 100.0 / 3); /* the second call takes the first child, c */
	near(r.memory_bytes, 66.65e6 + 3 * 3.65e6 + 4.73e6 * 11);
	policy.kind = SIM_BEST;
	sim_replay(&run, &r);
	near(r.mean_ms, 0.05 / 3);
	sim_tree_done(&policy.tree);
	workload_done(&w);
}

/* What fit writes is what a replay of the file gives. */
static void test_a_tree_survives_its_file(void **state)
{
	struct fit_rules rules = { .budget_bytes = 300000000,
				   .root_bytes = SIM_ROOT_BYTES,
				   .node_bytes = SIM_NODE_BYTES,
				   .on_paper = true };
	struct sim_policy policy = { .kind = SIM_BEST };
	struct sim_run run = { .policy = &policy, .memory_bytes = rules.budget_bytes };
	struct fit *f = fit_new(&rules);
	struct sim_result r, fitted;
	struct workload w;
	struct err err;
	char path[128], *text;

	workload_generate(&w, 50, 1);
	workload_teach_items(&w, f);
	for (uint32_t i = 0; i < w.nfunctions; i++)
		fit_call(f, w.functions[i].items, 1, 0);
	fit_solve(f);
	text = sim_tree_print(f, &w);
	put("tree.json", text);
	snprintf(path, sizeof(path), "%s/tree.json", dir);
	assert_int_equal(sim_tree_load(path, &w, &policy.tree, &err), 0);
	run.work = &w;
	sim_replay(&run, &r);
	policy.kind = SIM_FITTED;
	sim_replay(&run, &fitted);
	near(r.mean_ms, fitted.mean_ms);
	near(r.memory_bytes, fitted.memory_bytes);
	near(r.memory_bytes, (double)fit_bytes(f));
	assert_true(r.mean_ms < replay(&w, SIM_NONE, 3e8).mean_ms / 4);
	free(text);
	fit_free(f);
	sim_tree_done(&policy.tree);
	workload_done(&w);
}

static void test_all_policies_keep_to_the_memory(void **state)
{
	static const enum sim_kind kinds[] = { SIM_SOCK, SIM_LRU, SIM_GDSF, SIM_ONLINE,
					       SIM_FITTED };
	struct sim_mix mix = {
		.zipf = 1, .drift = 0.5, .burst = 0.2, .one_shot = 0.1, .ncalls = 400, .seed = 4
	};
	struct workload w;
	double *after, sum = 0;

	workload_generate(&w, 60, 2);
	workload_mix(&w, &mix, &after);
	for (uint32_t i = 0; i < w.nfunctions; i++)
		sum += after[i];
	near(sum, 1);
	for (size_t i = 0; i < array_len(kinds); i++) {
		struct sim_result r = replay(&w, kinds[i], 150e6);

		assert_true(r.memory_bytes <= 150e6 && r.memory_bytes > 100e6);
		assert_true(r.mean_ms < replay(&w, SIM_NONE, 150e6).mean_ms);
		assert_true(r.p50_ms <= r.p99_ms && r.made > 0);
	}
	free(after);
	workload_done(&w);
}

static void bad(const char *file, const char *text, const char *expected)
{
	struct workload w;
	struct err err = ERR_INIT;

	put(file, text);
	assert_int_equal(workload_load(dir, &w, &err), -1);
	if (!strstr(err.text, expected))
		fail_msg("'%s' does not say '%s'", err.text, expected);
	put("packages.json", packages);
	put("closures.json", closures);
	put("functions.jsonl", functions);
}

static void test_bad_workloads_are_told(void **state)
{
	bad("functions.jsonl", "", "no function");
	bad("functions.jsonl", "{\"name\": \"f\", \"requirements\": []}\n{", "functions.jsonl:2: ");
	bad("functions.jsonl", "{\"name\": \"f\", \"requirements\": [\"x==1\"]}",
	    "'x==1' is not in");
	bad("functions.jsonl", "{\"name\": \"f\", \"requirements\": [7]}", "(no name)");
	bad("functions.jsonl", "{\"requirements\": []}", "no name");
	bad("packages.json", "[]", "packages.json: not an object");
	bad("packages.json", "{\n\"a\": ", "packages.json:2: ");
	bad("packages.json", "{\"a==1\": {\"import_ms\": -1, \"heap_mb\": 1}}", "'a==1' has no");
	bad("packages.json", "{\"a==1\": {\"import_ms\": 1}}", "'a==1' has no");
	bad("closures.json", "{\"x==1\": []}", "not in packages.json");
	bad("closures.json", "{\"a==1\": 1}", "not a list");
	bad("closures.json", "{\"a==1\": [[\"b==1\"]]}", "lacks the dist itself");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_is_pythons),
		cmocka_unit_test(test_a_long_shuffle),
		cmocka_unit_test_setup_teardown(test_replay_by_hand, setup, teardown),
		cmocka_unit_test_setup_teardown(test_first_fit_is_not_best_fit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_tree_survives_its_file, setup, teardown),
		cmocka_unit_test(test_all_policies_keep_to_the_memory),
		cmocka_unit_test_setup_teardown(test_bad_workloads_are_told, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
