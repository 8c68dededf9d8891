/* SPDX-License-Identifier: Apache-2.0
 *
 * deploy and invoke.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/inputs.h"
#include "cli/show.h"
#include "cli/view.h"

struct deploy_options {
	const char *path, *name;
	bool quiet, json;
	struct required required;
};

/* The directory's or file's name, made to fit: lower case, no suffix. */
static char *default_name(const char *path)
{
	auto_free char *real = realpath(path, NULL);
	char *name = mem_strdup(real ? strrchr(real, '/') + 1 : path), *dot = strrchr(name, '.');

	if (dot && dot != name)
		*dot = '\0';
	for (char *p = name; *p; p++)
		*p = isalnum((unsigned char)*p) || *p == '-' || *p == '_' ? (char)tolower(*p) : '-';
	return name;
}

static int parse_deploy(int argc, char **argv, struct deploy_options *o)
{
	const struct required *r = &o->required;

	for (int i = 1; i < argc; i++) {
		int rc = required_flag("deploy", &o->required, argc, argv, &i);

		if (rc == 2)
			return 2;
		if (rc == 1)
			continue;
		if (strcmp(argv[i], "-q") == 0 || strcmp(argv[i], "--quiet") == 0) {
			o->quiet = true;
			continue;
		}
		if (strcmp(argv[i], "--json") == 0) {
			o->json = true;
			continue;
		}
		if (strcmp(argv[i], "--name") == 0) {
			if (i + 1 == argc)
				return usage_error("deploy", "--name needs a value");
			o->name = argv[++i];
			continue;
		}
		if (argv[i][0] == '-' || o->path)
			return usage_error("deploy", "unexpected '%s'", argv[i]);
		o->path = argv[i];
	}
	if (r->with.n || r->requirements_file)
		return usage_error("deploy", "what a function requires stands in its directory, "
					     "not in --with or --with-requirements");
	return o->path ? 0 : usage_error("deploy", "deploy what? give a directory or a file");
}

/* Percent-encoding for a query's value (RFC 3986). */
static void add_query(struct buf *path, const char *key, const char *value)
{
	must(buf_putf(path, NULL, "%c%s=", strchr(path->data, '?') ? '&' : '?', key) == 0);
	for (; *value; value++)
		must(buf_putf(path, NULL,
			      isalnum((unsigned char)*value) || strchr("-._~/", *value) ? "%c"
											: "%%%02X",
			      (unsigned char)*value) == 0);
}

static int build_path(const struct deploy_options *o, const char *name, struct buf *path,
		      struct err *err)
{
	auto_free char *python = NULL, *prefix = NULL;

	if (buf_putf(path, err, "/functions/%s", name) < 0)
		return -1;
	if (o->required.python) {
		if (interpreter_find(o->required.python, &python, &prefix, err) < 0)
			return -1;
		add_query(path, "python", python);
		add_query(path, "prefix", prefix);
	}
	if (o->required.index_url)
		add_query(path, "index_url", o->required.index_url);
	return 0;
}

static void show_deployed(const struct http_reply *reply, const char *name)
{
	json_t *f = json_loadb(reply->body.data, reply->body.len, 0, NULL), *dist;
	size_t i;

	printf("%s, version %.0f", name, json_number_value(json_object_get(f, "version")));
	json_array_foreach(json_object_get(f, "dists"), i, dist)
		printf("%s%s", i ? ", " : ": ", json_string_value(dist));
	printf("\ncall it: pipsqueak invoke %s '{}'\n", name);
	json_decref(f);
}

static int deploy(const struct dirs *d, const struct deploy_options *o, struct view *view,
		  struct err *err)
{
	auto_buf struct buf zip = { 0 }, path = { 0 };
	auto_free char *name = o->name ? mem_strdup(o->name) : default_name(o->path);
	auto_free char *settings = NULL, *headers = NULL, *options = NULL;
	struct http_ask ask;
	struct http_reply reply = { 0 };
	auto_close int fd = -1;
	int rc;

