/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * Where room index gets its resolver processes: forks of a zygote of the system's own python3 that
 * has packaging and our resolver imported. Made at the first need; no package of a user's ever gets
 * in there, and a resolver has no network.
 */
#pragma once

#include <uv.h>

#include "base/err.h"
#include "index/index.h"

struct resolvers;
struct zygote_node;
struct zygotes;

/* Copies Debian's packaging into an environment-shaped tree below cache_dir. zygotes
 * are opened later than the index, which needs the source: see resolvers_attach(). */
warn_unused int resolvers_open(uv_loop_t *loop, const char *cache_dir, struct resolvers **out,
			       struct err *err);
void resolvers_attach(struct resolvers *r, struct zygotes *zygotes);
struct index_resolver_source resolvers_source(struct resolvers *r);
/* To be called for every node that dies: one of these is made again at the next need. */
void resolvers_node_gone(void *ctx, struct zygote_node *node);
void resolvers_close(struct resolvers *r); /* after zygotes_close() */
