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
	{ "run", verb_run },	   { "lock", verb_lock },	{ "deploy", verb_deploy },
	{ "invoke", verb_invoke }, { "ls", verb_ls },		{ "rm", verb_rm },
	{ "logs", verb_logs },	   { "status", verb_status },	{ "tree", verb_tree },
	{ "top", verb_top },	   { "cache", verb_cache },	{ "simulate", verb_simulate },
	{ "fit", verb_fit },	   { "history", verb_history }, { "daemon", verb_daemon },
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

static bool is_one_of(const char *word, const char *a, const char *b, const char *c)
{
	return strcmp(word, a) == 0 || strcmp(word, b) == 0 || strcmp(word, c) == 0;
}

static int run_verb(const char *dir, int argc, char **argv)
{
	struct dirs d;
	struct err err;
	int code = -1;

	if (dirs_find(dir, &d, &err) < 0)
		return complain(&err);
	for (size_t i = 0; i < array_len(verbs); i++)
		if (strcmp(verbs[i].name, argv[0]) == 0)
			code = verbs[i].run(&d, argc, argv);
	if (code < 0)
		code = usage_error(NULL, "there is no verb '%s'", argv[0]);
	dirs_done(&d);
	return code;
}

int main(int argc, char **argv)
{
	const char *dir = NULL;

	signal(SIGPIPE, SIG_IGN);
	argc--, argv++;
	if (argc > 1 && strcmp(argv[0], "--dir") == 0) {
		dir = argv[1];
		argc -= 2, argv += 2;
	}
	if (argc == 0 || is_one_of(argv[0], "help", "--help", "-h"))
		return help(argc > 1 ? argv[1] : NULL);
	if (is_one_of(argv[0], "version", "--version", "-V")) {
		puts("pipsqueak " VERSION);
		return 0;
	}
	if (argc > 1 && strcmp(argv[1], "--help") == 0)
		return help(argv[0]);
	return run_verb(dir, argc, argv);
}
