/* SPDX-License-Identifier: Apache-2.0
 *
 * pipsqueak-install WHEEL OUT PYTHON RUNTIME_SITE
 * Unpacks and checks one wheel below OUT and compiles it with PYTHON. Exit 0; or 1 with one JSON
 * object
 * {"kind", "message"} on standard output.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "jail/job.h"
#include "store/installer_priv.h"

#define PARTS 2
#define FILES_PER_PART 40

static pid_t compile_part(char *const argv[], struct err *err)
{
	pid_t pid = fork();

	if (pid == 0) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		dup2(null, STDOUT_FILENO);
		execv(argv[0], argv);
		_exit(127);
	}
	if (pid < 0)
		err_sys(err, errno, "fork");
	return pid;
}

static int compile_all(const char *python, const char *out, const char *runtime, int parts,
		       struct err *err)
{
	auto_free char *site = mem_printf("%s/site", out);
	pid_t pids[PARTS];
	int rc = 0, status;

	for (int i = 0; i < parts; i++) {
		char part[16], total[16];
		char *argv[] = { (char *)python,
				 (char *)"-I",
				 (char *)"-S",
				 (char *)JAIL_LIB "/compile_wheel.py",
				 site,
				 (char *)runtime,
				 part,
				 total,
				 NULL };

		snprintf(part, sizeof(part), "%d", i);
		snprintf(total, sizeof(total), "%d", parts);
		pids[i] = compile_part(argv, err);
		if (pids[i] < 0)
			return -1;
	}
	for (int i = 0; i < parts; i++)
		if (waitpid(pids[i], &status, 0) < 0 || status != 0)
			rc = err_set(err, ERR_SYSTEM, "compiling to bytecode failed (status %d)",
				     status);
	return rc;
}

static size_t count_sources(const struct wheel *w)
{
	size_t n = 0;

	for (size_t i = 0; i < w->nmembers; i++) {
		size_t len = strlen(w->members[i].name);

		n += len > 3 && strcmp(w->members[i].name + len - 3, ".py") == 0;
	}
	return n;
}

static int install(char **argv, struct err *err)
{
	__attribute__((cleanup(wheel_done))) struct wheel w = { 0 };
	auto_close int out = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	size_t sources;

	if (out < 0)
		return err_sys(err, errno, "open '%s'", argv[2]);
	if (wheel_open(argv[1], &w, err) < 0)
		return -1;
	if (unpack_all(&w, out, err) < 0 || manifest_write(&w, out, err) < 0)
		return -1;
	sources = count_sources(&w);
	if (!sources)
		return 0;
	return compile_all(argv[3], argv[2], argv[4], sources > FILES_PER_PART ? PARTS : 1, err);
}

int main(int argc, char **argv)
{
	struct err err = ERR_INIT;
	json_t *o;

	if (argc != 5) {
		fprintf(stderr, "usage: pipsqueak-install WHEEL OUT PYTHON RUNTIME_SITE\n");
		return 2;
	}
	if (install(argv, &err) == 0)
		return 0;
	o = json_pack("{s:s, s:s}", "kind", err_kind_name(err.kind), "message", err.text);
	if (o)
		json_dumpf(o, stdout, JSON_COMPACT);
	return 1;
}
