/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "api/priv.h"
#include "base/fd.h"
#include "base/log.h"

#define CONNECTION_BYTES (128 * KIB)
#define CONNECTION_IDLE_S 30	 /* waiting for a request, or for the rest of one */
#define DISCARD_BYTES (64 * MIB) /* of a body that is refused: read, so that the answer arrives */

static void server_run(struct server *s);

static void on_timer(uv_timer_t *timer)
{
	server_run(timer->data);
}

static void on_event(uv_poll_t *poll, int status, int events)
{
	server_run(poll->data);
}

/* MHD_run() handles what is ready, without blocking. It is not re-entrant: an answer that comes
 * while it runs (of another connection, through our own callbacks) asks for one more round. */
static void server_run(struct server *s)
{
	MHD_UNSIGNED_LONG_LONG ms;

	if (s->running) {
		s->again = true;
		return;
	}
	s->running = true;
	do {
		s->again = false;
		MHD_run(s->mhd);
	} while (s->again);
	s->running = false;
	if (MHD_get_timeout(s->mhd, &ms) == MHD_YES)
		uv_timer_start(&s->timer, on_timer, ms, 0);
	else
		uv_timer_stop(&s->timer);
}

static void free_handle(uv_handle_t *handle)
{
	free(handle);
}

static void unwatch(struct request *r)
{
	if (!r->watch)
		return;
	uv_close((uv_handle_t *)r->watch, free_handle);
	r->watch = NULL;
}

static void on_client_gone(uv_poll_t *poll, int status, int events)
{
	struct request *r = poll->data;
	struct function_call *call = r->call;
	struct err err = ERR_INIT;

	if (!call)
		return;
	r->call = NULL;
	functions_cancel(call);
	err_set(&err, ERR_DIED, "the client is gone");
	request_error(r, &err);
}

/* A suspended connection is not polled by MHD: it would not notice (DESIGN 8). */
void request_watch(struct request *r)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(
		r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	uv_poll_t *watch = mem_new(uv_poll_t);

	if (!info || uv_poll_init(r->server->api->config.loop, watch, (int)info->connect_fd) != 0) {
		free(watch);
		return;
	}
	watch->data = r;
	r->watch = watch;
	uv_poll_start(watch, UV_DISCONNECT, on_client_gone);
}

/* It has nobody to tell any more. */
static void forget_deploy(struct request *r)
{
	if (r->deploy)
		*r->deploy = NULL;
	r->deploy = NULL;
}

void request_suspend(struct request *r)
{
	struct api *api = r->server->api;

	r->suspended = true;
	r->link = &api->suspended;
	r->next = api->suspended;
	if (r->next)
		r->next->link = &r->next;
	api->suspended = r;
	MHD_suspend_connection(r->connection);
}

void request_resume(struct request *r)
{
	struct server *s = r->server;

	if (!r->suspended)
		return;
	r->suspended = false;
	*r->link = r->next;
	if (r->next)
		r->next->link = r->link;
	MHD_resume_connection(r->connection);
	server_run(s);
}

void request_respond(struct request *r, unsigned status, struct MHD_Response *response)
{
	must(!r->answered);
	r->answered = true;
	r->status = status;
	r->response = response;
	unwatch(r);
	if (!r->streams)
		forget_deploy(r);
	request_resume(r);
}

void request_json(struct request *r, unsigned status, const char *json, size_t len)
{
	struct MHD_Response *resp = MHD_create_response_from_buffer(len, (void *)json,
								    MHD_RESPMEM_MUST_COPY);

	MHD_add_response_header(resp, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	request_respond(r, status, resp);
}

void request_text(struct request *r, const char *text, size_t len)
{
	struct MHD_Response *resp = MHD_create_response_from_buffer(len, (void *)text,
								    MHD_RESPMEM_MUST_COPY);

	MHD_add_response_header(resp, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; charset=utf-8");
	request_respond(r, MHD_HTTP_OK, resp);
}

/* Text from a sandbox may not be UTF-8; an answer that is no JSON would be worse. */
static json_t *json_text(const char *text, size_t len)
{
	json_t *v = json_stringn(text, len);
	auto_free char *ascii = NULL;

	if (v)
		return v;
	ascii = mem_strndup(text, len);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)ascii[i] >= 0x80)
			ascii[i] = '?';
	return json_stringn(ascii, len);
}

json_t *error_json(const struct err *err, const char *traceback, size_t len)
{
	json_t *inner = json_object(), *root = json_object();

	json_object_set_new(inner, "kind", json_string(err_kind_name(err->kind)));
	json_object_set_new(inner, "message", json_text(err->text, strlen(err->text)));
	if (traceback && len)
		json_object_set_new(inner, "traceback", json_text(traceback, len));
	json_object_set_new(root, "error", inner);
	return root;
}

