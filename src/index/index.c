/* SPDX-License-Identifier: Apache-2.0 */
#include "index/index.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/mem.h"
#include "index/private.h"

struct index *index_ref(struct index *index)
{
	index->refs++;
	return index;
}

void index_unref(struct index *index)
{
	if (--index->refs)
		return;
	settings_unref(index->settings);
	settings_unref(index->settings_last);
	free(index->cache_dir);
	free(index);
}

static int make_dirs(const char *cache_dir, struct err *err)
{
	static const char *const below[] = { "pages", "metadata", "wheels", "tmp" };

	for (size_t i = 0; i < array_len(below); i++) {
		auto_free char *path = mem_printf("%s/%s", cache_dir, below[i]);

		/* what a crash left half-written */
		if (strcmp(below[i], "tmp") == 0 && fd_remove_tree(AT_FDCWD, path, err) < 0)
			return -1;
		if (fd_mkdirs(path, 0755, err) < 0)
			return -1;
	}
	return 0;
}

int index_open(uv_loop_t *loop, const struct index_config *config, struct index **out,
	       struct err *err)
{
	struct index *index;

	if (make_dirs(config->cache_dir, err) < 0)
		return err_wrap(err, "opening the index cache");
	index = mem_new(struct index);
	index->refs = 1;
	index->loop = loop;
	index->cache_dir = mem_strdup(config->cache_dir);
	index->resolver = config->resolver;
	if ((config->pip_settings &&
	     settings_parse(config->pip_settings, NULL, &index->settings, err) < 0) ||
	    fetcher_open(loop, &index->fetcher, err) < 0) {
		index_unref(index);
		return -1;
	}
	*out = index;
	return 0;
}

void index_close(struct index *index)
{
	if (!index)
		return;
	index->closing = true;
	resolves_close(index);
	wheels_close(index);
	fetcher_close(index->fetcher);
	index->fetcher = NULL;
	index_unref(index);
}

static void add_part(struct sha *sum, const char *text)
{
	uint64_t len = text ? strlen(text) : UINT64_MAX; /* absent differs from empty */

	sha_add(sum, &len, sizeof(len));
	if (text)
		sha_add(sum, text, strlen(text));
}

void index_request_key(const struct index_request *q, char *out)
{
	struct sha *sum = sha_new();

	add_part(sum, "pipsqueak request 1");
	for (size_t i = 0; q->with && q->with[i]; i++)
		add_part(sum, q->with[i]);
	add_part(sum, NULL);
	add_part(sum, q->requirements);
	add_part(sum, q->pep723);
	add_part(sum, q->pyproject);
	add_part(sum, q->pylock);
	add_part(sum, q->index_url);
	add_part(sum, q->python_info);
	add_part(sum, q->pip_settings);
	sha_hex(sum, out);
	sha_free(sum);
}

/* index_fetch() to wheel_get(): one arg serves both callbacks of the caller. */
struct fetching {
	index_progress_fn progress;
	index_wheel_fn done;
	void *arg;
};

static void on_progress(void *arg, const char *line)
{
	struct fetching *f = arg;

	if (f->progress)
		f->progress(f->arg, line);
}

static void on_wheel(void *arg, const char *path, const char *sha256, const struct err *err)
{
	struct fetching *f = arg;

	f->done(f->arg, path, err);
	free(f);
}

void index_fetch(struct index *index, const struct lock_dist *dist, index_progress_fn progress,
		 index_wheel_fn done, void *arg)
{
	struct settings *settings = index->settings_last ? index->settings_last : index->settings;
	struct wheel_want want = { dist->url, dist->filename, dist->sha256, dist->size_bytes,
				   settings };
	struct fetching *f = mem_new(struct fetching);

	*f = (struct fetching){ progress, done, arg };
	if (!settings) { /* a lock from before a restart; an index without credentials still works
			  */
		struct err err;

		must(settings_parse("{}", NULL, &settings, &err) == 0);
		want.settings = index->settings_last = settings;
	}
	wheel_get(index, &want, on_progress, on_wheel, f);
}
