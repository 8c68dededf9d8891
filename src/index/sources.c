/* SPDX-License-Identifier: Apache-2.0
 *
 * One name asked of every source that the settings name. The indexes in `first` are taken in order:
 * the first that knows the name has all of it, so nobody can slip in a newer version elsewhere.
 * All other indexes and find-links are merged, as pip has it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "index/private.h"

struct answer {
	struct sources *all;
	bool known;
	struct buf files;
};

struct sources {
	struct index *index;
	struct page_want want;
	char *name;
	size_t n, nfirst, pending;
	struct answer *answers; /* those of `first` in front, the rest in the order of settings */
	page_note_fn note;
	page_fn done;
	void *arg;
	struct err err; /* the first */
};

static void sources_free(struct sources *s)
{
	for (size_t i = 0; i < s->n; i++)
		buf_done(&s->answers[i].files);
	free(s->answers);
	free(s->name);
	settings_unref(s->want.settings);
	index_unref(s->index);
	free(s);
}

/* The range of answers that counts; an empty one: nobody knows the name. */
static void choose(const struct sources *s, size_t *from, size_t *to)
{
	for (*from = 0; *from < s->nfirst; (*from)++)
		if (s->answers[*from].known) {
			*to = *from + 1;
			return;
		}
	*to = s->n;
}

static void ended(struct sources *s)
{
	auto_buf struct buf merged = BUF_MAX(LIMIT_FRAME_BYTES - 64 * KIB);
	bool known = false;
	size_t from, to;

	choose(s, &from, &to);
	for (size_t i = from; i < to && !s->err.kind; i++) {
		struct answer *a = &s->answers[i];

		known = known || a->known;
		if (a->files.len && buf_put(&merged, a->files.data, a->files.len, &s->err) < 0)
			break;
	}
	s->done(s->arg, known && !s->err.kind ? &merged : NULL, NULL, s->err.kind ? &s->err : NULL);
	sources_free(s);
}

static void on_page(void *arg, struct buf *filtered, const char *note, const struct err *err)
{
	static const char nothing[] = "wheels=0 other=0\n";
	struct answer *a = arg;
	struct sources *s = a->all;

	if (note)
		s->note(s->arg, note);
	if (err && !s->err.kind)
		s->err = *err; /* an index that is down must not change the answer in silence */
	if (filtered) {
		a->known = strncmp(filtered->data, nothing, sizeof(nothing) - 1) != 0;
		a->files = *filtered;
		memset(filtered, 0, sizeof(*filtered));
	}
	if (--s->pending == 0)
		ended(s);
}

static void ask(struct sources *s, char *const *urls, size_t n, bool links)
{
	s->want.links = links;
	for (size_t i = 0; i < n; i++) {
		s->want.source = urls[i];
		page_get(s->index, &s->want, on_page, &s->answers[s->n++]);
	}
}

static void free_handle(uv_handle_t *h)
{
	free(h);
}

static void on_nobody(uv_timer_t *t)
{
	ended(t->data);
	uv_close((uv_handle_t *)t, free_handle);
}

void sources_get(struct index *index, const struct page_want *want, page_note_fn note, page_fn done,
		 void *arg)
{
	const struct settings *set = want->settings;
	size_t all = set->nfirst + set->nindexes + set->nlinks;
	struct sources *s = mem_new(struct sources);

	s->index = index_ref(index);
	s->want = *want;
	s->want.name = s->name = mem_strdup(want->name);
	settings_ref(want->settings);
	s->note = note;
	s->done = done;
	s->arg = arg;
	s->nfirst = set->nfirst;
	s->pending = all;
	s->answers = mem_zero(all + 1, sizeof(*s->answers));
	for (size_t i = 0; i < all; i++)
		s->answers[i].all = s;
	if (!all) {
		uv_timer_t *t = mem_new(uv_timer_t);

		uv_timer_init(index->loop, t);
		t->data = s;
		uv_timer_start(t, on_nobody, 0, 0);
	}
	ask(s, set->first, set->nfirst, false);
	ask(s, set->indexes, set->nindexes, false);
	ask(s, set->links, set->nlinks, true);
}
