/* SPDX-License-Identifier: Apache-2.0 */
#include "pages.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"

#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

#define HUGE_PAGE (2 * MIB)

struct mapping {
	unsigned long start, end;
	bool writable, shared, anonymous;
};

typedef void (*mapping_fn)(const struct mapping *m, void *arg);

static bool parse(const char *line, struct mapping *m)
{
	char rights[5], name[2] = "";
	unsigned long inode;

	if (sscanf(line, "%lx-%lx %4s %*x %*s %lu %1s", &m->start, &m->end, rights, &inode, name) <
	    4)
		return false;
	m->writable = rights[1] == 'w';
	m->shared = rights[3] == 's';
	m->anonymous = inode == 0;
	return name[0] != '[' || strstr(line, "[heap]") || strstr(line, "[stack]") ||
	       strstr(line, "[anon");
}

static int each_mapping(mapping_fn fn, void *arg, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(16 * MIB);
	char *line, *rest;

	if (buf_read_file(&text, AT_FDCWD, "/proc/self/maps", err) < 0)
		return -1;
	for (line = strtok_r(text.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		struct mapping m;

		if (parse(line, &m))
			fn(&m, arg);
	}
	return 0;
}

static void collapse(const struct mapping *m, void *arg)
{
	unsigned long start = (m->start + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
	unsigned long end = m->end & ~(HUGE_PAGE - 1);

	(void)arg;
	if (!m->writable || m->shared || !m->anonymous)
		return;
	for (; start < end; start += HUGE_PAGE)
		madvise((void *)start, HUGE_PAGE, MADV_COLLAPSE);
}

void pages_collapse(void)
{
	struct err ignored;

	if (each_mapping(collapse, NULL, &ignored) < 0)
		return; /* without /proc nothing is gained and nothing lost */
}
