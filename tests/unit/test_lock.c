/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "index/lock.h"

#define SUM_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define SUM_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static struct lock_dist dist(const char *name, const char *filename, const char *sha256)
{
	struct lock_dist d = { .name = (char *)name,
			       .version = (char *)"1.0",
			       .filename = (char *)filename,
			       .url = (char *)"https://example.org/x/y.whl",
			       .size_bytes = 12 };

	memcpy(d.sha256, sha256, 65);
	return d;
}

static struct lock *two(bool swapped)
{
	struct lock *lock = lock_new("cpython-311");
	struct lock_dist a = dist("alpha", "alpha-1.0-py3-none-any.whl", SUM_A);
	struct lock_dist b = dist("be-ta", "Be_ta-1.0-py3-none-any.whl", SUM_B);

	lock_add(lock, swapped ? &b : &a);
	lock_add(lock, swapped ? &a : &b);
	lock_seal(lock);
	return lock;
}

static void test_order_does_not_matter(void **state)
{
	struct lock *x = two(false), *y = two(true), *copy = lock_copy(y);

	assert_string_equal(x->hash, y->hash);
	assert_string_equal(x->hash, copy->hash);
	assert_string_equal(y->dists[0].name, "alpha");
	assert_non_null(lock_find(y, "be-ta"));
	assert_null(lock_find(y, "gamma"));
	lock_free(x);
	lock_free(y);
	lock_free(copy);
}

static void test_hash_sees_every_part(void **state)
{
	struct lock *x = two(false), *y = lock_new("cpython-312"), *z = two(false);

	for (size_t i = 0; i < x->ndists; i++)
		lock_add(y, &x->dists[i]);
	lock_seal(y);
	assert_string_not_equal(x->hash, y->hash);
	z->dists[1].sha256[0] = 'c';
	lock_seal(z);
	assert_string_not_equal(x->hash, z->hash);
	lock_free(x);
	lock_free(y);
	lock_free(z);
}

static void test_print_and_parse(void **state)
{
	struct lock *x = two(true), *back = NULL;
	auto_buf struct buf text = { 0 };
	struct err err;

	assert_int_equal(lock_print(x, &text, &err), 0);
	assert_int_equal(lock_parse(text.data, text.len, &back, &err), 0);
	assert_string_equal(back->hash, x->hash);
	assert_string_equal(back->python_tag, "cpython-311");
	assert_int_equal(back->dists[0].size_bytes, 12);
	assert_string_equal(back->dists[1].filename, "Be_ta-1.0-py3-none-any.whl");
	lock_free(x);
	lock_free(back);
}

#define DIST(name, version, filename, url, sha256, size)                              \
	"{\"name\":\"" name "\",\"version\":\"" version "\",\"filename\":\"" filename \
	"\",\"url\":\"" url "\",\"sha256\":\"" sha256 "\",\"size\":" size "}"
#define LOCK(dists) "{\"python_tag\":\"cpython-311\",\"dists\":[" dists "]}"
#define GOOD DIST("a", "1.0", "a-1.0-py3-none-any.whl", "https://h/a", SUM_A, "5")

static int parse(const char *text)
{
	struct lock *lock = NULL;
	struct err err = ERR_INIT;
	int rc = lock_parse(text, strlen(text), &lock, &err);

	assert_true(rc == 0 || (err.kind && err.text[0] && !lock));
	lock_free(lock);
	return rc;
}

static void test_rules(void **state)
{
	static const char *const accept[] = { "be-ta", "not-there", NULL };
	struct lock *plain = two(false), *lock = two(false), *parsed = NULL, *copy;
	auto_buf struct buf text = { 0 };
	struct err err;

	lock_set_rules(lock, NULL, true);
	assert_string_not_equal(lock->hash, plain->hash);
	lock_set_rules(lock, accept, false);
	assert_string_not_equal(lock->hash, plain->hash);
	lock_set_rules(lock, accept, true);
	assert_false(lock_find(lock, "alpha")->lax);
	assert_true(lock_find(lock, "be-ta")->lax);
	copy = lock_copy(lock);
	assert_true(copy->strict && lock_find(copy, "be-ta")->lax);
	assert_int_equal(lock_print(lock, &text, &err), 0);
	assert_int_equal(lock_parse(text.data, text.len, &parsed, &err), 0);
	assert_string_equal(parsed->hash, lock->hash);
	assert_true(parsed->strict && lock_find(parsed, "be-ta")->lax);
	lock_set_rules(parsed, NULL, false); /* what a resolver says of rules does not count */
	assert_string_equal(parsed->hash, plain->hash);
	lock_free(plain);
	lock_free(lock);
	lock_free(parsed);
	lock_free(copy);
}

static void test_parse_refuses(void **state)
{
	static const char *const bad[] = {
		"",
		"[]",
		"{}",
		"{\"python_tag\":\"../x\",\"dists\":[]}",
		LOCK(DIST("A", "1.0", "a-1.0-py3-none-any.whl", "https://h/a", SUM_A, "5")),
		LOCK(DIST("b", "1.0", "a-1.0-py3-none-any.whl", "https://h/a", SUM_A, "5")),
		LOCK(DIST("a", "2.0", "a-1.0-py3-none-any.whl", "https://h/a", SUM_A, "5")),
		LOCK(DIST("a", "1.0", "../a-1.0-py3-none-any.whl", "https://h/a", SUM_A, "5")),
		LOCK(DIST("a", "1.0", "a-1.0.tar.gz", "https://h/a", SUM_A, "5")),
		LOCK(DIST("a", "1.0", "a-1.0-py3-none-any.whl", "https://u:p@h/a", SUM_A, "5")),
		LOCK(DIST("a", "1.0", "a-1.0-py3-none-any.whl", "h/a", SUM_A, "5")),
		LOCK(DIST("a", "1.0", "a-1.0-py3-none-any.whl", "https://h/a", "abc", "5")),
		LOCK(DIST("a", "1.0", "a-1.0-py3-none-any.whl", "https://h/a", SUM_A, "-5")),
		LOCK(DIST("a", "1.0", "a-1.0-py3-none-any.whl", "https://h/a", SUM_A,
			  "99999999999999")),
		LOCK(GOOD "," GOOD),
		"{\"python_tag\":\"cpython-311\",\"hash\":\"" SUM_A "\",\"dists\":[" GOOD "]}",
	};

	assert_int_equal(parse(LOCK(GOOD)), 0);
	assert_int_equal(parse(LOCK("")), 0);
	for (size_t i = 0; i < array_len(bad); i++)
		if (parse(bad[i]) == 0)
			fail_msg("accepted: %s", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_does_not_matter),
		cmocka_unit_test(test_hash_sees_every_part),
		cmocka_unit_test(test_print_and_parse),
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_parse_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
