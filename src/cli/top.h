/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line. What `top` shows of two looks at the daemon.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* What the daemon said; all NULL: nothing yet. Strings are visible (show.h). */
struct look {
	json_t *status, *tree;
	uint64_t at_us;
};

struct picture {
	int width, height; /* of the terminal; 0: no end */
	bool color;
	const char *note; /* instead of the time, or NULL */
};

/* Lines without escape sequences but for color, none wider than the terminal, and no more than it
 * has. Rates are since the look before, or means since the start when there was none. */
void top_draw(const struct look *now, const struct look *before, const struct picture *p,
	      struct buf *out);
