/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * What the files of this room share: a request on its way from HTTP to a function and back.
 */
#pragma once

#include <jansson.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <uv.h>

#include "api/api.h"
#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "function/function.h"

struct request;
struct client;

/* One listening socket and its MHD daemon, polled by the loop. */
struct server {
	struct api *api;
	struct MHD_Daemon *mhd;
	uv_poll_t poll;
	uv_timer_t timer;
	bool tcp, running, again, open;
};

struct api {
	struct api_config config; /* its strings are copies */
	char *run_dir, *listen, *token, *version, *host;
	struct server unix_server, tcp_server;
	struct request *suspended; /* connections that wait for an answer */
	int port;
	int run_fd;
	uv_poll_t run_poll;
	bool run_open, closing;
	uv_timer_t closer; /* the last handle to close frees this */
	struct client *clients;
	uint32_t nclients;
	int handles; /* still to be closed by the loop */
};

struct route {
	const char *method, *path; /* one '*' stands for one segment: the name */
	void (*handle)(struct request *r);
	size_t max_body;
	bool tcp; /* allowed on the TCP port */
	const char *summary, *takes, *gives;
	const char *what; /* the segment's name in the description; NULL: "name" */
};

struct request {
	struct server *server;
	struct MHD_Connection *connection;
	const struct route *route; /* NULL: answered already */
	char *name;		   /* what '*' stood for */
	struct buf body;
	bool started, answered, suspended, discard;
	struct MHD_Response *response;
	unsigned status;
	struct function_call *call;
	struct request **deploy; /* what a deploy in progress knows this request by */
	struct buf lines;	 /* of a stream: not sent yet */
	bool streams, lines_end; /* see stream.c */
	uv_poll_t *watch;	 /* notices that the client is gone */
	struct request *next, **link;
};

/* cache.c: handlers of routes */
void get_cache(struct request *r);
void post_cache_prune(struct request *r);
void post_cache_verify(struct request *r);

/* metrics.c */
void get_metrics(struct request *r);

/* http.c */
/* Takes the response; resumes the connection if it waits. Once per request. */
void request_respond(struct request *r, unsigned status, struct MHD_Response *response);
void request_json(struct request *r, unsigned status, const char *json, size_t len);
void request_text(struct request *r, const char *text, size_t len);
/* traceback may be NULL. */
json_t *error_json(const struct err *err, const char *traceback, size_t len);
struct MHD_Response *error_response(const struct err *err, const char *traceback, size_t len);
void request_error(struct request *r, const struct err *err);
void request_watch(struct request *r); /* a client that goes away cancels r->call */
/* Let the connection sleep, and wake it if it does; waking may free r. */
void request_suspend(struct request *r);
void request_resume(struct request *r);

/* stream.c; what may end r stands in http.c. A line is an event, without its newline. */
bool stream_wanted(struct request *r);
void stream_line(struct request *r, const char *line);
/* The last one, of a request that r->streams. */
void stream_json(struct request *r, const char *json);
void stream_error(struct request *r, const struct err *err);

void api_handle_closed(struct api *api); /* one of api->handles is closed; the last frees */

/* routes.c */
/* The route and the name; or NULL and err says which of 404 and 405 it is. */
const struct route *route_find(const char *method, const char *path, char **out_name,
			       bool *out_other_method);

/* gate.c: may this TCP request in? */
warn_unused int gate_check(struct api *api, struct MHD_Connection *connection,
			   const struct route *route, struct err *err);
warn_unused int gate_listen(struct api *api, int *out_fd, struct err *err);

/* run.c */
warn_unused int run_open(struct api *api, struct err *err);
void run_quiesce(struct api *api);
void run_close(struct api *api);
/* A listening Unix socket of mode 0600 at run_dir/name. */
warn_unused int unix_listen(struct api *api, const char *name, int type, struct err *err);
