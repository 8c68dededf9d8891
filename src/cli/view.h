/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line. What the daemon says of its work (base/progress.h), shown on standard
 * error: bars on a terminal, erased at the end; lines in a pipe; the events themselves with --json;
 * nothing with -q. Costs nothing until the first event.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"

enum view_mode { VIEW_AUTO, VIEW_QUIET, VIEW_JSON };

struct view;

struct view *view_new(enum view_mode mode);
/* One line as it came: an event, or a sentence. */
void view_take(struct view *v, const char *line);
/* Milliseconds until view_draw() has something new to show; -1: nothing is waiting. */
int view_wait_ms(const struct view *v);
void view_draw(struct view *v);
/* Take what stands on the terminal away; before anything else is written. NULL is fine. */
void view_clear(struct view *v);
/* As complain(), but an event with --json; returns the exit code. */
int view_complain(struct view *v, const struct err *err);
void view_free(struct view *v); /* clears, too */
