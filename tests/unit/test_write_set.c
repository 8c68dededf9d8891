/* SPDX-License-Identifier: Apache-2.0
 *
 * The pages that a forked process writes, learnt by one and copied ahead in the next.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "pages.h"

#define PAGE 4096
#define COUNT 300

static char *area; /* COUNT pages of the parent's, all written; a child writes every third */
static struct pages *shared;

static bool holds(const char *at)
{
	for (uint32_t i = 0; i < shared->n; i++)
		if ((uintptr_t)at - shared->ranges[i].start < shared->ranges[i].len)
			return true;
	return false;
}

static void write_every_third(void)
{
	for (int i = 0; i < COUNT; i += 3)
		area[i * PAGE] = 2;
}

static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

static int in_child(int (*what)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(what());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int learns(void)
{
	write_every_third();
	pages_learn(shared);
	return 0;
}

static int count_faults(void)
{
	long before = faults();

	write_every_third();
	return (int)(faults() - before);
}

static struct pages ours;

static int count_after_copying(void)
{
	pages_copy(&ours);
	for (int i = 0; i < COUNT; i++) /* nothing is lost by it */
		if (area[i * PAGE] != 1)
			return 255;
	return count_faults();
}

static void test_the_next_copies_what_the_first_wrote(void **state)
{
	assert_int_equal(in_child(learns), 0);
	for (int i = 0; i < COUNT; i++)
		assert_int_equal(holds(area + (size_t)i * PAGE), i % 3 == 0);
	assert_true(in_child(count_faults) >= COUNT / 3);
	pages_ours(shared, &ours);
	assert_true(in_child(count_after_copying) <= 2);
}

static int learns_beside_much(void)
{
	if (mmap(NULL, 1ULL << 42, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED)
		return 1;
	alarm(5);
	return learns();
}

static void test_terabytes_are_passed_over(void **state)
{
	assert_int_equal(in_child(learns_beside_much), 0);
	assert_true(holds(area));
}

/* Another process may have written it, and unmapped what was there. */
static void test_nonsense_is_harmless(void **state)
{
	static const struct {
		uintptr_t start;
		size_t len;
	} rows[] = { { 0, SIZE_MAX },
		     { SIZE_MAX, SIZE_MAX },
		     { 4096, 4096 },
		     { 1, 0 },
		     { SIZE_MAX - 4095, 8192 } };

	memset(shared, 0xff, sizeof(*shared));
	pages_ours(shared, &ours);
	assert_int_equal(in_child(count_after_copying), COUNT / 3);
	memset(shared, 0, sizeof(*shared));
	shared->n = array_len(rows);
	for (size_t i = 0; i < array_len(rows); i++) {
		shared->ranges[i].start = rows[i].start;
		shared->ranges[i].len = rows[i].len;
	}
	pages_ours(shared, &ours);
	assert_true(in_child(count_after_copying) <= COUNT / 3);
}

/* Runs go on from one mapping into the next, which may be another kind. */
static void test_only_what_is_private_and_written_is_ours(void **state)
{
	char *at = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(at != MAP_FAILED);
	assert_int_equal(mprotect(at + PAGE, PAGE, PROT_READ), 0);
	assert_true(mmap(at + 3 * PAGE, PAGE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
	shared->n = 1;
	shared->ranges[0].start = (uintptr_t)at;
	shared->ranges[0].len = 4 * PAGE;
	pages_ours(shared, &ours);
	assert_int_equal(ours.n, 2);
	assert_int_equal(ours.ranges[0].start, (uintptr_t)at);
	assert_int_equal(ours.ranges[0].len, PAGE);
	assert_int_equal(ours.ranges[1].start, (uintptr_t)(at + 2 * PAGE));
	assert_int_equal(ours.ranges[1].len, PAGE);
	assert_int_equal(munmap(at, 4 * PAGE), 0);
}

static int set_up(void **state)
{
	area = mmap(NULL, COUNT * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	madvise(area, COUNT * PAGE, MADV_NOHUGEPAGE);
	for (int i = 0; i < COUNT; i++)
		area[i * PAGE] = 1;
	return area == MAP_FAILED || shared == MAP_FAILED;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_next_copies_what_the_first_wrote),
		cmocka_unit_test(test_terabytes_are_passed_over),
		cmocka_unit_test(test_nonsense_is_harmless),
		cmocka_unit_test(test_only_what_is_private_and_written_is_ours),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
