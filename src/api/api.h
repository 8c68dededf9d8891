/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (libuv loop; libmicrohttpd has no thread of its own: the loop polls it).
 *
 * The two sockets of the daemon's own directory, both mode 0600: api.sock speaks HTTP (routes.c has
 * the table; docs/API.md), run.sock takes scripts with descriptors (SOCK_SEQPACKET; run.c). On
 * request a TCP port that takes calls only: it checks Host and Origin, because web pages can POST
 * to loopback, and beyond loopback it demands a bearer token.
 */
#pragma once

#include <uv.h>

#include "base/err.h"

struct api;
struct functions;
struct store;
struct index;
struct jail;

struct api_config {
	uv_loop_t *loop;
	struct functions *functions;
	struct store *store;
	struct index *index;
	struct jail *jail;
	const char *run_dir; /* api.sock and run.sock are made here */
	const char *listen;  /* "HOST:PORT" or NULL: no TCP */
	const char *token;   /* NULL: none; needed when HOST is not loopback */
	const char *version;
};

warn_unused int api_open(const struct api_config *config, struct api **out, struct err *err);
int api_tcp_port(const struct api *api); /* 0: none */
/* No new connections; those that are there are answered. Removes the socket files. */
void api_quiesce(struct api *api);
void api_close(struct api *api);
