/* SPDX-License-Identifier: Apache-2.0
 *
 * The cache as a person sees it: what is there, what goes, is it whole. All of it runs on the
 * thread pool; the loop only gives up what it holds without need.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/limits.h"
#include "base/log.h"
#include "store/prune.h"
#include "store/store_priv.h"

#define DEFAULT_SHARE 5 /* of the file system: a fifth */

struct cache_work {
	struct store *s;
	bool list; /* else prune */
	struct prune prune;
	char *text;
	uv_work_t work;
	struct err err;
	store_text_fn done; /* NULL: nobody asked */
	void *arg;
};

uint64_t cache_default_budget(const char *dir)
{
	struct statvfs fs;

	return statvfs(dir, &fs) == 0 ? (uint64_t)fs.f_blocks * fs.f_frsize / DEFAULT_SHARE
				      : UINT64_MAX;
}

/* "numpy-2.4.6.dist-info" of an entry. */
static void add_dist(const struct store *s, const struct object *o, json_t *to)
{
	auto_free char *path = mem_printf("%s/wheels/%.64s/dist-info", s->dir, o->name);
	auto_buf struct buf text = BUF_MAX(LIMIT_WHEEL_PATH_BYTES);
	char *end;

	if (o->kind == OBJECT_ENV || buf_read_file(&text, AT_FDCWD, path, &(struct err){ 0 }) < 0 ||
	    !text.data)
		return;
	end = strstr(text.data, ".dist-info");
	if (end)
		*end = '\0';
	json_object_set_new(to, "dist", json_string(text.data));
}

static int list(struct cache_work *w, struct err *err)
{
	json_t *objects = json_array(), *sums = json_object(), *o;
	uint64_t kinds[OBJECT_KINDS] = { 0 };
	struct objects all;

	if (objects_load(w->prune.dir, w->prune.downloads, &all, err) < 0) {
		json_decref(objects);
		json_decref(sums);
		return -1;
	}
	objects_judge(&all);
	for (size_t i = 0; i < all.n; i++) {
		const struct object *one = &all.v[i];

		kinds[one->kind] += one->bytes;
		o = json_pack("{s:s, s:s, s:I, s:I, s:f}", "kind", object_kind_name(one->kind),
			      "name", one->name, "bytes", (json_int_t)one->bytes, "cost_ms",
			      (json_int_t)one->cost_ms, "used", one->used_s);
		must(o);
		add_dist(w->s, one, o);
		json_array_append_new(objects, o);
	}
	for (int kind = 0; kind < OBJECT_KINDS; kind++)
		json_object_set_new(sums, object_kind_name(kind),
				    json_integer((json_int_t)kinds[kind]));
	o = json_pack("{s:s, s:I, s:I, s:o, s:o}", "dir", w->s->dir, "bytes", (json_int_t)all.bytes,
		      "budget_bytes", (json_int_t)w->s->budget, "kinds", sums, "objects", objects);
	objects_free(&all);
	must(o);
	w->text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	return 0;
}

static int prune(struct cache_work *w, struct err *err)
{
	struct prune *p = &w->prune;
	json_t *o;

	if (prune_run(p, err) < 0)
		return -1;
	o = json_pack("{s:I, s:I, s:i, s:{s:i, s:i, s:i, s:i}}", "freed_bytes",
		      (json_int_t)p->freed_bytes, "left_bytes", (json_int_t)p->left_bytes, "in_use",
		      (int)p->in_use, "removed", "downloads", (int)p->removed[OBJECT_DOWNLOAD],
		      "wheels", (int)p->removed[OBJECT_WHEEL], "bytecode",
		      (int)p->removed[OBJECT_CODE], "envs", (int)p->removed[OBJECT_ENV]);
	must(o);
	w->text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	if (p->freed_bytes)
		log_info("store", "pruned %llu MiB, %llu MiB are left",
			 (unsigned long long)(p->freed_bytes / MIB),
			 (unsigned long long)(p->left_bytes / MIB));
	return 0;
}

static void on_thread(uv_work_t *work)
{
	struct cache_work *w = work->data;

	if ((w->list ? list(w, &w->err) : prune(w, &w->err)) == 0)
		w->err.kind = ERR_NONE;
}

static void on_done(uv_work_t *work, int status)
{
	struct cache_work *w = work->data;
	struct store *s = w->s;

	if (w->done)
		w->done(w->arg, w->err.kind ? NULL : w->text, w->err.kind ? &w->err : NULL);
	else if (w->err.kind)
		log_warn("store", "pruning: %s", w->err.text);
	free(w->text);
	free((char *)w->prune.trash);
	free(w);
	cache_ended(s);
}

static struct cache_work *new_work(struct store *s, store_text_fn done, void *arg)
{
	struct cache_work *w = mem_new(struct cache_work);

	w->s = s;
	w->done = done;
	w->arg = arg;
	w->prune.dir = s->dir;
	w->prune.downloads = s->downloads;
	w->prune.trash = store_tmp_name(s);
	w->prune.to_bytes = UINT64_MAX;
	w->work.data = w;
	return w;
}

static void start(struct cache_work *w)
{
	w->s->caching++;
	must(uv_queue_work(w->s->loop, &w->work, on_thread, on_done) == 0);
}

void store_list(struct store *s, store_text_fn done, void *arg)
{
	struct cache_work *w = new_work(s, done, arg);

	w->list = true;
	start(w);
}

void store_prune(struct store *s, const struct store_prune *ask, store_text_fn done, void *arg)
{
	struct cache_work *w = new_work(s, done, arg);

	w->prune.to_bytes = ask->to_bytes;
	w->prune.older_s = ask->older_s;
	env_let_go(s);
	start(w);
}

void cache_keep_budget(struct store *s)
{
	struct cache_work *w;

	if (s->budget == UINT64_MAX || s->closing)
		return;
	s->keep_budget = s->caching > 0;
	if (s->keep_budget)
		return; /* cache_ended() comes back */
	w = new_work(s, NULL, NULL);
	w->prune.budget = s->budget;
	env_let_go(s);
	start(w);
}

void cache_ended(struct store *s)
{
	s->caching--;
	if (s->closing)
		store_release(s);
	else if (!s->caching && s->keep_budget)
		cache_keep_budget(s);
}
