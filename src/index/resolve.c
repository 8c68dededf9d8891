/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/progress.h"
#include "index/digest.h"
#include "index/private.h"
#include "wire/messages.h"
#include "wire/wire.h"

/* A page that the resolver was given: only URLs from here (or from the request) may it name. */
struct given {
	struct given *next;
	char *name;
	bool expected; /* one of its wheels */
	struct buf filtered;
};

/* A sha256 that was computed because no index had said it. */
struct known {
	struct known *next;
	char *url;
	char sha256[SHA_HEX];
};

struct resolve {
	struct index *index;
	struct resolve *next;
	int refs;
	bool wheels; /* they will be wanted */
	bool over;   /* done() was called; what still arrives is dropped */
	index_progress_fn progress;
	index_lock_fn done;
	void *arg;
	struct settings *settings;
	struct tags *tags;
	struct asked asked;
	uv_pipe_t *pipe;
	uv_timer_t *deadline;
	struct buf in;
	struct given *given;
	struct known *known;
	char *noted; /* the last note: the same is not said twice in a row */
	unsigned needs, pages_open;
};

static struct resolve *ref(struct resolve *r)
{
	r->refs++;
	return r;
}

static void unref(struct resolve *r)
{
	struct given *g;
	struct known *k;

	if (--r->refs)
		return;
	while ((g = r->given)) {
		r->given = g->next;
		free(g->name);
		buf_done(&g->filtered);
		free(g);
	}
	while ((k = r->known)) {
		r->known = k->next;
		free(k->url);
		free(k);
	}
	settings_unref(r->settings);
	tags_free(r->tags);
	asked_done(&r->asked);
	free(r->noted);
	buf_done(&r->in);
	index_unref(r->index);
	free(r);
}

static void free_handle(uv_handle_t *h)
{
	free(h);
}

/* The one way a resolution ends. Takes lock. */
static void finish(struct resolve *r, struct lock *lock, const struct err *err)
{
	if (r->over) {
		lock_free(lock);
		return;
	}
	r->over = true;
	if (err && !r->index->closing)
		cache_distrust(r->index);
	for (struct resolve **p = &r->index->resolves; *p; p = &(*p)->next)
		if (*p == r) {
			*p = r->next;
			break;
		}
	if (r->pipe)
		uv_close((uv_handle_t *)steal(r->pipe), free_handle);
	if (r->deadline)
		uv_close((uv_handle_t *)steal(r->deadline), free_handle);
	r->done(r->arg, lock, err);
	unref(r);
}

static void fail(struct resolve *r, const struct err *err)
{
	struct err copy = *err;

	finish(r, NULL, &copy);
}

static void broken(struct resolve *r, const char *what)
{
	struct err err;

	err_set(&err, ERR_CORRUPT, "the resolver broke its protocol: %s", what);
	finish(r, NULL, &err);
}

struct sending {
	uv_write_t req;
	struct buf data;
	struct resolve *r;
};

static void on_sent(uv_write_t *req, int status)
{
	struct sending *s = req->data;

	if (status < 0 && status != UV_ECANCELED) {
		struct err err;

		err_set(&err, ERR_DIED, "the resolver is gone: %s", uv_strerror(status));
		finish(s->r, NULL, &err);
	}
	buf_done(&s->data);
	unref(s->r);
	free(s);
}

static void send_frame(struct resolve *r, const struct wire_msg *m)
{
	struct sending *s;
	struct err err;
	uv_buf_t part;

	if (r->over)
		return;
	s = mem_new(struct sending);
	s->data.max = LIMIT_FRAME_BYTES + KIB;
	s->r = ref(r);
	s->req.data = s;
	must(wire_frame_put(&s->data, m, &err) == 0);
	part = uv_buf_init(s->data.data, (unsigned)s->data.len);
	if (uv_write(&s->req, (uv_stream_t *)r->pipe, &part, 1, on_sent) < 0)
		on_sent(&s->req, UV_EPIPE);
}

