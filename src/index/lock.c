/* SPDX-License-Identifier: Apache-2.0 */
#include "index/lock.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "index/name.h"
#include "index/sha.h"

/* What rules add to the sum; no name or version begins so. */
#define LAX "\001lax"
#define STRICT "\001strict"

struct lock *lock_new(const char *python_tag)
{
	struct lock *lock = mem_new(struct lock);

	lock->python_tag = mem_strdup(python_tag);
	return lock;
}

static void dist_done(struct lock_dist *d)
{
	free(d->name);
	free(d->version);
	free(d->filename);
	free(d->url);
	free(d->sdist);
}

void lock_free(struct lock *lock)
{
	if (!lock)
		return;
	for (size_t i = 0; i < lock->ndists; i++)
		dist_done(&lock->dists[i]);
	free(lock->dists);
	free(lock->python_tag);
	free(lock);
}

struct lock *lock_copy(const struct lock *lock)
{
	struct lock *copy = lock_new(lock->python_tag);

	memcpy(copy->hash, lock->hash, sizeof(copy->hash));
	copy->strict = lock->strict;
	for (size_t i = 0; i < lock->ndists; i++)
		lock_add(copy, &lock->dists[i]);
	return copy;
}

void lock_add(struct lock *lock, const struct lock_dist *dist)
{
	struct lock_dist *d;

	lock->dists = mem_resize(lock->dists, (lock->ndists + 1) * sizeof(*lock->dists));
	d = &lock->dists[lock->ndists++];
	*d = *dist;
	d->name = mem_strdup(dist->name);
	d->version = mem_strdup(dist->version);
	d->filename = mem_strdup(dist->filename);
	d->url = mem_strdup(dist->url);
	d->sdist = mem_strdup(dist->sdist);
}

static int by_name(const void *a, const void *b)
{
	const struct lock_dist *x = a, *y = b;

	return strcmp(x->name, y->name);
}

void lock_seal(struct lock *lock)
{
	struct sha *sum = sha_new();

	if (lock->ndists)
		qsort(lock->dists, lock->ndists, sizeof(*lock->dists), by_name);
	sha_add(sum, lock->python_tag, strlen(lock->python_tag) + 1);
	for (size_t i = 0; i < lock->ndists; i++) {
		const struct lock_dist *d = &lock->dists[i];

		sha_add(sum, d->name, strlen(d->name) + 1);
		sha_add(sum, d->version, strlen(d->version) + 1);
		sha_add(sum, d->sha256, strlen(d->sha256) + 1);
		if (d->lax)
			sha_add(sum, LAX, sizeof(LAX));
	}
	if (lock->strict)
		sha_add(sum, STRICT, sizeof(STRICT));
	sha_hex(sum, lock->hash);
	sha_free(sum);
}

void lock_set_rules(struct lock *lock, const char *const *accept, bool strict)
{
	for (size_t i = 0; i < lock->ndists; i++)
		lock->dists[i].lax = false;
	for (; accept && *accept; accept++)
		for (size_t i = 0; i < lock->ndists; i++)
			if (strcmp(lock->dists[i].name, *accept) == 0)
				lock->dists[i].lax = true;
	lock->strict = strict;
	lock_seal(lock);
}

const struct lock_dist *lock_find(const struct lock *lock, const char *name)
{
	for (size_t i = 0; i < lock->ndists; i++)
		if (strcmp(lock->dists[i].name, name) == 0)
			return &lock->dists[i];
	return NULL;
}

int lock_print(const struct lock *lock, struct buf *out, struct err *err)
{
	json_t *dists = json_array();
	json_t *root;
	char *text;
	int rc;

	for (size_t i = 0; i < lock->ndists; i++) {
		const struct lock_dist *d = &lock->dists[i];
		json_t *item = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I}", "name", d->name,
					 "version", d->version, "filename", d->filename, "url",
					 d->url, "sha256", d->sha256, "size",
					 (json_int_t)d->size_bytes);

		if (d->sdist)
			json_object_set_new(item, "sdist",
					    json_pack("{s:s, s:s, s:I}", "filename", d->sdist,
						      "sha256", d->sdist_sha256, "size",
						      (json_int_t)d->sdist_bytes));
		if (d->lax)
			json_object_set_new(item, "lax", json_true());
		json_array_append_new(dists, item);
	}
	root = json_pack("{s:i, s:s, s:s, s:o}", "lock", 1, "python_tag", lock->python_tag, "hash",
			 lock->hash, "dists", dists);
	if (root && lock->strict)
		json_object_set_new(root, "strict", json_true());
	text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	if (!text)
		return err_set(err, ERR_CORRUPT, "a lock holds text that is not UTF-8");
	rc = buf_puts(out, text, err);
	free(text);
	return rc;
}

static bool is_printable(const char *s)
{
	for (; *s; s++)
		if (*s <= ' ' || *s > '~')
			return false;
	return true;
}

static bool is_tag(const char *s)
{
	size_t len = strlen(s);

	return len && len < 64 &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
		       len;
}

/* Credentials must never reach a lock: the authority of the URL may hold no '@'. */
static bool is_clean_url(const char *url)
{
	const char *authority = strstr(url, "://");

	if (!authority || !is_printable(url))
		return false;
	authority += 3;
	return !memchr(authority, '@', strcspn(authority, "/?#"));
}

