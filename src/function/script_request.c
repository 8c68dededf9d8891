/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "function/script.h"

#define STDIO_FIRST_FREE 3

static bool list_has(const char *const *list, const char *word)
{
	for (; list && *list; list++)
		if (strcmp(*list, word) == 0)
			return true;
	return false;
}

bool script_has_flag(const struct script *s, const char *word)
{
	return list_has(s->r.flags, word);
}

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && (!path[n] || path[n] == '/');
}

/* "/a/b", without ".", ".." or "//": then comparing text is comparing places. */
static bool is_plain_path(const char *path)
{
	if (path[0] != '/')
		return false;
	for (const char *p = path; *p;) {
		size_t n = strcspn(p + 1, "/");

		if ((!n && path[1]) || (n == 1 && p[1] == '.') ||
		    (n == 2 && p[1] == '.' && p[2] == '.'))
			return false;
		p += n + 1;
	}
	return true;
}

/* What a sandbox has of its own cannot be covered by a directory of the caller. */
static int check_mount(const struct run_mount *m, bool allow_all, struct err *err)
{
	static const char *const never[] = { "/proc", "/dev", "/pipsqueak", "/sys" };
	static const char *const system[] = { "/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64" };

	if (!m->path || !is_plain_path(m->path) || strlen(m->path) >= 4096)
		return err_set(err, ERR_USAGE,
			       "'%.200s' cannot be granted: give its absolute path without '..'",
			       m->path ? m->path : "");
	for (size_t i = 0; i < array_len(never); i++)
		if (is_below(m->path, never[i]))
			return err_set(err, ERR_USAGE,
				       "'%.200s' cannot be granted: scripts have a %s of their own",
				       m->path, never[i]);
	for (size_t i = 0; !allow_all && i < array_len(system); i++)
		if (is_below(m->path, system[i]))
			return err_set(
				err, ERR_DENIED,
				"'%.200s' belongs to the system, which scripts see read-only "
				"already; run with --allow-all to grant it",
				m->path);
	if (!allow_all && (strcmp(m->path, "/tmp") == 0 || strcmp(m->path, "/") == 0))
		return err_set(err, ERR_DENIED,
			       "'%s' as a whole is not granted by default; grant a directory below "
			       "it, or run with --allow-all",
			       m->path);
	return 0;
}

static int check_what(const struct run_request *r, struct err *err)
{
	static const char *const kinds[] = { "file",   "stdin",	  "code", "module",
					     "prompt", "command", "lock", NULL };
	bool needs_code;

	if (!r->kind || !list_has(kinds, r->kind))
		return err_set(err, ERR_USAGE, "unknown kind of script '%.40s'",
			       r->kind ? r->kind : "");
	needs_code = strcmp(r->kind, "stdin") != 0 && strcmp(r->kind, "prompt") != 0 &&
		     strcmp(r->kind, "lock") != 0;
	if (strcmp(r->kind, "lock") == 0 && r->result < 0)
		return err_set(err, ERR_USAGE, "there is no descriptor for the lock");
	if (needs_code && (!r->code || (!*r->code && strcmp(r->kind, "code") != 0)))
		return err_set(err, ERR_USAGE,
			       "there is no script to run; give a path, -c CODE or -m MODULE");
	return 0;
}

static int check_stdio(const struct run_request *r, struct err *err)
{
	static const char *const names[] = { "standard input", "standard output",
					     "standard error" };

	for (int i = 0; i < 3; i++)
		if (r->stdio[i] >= 0 && fd_is_dir(r->stdio[i]))
			return err_set(err, ERR_USAGE,
				       "%s is a directory; give a file, a pipe or a terminal",
				       names[i]);
	return 0;
}

int script_check(const struct run_request *r, struct err *err)
{
	if (check_what(r, err) < 0 || check_stdio(r, err) < 0)
		return -1;
	if (!r->cwd || r->cwd[0] != '/')
		return err_set(err, ERR_USAGE, "the working directory must be an absolute path");
	for (size_t i = 0; i < r->nmounts; i++)
		if (check_mount(&r->mounts[i], list_has(r->flags, "allow-all"), err) < 0)
			return -1;
	return 0;
}

static const char *const *copy_list(const char *const *list)
{
	size_t n = 0;
	char **out;

	while (list && list[n])
		n++;
	out = mem_zero(n + 1, sizeof(*out));
	for (size_t i = 0; i < n; i++)
		out[i] = mem_strdup(list[i]);
	return (const char *const *)out;
}

static void free_list(const char *const *list)
{
	for (size_t i = 0; list && list[i]; i++)
		free((char *)list[i]);
	free((void *)list);
}

static int copy_fd(int fd, int *out, struct err *err)
{
	*out = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, STDIO_FIRST_FREE);
	if (fd >= 0 && *out < 0)
		return err_sys(err, errno, "duplicating a descriptor");
	return 0;
}

