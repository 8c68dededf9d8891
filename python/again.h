/* SPDX-License-Identifier: Apache-2.0
 * Runs in: spares of functions whose instances are not reused.
 *
 * A spare that forks: it stays in its cell and has a child of its own for each call, forked ahead.
 */
#pragma once

#include "fork.h"
#include "pages.h"

/* Returns in a child, which is to read one call from the stream, answer it and exit; then, when all
 * that it left running has been ended and AGAIN said, in the next. AGAIN tells
 * what became of the cell. The spare ends when the stream does, and as a child did that ended
 * badly. */
void again_serve(int stream, const struct fork_hooks *hooks);
/* In such a child, when its call is answered. The first one leaves word of the pages that it wrote,
 * which the next ones have copied before their calls come. */
void again_leave(void) __attribute__((noreturn));
