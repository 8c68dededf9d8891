/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/options.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"

#define ROOT_AGE_S 21600

enum option_kind { TEXT, PYTHON, DIST, SIZE, SECONDS, FLAG };

static const struct option {
	const char *name, *value, *help;
	enum option_kind kind;
	size_t at;
} table[] = {
#define AT(field) offsetof(struct options, field)
	{ "--dir", "DIR", "keep everything below DIR (also: PIPSQUEAK_DIR)", TEXT, AT(dir) },
	{ "--cache", "DIR", "keep downloaded and unpacked packages in DIR", TEXT, AT(cache) },
	{ "--listen", "HOST:PORT", "take calls by TCP, too (port 0: any free one)", TEXT,
	  AT(listen) },
	{ "--python", "PATH", "an interpreter; the first is the default (/usr/bin/python3)", PYTHON,
	  AT(python) },
	{ "--memory", "SIZE", "budget for sleeping and warm processes (a quarter of the memory)",
	  SIZE, AT(memory_bytes) },
	{ "--tree", "FILE",
	  "start with this tree (pipsqueak fit): its nodes are made when functions with their "
	  "packages are deployed",
	  TEXT, AT(tree) },
	{ "--no-tree", NULL,
	  "make no nodes: everything is forked from an interpreter that has imported nothing", FLAG,
	  AT(no_tree) },
	{ "--cache-size", "SIZE",
	  "budget for packages on disk, kept by removing what saves least (a fifth of the disk)",
	  SIZE, AT(cache_bytes) },
	{ "--accept-record", "DIST",
	  "trust this package's wheels although RECORD does not vouch for all of their files", DIST,
	  AT(accept_record) },
	{ "--strict", NULL,
	  "refuse to start where this host does not give all protection (see: pipsqueak status)",
	  FLAG, AT(strict) },
	{ "--strict-packages", NULL,
	  "packages that bring different files of one name are an error, for everybody (also: "
	  "--strict of run, deploy, lock)",
	  FLAG, AT(strict_packages) },
	{ "--allow-sdist", NULL,
	  "build wheels of packages that have none, for everybody (also: a flag of run, deploy, "
	  "lock)",
	  FLAG, AT(allow_sdist) },
	{ "--build-memory", "SIZE", "memory of one such build, all its processes together (2G)",
	  SIZE, AT(build_memory_bytes) },
	{ "--build-time", "SECONDS", "how long one such build may take (600)", SECONDS,
	  AT(build_s) },
	{ "--idle", "SECONDS", "exit after doing nothing for so long", SECONDS, AT(idle_s) },
	{ "--root-age", "SECONDS",
	  "make interpreters anew, with all that sleeps below them, when so old (21600; 0: never)",
	  SECONDS, AT(root_age_s) },
	{ "--lib", "DIR", "where the files for sandboxes are", TEXT, AT(lib) },
	{ "--verbose", NULL, "log more", FLAG, AT(verbose) },
	{ "--help", NULL, "show this", FLAG, AT(help) },
	{ "--version", NULL, "show the version", FLAG, AT(version) },
#undef AT
};

void options_help(void)
{
	printf("Usage: pipsqueakd [OPTION]...\nRuns Python functions and scripts from sleeping "
	       "interpreters.\n\n");
	for (size_t i = 0; i < array_len(table); i++) {
		auto_free char *left = mem_printf("%s %s", table[i].name,
						  table[i].value ? table[i].value : "");

		printf("  %-20s %s\n", left, table[i].help);
	}
}

static int parse_size(const char *text, uint64_t *out, struct err *err)
{
	static const char units[] = "KMGT";
	char *end;
	const char *unit;
	uint64_t n;

	errno = 0;
	n = strtoull(text, &end, 10);
	unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (errno || !isdigit((unsigned char)text[0]) || (*end && (!unit || end[1])) ||
	    n > UINT32_MAX * 1024UL)
		return err_set(err, ERR_USAGE, "'%.40s' is not a size such as 512M or 4G", text);
	for (; unit && unit >= units; unit--)
		n *= 1024;
	*out = n;
	return 0;
}

static int add_python(struct options *o, const char *path, struct err *err)
{
	size_t n = 0;
	char *prefix;

	while (o->python[n])
		n++;
	if (n == OPTION_PYTHONS)
		return err_set(err, ERR_USAGE, "more than %d interpreters", OPTION_PYTHONS);
	if (path[0] != '/')
		return err_set(err, ERR_USAGE, "--python must be an absolute path, not '%.200s'",
			       path);
	prefix = mem_strdup(path);
	for (int i = 0; i < 2; i++) {
		char *slash = strrchr(prefix, '/');

		if (!slash || slash == prefix) {
			free(prefix);
			return err_set(err, ERR_USAGE,
				       "'%.200s' is not PREFIX/bin/python: it has no prefix", path);
		}
		*slash = '\0';
	}
	o->python[n] = mem_strdup(path);
	o->prefix[n] = prefix;
	return 0;
}

static int add_dist(struct options *o, const char *name, struct err *err)
{
	size_t n = 0;

	while (o->accept_record[n])
		n++;
	if (n == OPTION_DISTS)
		return err_set(err, ERR_USAGE, "more than %d --accept-record", OPTION_DISTS);
	o->accept_record[n] = mem_strdup(name);
	for (char *c = o->accept_record[n]; *c; c++) /* PEP 503, as locks spell it */
		*c = *c == '_' || *c == '.' ? '-' : (char)tolower((unsigned char)*c);
	return 0;
}