static void give_err(struct resolve *r, uint32_t id, enum err_kind kind, const char *text)
{
	auto_msg struct wire_msg m;

	wire_init(&m, WIRE_GIVE, id);
	wire_put_str(&m, WIRE_T_ERR_KIND, err_kind_name(kind));
	wire_put_str(&m, WIRE_T_ERR_TEXT, text);
	send_frame(r, &m);
}

/* --- pages ------------------------------------------------------------------------------- */

/* One NEED of a page. */
struct page_need {
	struct resolve *r;
	uint32_t id;
	char *name;
	bool all;
};

static void keep_given(struct resolve *r, const char *name, struct buf *filtered)
{
	struct given *g = mem_new(struct given);

	g->name = mem_strdup(name);
	g->filtered = *filtered;
	memset(filtered, 0, sizeof(*filtered));
	g->next = r->given;
	r->given = g;
}

static void say_note(struct resolve *r, const char *note)
{
	if (r->over || !r->progress || (r->noted && strcmp(r->noted, note) == 0))
		return;
	free(r->noted);
	r->noted = mem_strdup(note);
	r->progress(r->arg, note);
}

static void on_page_note(void *arg, const char *note)
{
	struct page_need *n = arg;

	say_note(n->r, note);
}

static void on_page(void *arg, struct buf *filtered, const char *note, const struct err *err)
{
	struct page_need *n = arg;
	struct resolve *r = n->r;

	if (err) {
		fail(r, err);
	} else if (!r->over && !filtered) {
		give_err(r, n->id, ERR_NOT_FOUND, "not on the index");
	} else if (!r->over) {
		auto_msg struct wire_msg m;

		wire_init(&m, WIRE_GIVE, n->id);
		wire_put(&m, WIRE_T_BODY, filtered->data, filtered->len);
		send_frame(r, &m);
		if (!r->over && !n->all)
			keep_given(r, n->name, filtered);
	}
	free(n->name);
	free(n);
	unref(r);
}

static void say_resolving(struct resolve *r, const char *name)
{
	struct progress p = { .what = "resolve", .name = name };
	char line[PROGRESS_LINE];

	if (r->over || !r->progress)
		return;
	progress_print(&p, line);
	r->progress(r->arg, line);
}

static void need_page(struct resolve *r, uint32_t id, const char *name, bool all)
{
	struct page_need *n = mem_new(struct page_need);
	struct page_want want = {
		.name = name, .tags = r->tags, .all = all, .settings = r->settings
	};

	n->r = ref(r);
	n->id = id;
	n->name = mem_strdup(name);
	n->all = all;
	say_resolving(r, name);
	sources_get(r->index, &want, on_page_note, on_page, n);
}

/* --- metadata ---------------------------------------------------------------------------- */

struct meta_need {
	struct resolve *r;
	uint32_t id;
	char *url;
	bool compute; /* no sha256 was known */
};

static void on_meta(void *arg, const struct buf *headers, const char *sha256, const struct err *err)
{
	struct meta_need *n = arg;
	struct resolve *r = n->r;

	if (!r->over && err && err->kind != ERR_CORRUPT && err->kind != ERR_NOT_FOUND) {
		fail(r, err);
	} else if (!r->over && err) {
		give_err(r, n->id, err->kind, err->text);
	} else if (!r->over) {
		auto_msg struct wire_msg m;

		if (n->compute) {
			struct known *k = mem_new(struct known);

			k->url = mem_strdup(n->url);
			memcpy(k->sha256, sha256, SHA_HEX);
			k->next = r->known;
			r->known = k;
		}
		wire_init(&m, WIRE_GIVE, n->id);
		wire_put(&m, WIRE_T_BODY, headers->data ? headers->data : "", headers->len);
		wire_put_str(&m, WIRE_T_TEXT, sha256);
		send_frame(r, &m);
	}
	free(n->url);
	free(n);
	unref(r);
}

