/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line. The daemon's descriptions for a person to read.
 */
#pragma once

#include <jansson.h>

void show_functions(const json_t *o);
void show_tree(const json_t *o);
void show_status(const json_t *o);
/* Server-Timing (RFC draft of W3C: name;dur=ms) as a small table on stderr. */
void show_timing(const char *header);
