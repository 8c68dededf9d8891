/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/limits.h"
#include "store/installer_priv.h"
#include "store/prune.h"
#include "store/store_priv.h"

static char top[64];

static int set_up(void **state)
{
	strcpy(top, "/tmp/pq-store-XXXXXX");
	return mkdtemp(top) ? 0 : -1;
}

static int tear_down(void **state)
{
	return fd_remove_tree(AT_FDCWD, top, &(struct err){ 0 });
}

static void put(const char *path, const char *text)
{
	auto_free char *whole = mem_printf("%s/%s", top, path);
	auto_free char *dir = mem_strndup(whole, (size_t)(strrchr(whole, '/') - whole));
	struct err err;
	int fd;

	assert_int_equal(fd_mkdirs(dir, 0755, &err), 0);
	fd = open(whole, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, text, strlen(text), &err), 0);
	close(fd);
}

static bool has(const char *path)
{
	auto_free char *whole = mem_printf("%s/%s", top, path);

	return access(whole, F_OK) == 0;
}

static char *content(const char *path)
{
	auto_free char *whole = mem_printf("%s/%s", top, path);
	struct buf text = BUF_MAX(MIB);

	assert_int_equal(buf_read_file(&text, AT_FDCWD, whole, &(struct err){ 0 }), 0);
	return buf_steal(&text);
}

/* ---- versions ---- */

static void versions_that_are_equal(void **state)
{
	static const char *const same[][2] = {
		{ "1.0", "1" },		  { "1.0.0", "1.0" },
		{ "v1.2", "1.2" },	  { "1.0RC1", "1rc1" },
		{ "1.0-alpha.1", "1a1" }, { "1.0.post1", "1.0-1" },
		{ "1.0c1", "1.0rc1" },	  { "2.0+CU.118", "2+cu_118" },
		{ "01.02", "1.2" },	  { "1!2.0", "1!2" },
		{ "1.0.dev0", "1dev0" },  { "1.0_r4", "1.post4" },
		{ "10", "10.0" },	  { "0.0", "0" },
	};
	static const char *const differ[][2] = {
		{ "1.0", "1.0.1" }, { "1.0a1", "1.0b1" }, { "1.0", "1.0.post0" },
		{ "1!1", "1" },	    { "1.0", "10" },	  { "1.0+cu118", "1.0+cu117" },
		{ "1.0", "1.0+x" }, { "1.1", "1.10" },
	};

	for (size_t i = 0; i < array_len(same); i++) {
		auto_free char *a = identity_version(same[i][0]), *b = identity_version(same[i][1]);

		assert_string_equal(a, b);
	}
	for (size_t i = 0; i < array_len(differ); i++) {
		auto_free char *a = identity_version(differ[i][0]);
		auto_free char *b = identity_version(differ[i][1]);

		assert_string_not_equal(a, b);
	}
}

/* ---- what a source imports of other wheels ---- */

static void imports_of_others(void **state)
{
	static const char source[] =
		"import os, numpy.linalg as la, own.part\n"
		"from scipy import (sparse as sp,\n\tstats)\n"
		"from scipy.special import gamma, beta # or so\n"
		"from . import near\nfrom .near import far\nfrom own import x\n"
		"    import indented\nimportant = 1\nfromage = 2\n"
		"from pandas\nimport\nfrom a import *\nimport last";
	static const char *const want[] = { "os",
					    "numpy.linalg",
					    "scipy",
					    "scipy.sparse",
					    "scipy.stats",
					    "scipy.special",
					    "scipy.special.gamma",
					    "scipy.special.beta",
					    "pandas",
					    "a",
					    "last" };
	struct imports to = { json_pack("{s:b}", "own", 1), json_object() };

	/* From an allocation of its very size: a sanitizer sees a step beyond it. */
	for (size_t len = 0; len < sizeof(source); len++) {
		auto_free char *cut = mem_zero(1, len + !len);

		memcpy(cut, source, len);
		json_object_clear(to.names);
		imports_read(&to, cut, len);
	}
	for (size_t i = 0; i < array_len(want); i++)
		assert_true(json_object_get(to.names, want[i]));
	assert_int_equal(json_object_size(to.names), array_len(want));
	json_decref(to.own);
	json_decref(to.names);
}

/* ---- merging ---- */

