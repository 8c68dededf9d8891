/* SPDX-License-Identifier: Apache-2.0 */
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

static const struct {
	const char *scheme, *place;
} schemes[] = {
	{ "purelib/", "site/" },	 { "platlib/", "site/" },   { "scripts/", "data/scripts/" },
	{ "headers/", "data/headers/" }, { "data/", "data/data/" },
};

char *unpack_place(const struct wheel *w, const char *member)
{
	size_t len = strlen(w->data_dir);

	if (strncmp(member, w->data_dir, len) != 0)
		return mem_printf("site/%s", member);
	for (size_t i = 0; i < array_len(schemes); i++) {
		size_t n = strlen(schemes[i].scheme);

		if (strncmp(member + len, schemes[i].scheme, n) == 0)
			return mem_printf("%s%s", schemes[i].place, member + len + n);
	}
	return NULL;
}

/* Directories down to the file; the last one made is remembered, for members come sorted. */
static int make_parents(int dir, char *path, struct err *err)
{
	for (char *p = strchr(path, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdirat(dir, path, 0755) < 0 && errno != EEXIST) {
			err_sys(err, errno, "making '%s'", path);
			*p = '/';
			return -1;
		}
		*p = '/';
	}
	return 0;
}

static void base64url(const unsigned char *in, size_t len, char *out)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	unsigned int bits = 0, have = 0;

	for (size_t i = 0; i < len; i++) {
		bits = bits << 8 | in[i];
		have += 8;
		while (have >= 6) {
			have -= 6;
			*out++ = digits[bits >> have & 63];
		}
	}
	if (have)
		*out++ = digits[bits << (6 - have) & 63];
	*out = '\0';
}

struct writer {
	zip_file_t *in;
	EVP_MD_CTX *hash;
	int out;
};

static void writer_done(struct writer *w)
{
	if (w->in)
		zip_fclose(w->in);
	EVP_MD_CTX_free(w->hash);
	fd_close(&w->out);
}

static int copy(struct writer *wr, const struct member *m, struct err *err)
{
	char block[65536];
	uint64_t left = m->size;
	zip_int64_t n;

	while ((n = zip_fread(wr->in, block, sizeof(block))) > 0) {
		if ((uint64_t)n > left)
			return err_set(err, ERR_CORRUPT, "'%s' is longer than it says", m->name);
		left -= (uint64_t)n;
		if (wr->hash && EVP_DigestUpdate(wr->hash, block, (size_t)n) != 1)
			return err_set(err, ERR_SYSTEM, "hashing failed");
		if (fd_write_all(wr->out, block, (size_t)n, err) < 0)
			return err_wrap(err, "writing '%s'", m->name);
	}
	if (n < 0 || left)
		return err_set(err, ERR_CORRUPT, "'%s' in the wheel is damaged", m->name);
	return 0;
}

static int check_hash(struct writer *wr, const struct record *r, struct err *err)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	char text[128];
	unsigned int len = 0;

	if (EVP_DigestFinal_ex(wr->hash, digest, &len) != 1)
		return err_set(err, ERR_SYSTEM, "hashing failed");
	base64url(digest, len, text);
	if (strcmp(text, r->hash) != 0)
		return err_set(err, ERR_CORRUPT, "'%s' is not what RECORD says (%s)", r->path,
			       r->algorithm);
	return 0;
}

static const EVP_MD *algorithm(const char *name)
{
	if (strcmp(name, "sha256") == 0)
		return EVP_sha256();
	if (strcmp(name, "sha384") == 0)
		return EVP_sha384();
	return strcmp(name, "sha512") == 0 ? EVP_sha512() : NULL;
}

static int open_target(const struct member *m, char *place, int dir, int *out, struct err *err)
{
	bool executable = m->executable || strncmp(place, "data/scripts/", 13) == 0;

	if (make_parents(dir, place, err) < 0)
		return -1;
	*out = openat(dir, place, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		      executable ? 0755 : 0644);
	if (*out < 0 && errno == EEXIST)
		return err_set(err, ERR_CORRUPT, "two members of the wheel go to '%s'", place);
	return *out < 0 ? err_sys(err, errno, "creating '%s'", place) : 0;
}

static int start_hash(struct writer *wr, const struct record *r, struct err *err)
{
	const EVP_MD *md = algorithm(r->algorithm);

	if (!md)
		return err_set(err, ERR_CORRUPT, "RECORD uses %s, which is not accepted",
			       r->algorithm);
	wr->hash = EVP_MD_CTX_new();
	if (!wr->hash || EVP_DigestInit_ex(wr->hash, md, NULL) != 1)
		return err_set(err, ERR_SYSTEM, "hashing failed");
	return 0;
}

static int unpack_one(struct wheel *w, const struct member *m, int dir, struct err *err)
{
	__attribute__((cleanup(writer_done))) struct writer wr = { .out = -1 };
	const struct record *r = wheel_record(w, m->name);
	auto_free char *place = unpack_place(w, m->name);
	bool hashed = r && r->algorithm[0];

	if (!place)
		return err_set(err, ERR_CORRUPT, "'%s' is of no known install scheme", m->name);
	if ((hashed && start_hash(&wr, r, err) < 0) || open_target(m, place, dir, &wr.out, err) < 0)
		return -1;
	wr.in = zip_fopen_index(w->zip, m->index, 0);
	if (!wr.in)
		return err_set(err, ERR_CORRUPT, "'%s' cannot be read: %s", m->name,
			       zip_strerror(w->zip));
	if (copy(&wr, m, err) < 0)
		return -1;
	return hashed ? check_hash(&wr, r, err) : 0;
}

int unpack_all(struct wheel *w, int out_dir, struct err *err)
{
	umask(022);
	if (mkdirat(out_dir, "site", 0755) < 0)
		return err_sys(err, errno, "making 'site'");
	for (size_t i = 0; i < w->nmembers; i++)
		if (unpack_one(w, &w->members[i], out_dir, err) < 0)
			return -1;
	return 0;
}
