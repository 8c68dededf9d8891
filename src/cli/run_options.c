/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/run.h"

static int add_word(struct words *w, const char *word)
{
	if (w->n == CLI_WORDS)
		return usage_error("run", "more than %d of one flag", CLI_WORDS);
	w->v[w->n++] = word;
	return 0;
}

/* Flags with "=VALUE" or without; returns 1 when it was one, 0 not, 2 bad usage (told). */
static int permission(struct run_options *o, const char *arg)
{
	if (strncmp(arg, "--allow-read=", 13) == 0)
		return add_word(&o->reads, arg + 13) ? 2 : 1;
	if (strncmp(arg, "--allow-write=", 14) == 0)
		return add_word(&o->writes, arg + 14) ? 2 : 1;
	if (strncmp(arg, "--allow-env=", 12) == 0)
		return add_word(&o->envs, arg + 12) ? 2 : 1;
	if (strcmp(arg, "--allow-write") == 0)
		return (o->write_cwd = true);
	if (strcmp(arg, "--allow-env") == 0)
		return (o->env_all = true);
	if (strcmp(arg, "-A") == 0 || strcmp(arg, "--allow-all") == 0)
		return (o->allow_all = o->env_all = true);
	if (strcmp(arg, "--allow-read") == 0) {
		usage_error("run", "--allow-read needs a path: --allow-read=PATH");
		return 2;
	}
	if (strcmp(arg, "--allow-net") == 0)
		return (o->net = true);
	if (strncmp(arg, "--allow-net=", 12) == 0) {
		usage_error("run", "--allow-net takes no hosts: it allows the whole network");
		return 2;
	}
	return 0;
}

static int simple(struct run_options *o, const char *arg)
{
	if (strcmp(arg, "--timing") == 0)
		return (o->timing = true);
	if (strcmp(arg, "-q") == 0 || strcmp(arg, "--quiet") == 0)
		return (o->quiet = true);
	if (strcmp(arg, "--json") == 0)
		return (o->json = true);
	return 0;
}

/* --from takes the next word; *i moves on. */
static int command_of(struct run_options *o, int argc, char **argv, int *i)
{
	const size_t n = strlen("--from");

	if (strncmp(argv[*i], "--from", n) != 0 || (argv[*i][n] && argv[*i][n] != '='))
		return 0;
	if (argv[*i][n] == '=') {
		o->from = argv[*i] + n + 1;
		return 1;
	}
	if (*i + 1 == argc) {
		usage_error("run", "--from needs a value");
		return 2;
	}
	o->from = argv[++*i];
	return 1;
}

static int parse_target(int argc, char **argv, int i, struct run_options *o)
{
	/* As `uv run` has it: the word python may stand before what to run. */
	if (i < argc && (strcmp(argv[i], "python") == 0 || strcmp(argv[i], "python3") == 0))
		i++;
	o->script_argv = argv + i;
	o->nscript_argv = argc - i;
	if (i == argc) {
		o->kind = isatty(STDIN_FILENO) ? "prompt" : "stdin";
		return 0;
	}
	if (strcmp(argv[i], "-c") == 0 || strcmp(argv[i], "-m") == 0) {
		if (i + 1 == argc)
			return usage_error("run", "%s needs %s", argv[i],
					   argv[i][1] == 'c' ? "code" : "a module's name");
		o->kind = argv[i][1] == 'c' ? "code" : "module";
		o->code = argv[i + 1];
		i++;
	} else if (strcmp(argv[i], "-") == 0) {
		o->kind = "stdin";
	} else if (argv[i][0] == '-') {
		return usage_error("run", "unknown flag '%s' (flags stand before the script)",
				   argv[i]);
	} else {
		o->kind = "file";
		o->code = argv[i];
	}
	o->args = argv + i + 1;
	o->nargs = argc - i - 1;
	return 0;
}

/* A word that is no file here is a command of the packages, as with uvx. */
static int find_command(struct run_options *o)
{
	char *with[] = { "--with", (char *)o->from };
	bool packages = o->required.with.n || o->required.requirements_file;
	int at = 0;

	if (o->from && (strcmp(o->kind, "file") != 0 || strchr(o->code, '/')))
		return usage_error("run", "--from DIST wants the name of one of its commands");
	if (o->from && required_flag("run", &o->required, 2, with, &at) == 2)
		return 2;
	if (o->from || (strcmp(o->kind, "file") == 0 && packages && !strchr(o->code, '/') &&
			access(o->code, F_OK) < 0))
		o->kind = "command";
	return 0;
}

int run_parse(int argc, char **argv, struct run_options *o)
{
	int i = 1;

	memset(o, 0, sizeof(*o));
	o->result = -1;
	for (; i < argc; i++) {
		int rc;

		if (strcmp(argv[i], "--") == 0) {
			i++;
			break;
		}
		rc = permission(o, argv[i]);
		if (rc == 0)
			rc = simple(o, argv[i]);
		if (rc == 0)
			rc = command_of(o, argc, argv, &i);
		if (rc == 0)
			rc = required_flag("run", &o->required, argc, argv, &i);
		if (rc == 2)
			return 2;
		if (rc == 0)
			break;
	}
	if (parse_target(argc, argv, i, o))
		return 2;
	return find_command(o);
}
