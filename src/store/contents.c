/* SPDX-License-Identifier: Apache-2.0
 *
 * What wheels have: each manifest is read once, however many environments are made of the wheel.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "store/store_priv.h"

struct contents {
	struct contents *next;
	char sha256[65];
	json_t *manifest; /* without its files */
	char *text;	  /* these, relative to site-packages */
	const char **files;
	size_t nfiles; /* sorted */
	uint64_t tops; /* one bit for each first part of them, by hash */
};

static uint64_t top_bit(const char *path)
{
	uint32_t sum = 2166136261u;

	for (; *path && *path != '/'; path++)
		sum = (sum ^ (unsigned char)*path) * 16777619u;
	return 1ULL << (sum >> 26);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void take_files(struct contents *c, const json_t *files)
{
	size_t bytes = 0, i;
	const json_t *value;
	char *to;

	json_array_foreach(files, i, value) if (json_is_string(value))
		bytes += json_string_length(value) + 1;
	to = c->text = mem_zero(bytes + 1, 1);
	c->files = mem_zero(json_array_size(files) + 1, sizeof(char *));
	json_array_foreach(files, i, value)
	{
		if (!json_is_string(value))
			continue;
		memcpy(to, json_string_value(value), json_string_length(value));
		c->files[c->nfiles++] = to;
		c->tops |= top_bit(to);
		to += json_string_length(value) + 1;
	}
	if (c->nfiles)
		qsort(c->files, c->nfiles, sizeof(char *), by_path);
}

static struct contents **slot(struct store *s, const char *sha256)
{
	struct contents **c = &s->contents[strtoul((char[]){ sha256[0], sha256[1], 0 }, NULL, 16) %
					   STORE_CONTENTS];

	while (*c && strcmp((*c)->sha256, sha256) != 0)
		c = &(*c)->next;
	return c;
}

void contents_forget(struct store *s)
{
	for (size_t i = 0; i < STORE_CONTENTS; i++) {
		struct contents *c = s->contents[i], *next;

		for (; c; c = next) {
			next = c->next;
			json_decref(c->manifest);
			free(c->files);
			free(c->text);
			free(c);
		}
		s->contents[i] = NULL;
	}
	s->contents_bytes = 0;
	s->contents_gen++;
}

/* NULL: its manifest cannot be read (now). */
static struct contents *read_contents(struct store *s, const char *sha256)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_BUF_DEFAULT);
	auto_free char *entry = store_entry_path(s, sha256);
	auto_free char *path = mem_printf("%s/manifest.json", entry);
	struct contents *c;
	json_t *manifest;

	if (buf_read_file(&text, AT_FDCWD, path, &(struct err){ 0 }) < 0)
		return NULL;
	manifest = json_loadb(text.data ? text.data : "", text.len, 0, NULL);
	if (!manifest)
		return NULL;
	c = mem_new(struct contents);
	memcpy(c->sha256, sha256, sizeof(c->sha256));
	c->manifest = manifest;
	take_files(c, json_object_get(manifest, "files"));
	json_object_del(manifest, "files");
	s->contents_bytes += 2 * text.len;
	return c;
}

static struct contents *find(struct store *s, const char *sha256)
{
	struct contents **c = slot(s, sha256);

	if (!*c)
		*c = read_contents(s, sha256);
	return *c;
}

/* All are forgotten when they take too much: which are used most is not worth knowing. */
struct contents **contents_of(struct store *s, const struct lock *lock, struct env *e)
{
	if (s->contents_bytes > LIMIT_CONTENTS_BYTES)
		contents_forget(s);
	if (e->wheels && e->wheels_gen == s->contents_gen)
		return e->wheels;
	free(e->wheels);
	e->wheels = mem_zero(e->ndists + 1, sizeof(struct contents *));
	e->wheels_gen = s->contents_gen;
	for (size_t d = 0; d < e->ndists; d++)
		e->wheels[d] = find(s, lock->dists[d].sha256);
	return e->wheels;
}

const json_t *contents_list(const struct contents *c, const char *list)
{
	return c ? json_object_get(c->manifest, list) : NULL;
}

int contents_owner(struct contents *const *wheels, size_t n, const char *file)
{
	uint64_t bit = top_bit(file);

	for (size_t d = 0; d < n; d++)
		if (wheels[d] && (wheels[d]->tops & bit) &&
		    bsearch(&file, wheels[d]->files, wheels[d]->nfiles, sizeof(char *), by_path))
			return (int)d;
	return -1;
}
