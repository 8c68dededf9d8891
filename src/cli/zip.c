/* SPDX-License-Identifier: Apache-2.0
 *
 * Archives to upload: stored members only (APPNOTE 6.3.10 without compression), which the daemon
 * unpacks once; so the command links no zip library.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli.h"

struct zip {
	struct buf *out, directory;
	unsigned int files;
	const char *top; /* real path of what is packed: links may not leave it */
	uint32_t table[256];
};

static void make_table(struct zip *z)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int k = 0; k < 8; k++)
			c = c & 1 ? 0xedb88320U ^ (c >> 1) : c >> 1;
		z->table[i] = c;
	}
}

static uint32_t crc32_of(const struct zip *z, const char *data, size_t len)
{
	uint32_t c = 0xffffffffU;

	for (size_t i = 0; i < len; i++)
		c = z->table[(c ^ (unsigned char)data[i]) & 255] ^ (c >> 8);
	return c ^ 0xffffffffU;
}

struct fields {
	unsigned char bytes[64];
	size_t n;
};

static void put(struct fields *f, uint32_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		f->bytes[f->n++] = (unsigned char)(v >> (8 * i));
}

/* What the local header and the directory entry have in common. */
static void put_common(struct fields *f, uint32_t crc, size_t size, size_t name)
{
	put(f, 20, 2);	       /* version needed */
	put(f, 0x800, 2);      /* names are UTF-8 */
	put(f, 0, 2);	       /* stored */
	put(f, 0x5a210000, 4); /* 2025-01-01: contents decide, not times */
	put(f, crc, 4);
	put(f, (uint32_t)size, 4);
	put(f, (uint32_t)size, 4);
	put(f, (uint32_t)name, 2);
	put(f, 0, 2);
}

static int add_member(struct zip *z, const char *name, const struct buf *data, mode_t mode,
		      struct err *err)
{
	struct fields local = { .n = 0 }, entry = { .n = 0 };
	uint32_t crc = crc32_of(z, data->data ? data->data : "", data->len);
	size_t offset = z->out->len, len = strlen(name);

	if (++z->files > LIMIT_APP_FILES)
		return err_set(err, ERR_LIMIT, "more than %d files", LIMIT_APP_FILES);
	put(&local, 0x04034b50, 4);
	put_common(&local, crc, data->len, len);
	put(&entry, 0x02014b50, 4);
	put(&entry, 0x031e, 2); /* made by Unix: modes are in the attributes */
	put_common(&entry, crc, data->len, len);
	put(&entry, 0, 2);
	put(&entry, 0, 2);
	put(&entry, 0, 2);
	put(&entry, (uint32_t)(S_IFREG | (mode & 0755)) << 16, 4);
	put(&entry, (uint32_t)offset, 4);
	if (buf_put(z->out, local.bytes, local.n, err) < 0 || buf_put(z->out, name, len, err) < 0 ||
	    buf_put(z->out, data->data ? data->data : "", data->len, err) < 0)
		return -1;
	if (buf_put(&z->directory, entry.bytes, entry.n, err) < 0)
		return -1;
	return buf_put(&z->directory, name, len, err);
}

