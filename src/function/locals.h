/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * Wheels that came as descriptors, taken into the cache one after the other.
 */
#pragma once

#include <stddef.h>

#include "function/function.h"
#include "index/index.h"

struct locals {
	struct index_local *list;
	size_t n;
};
void locals_done(struct locals *l);

/* Called once, at once when there is nothing to take. *out is filled by then; err NULL: all of
 * them are. The descriptors are closed as they are taken. */
typedef void (*locals_fn)(void *arg, const struct err *err);
struct locals_wanted {
	struct index *index;
	struct run_wheel *wheels; /* both live until done */
	size_t n;
	struct locals *out;
};
void locals_take(const struct locals_wanted *wanted, locals_fn done, void *arg);
