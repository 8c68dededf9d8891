/* SPDX-License-Identifier: Apache-2.0
 * Runs in: every process.
 *
 * What is going on, for whoever waits: one line of JSON an event, as docs/API.md has it, so that it
 * passes through rooms, the run socket and `--json` without being read:
 *     {"event": "download", "name": "numpy", "version": "2.4.6", "done": 4096, "total": 16400000}
 * A line that is no such event is a sentence for a person.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PROGRESS_LINE 1024	   /* bytes of the longest line, with its NUL */
#define PROGRESS_US (100 * 1000UL) /* between two events of one thing that grows */

struct progress {
	const char *what;	    /* "resolve" "download" "build" "unpack" "compile" "note" */
	const char *name, *version; /* of the dist; NULL: not of one */
	const char *text;	    /* of a note; NULL: none */
	uint64_t done, total; /* bytes, or for "resolve" and "compile" things; total 0: not known */
};

/* Text that cannot be shown is left out; what is too long is cut. */
void progress_print(const struct progress *p, char out[PROGRESS_LINE]);
