/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/help.h"

static const struct {
	const char *name;
	int (*run)(const struct dirs *d, int argc, char **argv);
} verbs[] = {
	{ "run", verb_run },	   { "deploy", verb_deploy }, { "invoke", verb_invoke },
	{ "ls", verb_ls },	   { "rm", verb_rm },	      { "logs", verb_logs },
	{ "status", verb_status }, { "tree", verb_tree },     { "daemon", verb_daemon },
};

int complain(const struct err *err)
{
	fprintf(stderr, "pipsqueak: %s\n", err->text);
	return err_exit_code(err->kind);
}

int usage_error(const char *verb, const char *fmt, ...)
{
	va_list ap;

	fputs("pipsqueak: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, " (see: pipsqueak help%s%s)\n", verb ? " " : "", verb ? verb : "");
	return 2;
}

static int help(const char *verb)
{
	for (size_t i = 0; verb && i < array_len(help_verbs); i++)
		if (strcmp(help_verbs[i].verb, verb) == 0) {
			fputs(help_verbs[i].text, stdout);
			return 0;
		}
	if (verb)
		return usage_error(NULL, "there is no verb '%s'", verb);
	fputs(help_overview, stdout);
	return 0;
}

int main(int argc, char **argv)
{
	const char *dir = NULL;
	struct dirs d;
	struct err err;
	int first = 1, code = -1;

	signal(SIGPIPE, SIG_IGN);
	if (argc > 2 && strcmp(argv[1], "--dir") == 0) {
		dir = argv[2];
		first = 3;
	}
	if (argc <= first || strcmp(argv[first], "help") == 0 ||
	    strcmp(argv[first], "--help") == 0 || strcmp(argv[first], "-h") == 0)
		return help(argc > first + 1 ? argv[first + 1] : NULL);
	if (strcmp(argv[first], "version") == 0 || strcmp(argv[first], "--version") == 0) {
		puts("pipsqueak " VERSION);
		return 0;
	}
	if (dirs_find(dir, &d, &err) < 0)
		return complain(&err);
	if (argc > first + 1 && strcmp(argv[first + 1], "--help") == 0)
		return help(argv[first]);
	for (size_t i = 0; i < array_len(verbs); i++)
		if (strcmp(verbs[i].name, argv[first]) == 0)
			code = verbs[i].run(&d, argc - first, argv + first);
	if (code < 0)
		code = usage_error(NULL, "there is no verb '%s'", argv[first]);
	dirs_done(&d);
	return code;
}