static void make_entry(const char *name, const char *requires, const char *shared)
{
	auto_free char *dir = mem_printf("w/%s", name), *info = mem_printf("%s-1.dist-info", name);
	auto_free char *manifest = mem_printf("{\"requires\": [%s]}", requires);
	const char *const files[][2] = { { "site/shared/a.py", shared },
					 { "site/shared/same.py", "same\n" },
					 { "scripts", "" },
					 { "dist-info", info },
					 { "manifest.json", manifest } };

	for (size_t i = 0; i < array_len(files); i++) {
		auto_free char *path = mem_printf("%s/%s", dir, files[i][0]);

		put(path, files[i][1]);
	}
	auto_free char *metadata = mem_printf("%s/site/%s/METADATA", dir, info);
	auto_free char *code = mem_printf("b/%s/shared/__pycache__/a.cpython-311.pyc", name);

	put(metadata, "");
	put(code, shared);
}

static int merge_two(const char *out, bool strict, struct buf *warnings, struct err *err)
{
	struct merge_dist dists[2] = { 0 };
	struct merge m = { .out = mem_printf("%s/%s", top, out),
			   .dists = dists,
			   .n = 2,
			   .python = (char *)"/usr/bin/python3",
			   .version = (char *)"3.11",
			   .threads = 2,
			   .strict = strict,
			   .warnings = BUF_MAX(64 * KIB) };
	static const char *const names[] = { "aaa", "zzz" };
	int rc;

	for (int i = 0; i < 2; i++) {
		dists[i].name = (char *)names[i];
		dists[i].entry = mem_printf("%s/w/%s", top, names[i]);
		dists[i].code[0] = mem_printf("%s/b/%s", top, names[i]);
	}
	rc = merge_run(&m, err);
	for (int i = 0; i < 2; i++) {
		free(dists[i].entry);
		free(dists[i].code[0]);
	}
	free(m.out);
	*warnings = m.warnings;
	return rc;
}

#define SITE "env/lib/python3.11/site-packages/"

/* What is required is installed first, so the one that requires it has the last word. */
static void a_clash_is_settled_in_the_order_of_pip(void **state)
{
	auto_buf struct buf warnings = { 0 };
	struct err err;

	make_entry("aaa", "\"zzz\"", "of aaa\n");
	make_entry("zzz", "", "of zzz\n");
	assert_int_equal(merge_two("env", false, &warnings, &err), 0);
	auto_free char *text = content(SITE "shared/a.py");
	auto_free char *code = content(SITE "shared/__pycache__/a.cpython-311.pyc");

	assert_string_equal(text, "of aaa\n");
	assert_string_equal(code, "of aaa\n"); /* never the other's bytecode */
	assert_non_null(strstr(warnings.data, "zzz and aaa both bring"));
	assert_null(strstr(warnings.data, "same.py"));
	assert_true(has("env/.entries"));
}

static void without_a_requirement_names_decide_as_with_pip(void **state)
{
	auto_buf struct buf warnings = { 0 };
	struct err err;

	make_entry("aaa", "", "of aaa\n");
	make_entry("zzz", "", "of zzz\n");
	assert_int_equal(merge_two("env", false, &warnings, &err), 0);
	auto_free char *text = content(SITE "shared/a.py");

	assert_string_equal(text, "of aaa\n"); /* pip sorts backwards */
}

static void a_clash_can_be_an_error(void **state)
{
	auto_buf struct buf warnings = { 0 };
	struct err err;

	make_entry("aaa", "", "of aaa\n");
	make_entry("zzz", "", "of zzz\n");
	assert_int_equal(merge_two("env", true, &warnings, &err), -1);
	assert_int_equal(err.kind, ERR_CONFLICT);
}

/* A link into the store, or to the interpreter, is replaced, never written through. */
static void scripts_never_write_through_links(void **state)
{
	auto_free char *real = mem_printf("%s/real", top), *bin = mem_printf("%s/bin", top);
	auto_free char *link_path = mem_printf("%s/bin/python", top);
	auto_close int dir = -1, entry = -1;
	struct err err;

	put("real", "the interpreter");
	put("bin/x", "");
	put("e/data/scripts/python", "#!python\nevil\n");
	put("e/scripts", "x=m:f\n");
	assert_int_equal(symlink(real, link_path), 0);
	auto_free char *entry_path = mem_printf("%s/e", top);

	dir = open(bin, O_RDONLY | O_DIRECTORY);
	entry = open(entry_path, O_RDONLY | O_DIRECTORY);
	assert_int_equal(scripts_write(entry, dir, &err), 0);
	auto_free char *text = content("real"), *script = content("bin/python");

	assert_string_equal(text, "the interpreter");
	assert_non_null(strstr(script, "evil"));
}

/* ---- pruning ---- */

static const char *const sha[] = {
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
	"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
	"cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
};

