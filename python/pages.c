/* SPDX-License-Identifier: Apache-2.0 */
#include "pages.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"

#ifndef MADV_COLLAPSE /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif

#define PAGE 4096UL
#define HUGE_PAGE (2 * MIB)
#define LEARN_BYTES (4 * GIB) /* a process may have mapped terabytes that it never touches */
#define COPY_BYTES (64 * MIB)

/* Bits of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst) */
#define OURS_ALONE (1ULL << 56)
#define OF_A_FILE (1ULL << 61)
#define PRESENT (1ULL << 63)

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

struct learning {
	int pagemap;
	size_t left; /* bytes that may still be looked at */
	struct pages *out;
};

static void add_page(struct pages *out, uintptr_t page)
{
	if (out->n && out->ranges[out->n - 1].start + out->ranges[out->n - 1].len == page) {
		out->ranges[out->n - 1].len += PAGE;
	} else if (out->n < PAGES_RANGES) {
		out->ranges[out->n].start = page;
		out->ranges[out->n].len = PAGE;
		out->n++;
	}
}

static void learn(const struct mapping *m, void *arg)
{
	struct learning *l = arg;
	uint64_t entries[512];

	if (!m->writable || m->shared || m->end - m->start > l->left)
		return;
	l->left -= m->end - m->start;
	for (uintptr_t at = m->start; at < m->end; at += sizeof(entries) / 8 * PAGE) {
		ssize_t n = pread(l->pagemap, entries, sizeof(entries), (off_t)(at / PAGE * 8));

		for (ssize_t i = 0; i < n / 8 && at + (size_t)i * PAGE < m->end; i++)
			if ((entries[i] & (PRESENT | OURS_ALONE | OF_A_FILE)) ==
			    (PRESENT | OURS_ALONE))
				add_page(l->out, at + (size_t)i * PAGE);
	}
}

void pages_learn(struct pages *out)
{
	auto_close int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	struct learning l = { pagemap, LEARN_BYTES, out };
	struct err ignored;

	out->n = 0;
	if (pagemap < 0 || each_mapping(learn, &l, &ignored) < 0)
		out->n = 0; /* then the next one copies its pages as it comes to them */
}

struct sorting {
	const struct pages *said;
	size_t left; /* bytes */
	struct pages *out;
};

static void keep_inside(const struct mapping *m, void *arg)
{
	struct sorting *s = arg;

	if (!m->writable || m->shared)
		return;
	for (uint32_t i = 0; i < s->said->n && i < PAGES_RANGES && s->out->n < PAGES_RANGES; i++) {
		uintptr_t start = s->said->ranges[i].start, end = start + s->said->ranges[i].len;

		start = start > m->start ? start & ~(PAGE - 1) : m->start;
		end = end < m->end ? end : m->end;
		if (start >= end || end - start > s->left)
			continue;
		s->left -= end - start;
		s->out->ranges[s->out->n].start = start;
		s->out->ranges[s->out->n++].len = end - start;
	}
}

void pages_ours(const struct pages *said, struct pages *out)
{
	struct sorting s = { said, COPY_BYTES, out };
	struct err ignored;

	out->n = 0;
	if (each_mapping(keep_inside, &s, &ignored) < 0)
		out->n = 0;
}

/* Not by MADV_POPULATE_WRITE: for one page that costs half as much again as the fault. */
void pages_copy(const struct pages *ours)
{
	for (uint32_t i = 0; i < ours->n; i++)
		for (size_t at = 0; at < ours->ranges[i].len; at += PAGE) {
			volatile char *byte = (volatile char *)(ours->ranges[i].start + at);

			*byte = *byte;
		}
}
