/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/needs.h"

/* Files by name; what was given is written down, one word a line. */
struct world {
	const char *const (*files)[2];
	struct buf said;
};

static int open_it(void *ctx, const char *path)
{
	struct world *w = ctx;

	for (size_t i = 0; w->files && w->files[i][0]; i++)
		if (strcmp(w->files[i][0], path) == 0) {
			int fd = memfd_create("file", MFD_CLOEXEC);
			size_t len = strlen(w->files[i][1]);

			assert_int_equal(write(fd, w->files[i][1], len), (ssize_t)len);
			lseek(fd, 0, SEEK_SET);
			return fd;
		}
	return -1;
}

static const char *variable(void *ctx, const char *name)
{
	if (strcmp(name, "NAME") == 0)
		return "value";
	return strcmp(name, "LINES") == 0 ? "a\nb" : NULL;
}

static int file(void *ctx, const char *path, const char *text, struct err *err)
{
	struct world *w = ctx;

	return buf_putf(&w->said, err, "%s=%s;", path, text);
}

static int wheel(void *ctx, const char *path, int fd, struct err *err)
{
	struct world *w = ctx;

	close(fd);
	return buf_putf(&w->said, err, "wheel %s;", path);
}

static int read_as(const char *path, const char *text, const char *const (*files)[2],
		   struct buf *out, struct err *err)
{
	struct world w = { .files = files };
	struct needs n = { &w, open_it, variable, file, wheel };
	struct buf raw = { 0 };
	int rc;

	assert_int_equal(buf_puts(&raw, text, err), 0);
	rc = needs_requirements(&n, path, &raw, err);
	if (rc == 0)
		assert_int_equal(
			buf_putf(out, err, "%s|%s", raw.data, w.said.data ? w.said.data : ""), 0);
	buf_done(&raw);
	buf_done(&w.said);
	needs_done(&n);
	return rc;
}

static void test_what_is_named(void **state)
{
	static const char *const files[][2] = { { "d/a.txt", "-c../c.txt" },
						{ "d/../c.txt", "x # -r none" },
						{ "d/w-1-py3-none-any.whl", "" },
						{ "/a b.whl", "" },
						{ NULL, NULL } };
	static const struct {
		const char *text, *said;
	} cases[] = {
		{ "-r a.txt\n", "d/../c.txt=x # -r none;d/a.txt=-c../c.txt;" },
		{ "  --requirement=a.txt --pre", "d/../c.txt=x # -r none;d/a.txt=-c../c.txt;" },
		{ "-r \\\na.txt", "d/../c.txt=x # -r none;d/a.txt=-c../c.txt;" },
		{ "-r a.txt\n-r a.txt", "d/../c.txt=x # -r none;d/a.txt=-c../c.txt;" },
		{ "# -r none.txt\nx #-r none.txt", "" },
		{ "w-1-py3-none-any.whl[x] ; a == 'b'", "wheel d/w-1-py3-none-any.whl;" },
		{ "w @ file:w-1-py3-none-any.whl", "wheel d/w-1-py3-none-any.whl;" },
		{ "w@file:w-1-py3-none-any.whl#sha256=0", "wheel d/w-1-py3-none-any.whl;" },
		{ "w @ https://h/w-1-py3-none-any.whl", "" },
		{ "x @ file:///a%20b.whl", "wheel /a b.whl;" },
		{ "x ./none.whl --hash=sha256:0", "" },
	};

	for (size_t i = 0; i < array_len(cases); i++) {
		auto_buf struct buf out = { 0 };
		struct err err;

		assert_int_equal(read_as("d/r.txt", cases[i].text, files, &out, &err), 0);
		assert_string_equal(strchr(out.data, '|') + 1, cases[i].said);
	}
}

static void test_variables(void **state)
{
	auto_buf struct buf out = { 0 };
	struct err err;

	assert_int_equal(read_as("r.txt", "${NAME} ${name} ${NONE} ${LINES} $NAME ${ ${NAME", NULL,
				 &out, &err),
			 0);
	assert_string_equal(out.data, "value ${name} ${NONE} ${LINES} $NAME ${ ${NAME|");
}

