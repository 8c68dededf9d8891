/* SPDX-License-Identifier: Apache-2.0
 *
 * One environment out of entries: hard links, laid out as a virtual environment (PEP 405). Runs on
 * the loop's thread pool.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "jail/job.h"
#include "store/store_priv.h"

static bool same_bytes(int a_dir, int b_dir, const char *name)
{
	auto_close int a = openat(a_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	auto_close int b = openat(b_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char x[65536], y[65536];
	ssize_t n, m;

	do {
		n = read(a, x, sizeof(x));
		m = read(b, y, sizeof(y));
	} while (n > 0 && n == m && memcmp(x, y, (size_t)n) == 0);
	return n == 0 && m == 0;
}

static int place_file(struct merge *m, const char *dist, int from, int to, const char *name,
		      struct err *err)
{
	struct err ignored;

	if (linkat(from, name, to, name, 0) == 0)
		return 0;
	if (errno != EEXIST)
		return err_sys(err, errno, "linking '%s'", name);
	if (same_bytes(from, to, name))
		return 0;
	/* As with pip: what is installed later stays. */
	if (buf_putf(&m->warnings, &ignored, "%s overwrites '%s' of another package\n", dist,
		     name) < 0)
		buf_reset(&m->warnings);
	if (unlinkat(to, name, 0) < 0 || linkat(from, name, to, name, 0) < 0)
		return err_sys(err, errno, "replacing '%s'", name);
	return 0;
}

static int link_tree(struct merge *m, const char *dist, int from, int to, struct err *err)
{
	int copy = fcntl(from, F_DUPFD_CLOEXEC, 0);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	int rc = 0, more = 0;

	if (!dir)
		return err_sys(err, errno, "reading a store entry");
	while (rc == 0 && (more = fd_next_entry(dir, &e, err)) > 0) {
		auto_close int sub_from = -1, sub_to = -1;

		if (e->d_type != DT_DIR) {
			rc = place_file(m, dist, from, to, e->d_name, err);
			continue;
		}
		if (mkdirat(to, e->d_name, 0755) < 0 && errno != EEXIST) {
			rc = err_sys(err, errno, "making '%s'", e->d_name);
			continue;
		}
		sub_from = openat(from, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		sub_to = openat(to, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub_from < 0 || sub_to < 0)
			rc = err_sys(err, errno, "opening '%s'", e->d_name);
		else
			rc = link_tree(m, dist, sub_from, sub_to, err);
	}
	closedir(dir);
	return more < 0 ? -1 : rc;
}

static int write_at(int dir, const char *name, mode_t mode, const char *text, struct err *err)
{
	auto_close int fd = -1;

	if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
		return err_sys(err, errno, "replacing '%s'", name);
	fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0 || fchmod(fd, mode) < 0)
		return err_sys(err, errno, "creating '%s'", name);
	return fd_write_all(fd, text, strlen(text), err);
}

/* "module:attr.sub" as a script, the way installers write it. */
static int write_script(int bin, const char *name, const char *target, struct err *err)
{
	const char *colon = strchr(target, ':');
	auto_free char *module = NULL, *text = NULL;
	size_t len;

	if (!colon || strchr(name, '/') || strchr(target, '\n') || strchr(target, ';'))
		return 0; /* not an entry point that can be called */
	module = mem_strndup(target, (size_t)(colon - target));
	len = strcspn(colon + 1, ".");
	text = mem_printf("#!" JAIL_ENV "/bin/python\nimport sys\nfrom %s import %.*s\n"
			  "if __name__ == '__main__':\n"
			  "    sys.argv[0] = sys.argv[0].removesuffix('.exe')\n"
			  "    sys.exit(%s())\n",
			  module, (int)len, colon + 1, colon + 1);
	return write_at(bin, name, 0755, text, err);
}

/* Scripts shipped as files: their "#!python" line becomes the environment's interpreter. */
static int copy_script(int from, int bin, const char *name, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(16 * MIB), out = BUF_MAX(17 * MIB);
	auto_close int fd = -1;

	if (buf_read_file(&text, from, name, err) < 0)
		return -1;
	if (strncmp(text.data, "#!python", 8) == 0) {
		size_t line = strcspn(text.data, "\n");

		if (buf_puts(&out, "#!" JAIL_ENV "/bin/python", err) < 0 ||
		    buf_put(&out, text.data + line, text.len - line, err) < 0)
			return -1;
	} else if (buf_put(&out, text.data, text.len, err) < 0) {
		return -1;
	}
	fd = openat(bin, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	if (fd < 0)
		return err_sys(err, errno, "creating script '%s'", name);
	return fd_write_all(fd, out.data, out.len, err);
}

/* A part that not every entry has: *out is -1 when this one has none. Any other failure is one, or
 * an environment without the part would be kept for good. */
static int open_part(int entry, const char *name, int *out, struct err *err)
{
	*out = openat(entry, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*out < 0 && errno != ENOENT)
		return err_sys(err, errno, "opening '%s'", name);
	return 0;
}

static int copy_scripts(int entry, int bin, struct err *err)
{
	auto_close int from = -1;
	int copy, rc = 0, more = 0;
	struct dirent *e;
	DIR *dir;

	if (open_part(entry, "data/scripts", &from, err) < 0)
		return -1;
	if (from < 0)
		return 0;
	copy = fcntl(from, F_DUPFD_CLOEXEC, 0);
	dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir)
		return err_sys(err, errno, "reading the scripts");
	while (rc == 0 && (more = fd_next_entry(dir, &e, err)) > 0)
		if (e->d_type == DT_REG)
			rc = copy_script(from, bin, e->d_name, err);
	closedir(dir);
	return more < 0 ? -1 : rc;
}

