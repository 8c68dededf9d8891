/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (any thread). Private to the room.
 *
 * The anchors of a simple HTML page (PEP 503), read tolerantly: unknown tags, missing quotes and
 * broken markup are stepped over.
 */
#pragma once

#include <stddef.h>

#include "base/err.h"

struct html_anchor {
	char *href, *requires_python, *yanked, *core; /* entities decoded; NULL: not there */
	char *text;				      /* between <a> and </a>, trimmed */
	char *name, *content;			      /* of a <meta> */
};

/* anchor() returns -1 to stop. base: the href of <base>, if any, comes first by itself. meta: the
 * name and content of a <meta>. */
struct html_events {
	int (*anchor)(void *arg, const struct html_anchor *a, struct err *err);
	void (*base)(void *arg, const char *href);
	void (*meta)(void *arg, const char *name, const char *content);
};
warn_unused int html_anchors(const char *text, size_t len, const struct html_events *events,
			     void *arg, struct err *err);
