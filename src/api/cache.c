/* SPDX-License-Identifier: Apache-2.0
 *
 * The routes of the cache. The store answers later, from its threads: a request that was answered
 * meanwhile (its client is gone, the daemon stops) has taken itself out of the handle.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/priv.h"
#include "index/index.h"
#include "store/store.h"

struct pruning {
	struct request **handle;
	struct store *store;
	struct store_prune ask;
};

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

static void on_trimmed(void *arg, const struct err *err)
{
	struct pruning *p = arg;

	if (err || !*p->handle)
		on_text(p->handle, NULL, err);
	else
		store_prune(p->store, &p->ask, on_text, p->handle);
	free(p);
}

void post_cache_prune(struct request *r)
{
	int64_t to = number(r, "to", INT64_MAX), older = number(r, "older", 0);
	const struct api_config *config = &r->server->api->config;
	struct pruning *p;
	struct err err;

	if (to < 0 || older < 0 || (to == INT64_MAX && !older)) {
		err_set(&err, ERR_USAGE, "give to=BYTES, or older=SECONDS, or both");
		request_error(r, &err);
		return;
	}
	p = mem_new(struct pruning);
	p->handle = handle_of(r);
	p->store = config->store;
	p->ask = (struct store_prune){ .to_bytes = (uint64_t)to, .older_s = (double)older };
	index_trim(config->index, (uint64_t)to, on_trimmed, p);
}
