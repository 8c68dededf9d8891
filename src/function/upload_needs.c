/* SPDX-License-Identifier: Apache-2.0
 *
 * What an uploaded directory asks for.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/needs.h"
#include "function/upload.h"
#include "jail/job.h"

/* NULL without an error when there is no such file. */
static int read_text(int dirfd, const char *name, char **out, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_REQUIREMENTS_BYTES);

	if (faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (buf_read_file(&text, dirfd, name, err) < 0)
		return -1;
	if (strlen(text.data) != text.len)
		return err_set(err, ERR_USAGE, "%s is not a text file", name);
	*out = buf_steal(&text);
	return 1;
}

/* Lines of the block: "# key = value" or "#". */
static char *strip_marks(const char *from, const char *to)
{
	char *out = mem_zero((size_t)(to - from) + 1, 1), *o = out;

	while (from < to) {
		size_t n = strcspn(from, "\n");
		const char *line = from + 1 + (from[1] == ' ');
		size_t len = (size_t)(from + n - line);

		if (n > 1) {
			memcpy(o, line, len);
			o += len;
		}
		*o++ = '\n';
		from += n + 1;
	}
	return out;
}

static bool is_mark(const char *line, const char *mark)
{
	size_t n = strlen(mark);

	return strncmp(line, mark, n) == 0 && strspn(line + n, " \t\r") == strcspn(line + n, "\n");
}

int upload_pep723(const char *script, char **out, struct err *err)
{
	const char *start = NULL, *end = NULL;

	*out = NULL;
	for (const char *line = script; *line;) {
		const char *next = line + strcspn(line, "\n");

		next += *next == '\n';
		if (!start && is_mark(line, "# /// script")) {
			start = next;
		} else if (start && *line != '#') {
			break;
		} else if (start && is_mark(line, "# ///")) {
			end = line; /* the last closing mark of the run of comments counts */
		}
		line = next;
	}
	if (start && !end)
		return err_set(err, ERR_USAGE, "the block '# /// script' has no closing '# ///'");
	if (start)
		*out = strip_marks(start, end);
	return 0;
}

struct finding {
	int dirfd;
	json_t *root, *files, *wheels, *env;
	struct upload_needs *out;
};

/* Inside the directory only, whatever a file of it says. */
static int open_beneath(void *ctx, const char *path)
{
	struct finding *f = ctx;
	struct open_how how = { .flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };

	return (int)syscall(SYS_openat2, f->dirfd, path, &how, sizeof(how));
}

static const char *variable(void *ctx, const char *name)
{
	struct finding *f = ctx;

	return json_string_value(json_object_get(f->env, name));
}

static int put_text(json_t *object, const char *key, const char *text, struct err *err)
{
	if (json_object_set_new(object, key, json_string(text)) < 0)
		return err_set(err, ERR_USAGE, "%s is not UTF-8 text", key);
	return 0;
}

static int give_file(void *ctx, const char *path, const char *text, struct err *err)
{
	struct finding *f = ctx;

	return put_text(f->files, path, text, err);
}

static int give_wheel(void *ctx, const char *path, int fd, struct err *err)
{
	struct finding *f = ctx;
	char *where = mem_printf(JAIL_APP "/%s", path);

	if (f->out->nwheels == LIMIT_LOCAL_WHEELS) {
		close(fd);
		free(where);
		return err_set(err, ERR_LIMIT,
			       "more than %d wheels by path; put them into a directory and name it "
			       "with --find-links in requirements.txt",
			       LIMIT_LOCAL_WHEELS);
	}
	f->out->wheels[f->out->nwheels++] = (struct run_wheel){ where, fd };
	json_object_set_new(f->wheels, path, json_pack("[s]", where));
	return 0;
}

