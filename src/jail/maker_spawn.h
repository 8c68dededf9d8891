/* SPDX-License-Identifier: Apache-2.0
 * Runs in: children of the cell maker. Private to the maker's files.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "wire/wire.h"

/* Raw clone3 without a new stack; tid 0: any. */
int maker_clone(uint64_t flags, int *pidfd, uint64_t tid);
void maker_fail(int sock, uint32_t id, const struct err *err);
/* Start a program inside a cell; answers MADE itself on success. */
warn_unused int maker_spawn(int sock, struct wire_msg *m, struct err *err);
/* Mounts into a cell; answers MADE itself on success. */
warn_unused int maker_mount(int sock, struct wire_msg *m, struct err *err);