static void test_files_without_end(void **state)
{
	static const char *const circle[][2] = { { "b.txt", "-r c.txt" },
						 { "c.txt", "-r b.txt" },
						 { NULL, NULL } };
	static const char *const longer[][2] = { { "d/a.txt", "-r d/a.txt" }, { NULL, NULL } };
	auto_buf struct buf out = { 0 };
	struct err err;

	assert_int_equal(read_as("a.txt", "-r b.txt", circle, &out, &err), 0);
	assert_int_equal(read_as("a.txt", "-r d/a.txt", longer, &out, &err), -1);
	assert_int_equal(err.kind, ERR_USAGE);
	assert_non_null(strstr(err.text, "d/d/a.txt"));
}

static void test_encodings(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *text;
	} cases[] = {
		{ "\xef\xbb\xbf"
		  "a\xc3\xa9",
		  6, "a\xc3\xa9" },
		{ "\xff\xfe"
		  "a\0\xe9\0",
		  6, "a\xc3\xa9" },
		{ "\xfe\xff"
		  "\0a\0\xe9",
		  6, "a\xc3\xa9" },
		{ "# coding: latin-1\n\xe9", 19, "# coding: latin-1\n\xc3\xa9" },
		{ "\n# vim: fileencoding=cp1252\n\x80", 29,
		  "\n# vim: fileencoding=cp1252\n\xe2\x82\xac" },
		{ "# coding: no-such\n", 18, NULL },
		{ "\xff\xfe"
		  "a",
		  3, NULL },
		{ "a\0b", 3, NULL },
	};

	for (size_t i = 0; i < array_len(cases); i++) {
		struct world w = { 0 };
		struct needs n = { &w, open_it, variable, file, wheel };
		struct buf raw = { 0 };
		struct err err;

		assert_int_equal(buf_put(&raw, cases[i].bytes, cases[i].len, &err), 0);
		if (cases[i].text) {
			assert_int_equal(needs_requirements(&n, "r", &raw, &err), 0);
			assert_string_equal(raw.data, cases[i].text);
		} else {
			assert_int_equal(needs_requirements(&n, "r", &raw, &err), -1);
			assert_int_equal(err.kind, ERR_USAGE);
		}
		buf_done(&raw);
		needs_done(&n);
	}
}

static void test_toml_and_words(void **state)
{
	static const char *const files[][2] = { { "d/w.whl", "" },
						{ "w.whl", "" },
						{ NULL, NULL } };
	struct world w = { .files = files };
	struct needs n = { &w, open_it, variable, file, wheel };
	struct err err;

	assert_int_equal(needs_toml(&n, "d/p.toml",
				    "a = \"x @ file:w.whl\"\nb = 'https://h/w.whl'\nc = .whl",
				    &err),
			 0);
	assert_int_equal(needs_word(&n, "w.whl[extra]", &err), 0);
	assert_int_equal(needs_word(&n, "numpy", &err), 0);
	assert_string_equal(w.said.data, "wheel d/w.whl;wheel w.whl;");
	buf_done(&w.said);
	needs_done(&n);
}

/* Whatever the bytes: an end, and no byte outside. */
static void test_random_bytes(void **state)
{
	static const char alphabet[] = "-rc =\"'\\\n#$\0{}.whl@:/A\xff\xfe";

	srandom(7);
	for (int i = 0; i < 20000; i++) {
		struct world w = { 0 };
		struct needs n = { &w, open_it, variable, file, wheel };
		struct buf raw = { 0 };
		struct err err;
		size_t len = (size_t)(random() % 60);

		for (size_t k = 0; k < len; k++)
			assert_int_equal(buf_put(&raw, &alphabet[random() % (sizeof(alphabet) - 1)],
						 1, &err),
					 0);
		if (needs_requirements(&n, "r", &raw, &err) < 0)
			assert_int_equal(err.kind, ERR_USAGE);
		buf_done(&raw);
		buf_done(&w.said);
		needs_done(&n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_named),	  cmocka_unit_test(test_variables),
		cmocka_unit_test(test_files_without_end), cmocka_unit_test(test_encodings),
		cmocka_unit_test(test_toml_and_words),	  cmocka_unit_test(test_random_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
