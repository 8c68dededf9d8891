/* SPDX-License-Identifier: Apache-2.0
 *
 * history: what a daemon has seen, as a directory that simulate and fit read.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/mem.h"
#include "cli/cli.h"

static int put_file(const char *dir, const char *name, const char *text, struct err *err)
{
	auto_free char *path = mem_printf("%s/%s", dir, name);

	return file_replace(path, text, strlen(text), err);
}

static int put_object(const char *dir, const char *name, const json_t *o, struct err *err)
{
	char *text = json_dumps(o, JSON_INDENT(1));
	int rc = text ? put_file(dir, name, text, err)
		      : err_set(err, ERR_CORRUPT, "the daemon's answer has no %s", name);

	free(text);
	return rc;
}

static int put_all(const char *dir, const json_t *history, struct err *err)
{
	auto_buf struct buf lines = { 0 };
	const json_t *function;
	size_t i;

	json_array_foreach(json_object_get(history, "functions"), i, function)
	{
		char *line = json_dumps(function, JSON_COMPACT);
		int rc = line ? buf_putf(&lines, err, "%s\n", line)
			      : err_set(err, ERR_CORRUPT, "the daemon's answer is malformed");

		free(line);
		if (rc < 0)
			return -1;
	}
	if (fd_mkdirs(dir, 0755, err) < 0 ||
	    put_object(dir, "packages.json", json_object_get(history, "packages"), err) < 0 ||
	    put_object(dir, "closures.json", json_object_get(history, "closures"), err) < 0 ||
	    put_object(dir, "tree.json", json_object_get(history, "tree"), err) < 0)
		return -1;
	return put_file(dir, "functions.jsonl", lines.data ? lines.data : "", err);
}

int verb_history(const struct dirs *d, int argc, char **argv)
{
	struct http_reply reply = { 0 };
	struct err err;
	json_t *history = NULL;
	int rc;

	if (argc != 3 || (strcmp(argv[1], "-o") != 0 && strcmp(argv[1], "--output") != 0))
		return usage_error("history", "-o DIR is needed");
	rc = api_call(d, true, "GET", "/history", &reply, &err);
	if (rc == 0) {
		history = json_loadb(reply.body.data ? reply.body.data : "", reply.body.len, 0,
				     NULL);
		rc = put_all(argv[2], history, &err);
	}
	json_decref(history);
	http_reply_done(&reply);
	return rc < 0 ? complain(&err) : 0;
}
