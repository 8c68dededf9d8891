/* SPDX-License-Identifier: Apache-2.0
 *
 * What parses outside data in room function: events, settings, uploads, names.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "function/intern.h"
#include "function/json_check.h"
#include "function/knowledge.h"
#include "function/settings.h"
#include "function/state.h"
#include "function/upload.h"

static void test_json(void **state)
{
	static const char *const good[] = { "{}",
					    "[]",
					    " [1, -0.5e+7 ,{\"a\" : [null, true,false]}]\n",
					    "\"\\u00e9\\n\xc3\xa9\"",
					    "123456789012345678901234567890",
					    "1e999",
					    "\"\\u0000\"",
					    "[[[[]]]]",
					    "{\"a\":{},\"a\":[]}" };
	static const char *const bad[] = { "",
					   " ",
					   "{",
					   "[1,]",
					   "{\"a\"}",
					   "{a:1}",
					   "01",
					   "1.",
					   "-",
					   "[1 2]",
					   "nul",
					   "\"\n\"",
					   "\"\\x\"",
					   "\"\\u12\"",
					   "[]]",
					   "{} {}",
					   "'a'",
					   "NaN",
					   "[1,,2]",
					   "{\"a\":1,}",
					   "\"\xff\"",
					   "\"\xc0\xaf\"",
					   "\"\xed\xa0\x80\"",
					   "\"\xc3" };
	static char deep[LIMIT_JSON_DEPTH * 2 + 3];
	struct err err;

	for (size_t i = 0; i < array_len(good); i++)
		if (json_check(good[i], strlen(good[i]), &err) < 0)
			fail_msg("%s: %s", good[i], err.text);
	for (size_t i = 0; i < array_len(bad); i++)
		if (json_check(bad[i], strlen(bad[i]), &err) == 0)
			fail_msg("taken: %s", bad[i]);
	memset(deep, '[', LIMIT_JSON_DEPTH);
	memset(deep + LIMIT_JSON_DEPTH, ']', LIMIT_JSON_DEPTH);
	assert_int_equal(json_check(deep, LIMIT_JSON_DEPTH * 2, &err), 0);
	memset(deep, '[', LIMIT_JSON_DEPTH + 1);
	memset(deep + LIMIT_JSON_DEPTH + 1, ']', LIMIT_JSON_DEPTH + 1);
	assert_int_equal(json_check(deep, LIMIT_JSON_DEPTH * 2 + 2, &err), -1);
}

static void test_settings(void **state)
{
	static const char *const bad[] = {
		"{\"memory\": \"12Q\"}",
		"{\"memory\": 5}",
		"{\"timeout\": 0}",
		"{\"timeout\": \"1\"}",
		"{\"timeout\": 1000}",
		"{\"concurrency\": 0}",
		"{\"concurrency\": 1.5}",
		"{\"network\": \"some\"}",
		"{\"network\": false}",
		"{\"env\": {\"A\": 1}}",
		"{\"env\": {\"A=B\": \"\"}}",
		"{\"env\": {\"LD_PRELOAD\": \"x\"}}",
		"{\"entry\": \"../x.py:f\"}",
		"{\"entry\": \"f\"}",
		"{\"entry\": \"/x.py:f\"}",
		"{\"python\": \"python3\"}",
		"{\"reuse\": 1}",
		"{\"what\": 1}",
		"[]",
		"{",
	};
	static const char text[] =
		"{\"entry\": \"a/b.py:f\", \"memory\": \"256MiB\", \"timeout\": 2.5, \"tmp\": "
		"\"1g\","
		" \"env\": {\"A\": \"x=y\"}, \"reuse\": false, \"network\": true}";
	struct function_settings s, again;
	auto_buf struct buf out = { 0 };
	struct err err;

	for (size_t i = 0; i < array_len(bad); i++)
		if (function_settings_parse(bad[i], strlen(bad[i]), &s, &err) == 0)
			fail_msg("taken: %s", bad[i]);
	assert_int_equal(function_settings_parse(text, strlen(text), &s, &err), 0);
	assert_int_equal(s.memory_bytes, 256 * MIB);
	assert_int_equal(s.tmp_bytes, GIB);
	assert_int_equal(s.timeout_ms, 2500);
	assert_string_equal(s.env[0], "A=x=y");
	assert_false(s.reuse);
	/* What is kept on disk reads back the same. */
	assert_int_equal(function_settings_print(&s, &out, &err), 0);
	assert_int_equal(function_settings_parse(out.data, out.len, &again, &err), 0);
	assert_string_equal(again.entry[0], "a/b.py:f");
	assert_int_equal(again.memory_bytes, s.memory_bytes);
	assert_int_equal(again.timeout_ms, s.timeout_ms);
	assert_string_equal(again.env[0], "A=x=y");
	assert_int_equal(again.net, ZYGOTE_NET_FULL);
	function_settings_done(&s);
	function_settings_done(&again);
}