static void on_meta_progress(void *arg, const char *line)
{
	struct meta_need *n = arg;

	if (!n->r->over && n->r->progress)
		n->r->progress(n->r->arg, line);
}

/* The wheel's line on a page that was given in this request. */
static bool find_given(struct resolve *r, const char *name, const char *url,
		       struct digest_line *out)
{
	for (struct given *g = r->given; g; g = g->next)
		if (strcmp(g->name, name) == 0 && digest_find(&g->filtered, url, out))
			return true;
	return false;
}

/* Where the whole URL, no part of a longer one, stands in the caller's text; NULL: nowhere. */
static const char *find_whole(const char *text, const char *url)
{
	size_t len = strlen(url);

	for (const char *hit = len ? strstr(text, url) : NULL; hit; hit = strstr(hit + 1, url))
		if (!hit[len] || strchr(" \t\r\n\"'#;,", hit[len]))
			return hit;
	return NULL;
}

static char *filename_in(const char *url)
{
	size_t len = strcspn(url, "?#"), from = len;
	char *name;

	while (from && url[from - 1] != '/')
		from--;
	name = mem_strndup(url + from, len - from);
	for (char *p = strstr(name, "%2B"); p; p = strstr(p, "%2B")) {
		*p = '+';
		memmove(p + 1, p + 3, strlen(p + 3) + 1);
	}
	return name;
}

/* A wheel that came along with the request. */
static bool find_local(struct resolve *r, const char *url, struct digest_line *out)
{
	for (size_t i = 0; strncmp(url, "file://", 7) == 0 && i < r->asked.nlocals; i++)
		if (strcmp(r->asked.locals[i].path, url + 7) == 0) {
			memset(out, 0, sizeof(*out));
			out->filename = mem_strdup(strrchr(url, '/') + 1);
			out->url = mem_strdup(url);
			out->core = mem_strdup("");
			out->sha256 = mem_strdup(r->asked.locals[i].sha256);
			out->size = r->asked.locals[i].size_bytes;
			return true;
		}
	return false;
}

/* An URL that the caller wrote: its file name and, if given there, its sha256. */
static bool find_written(struct resolve *r, const char *url, struct digest_line *out)
{
	const char *hit;

	if (find_local(r, url, out))
		return true;
	if ((strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0) ||
	    !(hit = find_whole(r->asked.text, url)))
		return false;
	memset(out, 0, sizeof(*out));
	out->filename = filename_in(url);
	out->url = mem_strdup(url);
	out->core = mem_strdup("");
	hit += strlen(url);
	out->sha256 = mem_strdup("");
	if (strncmp(hit, "#sha256=", 8) == 0 && strlen(hit) >= 72) {
		char *sum = mem_strndup(hit + 8, 64);

		if (sha_is_hex(sum)) {
			free(out->sha256);
			out->sha256 = sum;
		} else {
			free(sum);
		}
	}
	return true;
}

/* The first candidate of a name that the resolver looks into is nearly always the one. */
static bool is_likely(struct resolve *r, const char *name)
{
	for (struct given *g = r->given; g && r->wheels; g = g->next)
		if (strcmp(g->name, name) == 0) {
			bool first = !g->expected;

			g->expected = true;
			return first;
		}
	return false;
}

static void need_metadata(struct resolve *r, uint32_t id, const char *name, const char *url)
{
	struct digest_line line;
	bool given = find_given(r, name, url, &line);
	struct meta_need *n;
	struct meta_want want;

	if (!given && !find_written(r, url, &line)) {
		broken(r, "it asked for an URL that no index offered");
		return;
	}
	n = mem_new(struct meta_need);
	n->r = ref(r);
	n->id = id;
	n->url = mem_strdup(url);
	n->compute = !line.sha256[0];
	want = (struct meta_want){
		.wheel = { line.url, line.filename, line.sha256, line.size, r->settings },
		.core = line.core,
		.whole = !given,
		.progress = on_meta_progress,
		.early = is_likely(r, name),
	};
	meta_get(r->index, &want, on_meta, n);
	digest_line_done(&line);
}

