/* SPDX-License-Identifier: Apache-2.0
 *
 * Members out of the wheel by a few threads: each is read whole, inflated in one go (libdeflate is
 * two to three times as fast as a stream), hashed, and only then written, by one write. A member
 * above LIMIT_WHOLE_MEMBER_BYTES goes piece by piece, so that memory stays bounded.
 */
#include <errno.h>
#include <fcntl.h>
#include <libdeflate.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "store/installer_priv.h"

#define HUGE_PAGE (2 * MIB)
#define BATCH 16 /* members that one thread takes at a time: neighbours share a directory */

static const struct {
	const char *scheme, *place;
} schemes[] = {
	{ "purelib/", "site/" },	 { "platlib/", "site/" },   { "scripts/", "data/scripts/" },
	{ "headers/", "data/headers/" }, { "data/", "data/data/" },
};

/* What the threads share. libzip's handle is not for several threads: zip_lock. */
struct crew {
	struct wheel *w;
	int out;
	char **places;			/* of members */
	pthread_mutex_t zip_lock, lock; /* of libzip; of all else */
	atomic_size_t next;
	atomic_bool failed;
	struct err err;			  /* the first failure */
	size_t packed_bytes, whole_bytes; /* of the largest member that is read whole */
};

struct hand {
	struct crew *crew;
	struct libdeflate_decompressor *inflate;
	EVP_MD_CTX *hash;
	char *packed, *whole; /* room for the largest member */
	char *dir;	      /* the directory that dir_fd is */
	int dir_fd;
	struct imports imports;
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

static const EVP_MD *algorithm(const struct record *r, struct err *err)
{
	if (strcmp(r->algorithm, "sha256") == 0)
		return EVP_sha256();
	if (strcmp(r->algorithm, "sha384") == 0)
		return EVP_sha384();
	if (strcmp(r->algorithm, "sha512") == 0)
		return EVP_sha512();
	err_set(err, ERR_CORRUPT, "RECORD uses %s, which is not accepted", r->algorithm);
	return NULL;
}

/* NULL: nothing is to be compared. */
static const struct record *to_compare(const struct wheel *w, const struct member *m)
{
	const struct record *r = w->lax ? NULL : record_find(w, m->name);

	return r && r->algorithm[0] ? r : NULL;
}

/* ---- files and directories ---- */

static int enter_dir(struct hand *h, const char *place, size_t len, struct err *err)
{
	if (h->dir && strlen(h->dir) == len && strncmp(h->dir, place, len) == 0)
		return 0;
	fd_close(&h->dir_fd);
	free(h->dir);
	h->dir = mem_strndup(place, len);
	h->dir_fd = openat(h->crew->out, h->dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return h->dir_fd < 0 ? err_sys(err, errno, "opening '%s'", h->dir) : 0;
}

static int create(struct hand *h, const struct member *m, const char *place, struct err *err)
{
	bool executable = m->executable || strncmp(place, "data/scripts/", 13) == 0;
	const char *base = strrchr(place, '/');
	int fd;

	if (enter_dir(h, place, (size_t)(base - place), err) < 0)
		return -1;
	fd = openat(h->dir_fd, base + 1, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		    executable ? 0755 : 0644);
	if (fd < 0 && errno == EEXIST)
		return err_set(err, ERR_CORRUPT, "two members of the wheel go to '%s'", place);
	return fd < 0 ? err_sys(err, errno, "creating '%s'", place) : fd;
}

/* Every directory once, before the threads start. Members are sorted, so neighbours share most of
 * theirs. */
static int make_dirs(struct crew *c, struct err *err)
{
	const char *before = "";

	for (size_t i = 0; i < c->w->nmembers; i++) {
		char *place = c->places[i];

		for (char *p = strchr(place, '/'); p; p = strchr(p + 1, '/')) {
			size_t len = (size_t)(p - place) + 1;

			if (strncmp(before, place, len) == 0)
				continue;
			*p = '\0';
			if (mkdirat(c->out, place, 0755) < 0 && errno != EEXIST) {
				err_sys(err, errno, "making '%s'", place);
				*p = '/';
				return -1;
			}
			*p = '/';
		}
		before = place;
	}
	return 0;
}

/* ---- one member ---- */

static bool is_large(const struct member *m)
{
	return m->size > LIMIT_WHOLE_MEMBER_BYTES || m->packed > LIMIT_WHOLE_MEMBER_BYTES;
}

/* In huge pages where it has any: what is touched costs most, and each member touches it. */
static char *make_room(size_t bytes)
{
	char *p = aligned_alloc(HUGE_PAGE, (bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));

	must(p);
	if (bytes >= HUGE_PAGE)
		madvise(p, bytes & ~(HUGE_PAGE - 1), MADV_HUGEPAGE);
	return p;
}

static int read_packed(struct hand *h, const struct member *m, struct err *err)
{
	struct crew *c = h->crew;
	zip_file_t *f;
	zip_int64_t n = -1;

	pthread_mutex_lock(&c->zip_lock);
	f = zip_fopen_index(c->w->zip, m->index, ZIP_FL_COMPRESSED);
	if (f) {
		n = zip_fread(f, h->packed, m->packed + 1);
		zip_fclose(f);
	}
	pthread_mutex_unlock(&c->zip_lock);
	if (n != (zip_int64_t)m->packed)
		return err_set(err, ERR_CORRUPT, "'%s' in the wheel is damaged", m->name);
	return 0;
}

static int unpack_whole(struct hand *h, const struct member *m, const char **out, struct err *err)
{
	size_t n = 0;

	if (read_packed(h, m, err) < 0)
		return -1;
	*out = h->packed;
	if (m->method == ZIP_CM_DEFLATE) {
		*out = h->whole;
		if (libdeflate_deflate_decompress(h->inflate, h->packed, m->packed, h->whole,
						  m->size, &n) != LIBDEFLATE_SUCCESS ||
		    n != m->size)
			return err_set(err, ERR_CORRUPT,
				       "'%s' in the wheel is damaged, or longer than it says",
				       m->name);
	}
	if (libdeflate_crc32(0, *out, m->size) != m->crc)
		return err_set(err, ERR_CORRUPT, "'%s' in the wheel is damaged", m->name);
	return 0;
}

static int compare(struct hand *h, const struct record *r, const void *data, size_t len,
		   struct err *err)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int n = 0;
	const EVP_MD *md = algorithm(r, err);

	if (!md)
		return -1;
	if (EVP_DigestInit_ex(h->hash, md, NULL) != 1 ||
	    EVP_DigestUpdate(h->hash, data, len) != 1 ||
	    EVP_DigestFinal_ex(h->hash, digest, &n) != 1)
		return err_set(err, ERR_SYSTEM, "hashing failed");
	return record_compare(r, digest, n, err);
}

static int stream(struct hand *h, const struct member *m, zip_file_t *in, int out, struct err *err)
{
	uint64_t left = m->size;
	zip_int64_t n;

	while ((n = zip_fread(in, h->packed, MIB)) > 0) {
		if ((uint64_t)n > left)
			return err_set(err, ERR_CORRUPT, "'%s' is longer than it says", m->name);
		left -= (uint64_t)n;
		if (EVP_DigestUpdate(h->hash, h->packed, (size_t)n) != 1)
			return err_set(err, ERR_SYSTEM, "hashing failed");
		if (fd_write_all(out, h->packed, (size_t)n, err) < 0)
			return -1;
	}
	if (n < 0 || left)
		return err_set(err, ERR_CORRUPT, "'%s' in the wheel is damaged", m->name);
	return 0;
}

static int unpack_large(struct hand *h, const struct member *m, int out, struct err *err)
{
	const struct record *r = to_compare(h->crew->w, m);
	const EVP_MD *md = r ? algorithm(r, err) : EVP_sha256();
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int n = 0;
	zip_file_t *in;
	int rc = -1;

	if (!md)
		return -1;
	if (EVP_DigestInit_ex(h->hash, md, NULL) != 1)
		return err_set(err, ERR_SYSTEM, "hashing failed");
	pthread_mutex_lock(&h->crew->zip_lock);
	in = zip_fopen_index(h->crew->w->zip, m->index, 0);
	if (in) {
		rc = stream(h, m, in, out, err);
		zip_fclose(in);
	} else {
		err_set(err, ERR_CORRUPT, "'%s' in the wheel cannot be read", m->name);
	}
	pthread_mutex_unlock(&h->crew->zip_lock);
	if (rc < 0 || !r)
		return rc;
	if (EVP_DigestFinal_ex(h->hash, digest, &n) != 1)
		return err_set(err, ERR_SYSTEM, "hashing failed");
	return record_compare(r, digest, n, err);
}

/* Tests import what nobody else does. */
static bool is_told(const char *place)
{
	size_t len = strlen(place);

	return len > 3 && strcmp(place + len - 3, ".py") == 0 && !strstr(place, "/tests/") &&
	       strncmp(place, "site/", 5) == 0;
}

static int unpack_one(struct hand *h, size_t i, struct err *err)
{
	const struct member *m = &h->crew->w->members[i];
	const struct record *r = to_compare(h->crew->w, m);
	const char *data = NULL, *place = h->crew->places[i];
	auto_close int fd = -1;

	if (!is_large(m) &&
	    (unpack_whole(h, m, &data, err) < 0 || (r && compare(h, r, data, m->size, err) < 0)))
		return -1;
	fd = create(h, m, place, err);
	if (fd < 0)
		return -1;
	if (is_large(m))
		return unpack_large(h, m, fd, err);
	if (fd_write_all(fd, data, m->size, err) < 0)
		return err_wrap(err, "writing '%s'", place);
	if (is_told(place))
		imports_read(&h->imports, data, m->size);
	return 0;
}

/* ---- the crew ---- */

static void fail(struct crew *c, const struct err *err)
{
	pthread_mutex_lock(&c->lock);
	if (!atomic_exchange(&c->failed, true))
		c->err = *err;
	pthread_mutex_unlock(&c->lock);
}

static void *work(void *arg)
{
	struct hand h = { .crew = arg, .dir_fd = -1 };
	struct crew *c = arg;
	struct err err = ERR_INIT;
	size_t from;

	h.inflate = libdeflate_alloc_decompressor();
	h.hash = EVP_MD_CTX_new();
	h.packed = make_room(c->packed_bytes);
	h.whole = make_room(c->whole_bytes);
	h.imports = (struct imports){ c->w->top_level, json_object() };
	must(h.inflate && h.hash);
	while (!atomic_load(&c->failed) &&
	       (from = atomic_fetch_add(&c->next, BATCH)) < c->w->nmembers)
		for (size_t i = from; i < from + BATCH && i < c->w->nmembers; i++)
			if (unpack_one(&h, i, &err) < 0) {
				fail(c, &err);
				break;
			}
	pthread_mutex_lock(&c->lock);
	json_object_update(c->w->imports, h.imports.names);
	pthread_mutex_unlock(&c->lock);
	json_decref(h.imports.names);
	libdeflate_free_decompressor(h.inflate);
	EVP_MD_CTX_free(h.hash);
	fd_close(&h.dir_fd);
	free(h.dir);
	free(h.packed);
	free(h.whole);
	return NULL;
}

static size_t crew_size(const struct wheel *w)
{
	cpu_set_t set;
	size_t n = sched_getaffinity(0, sizeof(set), &set) == 0 ? (size_t)CPU_COUNT(&set) : 1;

	if (n > LIMIT_WORKERS)
		n = LIMIT_WORKERS;
	return w->nmembers < 4 * BATCH ? 1 : n;
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

static int find_places(struct crew *c, struct err *err)
{
	c->packed_bytes = MIB; /* a piece of a large one */
	for (size_t i = 0; i < c->w->nmembers; i++) {
		const struct member *m = &c->w->members[i];
		const char *name = m->name;

		if (!is_large(m)) {
			c->packed_bytes = larger(c->packed_bytes, m->packed + 1);
			c->whole_bytes = larger(c->whole_bytes, m->size + 1);
		}

		c->places[i] = unpack_place(c->w, name);
		if (!c->places[i])
			return err_set(err, ERR_CORRUPT, "'%s' is of no known install scheme",
				       name);
	}
	return make_dirs(c, err);
}

int unpack_all(struct wheel *w, int out_dir, struct err *err)
{
	struct crew c = { .w = w,
			  .out = out_dir,
			  .places = mem_zero(w->nmembers + 1, sizeof(char *)),
			  .zip_lock = PTHREAD_MUTEX_INITIALIZER,
			  .lock = PTHREAD_MUTEX_INITIALIZER };
	pthread_t threads[LIMIT_WORKERS];
	size_t started = 0, want = crew_size(w);
	int rc = 0;

	umask(022);
	w->top_level = manifest_top_level(w);
	w->imports = json_object();
	if (mkdirat(out_dir, "site", 0755) < 0)
		rc = err_sys(err, errno, "making 'site'");
	else
		rc = find_places(&c, err);
	if (rc == 0) {
		while (started + 1 < want && pthread_create(&threads[started], NULL, work, &c) == 0)
			started++;
		work(&c);
		for (size_t i = 0; i < started; i++)
			pthread_join(threads[i], NULL);
		if (atomic_load(&c.failed)) {
			*err = c.err;
			rc = -1;
		}
	}
	for (size_t i = 0; i < w->nmembers; i++)
		free(c.places[i]);
	free(c.places);
	return rc;
}
