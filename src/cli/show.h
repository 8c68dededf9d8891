/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line. The daemon's descriptions for a person to read.
 */
#pragma once

#include <jansson.h>

#include "cli/cli.h"

/* GET path: as it comes when raw, else by show, which sees nothing that could steer a terminal. */
int show_fetch(const struct dirs *d, const char *path, bool raw, void (*show)(const json_t *o));

/* Names and texts of packages and functions must not steer the terminal: each byte of a control
 * character, C1 too, becomes "?". Of JSON: in every string that it has. */
void show_visible(char *text);
void show_visible_json(json_t *o);

const char *show_text(const json_t *o, const char *key); /* "": it is not there */
double show_number(const json_t *o, const char *key);	 /* 0: it is not there */
#define SHOW_AGE 32
const char *show_age(double s, char out[SHOW_AGE]); /* "90 s", "12 min", "3 h" */

void show_functions(const json_t *o);
void show_status(const json_t *o);
/* Server-Timing (RFC draft of W3C: name;dur=ms) as a small table on stderr. */
void show_timing(const char *header);