static int find_requirements(struct finding *f, struct needs *n, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_REQUIREMENTS_BYTES);

	if (faccessat(f->dirfd, "requirements.txt", F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (buf_read_file(&text, f->dirfd, "requirements.txt", err) < 0 ||
	    needs_requirements(n, "requirements.txt", &text, err) < 0 ||
	    put_text(f->root, "requirements", text.data ? text.data : "", err) < 0)
		return -1;
	return 1;
}

static int find_toml(struct finding *f, struct needs *n, const char *name, struct err *err)
{
	const char *key = strncmp(name, "pylock", 6) == 0 ? "pylock" : "pyproject";
	auto_free char *text = NULL, *key_name = mem_printf("%s_name", key);
	int found = read_text(f->dirfd, name, &text, err);

	if (found <= 0)
		return found;
	if (put_text(f->root, key, text, err) < 0 || put_text(f->root, key_name, name, err) < 0 ||
	    needs_toml(n, name, text, err) < 0)
		return -1;
	if (strcmp(key, "pyproject") == 0 && faccessat(f->dirfd, "uv.lock", F_OK, 0) == 0)
		json_object_set_new(f->root, "uv_lock", json_true());
	return 1;
}

static int find_script(struct finding *f, struct needs *n, struct err *err)
{
	auto_free char *script = upload_only_script(f->dirfd), *text = NULL, *block = NULL;

	if (!script)
		return 0;
	if (read_text(f->dirfd, script, &text, err) < 0 ||
	    (text && upload_pep723(text, &block, err) < 0))
		return -1;
	if (!block)
		return 0;
	if (put_text(f->root, "pep723", block, err) < 0 || needs_toml(n, "", block, err) < 0)
		return -1;
	return 1;
}

static int find_first(struct finding *f, struct needs *n, struct err *err)
{
	int found = find_toml(f, n, "pylock.pipsqueak.toml", err);

	if (!found)
		found = find_toml(f, n, "pylock.toml", err);
	if (!found)
		found = find_requirements(f, n, err);
	if (!found)
		found = find_toml(f, n, "pyproject.toml", err);
	return found ? found : find_script(f, n, err);
}

/* The client's options, as far as they are known. */
static int begin(struct finding *f, const char *dir, const char *options, struct err *err)
{
	static const char *const known[] = { "groups",	    "extras",	     "exclude_newer",
					     "pre",	    "links",	     "extra_indexes",
					     "allow_sdist", "accept_record", "strict" };
	json_error_t jerr;
	json_t *object = options ? json_loads(options, 0, &jerr) : NULL;

	if (options && !json_is_object(object)) {
		json_decref(object);
		return err_set(err, ERR_USAGE, "the options are not a JSON object");
	}
	f->root = json_pack("{s:s}", "root", dir);
	f->files = json_object();
	f->wheels = json_object();
	json_object_set_new(f->root, "files", f->files);
	json_object_set_new(f->root, "wheels", f->wheels);
	for (size_t i = 0; i < array_len(known); i++)
		if (json_object_get(object, known[i]))
			json_object_set(f->root, known[i], json_object_get(object, known[i]));
	f->env = json_incref(json_object_get(object, "env"));
	json_decref(object);
	return 0;
}

int upload_find_needs(const char *dir, const char *options, struct upload_needs *out,
		      struct err *err)
{
	struct finding f = { .out = out };
	struct needs n = { .ctx = &f,
			   .open = open_beneath,
			   .variable = variable,
			   .file = give_file,
			   .wheel = give_wheel };
	int found = -1;

	memset(out, 0, sizeof(*out));
	f.dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f.dirfd < 0)
		return err_sys(err, errno, "opening the function's directory");
	if (begin(&f, dir, options, err) == 0)
		found = find_first(&f, &n, err);
	if (found < 0)
		upload_needs_done(out);
	if (found > 0)
		out->inputs = json_dumps(f.root, JSON_COMPACT);
	close(f.dirfd);
	needs_done(&n);
	json_decref(f.root);
	json_decref(f.env);
	return found < 0 ? -1 : 0;
}

void upload_needs_done(struct upload_needs *n)
{
	free(n->inputs);
	for (size_t i = 0; i < n->nwheels; i++) {
		free((char *)n->wheels[i].path);
		fd_close(&n->wheels[i].fd);
	}
	memset(n, 0, sizeof(*n));
}
