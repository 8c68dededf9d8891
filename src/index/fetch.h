/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (libuv loop). Private to the room.
 *
 * HTTP: libcurl's multi interface on the loop. One connection per host where HTTP/2 is offered.
 * Transient failures (connection lost, body cut short, 429, 5xx) are tried again LIMIT_RETRIES
 * times with growing pauses, or after what Retry-After says; a body that may be resumed goes on
 * where it broke off. Redirects are limited and never leave http and https, nor go from https to
 * http; a transfer that stalls or drips for settings->timeout_s fails. Errors name URLs without
 * credentials.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "index/settings.h"

struct fetcher;

#define FETCH_TAIL UINT64_MAX

struct fetch_spec {
	const char *url;
	const char *accept;	     /* Accept header; NULL: any */
	const char *etag, *modified; /* of what is there, to ask whether it changed; NULL: none */
	struct settings *settings;   /* referenced as long as needed */
	uint64_t max_bytes;	     /* of the body, unpacked */
	long max_ms;		     /* of one attempt; 0: LIMIT_FETCH_MS */
	bool compressed;	     /* gzip is welcome */
	bool range; /* only bytes from..to (inclusive); FETCH_TAIL: the last `to` */
	uint64_t from, to;
	/* Where the body goes; NULL: into reply.body. Returning -1 ends the transfer with err. */
	int (*data)(void *arg, const char *data, size_t len, struct err *err);
	/* Before the first data(), how long the body will be in all, if the server says so. */
	void (*length)(void *arg, uint64_t bytes);
	/* With data(): a new attempt begins at the first byte; forget what data() was given. */
	int (*restart)(void *arg, struct err *err);
	uint64_t begun; /* with resume: bytes that are there of an earlier time */
	bool resume; /* with data(): after a break, go on behind what it was given if the server can
		      */
};

struct fetch_reply {
	long status; /* 2xx, 304, 4xx. 200 for a range: the server has none, body is empty */
	char *content_type, *etag, *modified, *url; /* url: after redirects. NULL when not said */
	long fresh_s; /* how long it needs no asking again; -1: not said */
	bool no_store;
	uint64_t part, whole; /* of a 206: where it begins, and the size of the whole */
	bool resumed;	      /* in more than one piece: only its sum tells whether they fit */
	struct buf body;
};

/* Exactly one of reply and err is set; what reply holds is freed afterwards unless stolen. */
typedef void (*fetch_done_fn)(void *arg, struct fetch_reply *reply, const struct err *err);

warn_unused int fetcher_open(uv_loop_t *loop, struct fetcher **out, struct err *err);
/* Every transfer under way gets its done() with "shutting down". */
void fetcher_close(struct fetcher *f);
/* done() is never called before this returns. */
void fetch_start(struct fetcher *f, const struct fetch_spec *spec, fetch_done_fn done, void *arg);
void fetch_reply_done(struct fetch_reply *reply);
