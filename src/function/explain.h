/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * What explain.c and why.c share: names for people, as JSON.
 */
#pragma once

#include <jansson.h>

#include "function/priv.h"

/* A string that is always one: what is no UTF-8 comes from a sandbox, and shows as '?'. */
json_t *explain_text(const char *text);
/* "numpy 2.4.6" of "dist:numpy 2.4.6 SHA256". */
char *explain_dist(const struct functions *f, uint32_t dist);
/* Whom a node was made for, of a subject's key: "function x" or "a script". */
char *explain_subject(const char *key);
/* All dists that a node holds, its ancestors' too. */
json_t *explain_dists(const struct functions *f, const struct node *n);
/* describe.c: a node as in the tree, without those below it. */
json_t *describe_node(struct functions *f, struct node *n);
/* Prints it; takes root. */
warn_unused int describe_json(json_t *root, struct buf *out, struct err *err);
