/* SPDX-License-Identifier: Apache-2.0
 *
 * pipsqueak cache: a view of the daemon's tiers 1 and 2.
 */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli.h"

static const char *const kinds[] = { "downloads", "wheels", "bytecode", "envs" };

static void put_size(double bytes)
{
	static const char units[] = "kMGT";
	int unit = -1;

	while (bytes >= 1000 && unit < 3) {
		bytes /= 1000;
		unit++;
	}
	if (unit < 0)
		printf("%7.0f B ", bytes);
	else
		printf("%7.1f %cB", bytes, units[unit]);
}

static int ask(const struct dirs *d, const char *method, const char *path, json_t **out)
{
	struct http_reply reply = { 0 };
	struct err err;
	int code = 0;

	if (api_call(d, true, method, path, &reply, &err) < 0)
		code = complain(&err);
	else
		*out = json_loadb(reply.body.data, reply.body.len, 0, NULL);
	if (code == 0 && !*out) {
		err_set(&err, ERR_CORRUPT, "the daemon's answer is not JSON");
		code = complain(&err);
	}
	http_reply_done(&reply);
	return code;
}

static double number(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static void put_object(const json_t *o)
{
	time_t used = (time_t)number(o, "used");
	char when[32] = "";
	struct tm tm;

	if (localtime_r(&used, &tm))
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M", &tm);
	printf("%-9s ", text(o, "kind"));
	put_size(number(o, "bytes"));
	printf("  %s  %.12s  %s\n", when, text(o, "name"), text(o, "dist"));
}

static int show(const struct dirs *d, bool whole, bool raw)
{
	json_t *o = NULL, *one;
	int code = ask(d, "GET", "/cache", &o);
	size_t i;

	if (code)
		return code;
	if (raw && !whole)
		json_object_del(o, "objects");
	if (raw) {
		json_dumpf(o, stdout, JSON_INDENT(2));
		printf("\n");
	} else if (whole) {
		json_array_foreach(json_object_get(o, "objects"), i, one) put_object(one);
	} else {
		for (i = 0; i < array_len(kinds); i++) {
			printf("%-9s ", kinds[i]);
			put_size(number(json_object_get(o, "kinds"), kinds[i]));
			printf("\n");
		}
		printf("%-9s ", "all");
		put_size(number(o, "bytes"));
		printf("\n%-9s ", "budget");
		put_size(number(o, "budget_bytes"));
		printf("\n");
	}
	json_decref(o);
	return 0;
}

static int verify(const struct dirs *d)
{
	json_t *o = NULL, *one;
	int code = ask(d, "POST", "/cache/verify", &o);
	size_t i;

	if (code)
		return code;
	json_array_foreach(json_object_get(o, "problems"), i, one)
	{
		printf("%s %s: %s\n", text(one, "kind"), text(one, "name"), text(one, "problem"));
		code = err_exit_code(ERR_CORRUPT);
	}
	printf("%.0f checked, %zu damaged\n", number(o, "checked"),
	       json_array_size(json_object_get(o, "problems")));
	json_decref(o);
	return code;
}

static int prune(const struct dirs *d, const char *query)
{
	auto_free char *path = mem_printf("/cache/prune?%s", query);
	json_t *o = NULL;
	int code = ask(d, "POST", path, &o);

	if (code)
		return code;
	printf("removed");
	for (size_t i = 0; i < array_len(kinds); i++)
		printf("%s %.0f %s", i ? "," : "", number(json_object_get(o, "removed"), kinds[i]),
		       kinds[i]);
	printf(":");
	put_size(number(o, "freed_bytes"));
	printf("; left:");
	put_size(number(o, "left_bytes"));
	if (number(o, "in_use") > 0)
		printf("; %.0f in use had to stay", number(o, "in_use"));
	printf("\n");
	json_decref(o);
	return 0;
}

/* "12h" with units "smhd" of these sizes, "4G" with "KMGT": the number, or -1. */
static double scaled(const char *s, const char *units, const double *sizes)
{
	char *end;
	const char *unit;
	double n;

	errno = 0;
	n = strtod(s, &end);
	if (errno || end == s || n < 0 || n > 1e15 || !isdigit((unsigned char)*s))
		return -1;
	if (!*end)
		return n;
	unit = strchr(units,
		      isupper((unsigned char)units[0]) ? toupper((unsigned char)*end) : *end);
	return unit && !end[1] ? n * sizes[unit - units] : -1;
}

static int verb_prune(const struct dirs *d, int argc, char **argv)
{
	static const double sizes[] = { KIB, MIB, GIB, 1024.0 * GIB };
	static const double times[] = { 1, 60, 3600, 86400 };
	auto_buf struct buf query = { 0 };
	struct err err;
	json_t *o = NULL;

	for (int i = 0; i < argc; i += 2) {
		bool to = strcmp(argv[i], "--to") == 0;
		double n;

		if ((!to && strcmp(argv[i], "--older") != 0) || i + 1 == argc)
			return usage_error("cache", "prune takes --to SIZE and --older AGE");
		n = to ? scaled(argv[i + 1], "KMGT", sizes) : scaled(argv[i + 1], "smhd", times);
		if (n < 0)
			return usage_error("cache", "'%s' is not %s", argv[i + 1],
					   to ? "a size such as 512M" : "an age such as 12h or 7d");
		if (buf_putf(&query, &err, "%s%s=%.0f", query.len ? "&" : "", to ? "to" : "older",
			     n) < 0)
			return complain(&err);
	}
	if (!query.len) {
		int code = ask(d, "GET", "/cache", &o);

		if (code)
			return code;
		if (buf_putf(&query, &err, "to=%.0f", number(o, "budget_bytes")) < 0)
			code = complain(&err);
		json_decref(o);
		if (code)
			return code;
	}
	return prune(d, query.data);
}

int verb_cache(const struct dirs *d, int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	bool raw = argc == 3 && strcmp(argv[2], "--json") == 0;

	if (strcmp(what, "prune") == 0)
		return verb_prune(d, argc - 2, argv + 2);
	if (strcmp(what, "ls") == 0 && (argc == 2 || raw))
		return show(d, true, raw);
	if (strcmp(what, "size") == 0 && (argc == 2 || raw))
		return show(d, false, raw);
	if (argc > 2)
		return usage_error("cache", "cache %s takes no '%s'", what, argv[2]);
	if (strcmp(what, "dir") == 0) {
		puts(d->cache);
		return 0;
	}
	if (strcmp(what, "verify") == 0)
		return verify(d);
	if (strcmp(what, "clean") == 0)
		return prune(d, "to=0");
	return usage_error("cache", "cache takes dir, ls, size, verify, prune or clean");
}