static bool skipped(const char *name)
{
	static const char *const names[] = {
		".git", "__pycache__", ".venv",	      "node_modules",
		".hg",	".svn",	       ".mypy_cache", ".pytest_cache"
	};
	size_t len = strlen(name);

	for (size_t i = 0; i < array_len(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return len > 4 && strcmp(name + len - 4, ".pyc") == 0;
}

/* A link is followed when it stays inside what is packed. */
static int check_link(struct zip *z, int dir, const char *name, const char *shown, struct err *err)
{
	auto_free char *at = mem_printf("/proc/self/fd/%d/%s", dir, name);
	auto_free char *real = realpath(at, NULL);
	size_t len = strlen(z->top);

	if (!real)
		return err_sys(err, errno, "'%s' leads nowhere", shown);
	if (strncmp(real, z->top, len) != 0 || (real[len] != '/' && real[len] != '\0'))
		return err_set(err, ERR_USAGE,
			       "'%s' leads out of the directory (to '%s'): copy the file in", shown,
			       real);
	return 0;
}

static int add_tree(struct zip *z, int dir, const char *prefix, int depth, struct err *err);

static int add_entry(struct zip *z, int dir, const char *name, const char *shown, int depth,
		     struct err *err)
{
	auto_buf struct buf data = BUF_MAX(LIMIT_APP_BYTES);
	struct stat st;
	auto_close int fd = -1;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(err, errno, "'%s'", shown);
	if (S_ISLNK(st.st_mode)) {
		if (check_link(z, dir, name, shown, err) < 0)
			return -1;
		if (fstatat(dir, name, &st, 0) < 0)
			return err_sys(err, errno, "'%s'", shown);
	}
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return err_set(err, ERR_USAGE, "'%s' is neither a file nor a directory", shown);
	fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, errno, "open '%s'", shown);
	if (S_ISDIR(st.st_mode)) {
		auto_free char *below = mem_printf("%s/", shown);

		return add_tree(z, fd, below, depth + 1, err);
	}
	if (buf_read_fd(&data, fd, err) < 0)
		return err_wrap(err, "'%s'", shown);
	return add_member(z, shown, &data, st.st_mode, err);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int wanted(const struct dirent *e)
{
	return strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && !skipped(e->d_name);
}

static int add_tree(struct zip *z, int dir, const char *prefix, int depth, struct err *err)
{
	struct dirent **names;
	int n = scandirat(dir, ".", &names, wanted, by_name), rc = 0;

	if (n < 0)
		return err_sys(err, errno, "reading '%s'", prefix);
	if (depth > 64)
		rc = err_set(err, ERR_LIMIT, "'%s' is nested too deeply", prefix);
	for (int i = 0; i < n; i++) {
		if (rc == 0) {
			auto_free char *shown = mem_printf("%s%s", prefix, names[i]->d_name);

			rc = add_entry(z, dir, names[i]->d_name, shown, depth, err);
		}
		free(names[i]);
	}
	free(names);
	return rc;
}

static int finish(struct zip *z, struct err *err)
{
	struct fields end = { .n = 0 };
	size_t offset = z->out->len;

	if (buf_put(z->out, z->directory.data ? z->directory.data : "", z->directory.len, err) < 0)
		return -1;
	put(&end, 0x06054b50, 4);
	put(&end, 0, 4);
	put(&end, z->files, 2);
	put(&end, z->files, 2);
	put(&end, (uint32_t)z->directory.len, 4);
	put(&end, (uint32_t)offset, 4);
	put(&end, 0, 2);
	return buf_put(z->out, end.bytes, end.n, err);
}

int zip_make(const char *path, struct buf *out, struct err *err)
{
	auto_free char *real = realpath(path, NULL);
	struct zip z = { .out = out, .directory = BUF_MAX(64 * MIB), .top = real };
	auto_close int fd = -1;
	struct stat st;
	int rc;

	if (!real || stat(real, &st) < 0)
		return err_sys(err, errno, "'%s'", path);
	make_table(&z);
	out->max = LIMIT_HTTP_UPLOAD_BYTES;
	if (S_ISDIR(st.st_mode)) {
		fd = open(real, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		rc = fd < 0 ? err_sys(err, errno, "open '%s'", path) : add_tree(&z, fd, "", 0, err);
	} else {
		fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		rc = add_entry(&z, fd, real + 1, strrchr(real, '/') + 1, 0, err);
	}
	if (rc == 0 && !z.files)
		rc = err_set(err, ERR_USAGE, "'%s' has no files", path);
	if (rc == 0)
		rc = finish(&z, err);
	buf_done(&z.directory);
	return rc;
}