static int check_dist(const struct lock_dist *d, struct err *err)
{
	auto_free char *version = NULL;

	if (!name_is_normalized(d->name))
		return err_set(err, ERR_CORRUPT, "lock: '%.80s' is not a dist's name", d->name);
	if (!name_is_wheel(d->filename) || !name_matches(d->filename, strlen(d->filename), d->name))
		return err_set(err, ERR_CORRUPT, "lock: '%.80s' is not a wheel of %s", d->filename,
			       d->name);
	if (d->sdist && !name_is_sdist(d->sdist))
		return err_set(err, ERR_CORRUPT, "lock: '%.80s' is not an sdist", d->sdist);
	version = name_wheel_version(d->filename);
	if (strcmp(version, d->version) != 0)
		return err_set(err, ERR_CORRUPT, "lock: %s is not version '%.80s'", d->filename,
			       d->version);
	if (!sha_is_hex(d->sha256) || (d->sdist && !sha_is_hex(d->sdist_sha256)))
		return err_set(err, ERR_CORRUPT, "lock: %s has no sha256", d->name);
	if (!is_clean_url(d->url))
		return err_set(err, ERR_CORRUPT, "lock: %s has a URL that cannot be used", d->name);
	if (d->size_bytes > LIMIT_WHEEL_BYTES || d->sdist_bytes > LIMIT_WHEEL_BYTES)
		return err_set(err, ERR_LIMIT, "%s has more than %lu bytes", d->filename,
			       LIMIT_WHEEL_BYTES);
	return 0;
}

static int parse_sdist(json_t *item, struct lock_dist *d, struct err *err)
{
	const char *filename, *sha256;
	json_int_t size;

	if (!item)
		return 0;
	if (json_unpack(item, "{s:s, s:s, s:I}", "filename", &filename, "sha256", &sha256, "size",
			&size) < 0 ||
	    size < 0 || strlen(sha256) != 64)
		return err_set(err, ERR_CORRUPT, "lock: an sdist lacks a field");
	d->sdist = (char *)filename;
	memcpy(d->sdist_sha256, sha256, sizeof(d->sdist_sha256));
	d->sdist_bytes = (uint64_t)size;
	return 0;
}

static int parse_dist(json_t *item, struct lock *lock, struct err *err)
{
	const char *name, *version, *filename, *url, *sha256;
	struct lock_dist d = { 0 };
	json_int_t size;

	if (json_unpack(item, "{s:s, s:s, s:s, s:s, s:s, s:I}", "name", &name, "version", &version,
			"filename", &filename, "url", &url, "sha256", &sha256, "size", &size) < 0 ||
	    size < 0 || strlen(sha256) != 64)
		return err_set(err, ERR_CORRUPT, "lock: a dist lacks a field");
	/* lock_add() copies: the casts never lead to a write */
	d.name = (char *)name;
	d.version = (char *)version;
	d.filename = (char *)filename;
	d.url = (char *)url;
	memcpy(d.sha256, sha256, sizeof(d.sha256));
	d.size_bytes = (uint64_t)size;
	d.lax = json_is_true(json_object_get(item, "lax"));
	if (parse_sdist(json_object_get(item, "sdist"), &d, err) < 0 || check_dist(&d, err) < 0)
		return -1;
	lock_add(lock, &d);
	return 0;
}

static int parse_root(json_t *root, struct lock **out, struct err *err)
{
	const char *tag = NULL, *hash = NULL;
	struct lock *lock;
	json_t *dists = NULL;

	if (json_unpack(root, "{s:s, s?s, s:o}", "python_tag", &tag, "hash", &hash, "dists",
			&dists) < 0 ||
	    !json_is_array(dists) || !is_tag(tag))
		return err_set(err, ERR_CORRUPT, "lock: not a lock");
	if (json_array_size(dists) > LIMIT_LOCK_DISTS)
		return err_set(err, ERR_LIMIT, "lock: more than %d dists", LIMIT_LOCK_DISTS);
	lock = lock_new(tag);
	lock->strict = json_is_true(json_object_get(root, "strict"));
	for (size_t i = 0; i < json_array_size(dists); i++)
		if (parse_dist(json_array_get(dists, i), lock, err) < 0)
			goto bad;
	lock_seal(lock);
	for (size_t i = 1; i < lock->ndists; i++)
		if (strcmp(lock->dists[i - 1].name, lock->dists[i].name) == 0) {
			err_set(err, ERR_CORRUPT, "lock: %s is there twice", lock->dists[i].name);
			goto bad;
		}
	if (hash && strcmp(hash, lock->hash) != 0) {
		err_set(err, ERR_CORRUPT, "lock: its hash does not fit");
		goto bad;
	}
	*out = lock;
	return 0;
bad:
	lock_free(lock);
	return -1;
}

int lock_parse(const char *json, size_t len, struct lock **out, struct err *err)
{
	json_error_t jerr;
	json_t *root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &jerr);
	int rc;

	if (!root)
		return err_set(err, ERR_CORRUPT, "lock: not JSON: %s", jerr.text);
	rc = parse_root(root, out, err);
	json_decref(root);
	return rc;
}
