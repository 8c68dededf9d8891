/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "api/priv.h"

static const char *query(struct request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND, name);
}

static void add_stage(struct buf *out, const char *name, uint64_t us)
{
	if (us != UINT64_MAX &&
	    buf_putf(out, NULL, "%s%s;dur=%.3f", out->len ? ", " : "", name, (double)us / 1e3) < 0)
		buf_reset(out);
}

static void add_server_timing(struct MHD_Response *resp, const struct function_timing *t)
{
	auto_buf struct buf text = BUF_MAX(1024);

	add_stage(&text, "queue", t->queue_us);
	add_stage(&text, "fork", t->fork_us);
	add_stage(&text, "sandbox", t->sandbox_us);
	add_stage(&text, "import", t->import_us);
	add_stage(&text, "handler", t->handler_us);
	add_stage(&text, "total", t->total_us);
	if (t->start && buf_putf(&text, NULL, ", start;desc=\"%s\"", t->start) < 0)
		return;
	MHD_add_response_header(resp, "Server-Timing", text.data);
}

static void on_reply(void *arg, const struct function_reply *reply)
{
	struct request *r = arg;
	struct MHD_Response *resp;
	unsigned status = MHD_HTTP_OK;

	r->call = NULL;
	if (reply->err) {
		resp = error_response(reply->err, reply->body, reply->body_len);
		status = (unsigned)err_http_status(reply->err->kind);
	} else {
		resp = MHD_create_response_from_buffer(reply->body_len, (void *)reply->body,
						       MHD_RESPMEM_MUST_COPY);
		MHD_add_response_header(resp, MHD_HTTP_HEADER_CONTENT_TYPE,
					reply->is_bytes ? "application/octet-stream"
							: "application/json");
	}
	add_server_timing(resp, &reply->timing);
	request_respond(r, status, resp);
}

static void post_run(struct request *r)
{
	struct function_call *call = functions_call(r->server->api->config.functions, r->name,
						    r->body.data, r->body.len, on_reply, r);

	if (r->answered)
		return;
	r->call = call;
	request_watch(r);
}

static void on_deployed(void *arg, const char *json, const struct err *err)
{
	struct request **handle = arg, *r = *handle;

	free(handle);
	if (!r)
		return;
	r->deploy = NULL;
	if (r->streams && json)
		stream_json(r, json);
	else if (r->streams)
		stream_error(r, err);
	else if (json)
		request_json(r, MHD_HTTP_OK, json, strlen(json));
	else
		request_error(r, err);
}

static void on_progress(void *arg, const char *line)
{
	struct request **handle = arg;

	if (*handle)
		stream_line(*handle, line);
}

static void put_function(struct request *r)
{
	struct request **handle = mem_new(struct request *);
	struct function_upload upload = {
		.name = r->name,
		.zip = r->body.data,
		.zip_bytes = r->body.len,
		.python = query(r, "python"),
		.prefix = query(r, "prefix"),
		.index_url = query(r, "index_url"),
		.pip_settings = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND,
							    "X-Pip-Settings"),
		.options = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND,
						       "X-Requirement-Options"),
	};

	*handle = r;
	r->deploy = handle;
	functions_deploy(r->server->api->config.functions, &upload,
			 stream_wanted(r) ? on_progress : NULL, on_deployed, handle);
	if (!r->answered)
		buf_done(&r->body); /* the room has its copy */
}

static void delete_function(struct request *r)
{
	struct err err = ERR_INIT;

	if (functions_remove(r->server->api->config.functions, r->name, &err) < 0)
		request_error(r, &err);
	else
		request_json(r, MHD_HTTP_OK, "{}\n", 3);
}

static void answer_json(struct request *r, int ret, const struct buf *out, const struct err *err)
{
	if (ret < 0)
		request_error(r, err);
	else
		request_json(r, MHD_HTTP_OK, out->data, out->len);
}

