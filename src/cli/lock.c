/* SPDX-License-Identifier: Apache-2.0
 *
 * lock: requirements to a pylock.toml.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "cli/run.h"

struct lock_options {
	struct run_options run;
	const char *what, *output;
};

static int parse(int argc, char **argv, struct lock_options *o)
{
	for (int i = 1; i < argc; i++) {
		int rc = required_flag("lock", &o->run.required, argc, argv, &i);

		if (rc == 2)
			return 2;
		if (rc == 1)
			continue;
		if (strcmp(argv[i], "-o") == 0 || strcmp(argv[i], "--output") == 0) {
			if (i + 1 == argc)
				return usage_error("lock", "%s needs a file", argv[i]);
			o->output = argv[++i];
		} else if (strcmp(argv[i], "-q") == 0 || strcmp(argv[i], "--quiet") == 0) {
			o->run.quiet = true;
		} else if ((argv[i][0] == '-' && argv[i][1]) || o->what) {
			return usage_error("lock", "unexpected '%s'", argv[i]);
		} else {
			o->what = argv[i];
		}
	}
	return 0;
}

/* What PEP 751 calls a lock beside others: pylock.NAME.toml. */
static char *default_output(const char *what, bool is_dir)
{
	const char *slash = strrchr(what, '/'), *name = slash ? slash + 1 : what;
	size_t stem = strcspn(name, ".");

	if (is_dir)
		return mem_printf("%s%spylock.toml", what,
				  what[strlen(what) - 1] == '/' ? "" : "/");
	return mem_printf("%.*spylock.%.*s.toml", (int)(name - what), what, (int)stem, name);
}

static bool is_same(const char *path, const struct buf *text)
{
	auto_buf struct buf old = BUF_MAX(LIMIT_INPUTS_BYTES);
	struct err ignored;

	return buf_read_file(&old, AT_FDCWD, path, &ignored) == 0 && old.len == text->len &&
	       memcmp(old.data, text->data, old.len) == 0;
}

int file_replace(const char *path, const void *data, size_t len, struct err *err)
{
	auto_free char *temp = mem_printf("%s.%d.tmp", path, getpid());
	auto_close int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	int rc;

	if (fd < 0)
		return err_sys(err, errno, "creating '%s'", temp);
	rc = fd_write_all(fd, data, len, err);
	if (rc == 0 && (fsync(fd) < 0 || rename(temp, path) < 0))
		rc = err_sys(err, errno, "writing '%s'", path);
	if (rc < 0)
		unlink(temp);
	return rc;
}

static int publish(const struct lock_options *o, bool is_dir, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_INPUTS_BYTES);
	auto_free char *path = o->output ? mem_strdup(o->output) : NULL;

	if (lseek(o->run.result, 0, SEEK_SET) < 0 || buf_read_fd(&text, o->run.result, err) < 0)
		return err_wrap(err, "reading the lock");
	if (!path && o->what)
		path = default_output(o->what, is_dir);
	if (!path || strcmp(path, "-") == 0)
		return fd_write_all(STDOUT_FILENO, text.data, text.len, err);
	/* the same inputs again: nothing to wait for the disk for */
	if (!is_same(path, &text) && file_replace(path, text.data, text.len, err) < 0)
		return -1;
	if (!o->run.quiet)
		fprintf(stderr, "wrote %s\n", path);
	return 0;
}

/* A directory is a project, any other file a script. Neither: what --with and
 * --with-requirements say, or the working directory. */
static int choose(struct lock_options *o, bool *out_dir, struct err *err)
{
	struct required *r = &o->run.required;
	struct stat st;

	*out_dir = true;
	if (!o->what && (r->with.n || r->requirements_file))
		return 0;
	if (!o->what)
		o->what = ".";
	if (stat(o->what, &st) < 0) {
		err_sys(err, errno, "'%s'", o->what);
		err->kind = ERR_USAGE;
		return -1;
	}
	*out_dir = S_ISDIR(st.st_mode);
	if (*out_dir)
		o->run.project = o->what;
	else
		o->run.code = o->what;
	return 0;
}

int verb_lock(const struct dirs *d, int argc, char **argv)
{
	struct lock_options o = { .run = { .kind = "lock", .result = -1 } };
	struct err err;
	bool is_dir;
	int code = parse(argc, argv, &o);

	if (code)
		return code;
	if (choose(&o, &is_dir, &err) < 0)
		return complain(&err);
	o.run.result = memfd_create("lock", MFD_CLOEXEC);
	if (o.run.result < 0) {
		err_sys(&err, errno, "memfd_create");
		return complain(&err);
	}
	code = run_session(d, &o.run);
	if (code == 0 && publish(&o, is_dir, &err) < 0)
		code = complain(&err);
	fd_close(&o.run.result);
	return code;
}
