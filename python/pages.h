/* SPDX-License-Identifier: Apache-2.0
 * Runs in: zygotes and their children.
 *
 * A zygote's heap in huge pages: a fork then copies one entry for two MiB instead of 512. And which
 * pages a forked process writes, so that the next one can have them copied ahead of its call.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* In a zygote, before it sleeps: its heap in huge pages, so that a fork has fewer entries to copy.
 * Kernels before 6.1 and heaps without a whole huge page stay as they are. */
void pages_collapse(void);

#define PAGES_RANGES 1024

/* Pages that a process wrote since it was forked. */
struct pages {
	uint32_t n;
	struct {
		uintptr_t start;
		size_t len;
	} ranges[PAGES_RANGES];
};

/* Which pages of this process are its parent's no more? The first PAGES_RANGES runs of them;
 * mappings that would make it more than 4 GiB to look at are passed over. */
void pages_learn(struct pages *out);
/* Those of them that are mapped here, privately and to be written, 64 MiB at most: who says so may
 * have written nonsense. */
void pages_ours(const struct pages *said, struct pages *out);
/* In a child of the process that they are ours in: have them copied now. */
void pages_copy(const struct pages *ours);
