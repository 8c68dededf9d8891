/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * What instances print, and what is said beside it: the last of it is kept, for `pipsqueak logs`.
 */
#pragma once

#include "function/priv.h"

warn_unused int logs_open(struct version *v, struct err *err);
void logs_close(struct version *v);
void logs_add(struct function *fn, const char *text, size_t len);
void logs_note(struct function *fn, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