struct MHD_Response *error_response(const struct err *err, const char *traceback, size_t len)
{
	json_t *root = error_json(err, traceback, len);
	char *text = json_dumps(root, JSON_COMPACT);
	struct MHD_Response *resp;

	json_decref(root);
	must(text);
	resp = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	MHD_add_response_header(resp, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	return resp;
}

void request_error(struct request *r, const struct err *err)
{
	request_respond(r, (unsigned)err_http_status(err->kind), error_response(err, NULL, 0));
}

static void refuse(struct request *r, const struct err *err, unsigned status)
{
	r->discard = true;
	request_respond(r, status, error_response(err, NULL, 0));
}

/* The head of a request has been read: whatever can be refused without its body is. */
static void begin(struct request *r, const char *method, const char *url)
{
	const char *length = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND,
							 MHD_HTTP_HEADER_CONTENT_LENGTH);
	const struct route *route;
	bool other = false;
	struct err err = ERR_INIT;

	route = route_find(method, url, &r->name, &other);
	if (!route) {
		err_set(&err, other ? ERR_USAGE : ERR_NOT_FOUND,
			other ? "this path does not take the method %.20s; see /openapi.json"
			      : "there is nothing here (%.20s); see /openapi.json",
			method);
		refuse(r, &err, other ? MHD_HTTP_METHOD_NOT_ALLOWED : MHD_HTTP_NOT_FOUND);
		return;
	}
	if (r->server->tcp && gate_check(r->server->api, r->connection, route, &err) < 0) {
		refuse(r, &err, MHD_HTTP_FORBIDDEN);
		return;
	}
	r->route = route;
	r->body.max = route->max_body ? route->max_body : 1;
	if (length && strtoull(length, NULL, 10) > route->max_body) {
		err_set(&err, ERR_TOO_BIG, "the body has %.20s bytes, more than %zu", length,
			route->max_body);
		refuse(r, &err, (unsigned)err_http_status(err.kind));
	}
}

static void take_body(struct request *r, const char *data, size_t len)
{
	struct err err = ERR_INIT;

	if (r->discard)
		return;
	if (r->body.len + len <= r->route->max_body && buf_put(&r->body, data, len, NULL) == 0)
		return;
	err_set(&err, ERR_TOO_BIG, "the body has more than %zu bytes", r->route->max_body);
	buf_done(&r->body);
	refuse(r, &err, (unsigned)err_http_status(err.kind));
}

static enum MHD_Result send_answer(struct request *r)
{
	enum MHD_Result ret = MHD_queue_response(r->connection, r->status, r->response);

	MHD_destroy_response(r->response);
	r->response = NULL;
	return ret;
}

static struct request *request_new(struct server *s, struct MHD_Connection *connection)
{
	struct request *r = mem_new(struct request);

	r->server = s;
	r->connection = connection;
	return r;
}

static bool too_long_to_read(struct request *r)
{
	const char *length = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND,
							 MHD_HTTP_HEADER_CONTENT_LENGTH);

	return r->discard && length && strtoull(length, NULL, 10) > DISCARD_BYTES;
}

/* MHD calls this for the head, for each piece of the body, at its end, and after a resume. */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *upload_data,
				  size_t *upload_size, void **con_cls)
{
	struct request *r = *con_cls;

	if (!r) {
		r = *con_cls = request_new(ctx, connection);
		begin(r, method, url);
		return too_long_to_read(r) ? send_answer(r) : MHD_YES;
	}
	if (*upload_size) {
		take_body(r, upload_data, *upload_size);
		*upload_size = 0;
		return MHD_YES;
	}
	if (!r->answered && !r->started) {
		r->started = true;
		r->route->handle(r);
		if (!r->answered) {
			request_suspend(r);
			return MHD_YES;
		}
	}
	return r->response ? send_answer(r) : MHD_YES;
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **con_cls,
			 enum MHD_RequestTerminationCode code)
{
	struct request *r = *con_cls;

	if (!r)
		return;
	must(!r->suspended);
	unwatch(r);
	forget_deploy(r);
	if (r->response)
		MHD_destroy_response(r->response);
	buf_done(&r->body);
	buf_done(&r->lines);
	free(r->name);
	free(r);
	*con_cls = NULL;
}

