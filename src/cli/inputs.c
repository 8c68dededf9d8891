/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/inputs.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/needs.h"

struct gather {
	const struct inputs_from *from;
	json_t *root, *files, *wheels, *env;
	struct inputs *out;
};

void inputs_done(struct inputs *in)
{
	free(in->json);
	for (int i = 0; i < in->nwheels; i++) {
		free(in->wheels[i].path);
		fd_close(&in->wheels[i].fd);
	}
	*in = (struct inputs){ 0 };
}

static int open_any(void *ctx, const char *path)
{
	return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

static const char *variable(void *ctx, const char *name)
{
	struct gather *g = ctx;
	const char *value = getenv(name);

	if (value && *value)
		json_object_set_new(g->env, name, json_string(value));
	return value;
}

static int put_text(json_t *object, const char *key, const char *name, const char *text,
		    struct err *err)
{
	if (json_object_set_new(object, key, json_string(text)) < 0)
		return err_set(err, ERR_USAGE,
			       "'%s' is not UTF-8 text; a coding line on top would say what it is",
			       name);
	return 0;
}

static int give_file(void *ctx, const char *path, const char *text, struct err *err)
{
	struct gather *g = ctx;

	return put_text(g->files, path, path, text, err);
}

/* Size, time and inode are part of what is asked for: another file of this name is another wheel.
 */
static int give_wheel(void *ctx, const char *path, int fd, struct err *err)
{
	struct gather *g = ctx;
	char *real = realpath(path, NULL);
	struct stat st;

	if (!real || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    g->out->nwheels == LIMIT_LOCAL_WHEELS) {
		close(fd);
		free(real);
		if (g->out->nwheels == LIMIT_LOCAL_WHEELS)
			return err_set(err, ERR_LIMIT,
				       "more than %d wheels by path; put them into a directory and "
				       "name it with --find-links in a requirements file",
				       LIMIT_LOCAL_WHEELS);
		return 0; /* the resolver says that it cannot be read */
	}
	json_object_set_new(g->wheels, path,
			    json_pack("[s, I, I, I, I]", real, (json_int_t)st.st_size,
				      (json_int_t)st.st_mtim.tv_sec, (json_int_t)st.st_mtim.tv_nsec,
				      (json_int_t)st.st_ino));
	g->out->wheels[g->out->nwheels].path = real;
	g->out->wheels[g->out->nwheels++].fd = fd;
	return 0;
}

static int put_named(struct gather *g, const char *key, const char *path, const char *text,
		     struct err *err)
{
	auto_free char *name_key = mem_printf("%s_name", key);

	g->out->any = true;
	if (put_text(g->root, key, path, text, err) < 0)
		return -1;
	return put_text(g->root, name_key, path, path, err);
}

/* 0: not there, 1: taken. Its kind is told by its name, as uv and pip do. */
static int take_file(struct gather *g, struct needs *n, const char *path, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_REQUIREMENTS_BYTES);
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	const char *key = "requirements";

	if (access(path, F_OK) < 0)
		return 0;
	if (buf_read_file(&text, AT_FDCWD, path, err) < 0) {
		err->kind = ERR_USAGE;
		return err_wrap(err, "reading '%s'", path);
	}
	if (strcmp(name, "pylock.toml") == 0 || fnmatch("pylock.*.toml", name, 0) == 0)
		key = "pylock";
	else if (strcmp(name, "pyproject.toml") == 0)
		key = "pyproject";
	if (strcmp(key, "requirements") == 0) {
		if (needs_requirements(n, path, &text, err) < 0)
			return -1;
	} else if (text.len && strlen(text.data) != text.len) {
		return err_set(err, ERR_USAGE, "'%s' is not a text file", path);
	} else if (text.len && needs_toml(n, path, text.data, err) < 0) {
		return -1;
	}
	return put_named(g, key, path, text.data ? text.data : "", err) < 0 ? -1 : 1;
}

/* The first that is there counts. */
static int take_dir(struct gather *g, struct needs *n, struct err *err)
{
	static const char *const names[] = { "pylock.pipsqueak.toml", "pylock.toml",
					     "requirements.txt", "pyproject.toml" };
	const char *dir = g->from->dir;
	size_t len = strlen(dir);

	while (len > 1 && dir[len - 1] == '/')
		len--;
	for (size_t i = g->from->no_locks ? 2 : 0; i < array_len(names); i++) {
		auto_free char *path = mem_printf("%.*s/%s", (int)len, dir, names[i]);
		auto_free char *uv = mem_printf("%.*s/uv.lock", (int)len, dir);
		int rc = take_file(g, n, path, err);

		if (rc == 0)
			continue;
		if (rc > 0 && strcmp(names[i], "pyproject.toml") == 0 && access(uv, F_OK) == 0 &&
		    !g->from->no_locks)
			json_object_set_new(g->root, "uv_lock", json_true());
		return rc;
	}
	return 0;
}

static void put_words(struct gather *g, const char *key, const struct words *w)
{
	json_t *list = w->n ? json_array() : NULL;

	for (int i = 0; i < w->n; i++)
		json_array_append_new(list, json_string(w->v[i]));
	if (list)
		json_object_set_new(g->root, key, list);
}

