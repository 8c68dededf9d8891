/* SPDX-License-Identifier: Apache-2.0 */
#include "index/index.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "index/private.h"
#include "wire/messages.h"

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
	for (size_t i = 0; i < array_len(index->sources); i++)
		settings_unref(index->sources[i].settings);
	cache_close(index);
	free(index->cache_dir);
	free(index);
}

int index_open(uv_loop_t *loop, const struct index_config *config, struct index **out,
	       struct err *err)
{
	struct index *index;

	index = mem_new(struct index);
	index->refs = 1;
	index->loop = loop;
	index->cache_dir = mem_strdup(config->cache_dir);
	index->resolver = config->resolver;
	index->builds = config->builds;
	index->tmp_lock = -1;
	if (cache_open(index, err) < 0) {
		index_unref(index);
		return err_wrap(err, "opening the index cache");
	}
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
	auto_free char *settings = NULL;
	struct sha *sum = sha_new();

	add_part(sum, "pipsqueak request 2");
	for (size_t i = 0; q->with && q->with[i]; i++)
		add_part(sum, q->with[i]);
	add_part(sum, NULL);
	add_part(sum, q->requirements);
	add_part(sum, q->pep723);
	add_part(sum, q->pyproject);
	add_part(sum, q->pylock);
	add_part(sum, q->inputs);
	add_part(sum, q->index_url);
	add_part(sum, q->python_info);
	if (q->pip_settings && strncmp(q->pip_settings, WIRE_OFFLINE, strlen(WIRE_OFFLINE)) == 0)
		settings = mem_printf("{%s", q->pip_settings + strlen(WIRE_OFFLINE));
	add_part(sum, settings ? settings : q->pip_settings);
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

void index_remember(struct index *index, const struct lock *lock, struct settings *settings)
{
	for (size_t i = 0; i < lock->ndists; i++) {
		struct index_source *to = &index->sources[index->next_source++ % LIMIT_LOCK_DISTS];

		memcpy(to->sha256, lock->dists[i].sha256, sizeof(to->sha256));
		settings_unref(to->settings);
		to->settings = settings_ref(settings);
	}
}

void index_use(struct index *index, const struct index_request *request, const struct lock *lock)
{
	struct settings *settings = NULL;
	struct clean clean;
	struct err err;

	if (!request->pip_settings)
		return;
	if (settings_parse(request->pip_settings, request->index_url, &settings, &err) < 0)
		return;
	clean_request(&clean, settings, request); /* for the credentials in it */
	clean_done(&clean);
	index_remember(index, lock, settings);
	settings_unref(settings);
}

/* Those of the resolution that the wheel comes from, else the last caller's, else the daemon's. */
static struct settings *settings_for(struct index *index, const struct lock_dist *dist)
{
	struct err err;

	for (size_t n = 1; n <= LIMIT_LOCK_DISTS; n++) { /* the newest first */
		const struct index_source *from =
			&index->sources[(index->next_source - n) % LIMIT_LOCK_DISTS];

		if (!from->settings)
			break;
		if (strcmp(from->sha256, dist->sha256) == 0)
			return from->settings;
	}
	if (!index->settings_last && index->settings)
		index->settings_last = settings_ref(index->settings);
	if (!index->settings_last) /* a lock from before a restart */
		must(settings_parse("{}", NULL, &index->settings_last, &err) == 0);
	return index->settings_last;
}

void index_fetch(struct index *index, const struct lock_dist *dist, index_progress_fn progress,
		 index_wheel_fn done, void *arg)
{
	struct wheel_want want = { dist->sdist ? "" : dist->url, dist->filename, dist->sha256,
				   dist->size_bytes, settings_for(index, dist) };
	struct fetching *f = mem_new(struct fetching);

	*f = (struct fetching){ progress, done, arg };
	wheel_get(index, &want, on_progress, on_wheel, f);
}