static void describe(struct request *r,
		     int (*print)(struct functions *f, struct buf *out, struct err *err))
{
	auto_buf struct buf out = { 0 };
	struct err err = ERR_INIT;
	int ret = print(r->server->api->config.functions, &out, &err);

	answer_json(r, ret, &out, &err);
}

static int parse_id(const char *text, uint32_t *out, struct err *err)
{
	unsigned long long n = 0;
	size_t digits = strspn(text, "0123456789");

	if (digits && !text[digits] && digits <= 10)
		n = strtoull(text, NULL, 10);
	if (!n || n > UINT32_MAX)
		return err_set(err, ERR_USAGE, "'%.40s' is not the number of a node", text);
	*out = (uint32_t)n;
	return 0;
}

static void get_functions(struct request *r)
{
	describe(r, functions_list);
}

static void get_tree(struct request *r)
{
	describe(r, functions_tree);
}

static void get_explanation(struct request *r)
{
	auto_buf struct buf out = { 0 };
	struct err err = ERR_INIT;
	int ret = functions_explain(r->server->api->config.functions, r->name, &out, &err);

	answer_json(r, ret, &out, &err);
}

static void get_node(struct request *r)
{
	auto_buf struct buf out = { 0 };
	struct err err = ERR_INIT;
	uint32_t id = 0;
	int ret = parse_id(r->name, &id, &err);

	if (ret == 0)
		ret = functions_node(r->server->api->config.functions, id, &out, &err);
	answer_json(r, ret, &out, &err);
}

static void get_history(struct request *r)
{
	describe(r, functions_history);
}

static void get_logs(struct request *r)
{
	auto_buf struct buf out = { 0 };
	struct err err = ERR_INIT;

	if (functions_logs(r->server->api->config.functions, r->name, &out, &err) < 0)
		request_error(r, &err);
	else
		request_text(r, out.data ? out.data : "", out.len);
}

