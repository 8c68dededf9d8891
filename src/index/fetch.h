/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (libuv loop). Private to the room.
 *
 * HTTP: libcurl's multi interface on the loop. One connection per host where HTTP/2 is offered.
 * Transient failures (connection lost, body cut short, 429, 5xx) are tried again LIMIT_RETRIES
 * times with growing pauses; redirects are limited and never leave http and https; a transfer
 * that stalls for settings->timeout_s fails. Errors name URLs without credentials.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "index/settings.h"

struct fetcher;

struct fetch_spec {
	const char *url;
	const char *accept;	   /* Accept header; NULL: any */
	const char *etag;	   /* for If-None-Match; NULL: none */
	struct settings *settings; /* referenced as long as needed */
	uint64_t max_bytes;	   /* of the body, unpacked */
	bool compressed;	   /* gzip is welcome */
	bool range;		   /* only bytes from..to (inclusive) */
	uint64_t from, to;
	/* Where the body goes; NULL: into reply.body. Returning -1 ends the transfer with err. */
	int (*data)(void *arg, const char *data, size_t len, struct err *err);
	void (*restart)(void *arg); /* a new attempt begins: forget what data() was given */
};

struct fetch_reply {
	long status; /* 2xx, 304, 4xx. 200 for a range: the server has none, body is empty */
	char *content_type, *etag, *url; /* url: after redirects. NULL when not said */
	struct buf body;
};

/* Exactly one of reply and err is set; what reply holds is freed afterwards unless stolen. */
typedef void (*fetch_done_fn)(void *arg, struct fetch_reply *reply, const struct err *err);

warn_unused int fetcher_open(uv_loop_t *loop, struct fetcher **out, struct err *err);
/* Every transfer under way gets its done() with "shutting down". */
void fetcher_close(struct fetcher *f);
/* done() is never called before this returns. */
void fetch_start(struct fetcher *f, const struct fetch_spec *spec, fetch_done_fn done, void *arg);
