/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line. Private to the verb `run`.
 */
#pragma once

#include <stdbool.h>

#include "cli/cli.h"
#include "cli/inputs.h"
#include "cli/terminal.h"
#include "wire/wire.h"

/* The command line of `run`, and what follows from it. */
struct run_options {
	struct required required;
	struct words reads, writes, envs;
	const char *from; /* the requirement whose command is to run */
	bool timing, quiet, json, allow_all, env_all, write_cwd, net;
	const char *kind;    /* "file" "stdin" "code" "module" "prompt" "command" "lock" */
	const char *project; /* "lock": the directory; code: the script */
	int result;	     /* "lock": where it goes; -1: none */
	const char *code;
	char **args; /* sys.argv behind its first word */
	int nargs;
	char **script_argv; /* as it stands on the command line, for sys.orig_argv */
	int nscript_argv;
};

/* 0, or an exit code: bad usage, told. */
int run_parse(int argc, char **argv, struct run_options *out);

/* Send it and see it through: an exit code, everything told. */
int run_session(const struct dirs *d, const struct run_options *o);

/* For whom the message is made: what the daemon said first, and the caller's terminal. */
struct run_hello {
	bool root; /* the client makes the mounts */
	unsigned int host_id;
	const struct terminal *terminal; /* NULL: none */
};

/* The RUN message, descriptors included. */
warn_unused int run_build(const struct dirs *d, const struct run_options *o,
			  const struct run_hello *hello, struct wire_msg *m, struct err *err);
