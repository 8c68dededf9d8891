/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "store/installer_priv.h"

static int digest_file(int dir, const char *place, const EVP_MD *md, unsigned char *out,
		       unsigned int *out_len, struct err *err)
{
	auto_close int fd = openat(dir, place, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	auto_free char *block = mem_zero(1, MIB);
	EVP_MD_CTX *hash = EVP_MD_CTX_new();
	ssize_t n = -1;
	int ok = fd >= 0 && hash && EVP_DigestInit_ex(hash, md, NULL) == 1;

	while (ok && (n = read(fd, block, MIB)) > 0)
		ok = EVP_DigestUpdate(hash, block, (size_t)n) == 1;
	ok = ok && n == 0 && EVP_DigestFinal_ex(hash, out, out_len) == 1;
	EVP_MD_CTX_free(hash);
	if (fd < 0)
		return err_set(err, ERR_CORRUPT, "'%s' is missing", place);
	return ok ? 0 : err_sys(err, errno, "reading '%s'", place);
}

static int check_one(const struct wheel *w, const struct record *r, int dir, struct err *err)
{
	auto_free char *place = unpack_place(w, r->path);
	unsigned char digest[EVP_MAX_MD_SIZE];
	const EVP_MD *md = EVP_get_digestbyname(r->algorithm);
	unsigned int len = 0;

	if (!place || !md)
		return err_set(err, ERR_CORRUPT, "'%s' has no place, or no known hash", r->path);
	if (digest_file(dir, place, md, digest, &len, err) < 0)
		return -1;
	return record_compare(r, digest, len, err);
}

static int count_files(int dir, const char *name, size_t *count, struct err *err)
{
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;
	int rc = 0, more = 0;

	if (!d)
		return errno == ENOENT ? 0 : err_sys(err, errno, "reading '%s'", name);
	while (rc == 0 && (more = fd_next_entry(d, &e, err)) > 0) {
		if (e->d_type == DT_DIR)
			rc = count_files(fd, e->d_name, count, err);
		else
			++*count;
	}
	closedir(d);
	return more < 0 ? -1 : rc;
}

static int read_whole(int dir, const char *path, struct buf *out, struct err *err)
{
	if (buf_read_file(out, dir, path, err) < 0)
		return -1;
	return out->data ? 0 : err_set(err, ERR_CORRUPT, "'%s' is empty", path);
}

static int compare(struct wheel *w, int dir, struct err *err)
{
	auto_buf struct buf info = BUF_MAX(LIMIT_WHEEL_PATH_BYTES),
			    text = BUF_MAX(LIMIT_RECORD_BYTES);
	auto_free char *record = NULL;
	size_t files = 0, known = 0;

	if (read_whole(dir, "dist-info", &info, err) < 0)
		return -1;
	w->dist_info = mem_strdup(info.data);
	w->data_dir = mem_printf("%.*s.data/", (int)strcspn(info.data, "/") - 10, info.data);
	record = mem_printf("site/%s/RECORD", w->dist_info);
	if (read_whole(dir, record, &text, err) < 0 || record_parse(w, text.data, err) < 0)
		return -1;
	for (size_t i = 0; i < w->nrecords; i++) {
		const struct record *r = &w->records[i];

		known += r->path[strlen(r->path) - 1] != '/';
		if (r->algorithm[0] && check_one(w, r, dir, err) < 0)
			return -1;
	}
	if (count_files(dir, "site", &files, err) < 0 || count_files(dir, "data", &files, err) < 0)
		return -1;
	if (files > known)
		return err_set(err, ERR_CORRUPT, "there are %zu files that RECORD does not name",
			       files - known);
	return 0;
}

int verify_entry(int dir, struct err *err)
{
	__attribute__((cleanup(wheel_done))) struct wheel w = { 0 };

	if (faccessat(dir, "lax", F_OK, 0) == 0)
		return 0; /* its RECORD says nothing */
	return compare(&w, dir, err);
}
