/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * What nodes say of warm-up lines (data/warm.json), among what they say is left: "warmed=DIST: how
 * long", "unwarmed=DIST: why it failed", "asking=DIST: what it asked for", and, of a node that may
 * not stay, "spoilt=DIST: why". Once lines of a dist did what they should not, no node runs them
 * any more while the daemon lives.
 */
#pragma once

#include <jansson.h>

#include "function/knowledge.h"

/* A dist whose lines are not run any more. */
struct cold_dist {
	uint32_t dist; /* as interned */
	char *why;
};

/* Is it one of these texts, and nothing that keeps the node from sleeping? */
bool warm_is_word(const char *left);
/* A node for this subject may not stay. Are lines to blame, for which the next try is another? */
bool warm_spoilt(struct subject *s, char **left);
/* It does not fit its own subject: the same, of lines that asked for something. */
bool warm_asked(struct subject *s, char **left);
/* The node stays: n->warmed. */
void warm_stays(struct subject *s, struct node *n, char **left);
/* The names of the subject's dists whose lines are not to be run, NULL-terminated. Free the list,
 * not the names. */
const char **warm_cold(const struct subject *s);
/* For people: what was warmed up in the node and in those above it; what is not any more. */
json_t *warm_json(const struct node *n);
json_t *warm_cold_json(const struct subject *s);
void warm_close(struct functions *f);