/* One member; mode is the Unix mode in its attributes. */
static void *zip_of(const char *name, const char *text, unsigned mode, int times, size_t *len)
{
	zip_error_t ze;
	zip_source_t *src;
	zip_stat_t st;
	void *out;
	zip_t *z;

	zip_error_init(&ze);
	src = zip_source_buffer_create(NULL, 0, 0, &ze);
	z = zip_open_from_source(src, ZIP_TRUNCATE, &ze);
	zip_source_keep(src);
	for (int i = 0; i < times; i++) {
		auto_free char *unique = times > 1 ? mem_printf("%s%d", name, i) : mem_strdup(name);
		zip_source_t *m = zip_source_buffer(z, text, strlen(text), 0);
		zip_int64_t at = zip_file_add(z, unique, m, 0);

		assert_true(at >= 0);
		zip_file_set_external_attributes(z, (zip_uint64_t)at, 0, ZIP_OPSYS_UNIX,
						 mode << 16);
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

static int unpack(const char *dir, const char *name, unsigned mode, int times)
{
	size_t len;
	void *zip = zip_of(name, "text", mode, times, &len);
	struct err err;
	int ret = upload_unpack(zip, len, dir, &err);

	free(zip);
	return ret;
}

static void test_unpack(void **state)
{
	static const char *const bad[] = { "../x", "/x",   "a/../../x", "a/./x",
					   "a//x", "a\\x", "a\nb",	".." };
	char base[] = "/tmp/test_parts.XXXXXX";
	struct err err;
	struct stat st;

	assert_non_null(mkdtemp(base));
	auto_free char *dir = mem_printf("%s/app", base);
	auto_free char *file = mem_printf("%s/app/a/b.sh", base);
	auto_free char *out = mem_printf("%s/x", base);

	for (size_t i = 0; i < array_len(bad); i++) {
		if (unpack(dir, bad[i], S_IFREG | 0644, 1) == 0)
			fail_msg("taken: %s", bad[i]);
		assert_int_equal(fd_remove_tree(AT_FDCWD, dir, &err), 0);
		assert_int_equal(access(out, F_OK), -1);
	}
	assert_int_equal(unpack(dir, "link", S_IFLNK | 0777, 1), -1);
	assert_int_equal(fd_remove_tree(AT_FDCWD, dir, &err), 0);
	assert_int_equal(unpack(dir, "dev", S_IFCHR | 0666, 1), -1);
	assert_int_equal(fd_remove_tree(AT_FDCWD, dir, &err), 0);
	assert_int_equal(unpack(dir, "f", S_IFREG | 0644, LIMIT_APP_FILES + 1), -1);
	assert_int_equal(fd_remove_tree(AT_FDCWD, dir, &err), 0);
	/* set-uid goes, execution stays, others can read */
	umask(077);
	assert_int_equal(unpack(dir, "a/b.sh", S_IFREG | 04700, 1), 0);
	umask(022);
	assert_int_equal(stat(file, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(upload_unpack("PK\3\4nonsense", 12, out, &err), -1);
	assert_int_equal(fd_remove_tree(AT_FDCWD, base, &err), 0);
}

static void test_pep723(void **state)
{
	struct err err;
	char *out;

	assert_int_equal(upload_pep723("import x\n", &out, &err), 0);
	assert_null(out);
	assert_int_equal(upload_pep723("#!/x\n# /// script\n# dependencies = [\n#  \"a\",\n#\n# ]\n"
				       "# ///\nimport a\n",
				       &out, &err),
			 0);
	assert_string_equal(out, "dependencies = [\n \"a\",\n\n]\n");
	free(out);
	assert_int_equal(upload_pep723("# /// script\n# x = 1\nimport a\n", &out, &err), -1);
	assert_int_equal(upload_pep723("# /// other\n# ///\n", &out, &err), 0);
	assert_null(out);
}

static void test_own_names(void **state)
{
	char base[] = "/tmp/test_parts.XXXXXX";
	static const char *const files[] = {
		"json.py",	   "fast.cpython-311-x86_64-linux-gnu.so",
		"notes.txt",	   "2x.py",
		"pkg/__init__.py", "loose/data.txt",
		".hidden.py"
	};
	struct err err;
	int n = 0;

	assert_non_null(mkdtemp(base));
	for (size_t i = 0; i < array_len(files); i++) {
		auto_free char *path = mem_printf("%s/%s", base, files[i]);
		auto_free char *dir = mem_strndup(path, (size_t)(strrchr(path, '/') - path));

		assert_int_equal(fd_mkdirs(dir, 0755, &err), 0);
		close(open(path, O_CREAT | O_WRONLY, 0644));
	}
	int fd = open(base, O_RDONLY | O_DIRECTORY);
	char **names = upload_own_names(fd);

	for (; names[n]; n++)
		assert_true(strcmp(names[n], "json") == 0 || strcmp(names[n], "fast") == 0 ||
			    strcmp(names[n], "pkg") == 0 || strcmp(names[n], "~loose") == 0);
	assert_int_equal(n, 4);
	upload_names_free(names);
	close(fd);
	names = upload_own_names(-1);
	assert_null(names[0]);
	upload_names_free(names);
	assert_int_equal(fd_remove_tree(AT_FDCWD, base, &err), 0);
}

static void test_intern(void **state)
{
	struct intern t = { 0 };
	struct ids s = { 0 };
	char name[32];

	assert_int_equal(intern_find(&t, "a"), INTERN_NONE);
	for (int i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		assert_int_equal(intern_put(&t, name), i);
	}
	for (int i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "%d", i);
		assert_int_equal(intern_find2(&t, "n", name), i);
	}
	assert_string_equal(intern_name(&t, 4999), "n4999");
	ids_add(&s, 5);
	ids_add(&s, 1);
	ids_add(&s, INTERN_NONE);
	ids_add(&s, 5);
	ids_seal(&s);
	assert_int_equal(s.n, 2);
	assert_int_equal(s.v[0], 1);
	ids_done(&s);
	intern_done(&t);
}

static void test_state(void **unused)
{
	char base[] = "/tmp/test_parts.XXXXXX";
	auto_buf struct buf out = { 0 };
	struct state *s;
	struct err err;

	assert_non_null(mkdtemp(base));
	auto_free char *path = mem_printf("%s/state.db", base);

	assert_int_equal(state_open(path, &s, &err), 0);
	assert_int_equal(state_put(s, STATE_INTERP, "/x", 7, "{}", &err), 0);
	state_close(s);
	assert_int_equal(state_open(path, &s, &err), 0);
	assert_int_equal(state_get(s, STATE_INTERP, "/x", 8, &out, &err), 0);
	assert_int_equal(state_get(s, STATE_PROFILE, "/x", 7, &out, &err), 0);
	assert_int_equal(state_get(s, STATE_INTERP, "/x", 7, &out, &err), 1);
	assert_string_equal(out.data, "{}");
	state_close(s);
	/* A file that is no database is an error, not an empty start. */
	int fd = open(path, O_WRONLY | O_TRUNC);

	assert_int_equal(write(fd, "not a database, certainly not one", 33), 33);
	close(fd);
	auto_free char *wal = mem_printf("%s-wal", path);

	unlink(wal);
	assert_int_equal(state_open(path, &s, &err), -1);
	assert_int_equal(fd_remove_tree(AT_FDCWD, base, &err), 0);
}

static int64_t number(const char *path, const char *sql)
{
	sqlite3_stmt *st;
	sqlite3 *db;
	int64_t n;

	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	n = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	return n;
}

static bool has_fact(struct state *s, const char *key)
{
	auto_buf struct buf out = { 0 };
	struct err err;

	return state_get(s, STATE_LOADS, key, 0, &out, &err) == 1;
}

static void test_state_forgets(void **state)
{
	char base[] = "/tmp/test_parts.XXXXXX", key[32];
	size_t size = 256 * KIB;
	auto_free char *big = mem_zero(1, size + 1);
	auto_buf struct buf near = { 0 };
	struct state *s;
	struct err err;

	assert_non_null(mkdtemp(base));
	auto_free char *path = mem_printf("%s/state.db", base);

	assert_int_equal(state_open(path, &s, &err), 0);
	/* Another version of the same name, and of no other that begins so. */
	assert_int_equal(state_put(s, STATE_LOADS, "num 1", 0, "[1]", &err), 0);
	assert_int_equal(state_put(s, STATE_LOADS, "num-x 3", 0, "[3]", &err), 0);
	assert_int_equal(state_put(s, STATE_LOADS, "num 2", 0, "[2]", &err), 0);
	assert_int_equal(state_get_near(s, STATE_LOADS, "num", &near, &err), 1);
	assert_string_equal(near.data, "[2]");
	assert_int_equal(state_get_near(s, STATE_LOADS, "nu", &near, &err), 0);
	/* By count. */
	for (size_t i = 0; i < LIMIT_FACTS + 300; i++) {
		snprintf(key, sizeof(key), "few %zu", i);
		assert_int_equal(state_put(s, STATE_LOADS, key, 0, "[]", &err), 0);
	}
	assert_in_range(number(path, "SELECT count(*) FROM facts"), LIMIT_FACTS - 600, LIMIT_FACTS);
	assert_false(has_fact(s, "num 1"));
	assert_true(has_fact(s, key));
	/* By bytes, which come to their limit long before the number does. */
	memset(big, '1', size);
	for (size_t i = 0; i < 3 * LIMIT_FACTS_BYTES / size; i++) {
		snprintf(key, sizeof(key), "big %zu", i);
		assert_int_equal(state_put(s, STATE_LOADS, key, 0, big, &err), 0);
		assert_true(has_fact(s, key));
	}
	assert_in_range(number(path, "SELECT sum(length(json)) FROM facts"), LIMIT_FACTS_BYTES / 2,
			LIMIT_FACTS_BYTES);
	assert_false(has_fact(s, "big 0"));
	state_close(s);
	/* By age, when it is opened. */
	number(path, "UPDATE facts SET updated = updated - 181 * 86400 RETURNING 1");
	assert_int_equal(state_open(path, &s, &err), 0);
	assert_int_equal(number(path, "SELECT count(*) FROM facts"), 0);
	state_close(s);
	assert_int_equal(fd_remove_tree(AT_FDCWD, base, &err), 0);
}

/* Ten forks a half-life ago by a node that was young then, and ten now. */
static void test_what_a_node_saved_lately(void **state)
{
	const double half_life_s = USAGE_HALF_LIFE_S;
	struct subject s = { .best = 7, .saved_us = 100000 };
	struct node n = { .id = 7, .made_us = clock_us() };
	struct usage_rates r;

	for (int i = 0; i < 10; i++)
		usage_fork(&n, &s);
	usage_rates(&n, &r); /* in its first second */
	assert_float_equal(r.forks_per_s, 10, 0.1);
	assert_float_equal(r.saved_ms_per_s, 1000, 10);
	n.usage.at_us -= USAGE_HALF_LIFE_S * 1000000UL;
	n.made_us -= USAGE_HALF_LIFE_S * 1000000UL;
	usage_rates(&n, &r);
	assert_float_equal(r.forks_per_s, 5 / (half_life_s / 0.693147 / 2), 1e-4);
	s.best = 8; /* a fork for one who would rather have had another: nothing is known to be
		       saved */
	for (int i = 0; i < 10; i++)
		usage_fork(&n, &s);
	usage_rates(&n, &r);
	assert_float_equal(r.forks_per_s, 15 / (half_life_s / 0.693147 / 2), 1e-4);
	assert_float_equal(r.saved_ms_per_s, 500 / (half_life_s / 0.693147 / 2), 1e-2);
	assert_int_equal(n.uses, 20);
	assert_int_equal(n.usage.all_us, 1000000);
	s = (struct subject){ .best = 7, .saved_us = UINT64_MAX - 5 }; /* told by a sandbox */
	usage_fork(&n, &s);
	usage_fork(&n, &s);
	assert_true(n.usage.all_us == UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_a_node_saved_lately),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_settings),
		cmocka_unit_test(test_unpack),
		cmocka_unit_test(test_pep723),
		cmocka_unit_test(test_own_names),
		cmocka_unit_test(test_intern),
		cmocka_unit_test(test_state),
		cmocka_unit_test(test_state_forgets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