/* --- what the resolver says -------------------------------------------------------------- */

static void need_tags(struct resolve *r, const struct wire_msg *m)
{
	struct wire_field list;
	const char *tag;
	size_t pos = 0;

	if (tags_count(r->tags) || r->pages_open || !wire_get(m, WIRE_T_TEXT, &list)) {
		broken(r, "tags at the wrong time");
		return;
	}
	while ((tag = wire_list_next(&list, &pos)))
		tags_add(r->tags, tag);
}

/* A directory for --find-links: written so, or below where the caller is. */
static bool may_name(struct resolve *r, const char *place)
{
	size_t len = r->asked.root ? strlen(r->asked.root) : 0;

	if (find_whole(r->asked.text, place))
		return true;
	return len && strncmp(place, r->asked.root, len) == 0 && place[len] == '/' &&
	       !strstr(place, "/../") && place[0] == '/';
}

/* --index-url and the like of a requirements file */
static void need_index(struct resolve *r, const struct wire_msg *m)
{
	auto_free char *url = wire_get_str(m, WIRE_T_URL);
	auto_free char *mode = wire_get_str(m, WIRE_T_MODE);
	struct settings *own;
	struct err err;
	int rc = 0;

	if (!url || !mode || r->pages_open || (strcmp(mode, "none") != 0 && !may_name(r, url))) {
		broken(r, "an index that the request does not name");
		return;
	}
	own = settings_copy(r->settings);
	if (strcmp(mode, "none") == 0)
		settings_drop_indexes(own);
	else if (strcmp(mode, "links") == 0)
		rc = settings_add_link(own, url, &err);
	else
		rc = settings_add_index(own, url, strcmp(mode, "first") == 0, &err);
	if (rc < 0)
		fail(r, &err);
	settings_unref(r->settings);
	r->settings = own;
}

static bool is_name(const char *name)
{
	return *name && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(name);
}

/* Many questions in one message, answered under ids that count on from its own. */
static void need_many(struct resolve *r, const struct wire_msg *m, bool pages)
{
	struct wire_field list;
	const char *name, *url;
	uint32_t id = m->id;
	size_t pos = 0;

	if (!wire_get(m, WIRE_T_TEXT, &list)) {
		broken(r, "a NEED without TEXT");
		return;
	}
	while (!r->over && (name = wire_list_next(&list, &pos))) {
		url = pages ? NULL : wire_list_next(&list, &pos);
		r->needs++;
		if (!is_name(name) || (!pages && !url)) {
			broken(r, "a name that is not normalized, or no URL");
		} else if (pages) {
			r->pages_open++;
			need_page(r, id++, name, false);
		} else {
			need_metadata(r, id++, name, url);
		}
	}
	if (!r->over && (!list.len || pos != list.len))
		broken(r, "a list that is none");
}

static void on_need(struct resolve *r, const struct wire_msg *m)
{
	auto_free char *kind = wire_get_str(m, WIRE_T_KIND);
	auto_free char *name = wire_get_str(m, WIRE_T_NAME);

	if (++r->needs > LIMIT_RESOLVE_ROUNDS) {
		struct err err;

		err_set(&err, ERR_LIMIT,
			"resolving asked the index more than %d times; pin some of the versions",
			LIMIT_RESOLVE_ROUNDS);
		fail(r, &err);
	} else if (!kind) {
		broken(r, "a NEED without KIND");
	} else if (strcmp(kind, "tags") == 0) {
		need_tags(r, m);
	} else if (strcmp(kind, "index") == 0) {
		need_index(r, m);
	} else if (strcmp(kind, "page") == 0) {
		need_many(r, m, true);
	} else if (strcmp(kind, "metadata") == 0) {
		need_many(r, m, false);
	} else if (name && is_name(name) && strcmp(kind, "page-all") == 0) {
		r->pages_open++;
		need_page(r, m->id, name, true);
	} else {
		broken(r, "a NEED of an unknown kind");
	}
}

