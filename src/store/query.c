/* SPDX-License-Identifier: Apache-2.0
 *
 * What is in an environment: which dist owns a file, which names and groups there are.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "store/store_priv.h"

#define LOADED_ENVS 64 /* whose manifests are kept in memory */

static json_t *manifest(struct store *s, const struct lock *lock, struct env *e, size_t i)
{
	auto_buf struct buf text = BUF_MAX(64 * MIB);
	auto_free char *entry = NULL, *path = NULL;

	if (!e->manifests)
		e->manifests = mem_zero(e->ndists + 1, sizeof(json_t *));
	if (e->manifests[i])
		return e->manifests[i];
	entry = store_entry_path(s, lock->dists[i].sha256);
	path = mem_printf("%s/manifest.json", entry);
	if (buf_read_file(&text, AT_FDCWD, path, &(struct err){ 0 }) == 0)
		e->manifests[i] = json_loadb(text.data, text.len, 0, NULL);
	return e->manifests[i];
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct owned *)a)->path, ((const struct owned *)b)->path);
}

/* The least recently used environments give up what was read of their manifests. */
static void bound_loaded(struct store *s)
{
	struct env *oldest = NULL;
	int loaded = 0;

	for (struct env *e = s->ready; e; e = e->next) {
		if (!e->files)
			continue;
		loaded++;
		if (!oldest || e->used < oldest->used)
			oldest = e;
	}
	if (loaded <= LOADED_ENVS)
		return;
	for (size_t i = 0; i < oldest->nfiles; i++)
		free(oldest->files[i].path);
	for (size_t i = 0; oldest->manifests && i < oldest->ndists; i++)
		json_decref(oldest->manifests[i]);
	free(oldest->files);
	free(oldest->manifests);
	oldest->files = NULL;
	oldest->manifests = NULL;
	oldest->nfiles = 0;
}

static void load_files(struct store *s, const struct lock *lock, struct env *e)
{
	size_t total = 0, i;
	json_t *value;

	for (size_t d = 0; d < e->ndists; d++)
		total += json_array_size(json_object_get(manifest(s, lock, e, d), "files"));
	e->files = mem_zero(total + 1, sizeof(struct owned));
	for (size_t d = 0; d < e->ndists; d++)
		json_array_foreach(json_object_get(e->manifests[d], "files"), i,
				   value) if (json_is_string(value)) e->files[e->nfiles++] =
			(struct owned){ mem_printf("%s/%s", e->site, json_string_value(value)),
					(int)d };
	qsort(e->files, e->nfiles, sizeof(struct owned), by_path);
	/* The lists of files are in e->files now; the rest of a manifest is small. */
	for (size_t d = 0; d < e->ndists; d++)
		json_object_del(e->manifests[d], "files");
	bound_loaded(s);
}

static struct env *loaded(struct store *s, const struct lock *lock)
{
	struct env *e = env_ready(s, lock);

	if (e && !e->files)
		load_files(s, lock, e);
	return e;
}

int store_owner(struct store *s, const struct lock *lock, const char *path)
{
	struct env *e = loaded(s, lock);
	struct owned key = { .path = (char *)path }, *found = NULL;

	if (e)
		found = bsearch(&key, e->files, e->nfiles, sizeof(key), by_path);
	return found ? found->dist : -1;
}

static bool any_has(struct store *s, const struct lock *lock, const char *list, const char *name)
{
	struct env *e = loaded(s, lock);
	json_t *value;
	size_t i;

	for (size_t d = 0; e && e->manifests && d < e->ndists; d++)
		json_array_foreach(json_object_get(e->manifests[d], list), i,
				   value) if (json_is_string(value) &&
					      strcmp(json_string_value(value), name) ==
						      0) return true;
	return false;
}

bool store_provides_module(struct store *s, const struct lock *lock, const char *top_level)
{
	return any_has(s, lock, "top_level", top_level);
}

bool store_provides_group(struct store *s, const struct lock *lock, const char *group)
{
	return any_has(s, lock, "groups", group);
}

void store_names(struct store *s, const struct lock *lock, size_t dist, const char *list,
		 void (*each)(void *ctx, const char *name), void *ctx)
{
	const struct env *e = loaded(s, lock);
	json_t *value;
	size_t i;

	if (e && e->manifests && dist < e->ndists)
		json_array_foreach(json_object_get(e->manifests[dist], list), i,
				   value) if (json_is_string(value))
			each(ctx, json_string_value(value));
}