static int take(struct options *o, const struct option *opt, const char *value, struct err *err)
{
	void *at = (char *)o + opt->at;
	char *end;

	switch (opt->kind) {
	case TEXT:
		free(*(char **)at);
		*(char **)at = mem_strdup(value);
		return 0;
	case PYTHON:
		return add_python(o, value, err);
	case DIST:
		return add_dist(o, value, err);
	case SIZE:
		return parse_size(value, at, err);
	case SECONDS:
		*(uint64_t *)at = strtoull(value, &end, 10);
		if (!isdigit((unsigned char)value[0]) || *end)
			return err_set(err, ERR_USAGE, "%s needs a number of seconds", opt->name);
		return 0;
	case FLAG:
		*(bool *)at = true;
		return 0;
	}
	return 0;
}

/* Is arg this option? Then *out_value is what follows "=", or NULL. */
static bool is_option(const struct option *opt, const char *arg, const char **out_value)
{
	size_t n = strlen(opt->name);

	if (strncmp(arg, opt->name, n) != 0 || (arg[n] && arg[n] != '='))
		return false;
	*out_value = arg[n] ? arg + n + 1 : NULL;
	return true;
}

static int parse_one(struct options *o, int argc, char *const *argv, int *i, struct err *err)
{
	const char *value;

	for (size_t k = 0; k < array_len(table); k++) {
		const struct option *opt = &table[k];

		if (!is_option(opt, argv[*i], &value))
			continue;
		if (opt->kind == FLAG && value)
			return err_set(err, ERR_USAGE, "%s takes no value", opt->name);
		if (opt->kind != FLAG && !value)
			value = *i + 1 < argc ? argv[++*i] : NULL;
		if (opt->kind != FLAG && !value)
			return err_set(err, ERR_USAGE, "%s needs a value: %s", opt->name,
				       opt->value);
		return take(o, opt, value, err);
	}
	return err_set(err, ERR_USAGE, "unknown option '%.80s'; see --help", argv[*i]);
}

static char *absolute(const char *path)
{
	char cwd[PATH_MAX];

	if (path[0] == '/' || !getcwd(cwd, sizeof(cwd)))
		return mem_strdup(path);
	return mem_printf("%s/%s", cwd, path);
}

static const char *env(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

/* PLACE in the user's directories: the XDG variable, or its default below HOME. */
static char *user_dir(const char *xdg, const char *below_home, struct err *err)
{
	const char *base = env(xdg), *home = env("HOME");

	if (base && base[0] == '/')
		return mem_printf("%s/pipsqueak", base);
	if (below_home && home)
		return mem_printf("%s/%s/pipsqueak", home, below_home);
	if (!below_home)
		return mem_printf("/tmp/pipsqueak-%u", (unsigned)geteuid());
	err_set(err, ERR_USAGE, "neither %s nor HOME is set; give --dir", xdg);
	return NULL;
}

static int default_dirs(struct options *o, struct err *err)
{
	const char *dir = o->dir ? o->dir : env("PIPSQUEAK_DIR");

	if (dir) {
		auto_free char *base = absolute(dir);

		o->state_dir = mem_printf("%s/state", base);
		o->cache_dir = mem_printf("%s/cache", base);
		o->run_dir = mem_printf("%s/run", base);
		return 0;
	}
	if (geteuid() == 0) {
		o->state_dir = mem_strdup("/var/lib/pipsqueak");
		o->cache_dir = mem_strdup("/var/cache/pipsqueak");
		o->run_dir = mem_strdup("/run/pipsqueak");
		return 0;
	}
	o->state_dir = user_dir("XDG_STATE_HOME", ".local/state", err);
	o->cache_dir = o->state_dir ? user_dir("XDG_CACHE_HOME", ".cache", err) : NULL;
	o->run_dir = o->cache_dir ? user_dir("XDG_RUNTIME_DIR", NULL, err) : NULL;
	return o->run_dir ? 0 : -1;
}

static int place(struct options *o, struct err *err)
{
	if (default_dirs(o, err) < 0)
		return -1;
	if (o->cache) {
		free(o->cache_dir);
		o->cache_dir = absolute(o->cache);
	}
	return 0;
}

/* Near the program: in a build tree, or where it is installed. */
static char *find_lib(void)
{
	static const char *const places[] = { "lib", "../../lib", ".", "../libexec/pipsqueak" };
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n <= 0)
		return mem_strdup("/usr/lib/pipsqueak");
	self[n] = '\0';
	slash = strrchr(self, '/');
	*slash = '\0';
	for (size_t i = 0; i < array_len(places); i++) {
		auto_free char *dir = mem_printf("%s/%s", self, places[i]);
		auto_free char *probe = mem_printf("%s/bootstrap.py", dir);
		char real[PATH_MAX];

		if (access(probe, R_OK) == 0 && realpath(dir, real))
			return mem_strdup(real);
	}
	return mem_strdup("/usr/lib/pipsqueak");
}

int options_parse(struct options *o, int argc, char *const *argv, struct err *err)
{
	*o = (struct options){ .root_age_s = ROOT_AGE_S };
	for (int i = 1; i < argc; i++)
		if (parse_one(o, argc, argv, &i, err) < 0)
			return -1;
	if (!o->python[0] && add_python(o, "/usr/bin/python3", err) < 0)
		return -1;
	if (!o->memory_bytes)
		o->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) *
				  (uint64_t)sysconf(_SC_PAGESIZE) / 4;
	if (!o->lib)
		o->lib = find_lib();
	return place(o, err);
}

void options_done(struct options *o)
{
	for (int i = 0; i < OPTION_PYTHONS; i++) {
		free(o->python[i]);
		free(o->prefix[i]);
	}
	for (int i = 0; i < OPTION_DISTS; i++)
		free(o->accept_record[i]);
	free(o->dir);
	free(o->cache);
	free(o->listen);
	free(o->lib);
	free(o->tree);
	free(o->state_dir);
	free(o->cache_dir);
	free(o->run_dir);
	*o = (struct options){ 0 };
}
