/* SPDX-License-Identifier: Apache-2.0
 *
 * What a dist brings for bin/: console scripts, and files of its "scripts" scheme.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "store/store_priv.h"

/* Always a new file: one that is there may be a link into the store, or to the interpreter. */
int scripts_put(int dir, const char *name, mode_t mode, const char *text, size_t len,
		struct err *err)
{
	auto_close int fd = -1;

	if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
		return err_sys(err, errno, "replacing '%s'", name);
	fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0 || fchmod(fd, mode) < 0)
		return err_sys(err, errno, "creating '%s'", name);
	return fd_write_all(fd, text, len, err);
}

/* "module:attr.sub" as a script, the way pip writes it. */
static int write_script(int bin, const char *name, const char *target, struct err *err)
{
	const char *colon = strchr(target, ':');
	auto_free char *module = NULL, *text = NULL;
	size_t len;

	if (!colon || strchr(name, '/') || strchr(target, '\n') || strchr(target, ';'))
		return 0; /* not an entry point that can be called */
	module = mem_strndup(target, (size_t)(colon - target));
	len = strcspn(colon + 1, ".");
	text = mem_printf("#!" JAIL_ENV "/bin/python\n"
			  "# -*- coding: utf-8 -*-\n"
			  "import re\n"
			  "import sys\n"
			  "from %s import %.*s\n"
			  "if __name__ == '__main__':\n"
			  "    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])\n"
			  "    sys.exit(%s())\n",
			  module, (int)len, colon + 1, colon + 1);
	return scripts_put(bin, name, 0755, text, strlen(text), err);
}

/* Scripts shipped as files: their "#!python" line becomes the environment's interpreter. */
static int copy_script(int from, int bin, const char *name, struct err *err)
{
	static const char first[] = "#!" JAIL_ENV "/bin/python";
	auto_buf struct buf text = BUF_MAX(LIMIT_SCRIPT_BYTES),
			    out = BUF_MAX(2 * LIMIT_SCRIPT_BYTES);
	size_t line;

	if (buf_read_file(&text, from, name, err) < 0)
		return -1;
	if (!text.len || strncmp(text.data, "#!python", 8) != 0) {
		if (unlinkat(bin, name, 0) < 0 && errno != ENOENT)
			return err_sys(err, errno, "replacing '%s'", name);
		return linkat(from, name, bin, name, 0) < 0
			       ? err_sys(err, errno, "linking '%s'", name)
			       : 0;
	}
	line = strcspn(text.data, "\n");
	if (buf_puts(&out, first, err) < 0 ||
	    buf_put(&out, text.data + line, text.len - line, err) < 0)
		return -1;
	return scripts_put(bin, name, 0755, out.data, out.len, err);
}

static int copy_scripts(int entry, int bin, struct err *err)
{
	int from = openat(entry, "data/scripts", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = from < 0 ? NULL : fdopendir(from);
	struct dirent *e;
	int rc = 0, more = 0;

	if (!dir)
		return errno == ENOENT ? 0 : err_sys(err, errno, "reading the scripts");
	while (rc == 0 && (more = fd_next_entry(dir, &e, err)) > 0)
		if (e->d_type == DT_REG)
			rc = copy_script(from, bin, e->d_name, err);
	closedir(dir);
	return more < 0 ? -1 : rc;
}

int scripts_write(int entry, int bin, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(64 * KIB);
	char *save = NULL;

	if (copy_scripts(entry, bin, err) < 0 || buf_read_file(&text, entry, "scripts", err) < 0)
		return -1;
	for (char *line = text.data ? strtok_r(text.data, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		char *equals = strchr(line, '=');

		if (!equals)
			continue;
		*equals = '\0';
		if (write_script(bin, line, equals + 1, err) < 0)
			return -1;
	}
	return 0;
}