	if (zip_make(o->path, &zip, err) < 0 || build_path(o, name, &path, err) < 0 ||
	    pip_settings(d, &settings, err) < 0 ||
	    pip_settings_adjust(&settings, false, o->required.indexes.v, o->required.indexes.n,
				err) < 0 ||
	    inputs_options(&o->required, o->path, &options, err) < 0)
		return -1;
	headers = mem_printf("Content-Type: application/zip\r\nX-Pip-Settings: %s\r\n"
			     "X-Requirement-Options: %s\r\n",
			     settings, options);
	if (connect_daemon(d, "api.sock", true, &fd, err) < 0)
		return -1;
	ask = (struct http_ask){ "PUT", path.data, headers, &zip, o->quiet ? NULL : view };
	rc = http_request(fd, &ask, &reply, err);
	view_clear(view);
	if (rc == 0 && reply.status >= 400)
		rc = http_error(&reply, err);
	if (rc == 0 && o->json)
		printf("%.*s\n", (int)reply.body.len, reply.body.data);
	else if (rc == 0)
		show_deployed(&reply, name);
	http_reply_done(&reply);
	return rc;
}

/* The daemon may not see where the interpreter is (below root's home, say), and HTTP carries no
 * mount: a script that does nothing shows it the place, and starts its zygote. */
static int introduce(const struct dirs *d, const char *python)
{
	const char *argv[] = { "run", "-q", "--python", python, "-c", "pass", NULL };

	return verb_run(d, (int)array_len(argv) - 1, (char **)argv);
}

int verb_deploy(const struct dirs *d, int argc, char **argv)
{
	struct deploy_options o = { 0 };
	int code = parse_deploy(argc, argv, &o);
	struct view *view;
	struct err err;

	if (code == 0 && o.required.python)
		code = introduce(d, o.required.python);
	if (code)
		return code;
	view = view_new(o.quiet ? VIEW_QUIET : o.json ? VIEW_JSON : VIEW_AUTO);
	if (deploy(d, &o, view, &err) < 0)
		code = view_complain(view, &err);
	view_free(view);
	return code;
}

static int read_event(const char *arg, struct buf *event, struct err *err)
{
	event->max = LIMIT_EVENT_BYTES + MIB; /* the daemon says what is too big */
	if (!arg)
		return buf_puts(event, "null", err);
	if (strcmp(arg, "-") == 0)
		return buf_read_fd(event, STDIN_FILENO, err);
	if (arg[0] == '@')
		return buf_read_file(event, AT_FDCWD, arg + 1, err);
	return buf_puts(event, arg, err);
}

static int invoke(const struct dirs *d, const char *name, const char *arg, bool timing,
		  struct err *err)
{
	auto_free char *path = mem_printf("/run/%s", name);
	auto_buf struct buf event = { 0 };
	struct http_ask ask = { .method = "POST", .path = path, .body = &event };
	struct http_reply reply = { 0 };
	auto_close int fd = -1;
	int rc;

	if (read_event(arg, &event, err) < 0 || connect_daemon(d, "api.sock", true, &fd, err) < 0)
		return -1;
	rc = http_request(fd, &ask, &reply, err);
	if (rc == 0 && timing && reply.timing[0])
		show_timing(reply.timing);
	if (rc == 0 && reply.status >= 400) {
		rc = http_error(&reply, err);
	} else if (rc == 0) {
		fwrite(reply.body.data, 1, reply.body.len, stdout);
		if (isatty(STDOUT_FILENO))
			putchar('\n');
	}
	http_reply_done(&reply);
	return rc;
}

int verb_invoke(const struct dirs *d, int argc, char **argv)
{
	const char *words[2] = { NULL, NULL };
	bool timing = false;
	struct err err;
	int n = 0;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--timing") == 0)
			timing = true;
		else if (n == 2 || (argv[i][0] == '-' && argv[i][1] && n == 0))
			return usage_error("invoke", "unexpected '%s'", argv[i]);
		else
			words[n++] = argv[i];
	}
	if (!words[0] || strchr(words[0], '/') || strchr(words[0], ' '))
		return usage_error("invoke", "give the name of a function");
	return invoke(d, words[0], words[1], timing, &err) < 0 ? complain(&err) : 0;
}