/* Directories by their absolute paths: the daemon's own is another. */
static void put_links(struct gather *g, const struct words *w)
{
	json_t *list = w->n ? json_array() : NULL;

	for (int i = 0; i < w->n; i++) {
		auto_free char *real = strstr(w->v[i], "://") ? NULL : realpath(w->v[i], NULL);

		json_array_append_new(list, json_string(real ? real : w->v[i]));
	}
	if (list)
		json_object_set_new(g->root, "links", list);
}

static void put_options(struct gather *g)
{
	const struct required *r = g->from->required;

	put_words(g, "groups", &r->groups);
	put_words(g, "extras", &r->extras);
	put_words(g, "extra_indexes", &r->extra_indexes);
	put_links(g, &r->links);
	if (r->exclude_newer)
		json_object_set_new(g->root, "exclude_newer", json_string(r->exclude_newer));
	if (r->pre)
		json_object_set_new(g->root, "pre", json_true());
	if (r->allow_sdist)
		json_object_set_new(g->root, "allow_sdist", json_true());
	put_words(g, "accept_record", &r->accept);
	if (r->strict)
		json_object_set_new(g->root, "strict", json_true());
}

static int take_all(struct gather *g, struct needs *n, struct err *err)
{
	const struct inputs_from *from = g->from;
	const char *file = from->required->requirements_file;
	int rc = 0;

	for (int i = 0; i < from->required->with.n; i++)
		if (needs_word(n, from->required->with.v[i], err) < 0)
			return -1;
	g->out->any = from->required->with.n > 0 || from->pep723;
	if (from->pep723 && needs_toml(n, from->script, from->pep723, err) < 0)
		return -1;
	if (from->pep723 && g->out->nwheels)
		json_object_set_new(g->root, "pep723_name", json_string(from->script));
	if (file && (rc = take_file(g, n, file, err)) == 0)
		return err_set(err, ERR_USAGE, "there is no file '%s'", file);
	if (!file && from->dir)
		rc = take_dir(g, n, err);
	return rc < 0 ? -1 : 0;
}

int inputs_gather(const struct inputs_from *from, struct inputs *out, struct err *err)
{
	struct gather g = { .from = from, .out = out };
	struct needs n = { .ctx = &g,
			   .open = open_any,
			   .variable = variable,
			   .file = give_file,
			   .wheel = give_wheel };
	int rc;

	*out = (struct inputs){ 0 };
	g.root = json_object();
	g.files = json_object();
	g.wheels = json_object();
	g.env = json_object();
	put_options(&g);
	rc = take_all(&g, &n, err);
	if (json_object_size(g.files))
		json_object_set(g.root, "files", g.files);
	if (json_object_size(g.wheels))
		json_object_set(g.root, "wheels", g.wheels);
	if (json_object_get(g.root, "requirements")) {
		auto_free char *cwd = getcwd(NULL, 0);

		json_object_set_new(g.root, "root", json_string(cwd ? cwd : "/"));
	}
	if (rc == 0 && json_object_size(g.root))
		out->json = json_dumps(g.root, JSON_COMPACT | JSON_SORT_KEYS);
	if (out->json && strlen(out->json) > LIMIT_INPUTS_BYTES)
		rc = err_set(err, ERR_LIMIT, "the requirements have more than %lu bytes",
			     LIMIT_INPUTS_BYTES);
	needs_done(&n);
	json_decref(g.root);
	json_decref(g.files);
	json_decref(g.wheels);
	json_decref(g.env);
	return rc;
}

/* Only for the variables that they name: the daemon reads the files out of the upload. What is
 * wrong with them, it says. */
static void look_for_variables(struct gather *g, const char *dir)
{
	struct needs n = { .ctx = g,
			   .open = open_any,
			   .variable = variable,
			   .file = give_file,
			   .wheel = give_wheel };
	auto_free char *path = mem_printf("%s/requirements.txt", dir);
	auto_buf struct buf text = BUF_MAX(LIMIT_REQUIREMENTS_BYTES);
	struct err ignored;

	if (buf_read_file(&text, AT_FDCWD, path, &ignored) == 0 &&
	    needs_requirements(&n, path, &text, &ignored) < 0)
		json_object_del(g->root, "env");
	needs_done(&n);
}

int inputs_options(const struct required *r, const char *dir, char **out, struct err *err)
{
	struct inputs_from from = { .required = r };
	struct inputs found = { 0 };
	struct gather g = { .from = &from, .out = &found };

	g.root = json_object();
	g.files = json_object();
	g.wheels = json_object();
	g.env = json_object();
	put_options(&g);
	if (r->offline)
		json_object_set_new(g.root, "offline", json_true());
	json_object_set(g.root, "env", g.env);
	look_for_variables(&g, dir);
	*out = json_dumps(g.root, JSON_COMPACT | JSON_ENSURE_ASCII);
	inputs_done(&found);
	json_decref(g.root);
	json_decref(g.files);
	json_decref(g.wheels);
	json_decref(g.env);
	return *out ? 0 : err_set(err, ERR_USAGE, "an option is not UTF-8 text");
}
