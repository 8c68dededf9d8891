/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (made on the loop, then read by any thread). Private to the room.
 *
 * The tags that an interpreter takes, best first, as the resolver named them ("cp311-cp311-any").
 * C only compares strings here; what the tags mean is the resolver's knowledge.
 */
#pragma once

#include <stddef.h>

struct tags;

struct tags *tags_new(void);
void tags_free(struct tags *t);			/* NULL is fine */
void tags_add(struct tags *t, const char *tag); /* in order; beyond LIMIT_TAGS ignored */
size_t tags_count(const struct tags *t);
/* The best rank (0 is best) of a wheel's compressed tags; -1: none fits. */
int tags_rank(const struct tags *t, const char *filename, size_t len);
