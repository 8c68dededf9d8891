/* SPDX-License-Identifier: Apache-2.0
 *
 * The routes of the cache. The store answers later, from its threads: a request that was answered
 * meanwhile (its client is gone, the daemon stops) has taken itself out of the handle.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/priv.h"
#include "store/store.h"

static void on_text(void *arg, const char *text, const struct err *err)
{
	struct request **handle = arg, *r = *handle;

	if (r) {
		r->deploy = NULL;
		if (text)
			request_json(r, MHD_HTTP_OK, text, strlen(text));
		else
			request_error(r, err);
	}
	free(handle);
}

static struct request **handle_of(struct request *r)
{
	struct request **handle = mem_new(struct request *);

	*handle = r;
	r->deploy = handle;
	return handle;
}

void get_cache(struct request *r)
{
	store_list(r->server->api->config.store, on_text, handle_of(r));
}

void post_cache_verify(struct request *r)
{
	store_verify(r->server->api->config.store, on_text, handle_of(r));
}

/* A whole number in the query, or fallback when it is absent; -1: another thing is there. */
static int64_t number(struct request *r, const char *name, int64_t fallback)
{
	const char *text = MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND, name);
	char *end;
	long long n;

	if (!text)
		return fallback;
	errno = 0;
	n = strtoll(text, &end, 10);
	return errno || end == text || *end ? -1 : n;
}

void post_cache_prune(struct request *r)
{
	int64_t to = number(r, "to", INT64_MAX), older = number(r, "older", 0);
	struct store_prune ask = { .to_bytes = (uint64_t)to, .older_s = (double)older };
	struct err err;

	if (to < 0 || older < 0 || (to == INT64_MAX && !older)) {
		err_set(&err, ERR_USAGE, "give to=BYTES, or older=SECONDS, or both");
		request_error(r, &err);
		return;
	}
	store_prune(r->server->api->config.store, &ask, on_text, handle_of(r));
}