/* Is this dist what an index offered, or what the caller wrote down? */
static bool is_offered(struct resolve *r, const struct lock_dist *d)
{
	struct digest_line line;
	bool ok = false, written = false;

	if (find_given(r, d->name, d->url, &line))
		ok = strcmp(line.filename, d->filename) == 0;
	else if (find_written(r, d->url, &line))
		ok = written = true;
	else
		return false;
	if (line.sha256[0])
		ok = ok && strcmp(line.sha256, d->sha256) == 0;
	else if (!written || !strcasestr(r->asked.text, d->sha256)) {
		bool found = false;

		for (struct known *k = r->known; k; k = k->next)
			found = found ||
				(strcmp(k->url, d->url) == 0 && strcmp(k->sha256, d->sha256) == 0);
		ok = ok && found;
	}
	digest_line_done(&line);
	return ok;
}

static void say_resolved(struct resolve *r, const struct lock *lock)
{
	struct progress p = { .what = "resolved", .total = lock->ndists };
	char line[PROGRESS_LINE];

	if (r->over || !r->progress)
		return;
	progress_print(&p, line);
	r->progress(r->arg, line);
}

static void on_result(struct resolve *r, const struct wire_msg *m)
{
	struct wire_field body;
	struct lock *lock = NULL;
	struct err err;

	if (wire_get_err(m, &err) < 0) {
		fail(r, &err);
		return;
	}
	if (!wire_get(m, WIRE_T_BODY, &body) || lock_parse(body.data, body.len, &lock, &err) < 0) {
		broken(r, "its lock is not one");
		return;
	}
	if (r->asked.python_tag && strcmp(lock->python_tag, r->asked.python_tag) != 0) {
		lock_free(lock);
		broken(r, "a lock for another interpreter");
		return;
	}
	for (size_t i = 0; i < lock->ndists; i++)
		if (!is_offered(r, &lock->dists[i])) {
			lock_free(lock);
			broken(r, "a wheel that no index offered");
			return;
		}
	index_remember(r->index, lock, r->settings);
	say_resolved(r, lock);
	finish(r, lock, NULL);
}

static void on_message(struct resolve *r, const struct wire_msg *m)
{
	struct err err;

	if (!wire_may(WIRE_FROM_RESOLVER, m->type)) {
		broken(r, wire_type_name(m->type));
	} else if (m->type == WIRE_NEED) {
		on_need(r, m);
	} else if (m->type == WIRE_RESULT) {
		on_result(r, m);
	} else {
		if (wire_get_err(m, &err) == 0)
			err_set(&err, ERR_DIED, "the resolver failed");
		fail(r, &err);
	}
}

static void on_alloc(uv_handle_t *h, size_t hint, uv_buf_t *out)
{
	struct resolve *r = h->data;
	struct err err;
	char *to = buf_room(&r->in, 64 * KIB, &err);

	*out = uv_buf_init(to, to ? (unsigned)(64 * KIB) : 0);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *room)
{
	struct resolve *r = ref(s->data);
	struct err err;
	int rc = 0;

	if (n > 0)
		buf_grew(&r->in, (size_t)n);
	while (n > 0 && !r->over) {
		auto_msg struct wire_msg m;

		wire_init(&m, 0, 0);
		rc = wire_frame_get(&r->in, &m, &err);
		if (rc <= 0)
			break;
		on_message(r, &m);
	}
	if (rc < 0)
		broken(r, err.text);
	if (n < 0) {
		err_set(&err, ERR_DIED, "the resolver ended without an answer; see the log");
		finish(r, NULL, &err);
	}
	unref(r);
}