static void get_status(struct request *r)
{
	struct api *api = r->server->api;
	auto_buf struct buf out = { 0 };
	struct err err = ERR_INIT;
	json_t *status;
	char *text;

	if (functions_status(api->config.functions, &out, &err) < 0) {
		request_error(r, &err);
		return;
	}
	status = json_loadb(out.data, out.len, 0, NULL);
	json_object_set_new(status, "version", json_string(api->version));
	json_object_set_new(status, "tcp_port", json_integer(api->port));
	text = json_dumps(status, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
	json_decref(status);
	must(text);
	request_json(r, MHD_HTTP_OK, text, strlen(text));
	free(text);
}

static void get_healthz(struct request *r)
{
	request_text(r, "ok\n", 3);
}

static void get_openapi(struct request *r);

/* The one table: dispatch, limits, who may, and the description served at /openapi.json. */
static const struct route routes[] = {
	{ "POST", "/run/*", post_run, LIMIT_EVENT_BYTES, true,
	  "Call a function: the body is its event, the answer its result", "application/json",
	  "application/json" },
	{ "GET", "/healthz", get_healthz, 0, true, "Is the daemon there", NULL, "text/plain" },
	{ "GET", "/functions", get_functions, 0, false, "All deployed functions", NULL,
	  "application/json" },
	{ "PUT", "/functions/*", put_function, LIMIT_HTTP_UPLOAD_BYTES, false,
	  "Deploy a function (query: python, prefix, index_url; headers: X-Pip-Settings, "
	  "X-Requirement-Options)",
	  "application/zip", "application/json" },
	{ "DELETE", "/functions/*", delete_function, 0, false,
	  "Remove a function; its running calls end first", NULL, "application/json" },
	{ "GET", "/functions/*/logs", get_logs, 0, false, "The newest output of its instances",
	  NULL, "text/plain" },
	{ "GET", "/cache", get_cache, 0, false,
	  "What is cached: downloads, wheels, bytecode, environments", NULL, "application/json" },
	{ "POST", "/cache/prune", post_cache_prune, 0, false,
	  "Remove what saves least and nobody needs (query: to, in bytes; older, in seconds)", NULL,
	  "application/json" },
	{ "POST", "/cache/verify", post_cache_verify, 0, false,
	  "Compare every cached file with its hash", NULL, "application/json" },
	{ "GET", "/tree", get_tree, 0, false, "The sleeping interpreters", NULL,
	  "application/json" },
	{ "GET", "/tree/explain/*", get_explanation, 0, false,
	  "What a function's next cold start would be, and why", NULL, "application/json" },
	{ "GET", "/tree/nodes/*", get_node, 0, false,
	  "A sleeping interpreter: who uses it, what it saves and costs", NULL, "application/json",
	  "id" },
	{ "GET", "/history", get_history, 0, false,
	  "What was called, and what its packages cost, as a workload for fit and simulate", NULL,
	  "application/json" },
	{ "GET", "/status", get_status, 0, false, "The daemon, its host and its limits", NULL,
	  "application/json" },
	{ "GET", "/metrics", get_metrics, 0, false, "The numbers of the status for Prometheus",
	  NULL, "text/plain" },
	{ "GET", "/openapi.json", get_openapi, 0, false, "This description", NULL,
	  "application/json" },
};

/* "/functions/{name}/logs" out of the pattern. */
static char *described_path(const struct route *route, const char *what)
{
	const char *star = strchr(route->path, '*');

	if (!star)
		return mem_strdup(route->path);
	return mem_printf("%.*s{%s}%s", (int)(star - route->path), route->path, what, star + 1);
}

static void add_path(json_t *paths, const struct route *route)
{
	const char *what = route->what ? route->what : "name";
	auto_free char *path = described_path(route, what);
	json_t *methods = json_object_get(paths, path), *op;
	auto_free char *method = mem_strdup(route->method);

	for (char *p = method; *p; p++)
		*p |= 0x20;
	if (!methods) {
		methods = json_object();
		json_object_set_new(paths, path, methods);
	}
	op = json_pack("{s:s, s:{s:{s:s, s:{s:{}}}, s:{s:s}}}", "summary", route->summary,
		       "responses", "200", "description", "done", "content", route->gives,
		       "default", "description",
		       "{\"error\": {\"kind\", \"message\", \"traceback\"}}");
	if (strchr(route->path, '*'))
		json_object_set_new(op, "parameters",
				    json_pack("[{s:s, s:s, s:b, s:{s:s}}]", "name", what, "in",
					      "path", "required", 1, "schema", "type", "string"));
	if (route->takes)
		json_object_set_new(op, "requestBody",
				    json_pack("{s:{s:{}}}", "content", route->takes));
	json_object_set_new(methods, method, op);
}

static void get_openapi(struct request *r)
{
	json_t *paths = json_object(), *root;
	char *text;

	for (size_t i = 0; i < array_len(routes); i++)
		add_path(paths, &routes[i]);
	root = json_pack("{s:s, s:{s:s, s:s}, s:o}", "openapi", "3.1.0", "info", "title",
			 "pipsqueak", "version", r->server->api->version, "paths", paths);
	text = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	must(text);
	request_json(r, MHD_HTTP_OK, text, strlen(text));
	free(text);
}

static bool matches(const char *pattern, const char *path, char **out_name)
{
	const char *star = strchr(pattern, '*');
	size_t before, len;

	if (!star)
		return strcmp(pattern, path) == 0;
	before = (size_t)(star - pattern);
	if (strncmp(pattern, path, before) != 0)
		return false;
	len = strcspn(path + before, "/");
	if (!len || strcmp(path + before + len, star + 1) != 0)
		return false;
	*out_name = mem_strndup(path + before, len);
	return true;
}

const struct route *route_find(const char *method, const char *path, char **out_name,
			       bool *out_other_method)
{
	for (size_t i = 0; i < array_len(routes); i++) {
		char *name = NULL;

		if (!matches(routes[i].path, path, &name))
			continue;
		if (strcmp(routes[i].method, method) == 0) {
			*out_name = name;
			return &routes[i];
		}
		free(name);
		*out_other_method = true;
	}
	return NULL;
}
