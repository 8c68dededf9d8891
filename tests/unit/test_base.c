/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"

static int file_of(size_t len)
{
	FILE *f = tmpfile();

	for (size_t i = 0; i < len; i++)
		fputc('x', f);
	fflush(f);
	rewind(f);
	int fd = dup(fileno(f));
	fclose(f);
	return fd;
}

static void test_reading_up_to_the_ceiling(void **state)
{
	static const size_t max = 20000;

	for (size_t len = max - 2; len <= max + 2; len++) {
		auto_buf struct buf b = BUF_MAX(max);
		auto_close int fd = file_of(len);
		struct err err = ERR_INIT;

		if (len <= max) {
			assert_int_equal(buf_read_fd(&b, fd, &err), 0);
			assert_int_equal(b.len, len);
			assert_int_equal(b.data[len], '\0');
		} else {
			assert_int_equal(buf_read_fd(&b, fd, &err), -1);
			assert_int_equal(err.kind, ERR_LIMIT);
		}
	}
}

static void test_an_empty_file_is_an_empty_text(void **state)
{
	auto_buf struct buf b = { 0 };
	auto_close int fd = file_of(0);
	struct err err;

	assert_int_equal(buf_read_fd(&b, fd, &err), 0);
	assert_string_equal(b.data, "");
}

static void test_buffers_have_ceilings(void **state)
{
	auto_buf struct buf b = BUF_MAX(10);
	struct err err;

	assert_int_equal(buf_put(&b, "0123456789", 10, &err), 0);
	assert_int_equal(buf_put(&b, "x", 1, &err), -1);
	assert_int_equal(err.kind, ERR_LIMIT);
	assert_string_equal(b.data, "0123456789");
	buf_consume(&b, 4);
	assert_string_equal(b.data, "456789");
	assert_int_equal(buf_putf(&b, &err, "%d", 1234), 0);
	assert_int_equal(buf_putf(&b, &err, "%d", 1), -1);
}

static void test_errors_wrap_outermost_first(void **state)
{
	struct err err;

	assert_int_equal(err_sys(&err, ENOENT, "open '%s'", "x"), -1);
	assert_int_equal(err.kind, ERR_NOT_FOUND);
	err_wrap(&err, "installing %s", "numpy");
	assert_string_equal(err.text, "installing numpy: open 'x': No such file or directory");
	for (int i = 0; i < ERR_KINDS; i++)
		assert_int_equal(err_kind_parse(err_kind_name((enum err_kind)i)), i);
	assert_int_equal(err_kind_parse("nonsense"), ERR_SYSTEM);
	for (int i = 0; i < 2000; i++) /* never beyond its buffer */
		err_wrap(&err, "again");
	assert_true(strlen(err.text) < sizeof(err.text));
}

static void test_removing_a_tree_follows_no_link(void **state)
{
	char dir[] = "/tmp/pipsqueak-base-XXXXXX";
	auto_free char *keep = NULL, *tree = NULL, *sub = NULL, *link = NULL, *file = NULL;
	struct err err;

	assert_non_null(mkdtemp(dir));
	keep = mem_printf("%s/keep", dir);
	tree = mem_printf("%s/tree", dir);
	sub = mem_printf("%s/tree/a/b", dir);
	link = mem_printf("%s/tree/a/link", dir);
	file = mem_printf("%s/keep/file", dir);
	assert_int_equal(fd_mkdirs(keep, 0755, &err), 0);
	assert_int_equal(fd_mkdirs(sub, 0755, &err), 0);
	assert_int_equal(close(open(file, O_CREAT | O_WRONLY, 0644)), 0);
	assert_int_equal(symlink(keep, link), 0);
	assert_int_equal(chmod(sub, 0), 0); /* made itself unreadable */
	assert_int_equal(fd_remove_tree(AT_FDCWD, tree, &err), 0);
	assert_int_equal(access(tree, F_OK), -1);
	assert_int_equal(access(file, F_OK), 0);
	assert_int_equal(fd_remove_tree(AT_FDCWD, tree, &err), 0); /* missing is success */
	assert_int_equal(fd_remove_tree(AT_FDCWD, dir, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reading_up_to_the_ceiling),
		cmocka_unit_test(test_an_empty_file_is_an_empty_text),
		cmocka_unit_test(test_buffers_have_ceilings),
		cmocka_unit_test(test_errors_wrap_outermost_first),
		cmocka_unit_test(test_removing_a_tree_follows_no_link),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
