/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line. Private to the verb `run`.
 */
#pragma once

#include <stdbool.h>

#include "cli/cli.h"
#include "cli/terminal.h"
#include "wire/wire.h"

#define RUN_WORDS 64

struct words {
	const char *v[RUN_WORDS];
	int n;
};

/* The command line of `run`, and what follows from it. */
struct run_options {
	struct words with, reads, writes, envs, indexes;
	const char *requirements_file, *index_url, *python, *from;
	bool timing, quiet, json, offline, allow_all, env_all, write_cwd;
	const char *kind; /* "file" "stdin" "code" "module" "prompt" "command" */
	const char *code;
	char **args; /* sys.argv behind its first word */
	int nargs;
	char **script_argv; /* as it stands on the command line, for sys.orig_argv */
	int nscript_argv;
};

/* 0, or an exit code: bad usage, told. */
int run_parse(int argc, char **argv, struct run_options *out);

/* For whom the message is made: what the daemon said first, and the caller's terminal. */
struct run_hello {
	bool root; /* the client makes the mounts */
	unsigned int host_id;
	const struct terminal *terminal; /* NULL: none */
};

/* The RUN message, descriptors included. */
warn_unused int run_build(const struct dirs *d, const struct run_options *o,
			  const struct run_hello *hello, struct wire_msg *m, struct err *err);