static void on_deadline(uv_timer_t *t)
{
	struct err err;

	err_set(&err, ERR_TIMEOUT, "resolving took more than %d s; pin some of the versions",
		LIMIT_RESOLVE_MS / 1000);
	finish(t->data, NULL, &err);
}

static void on_resolver(void *arg, int stream, const struct err *err)
{
	struct resolve *r = arg;
	auto_msg struct wire_msg m;
	int fd = stream;

	wire_init(&m, WIRE_GIVE, 0);
	if (r->over) {
		if (fd >= 0)
			close(fd);
	} else if (fd < 0) {
		struct err copy = *err;

		err_wrap(&copy, "starting the resolver");
		finish(r, NULL, &copy);
	} else {
		r->pipe = mem_new(uv_pipe_t);
		uv_pipe_init(r->index->loop, r->pipe, 0);
		r->pipe->data = r;
		must(uv_pipe_open(r->pipe, fd) == 0);
		wire_put_str(&m, WIRE_T_BODY, r->asked.request);
		send_frame(r, &m);
		if (!r->over)
			uv_read_start((uv_stream_t *)r->pipe, on_alloc, on_read);
	}
	unref(r);
}

/* --- the request ------------------------------------------------------------------------- */

static int prepare(struct resolve *r, const struct index_request *q, struct err *err)
{
	struct index *index = r->index;
	struct clean clean;
	int rc;

	if (!q->pip_settings && !index->settings)
		return err_set(err, ERR_USAGE,
			       "no package index is known: the request carries no pip settings");
	if (q->pip_settings) {
		if (settings_parse(q->pip_settings, q->index_url, &r->settings, err) < 0)
			return -1;
	} else {
		r->settings = settings_copy(index->settings);
		if (q->index_url && settings_add_index(r->settings, q->index_url, true, err) < 0)
			return -1;
	}
	r->settings->offline = r->settings->offline || q->offline;
	r->settings->refresh = q->refresh;
	clean_request(&clean, r->settings, q);
	rc = asked_build(&r->asked, &clean.q, err);
	clean_done(&clean);
	return rc;
}

static void on_refused(uv_timer_t *t)
{
	struct resolve *r = t->data;
	struct err err;

	/* prepare() failed: its error was kept in `in` */
	err = *(struct err *)(void *)r->in.data;
	finish(r, NULL, &err);
}

void index_resolve(struct index *index, const struct index_request *request,
		   index_progress_fn progress, index_lock_fn done, void *arg)
{
	struct resolve *r = mem_new(struct resolve);
	struct err err, ignored;

	r->refs = 1;
	r->index = index_ref(index);
	r->progress = progress;
	r->wheels = request->wheels;
	r->done = done;
	r->arg = arg;
	r->tags = tags_new();
	r->in.max = LIMIT_FRAME_BYTES + 128 * KIB;
	r->next = index->resolves;
	index->resolves = r;
	r->deadline = mem_new(uv_timer_t);
	uv_timer_init(index->loop, r->deadline);
	r->deadline->data = r;
	if (index->closing)
		err_set(&err, ERR_SYSTEM, "shutting down");
	if (index->closing || prepare(r, request, &err) < 0) {
		must(buf_put(&r->in, &err, sizeof(err), &ignored) == 0);
		uv_timer_start(r->deadline, on_refused, 0, 0);
		return;
	}
	settings_unref(index->settings_last);
	index->settings_last = settings_ref(r->settings);
	uv_timer_start(r->deadline, on_deadline, LIMIT_RESOLVE_MS, 0);
	index->resolver.start(index->resolver.ctx, on_resolver, ref(r));
}

void resolves_close(struct index *index)
{
	struct err err;

	err_set(&err, ERR_SYSTEM, "shutting down");
	while (index->resolves)
		finish(index->resolves, NULL, &err);
}