/* Three wheels of a MB each, worth 1, 2 and 3 seconds; the first two make an environment. */
static void make_store(void)
{
	for (int i = 0; i < 3; i++) {
		auto_free char *file = mem_printf("s/wheels/%s/site/x.py", sha[i]);
		auto_free char *code = mem_printf("s/bytecode/%s-cpython-311.0/x.pyc", sha[i]);
		auto_free char *fact = mem_printf("s/facts/wheels.%s", sha[i]);
		auto_free char *text = mem_printf("1000000 %d000\n", i + 1);

		put(file, "");
		put(code, "");
		put(fact, text);
	}
	auto_free char *entries = mem_printf("%s\n%s\n", sha[0], sha[1]);

	put("s/envs/one/.entries", entries);
	put("s/late/one", "");
	put("s/lock", "");
	put("s/tmp/me/uses/none", "");
	put("s/keep/functions", "");
}

static struct prune prune_to(uint64_t bytes)
{
	static char dir[80], downloads[80], trash[96];
	struct prune p = { .dir = dir, .downloads = downloads, .trash = trash, .to_bytes = bytes };
	struct err err;

	snprintf(dir, sizeof(dir), "%s/s", top);
	snprintf(downloads, sizeof(downloads), "%s/downloads", top);
	snprintf(trash, sizeof(trash), "%s/s/tmp/me/1", top);
	assert_int_equal(prune_run(&p, &err), 0);
	return p;
}

static bool has_wheel(int i)
{
	auto_free char *path = mem_printf("s/wheels/%s", sha[i]);

	return has(path);
}

static void the_least_valuable_goes_first(void **state)
{
	struct prune p;

	make_store();
	p = prune_to(2100000);
	assert_false(has_wheel(0));
	assert_true(has_wheel(1));
	assert_true(has_wheel(2));
	assert_false(has("s/envs/one")); /* it was made of it */
	assert_false(has("s/late/one"));
	assert_int_equal(p.removed[OBJECT_WHEEL], 1);
	assert_true(p.left_bytes <= 2100000);
}

static void what_a_live_daemon_needs_stays(void **state)
{
	auto_free char *daemon = mem_printf("%s/s/tmp/other", top);
	auto_close int lock = -1;
	struct prune p;

	make_store();
	put("s/tmp/other/uses/envs.one", "");
	lock = open(daemon, O_RDONLY | O_DIRECTORY);
	assert_int_equal(flock(lock, LOCK_EX), 0);
	p = prune_to(0);
	assert_true(has_wheel(0) && has_wheel(1) && has("s/envs/one"));
	assert_false(has_wheel(2));
	assert_true(p.in_use > 0);
	fd_close(&lock); /* it died: its marks count no more */
	prune_to(0);
	assert_false(has_wheel(0) || has_wheel(1) || has("s/envs/one"));
}

static void what_could_not_be_removed_goes_next_time(void **state)
{
	make_store();
	put("s/tmp/me/7-gone-2/site/x.py", "");
	put("s/tmp/me/8/site/x.py", ""); /* being built */
	prune_to(UINT64_MAX);
	assert_false(has("s/tmp/me/7-gone-2"));
	assert_true(has("s/tmp/me/8/site/x.py") && has_wheel(0) && has("s/envs/one"));
}

static void what_a_deployed_function_needs_stays(void **state)
{
	make_store();
	put("s/keep/owner", "one\n");
	prune_to(0);
	assert_true(has_wheel(0) && has_wheel(1) && has("s/envs/one"));
	assert_false(has_wheel(2));
}

static void a_wheel_being_installed_stays(void **state)
{
	auto_free char *daemon = mem_printf("%s/s/tmp/other", top);
	auto_free char *mark = mem_printf("s/tmp/other/uses/wheels.%s", sha[2]);
	auto_free char *download = mem_printf("downloads/%s/x.whl", sha[2]);
	auto_close int lock = -1;

	make_store();
	put(mark, "");
	put(download, "zip");
	lock = open(daemon, O_RDONLY | O_DIRECTORY);
	assert_int_equal(flock(lock, LOCK_EX), 0);
	prune_to(0);
	assert_true(has_wheel(2) && has(download));
	assert_false(has_wheel(0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(versions_that_are_equal),
		cmocka_unit_test(imports_of_others),
#define WITH_DIR(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
		WITH_DIR(a_clash_is_settled_in_the_order_of_pip),
		WITH_DIR(without_a_requirement_names_decide_as_with_pip),
		WITH_DIR(a_clash_can_be_an_error),
		WITH_DIR(scripts_never_write_through_links),
		WITH_DIR(the_least_valuable_goes_first),
		WITH_DIR(what_a_live_daemon_needs_stays),
		WITH_DIR(what_could_not_be_removed_goes_next_time),
		WITH_DIR(what_a_deployed_function_needs_stays),
		WITH_DIR(a_wheel_being_installed_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