static int server_open(struct api *api, struct server *s, int fd, struct err *err)
{
	const union MHD_DaemonInfo *info;
	unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME;

	s->api = api;
	s->mhd = MHD_start_daemon(flags, 0, NULL, NULL, on_request, s, MHD_OPTION_LISTEN_SOCKET, fd,
				  MHD_OPTION_NOTIFY_COMPLETED, on_completed, s,
				  MHD_OPTION_CONNECTION_LIMIT, (unsigned)LIMIT_HTTP_CONNECTIONS,
				  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
				  MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CONNECTION_IDLE_S,
				  MHD_OPTION_END);
	if (!s->mhd) {
		close(fd);
		return err_set(err, ERR_SYSTEM, "starting the HTTP server failed");
	}
	info = MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	must(info && uv_poll_init(api->config.loop, &s->poll, info->epoll_fd) == 0);
	uv_timer_init(api->config.loop, &s->timer);
	s->poll.data = s->timer.data = s;
	uv_poll_start(&s->poll, UV_READABLE, on_event);
	s->open = true;
	return 0;
}

int unix_listen(struct api *api, const char *name, int type, struct err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	auto_close int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int n = snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", api->run_dir, name);

	if (fd < 0)
		return err_sys(err, errno, "making a socket");
	if ((size_t)n >= sizeof(addr.sun_path))
		return err_set(err, ERR_USAGE,
			       "the run directory's path is too long for a socket (%d bytes); use "
			       "a shorter --dir",
			       n);
	unlink(addr.sun_path); /* the lock on the run directory is ours: it is a leftover */
	/* fchmod before bind: the file never exists with another mode. */
	if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    chmod(addr.sun_path, 0600) < 0 || listen(fd, 256) < 0)
		return err_sys(err, errno, "listening on %s", name);
	return fd_steal(&fd);
}

static void remove_socket(struct api *api, const char *name)
{
	auto_free char *path = mem_printf("%s/%s", api->run_dir, name);

	if (unlink(path) < 0 && errno != ENOENT)
		log_warn("api", "removing %s: %s", name, strerror(errno));
}

int api_open(const struct api_config *config, struct api **out, struct err *err)
{
	struct api *api = mem_new(struct api);
	int fd;

	api->config = *config;
	api->run_dir = mem_strdup(config->run_dir);
	api->listen = mem_strdup(config->listen);
	api->token = mem_strdup(config->token);
	api->version = mem_strdup(config->version);
	api->run_fd = -1;
	api->tcp_server.tcp = true;
	fd = unix_listen(api, "api.sock", SOCK_STREAM, err);
	if (fd < 0 || server_open(api, &api->unix_server, fd, err) < 0 || run_open(api, err) < 0)
		goto failed;
	if (api->listen &&
	    (gate_listen(api, &fd, err) < 0 || server_open(api, &api->tcp_server, fd, err) < 0))
		goto failed;
	*out = api;
	return 0;
failed:
	api_close(api);
	return err_wrap(err, "opening the API");
}

int api_tcp_port(const struct api *api)
{
	return api->port;
}

void api_quiesce(struct api *api)
{
	struct server *servers[] = { &api->unix_server, &api->tcp_server };

	remove_socket(api, "api.sock");
	remove_socket(api, "run.sock");
	for (size_t i = 0; i < array_len(servers); i++) {
		MHD_socket fd = servers[i]->open ? MHD_quiesce_daemon(servers[i]->mhd)
						 : MHD_INVALID_SOCKET;

		if (fd != MHD_INVALID_SOCKET)
			close(fd);
	}
	run_quiesce(api);
}

void api_handle_closed(struct api *api)
{
	if (--api->handles)
		return;
	free(api->run_dir);
	free(api->listen);
	free(api->token);
	free(api->version);
	free(api->host);
	free(api);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct server *s = handle->data;

	api_handle_closed(s->api);
}

static void on_closer_closed(uv_handle_t *handle)
{
	api_handle_closed(handle->data);
}

static void server_close(struct server *s)
{
	if (!s->open)
		return;
	s->open = false;
	s->api->handles += 2;
	uv_close((uv_handle_t *)&s->poll, on_handle_closed);
	uv_close((uv_handle_t *)&s->timer, on_handle_closed);
	MHD_stop_daemon(s->mhd);
}

void api_close(struct api *api)
{
	struct err err = ERR_INIT;

	if (!api)
		return;
	run_close(api);
	err_set(&err, ERR_BUSY, "the daemon is shutting down; try again");
	while (api->suspended) {
		struct request *r = api->suspended;

		if (r->call)
			functions_cancel(r->call);
		r->call = NULL;
		if (r->streams)
			stream_error(r, &err);
		else
			request_error(r, &err);
	}
	api->closing = true;
	api->handles++;
	server_close(&api->unix_server);
	server_close(&api->tcp_server);
	uv_timer_init(api->config.loop, &api->closer);
	api->closer.data = api;
	uv_close((uv_handle_t *)&api->closer, on_closer_closed);
}
