/* SPDX-License-Identifier: Apache-2.0
 *
 * The short verbs: ls, rm, logs, status, daemon.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/show.h"

/* The one optional flag of the listing verbs. -1: bad usage, told. */
static int json_flag(int argc, char **argv)
{
	if (argc == 1)
		return 0;
	if (argc == 2 && strcmp(argv[1], "--json") == 0)
		return 1;
	usage_error(argv[0], "%s takes no '%s'", argv[0], argv[1]);
	return -1;
}

int verb_ls(const struct dirs *d, int argc, char **argv)
{
	int raw = json_flag(argc, argv);

	return raw < 0 ? 2 : show_fetch(d, "/functions", raw, show_functions);
}

int verb_status(const struct dirs *d, int argc, char **argv)
{
	int raw = json_flag(argc, argv);

	return raw < 0 ? 2 : show_fetch(d, "/status", raw, show_status);
}

bool is_function_name(const char *s)
{
	return *s && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") == strlen(s);
}

static int named(const struct dirs *d, int argc, char **argv, const char *method,
		 const char *suffix)
{
	struct http_reply reply = { 0 };
	auto_free char *path = NULL;
	struct err err;
	int rc;

	if (argc != 2 || !is_function_name(argv[1]))
		return usage_error(argv[0], "%s takes the name of one function", argv[0]);
	path = mem_printf("/functions/%s%s", argv[1], suffix);
	rc = api_call(d, true, method, path, &reply, &err);
	if (rc == 0 && strcmp(method, "GET") == 0)
		fwrite(reply.body.data, 1, reply.body.len, stdout);
	http_reply_done(&reply);
	return rc < 0 ? complain(&err) : 0;
}

int verb_rm(const struct dirs *d, int argc, char **argv)
{
	return named(d, argc, argv, "DELETE", "");
}

int verb_logs(const struct dirs *d, int argc, char **argv)
{
	return named(d, argc, argv, "GET", "/logs");
}

int verb_daemon(const struct dirs *d, int argc, char **argv)
{
	char **args = mem_zero((size_t)argc + 6, sizeof(char *));
	struct err err;
	int n = 0;

	if (!d->daemon || !d->lib) {
		err_set(&err, ERR_NOT_FOUND, "pipsqueakd was not found beside this program");
		free(args);
		return complain(&err);
	}
	args[n++] = d->daemon;
	args[n++] = (char *)"--lib";
	args[n++] = d->lib;
	if (d->base) {
		args[n++] = (char *)"--dir";
		args[n++] = d->base;
	}
	for (int i = 1; i < argc; i++)
		args[n++] = argv[i];
	execv(d->daemon, args);
	err_sys(&err, errno, "starting '%s'", d->daemon);
	free(args);
	return complain(&err);
}