int script_copy(struct script *s, const struct run_request *r, struct err *err)
{
	struct run_request *c = &s->r;
	int ret = 0;

	*c = (struct run_request){
		.kind = mem_strdup(r->kind),
		.code = mem_strdup(r->code),
		.argv = copy_list(r->argv),
		.orig_argv = copy_list(r->orig_argv),
		.env = copy_list(r->env),
		.cwd = mem_strdup(r->cwd),
		.python = mem_strdup(r->python),
		.prefix = mem_strdup(r->prefix),
		.with = copy_list(r->with),
		.requirements = mem_strdup(r->requirements),
		.pep723 = mem_strdup(r->pep723),
		.index_url = mem_strdup(r->index_url),
		.pip_settings = mem_strdup(r->pip_settings),
		.inputs = mem_strdup(r->inputs),
		.result = -1,
		.flags = copy_list(r->flags),
		.stdio = { -1, -1, -1 },
		.tty = -1,
	};
	for (int i = 0; i < 3 && ret == 0; i++)
		ret = copy_fd(r->stdio[i], &c->stdio[i], err);
	if (ret == 0)
		ret = copy_fd(r->tty, &c->tty, err);
	if (ret == 0)
		ret = copy_fd(r->result, &c->result, err);
	for (size_t i = 0; i < r->nwheels && ret == 0; i++) {
		struct run_wheel *w = &c->wheels[c->nwheels++];

		w->path = mem_strdup(r->wheels[i].path);
		ret = copy_fd(r->wheels[i].fd, &w->fd, err);
	}
	for (size_t i = 0; i < r->nmounts && ret == 0; i++) {
		struct run_mount *m = &c->mounts[c->nmounts++];

		*m = r->mounts[i];
		m->path = mem_strdup(m->path);
		ret = copy_fd(r->mounts[i].tree, &m->tree, err);
	}
	return ret;
}

void script_done(struct script *s)
{
	struct run_request *c = &s->r;
	const char *strings[] = { c->kind,	   c->code,	    c->cwd,    c->python,
				  c->prefix,	   c->requirements, c->pep723, c->index_url,
				  c->pip_settings, c->inputs };

	for (size_t i = 0; i < array_len(strings); i++)
		free((char *)strings[i]);
	free_list(c->argv);
	free_list(c->orig_argv);
	free_list(c->env);
	free_list(c->with);
	free_list(c->flags);
	for (int i = 0; i < 3; i++)
		fd_close(&c->stdio[i]);
	fd_close(&c->tty);
	fd_close(&c->result);
	for (size_t i = 0; i < c->nwheels; i++) {
		free((char *)c->wheels[i].path);
		fd_close(&c->wheels[i].fd);
	}
	for (size_t i = 0; i < c->nmounts; i++) {
		free((char *)c->mounts[i].path);
		fd_close(&c->mounts[i].tree);
	}
	*c = (struct run_request){ .stdio = { -1, -1, -1 }, .tty = -1, .result = -1 };
}

char *script_key(const struct script *s, const struct lock *lock)
{
	const char *code = s->r.code ? s->r.code : "";
	unsigned char digest[EVP_MAX_MD_SIZE];
	char hex[65] = "";
	unsigned n = 0;

	/* A path names a script whatever it says today: its newest profile counts. */
	must(EVP_Digest(code, strlen(code), digest, &n, EVP_sha256(), NULL) == 1 && n == 32);
	for (unsigned i = 0; i < n; i++)
		snprintf(hex + i * 2, 3, "%02x", digest[i]);
	return mem_printf("script %s %s %s", s->r.kind, hex, lock->hash);
}

int script_open_dir(const struct script *s)
{
	const struct run_request *r = &s->r;
	auto_free char *dir = mem_strdup(r->cwd);
	const struct run_mount *best = NULL;
	int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

	if (strcmp(r->kind, "file") == 0) {
		free(dir);
		dir = r->code[0] == '/' ? mem_strdup(r->code)
					: mem_printf("%s/%s", r->cwd, r->code);
		*strrchr(dir, '/') = '\0';
	}
	if (!is_plain_path(dir)) /* nor a script in "/" itself: that is never granted whole */
		return -1;
	for (size_t i = 0; i < r->nmounts; i++)
		if (is_below(dir, r->mounts[i].path) &&
		    (!best || strlen(best->path) < strlen(r->mounts[i].path)))
			best = &r->mounts[i];
	if (!best)
		return -1;
	if (best->tree < 0)
		return open(dir, flags);
	const char *rest = dir + strlen(best->path);

	while (*rest == '/')
		rest++;
	return openat(best->tree, *rest ? rest : ".", flags | O_NOFOLLOW);
}

void script_index_request(const struct script *s, const char *python_info,
			  struct index_request *out)
{
	*out = (struct index_request){
		.with = s->r.with && s->r.with[0] ? s->r.with : NULL,
		.requirements = s->r.requirements,
		.pep723 = s->r.pep723,
		.inputs = s->r.inputs,
		.offline = script_has_flag(s, "offline"),
		.refresh = script_has_flag(s, "upgrade"),
		.index_url = s->r.index_url,
		.python_info = python_info,
		.pip_settings = s->r.pip_settings,
		.wheels = true,
	};
}