static int entry_scripts(int entry, int site, int bin, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(64 * MIB);
	const char *name, *dist_info = NULL;
	json_t *o, *scripts, *target;
	int rc = 0;

	if (buf_read_file(&text, entry, "manifest.json", err) < 0)
		return -1;
	o = json_loadb(text.data, text.len, 0, NULL);
	scripts = json_object_get(o, "scripts");
	dist_info = json_string_value(json_object_get(o, "dist_info"));
	json_object_foreach(scripts, name, target) if (rc == 0 && json_is_string(target))
		rc = write_script(bin, name, json_string_value(target), err);
	if (rc == 0 && dist_info && !strchr(dist_info, '/')) {
		auto_free char *path = mem_printf("%s/INSTALLER", dist_info);

		rc = write_at(site, path, 0644, "pipsqueak\n", err);
	}
	json_decref(o);
	return rc;
}

static int merge_entry(struct merge *m, size_t i, int site, int top, struct err *err)
{
	auto_close int bin = openat(top, "bin", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_close int entry = open(m->entries[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_close int from = openat(entry, "site", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_close int data = -1, headers = -1;

	if (entry < 0 || from < 0 || bin < 0)
		return err_sys(err, errno, "opening the store entry of %s", m->names[i]);
	if (open_part(entry, "data/data", &data, err) < 0 ||
	    open_part(entry, "data/headers", &headers, err) < 0)
		return -1;
	if (link_tree(m, m->names[i], from, site, err) < 0)
		return -1;
	if (data >= 0 && link_tree(m, m->names[i], data, top, err) < 0)
		return -1;
	if (headers >= 0) {
		auto_free char *path = mem_printf("include/site/python%s/%s", m->version,
						  m->names[i]);
		auto_free char *whole = mem_printf("%s/%s", m->out, path);
		auto_close int to = -1;

		if (fd_mkdirs(whole, 0755, err) < 0)
			return -1;
		to = openat(top, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (to < 0 || link_tree(m, m->names[i], headers, to, err) < 0)
			return -1;
	}
	if (copy_scripts(entry, bin, err) < 0)
		return -1;
	return entry_scripts(entry, site, bin, err);
}

static int layout(struct merge *m, struct err *err)
{
	auto_free char *site = mem_printf("%s/lib/python%s/site-packages", m->out, m->version);
	auto_free char *bin = mem_printf("%s/bin", m->out);
	auto_free char *home = mem_strdup(m->python), *config = NULL, *versioned = NULL;
	const char *names[] = { "bin/python", "bin/python3", NULL };
	auto_close int top = -1;

	if (fd_mkdirs(site, 0755, err) < 0 || fd_mkdirs(bin, 0755, err) < 0)
		return -1;
	top = open(m->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	versioned = mem_printf("bin/python%s", m->version);
	names[2] = versioned;
	for (size_t i = 0; i < array_len(names); i++)
		if (symlinkat(m->python, top, names[i]) < 0)
			return err_sys(err, errno, "making '%s'", names[i]);
	*strrchr(home, '/') = '\0';
	config = mem_printf("home = %s\ninclude-system-site-packages = false\nversion = %s\n"
			    "executable = %s\n",
			    home, m->version, m->python);
	return write_at(top, "pyvenv.cfg", 0644, config, err);
}

int merge_run(struct merge *m, struct err *err)
{
	auto_free char *path = mem_printf("lib/python%s/site-packages", m->version);
	auto_close int top = -1, site = -1;

	umask(022);
	if (layout(m, err) < 0)
		return -1;
	top = open(m->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	site = openat(top, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0 || site < 0)
		return err_sys(err, errno, "opening '%s'", m->out);
	for (size_t i = 0; i < m->n; i++)
		if (merge_entry(m, i, site, top, err) < 0)
			return err_wrap(err, "merging %s", m->names[i]);
	return 0;
}
