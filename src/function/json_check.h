/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * Is this one JSON text (RFC 8259, any value)? Only looked at, not kept: the event is parsed by the
 * function's own Python. jansson would build it in memory and refuses numbers and strings that
 * Python takes.
 */
#pragma once

#include <stddef.h>

#include "base/err.h"

/* ERR_USAGE with the byte offset of what is wrong. Nesting beyond LIMIT_JSON_DEPTH is refused. */
warn_unused int json_check(const char *text, size_t len, struct err *err);
