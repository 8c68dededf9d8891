/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/progress.h"
#include "index/digest.h"
#include "index/name.h"
#include "index/private.h"
#include "index/sdist.h"
#include "wire/messages.h"
#include "wire/wire.h"

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
	struct offered offered;
	char *noted; /* the last note: the same is not said twice in a row */
	unsigned needs, pages_open, sdists;
	const struct sdist *build; /* these are its requirements; NULL: a user's */
};

static struct resolve *ref(struct resolve *r)
{
	r->refs++;
	return r;
}

static void unref(struct resolve *r)
{
	if (--r->refs)
		return;
	offered_done(&r->offered);
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
	if (!r->index->closing)
		trim_if_due(r->index);
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
			offered_page(&r->offered, n->name, filtered);
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
	struct page_want want = { .name = name,
				  .tags = r->tags,
				  .all = all,
				  .sdists = r->asked.allow_sdist,
				  .settings = r->settings };

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
	char *url, *filename;
	bool compute; /* no sha256 was known */
};

static void free_meta(struct meta_need *n)
{
	unref(n->r);
	free(n->url);
	free(n->filename);
	free(n);
}

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

		if (n->compute)
			offered_sum(&r->offered, n->url, n->filename, sha256);
		wire_init(&m, WIRE_GIVE, n->id);
		wire_put(&m, WIRE_T_BODY, headers->data ? headers->data : "", headers->len);
		wire_put_str(&m, WIRE_T_TEXT, sha256);
		send_frame(r, &m);
	}
	free_meta(n);
}

static void on_meta_progress(void *arg, const char *line)
{
	struct meta_need *n = arg;

	if (!n->r->over && n->r->progress)
		n->r->progress(n->r->arg, line);
}

/* What a build could not do is not the end: it may have been a guess. */
static void on_sdist(void *arg, const struct sdist_built *built, const struct err *err)
{
	struct meta_need *n = arg;
	struct resolve *r = n->r;

	if (!r->over && err) {
		give_err(r, n->id, err->kind, err->text);
	} else if (!r->over) {
		const struct buf *headers = built->headers;
		auto_msg struct wire_msg m;

		if (n->compute)
			offered_sum(&r->offered, n->url, n->filename, built->sha256);
		wire_init(&m, WIRE_GIVE, n->id);
		wire_put(&m, WIRE_T_BODY, headers->data ? headers->data : "", headers->len);
		wire_put_str(&m, WIRE_T_TEXT, built->sha256);
		if (built->filename) {
			offered_sum(&r->offered, n->url, built->filename, built->wheel_sha256);
			wire_put_str(&m, WIRE_T_NAME, built->filename);
			wire_put_str(&m, WIRE_T_INFO, built->wheel_sha256);
		}
		send_frame(r, &m);
	}
	free_meta(n);
}

static void need_sdist(struct meta_need *n, const char *name, const struct digest_line *line,
		       const char *asked, bool build)
{
	const char *sums = strstr(asked, "#sha256=");
	struct resolve *r = n->r;
	struct sdist_want want = {
		.sdist = { line->url, line->filename, line->sha256, line->size, r->settings },
		.name = name,
		.sums = sums ? sums + strlen("#sha256=") : NULL,
		.build = build,
		.asked = &r->asked,
		.parent = r->build,
		.progress = on_meta_progress,
	};

	sdist_get(r->index, &want, on_sdist, n);
}

static void need_wheel(struct meta_need *n, const char *name, const struct digest_line *line,
		       bool given)
{
	struct resolve *r = n->r;
	struct meta_want want = {
		.wheel = { line->url, line->filename, line->sha256, line->size, r->settings },
		.core = line->core,
		.whole = !given,
		.progress = on_meta_progress,
		.early = r->wheels && offered_is_likely(&r->offered, name),
	};

	meta_get(r->index, &want, on_meta, n);
}

/* The metadata of a wheel or sdist; build: the wheel that is made of the sdist, too. */
static void need_metadata(struct resolve *r, uint32_t id, const char *name, const char *asked,
			  bool build)
{
	auto_free char *url = mem_strndup(asked, strcspn(asked, "#"));
	struct digest_line line;
	bool given = offered_given(&r->offered, name, url, &line), sdist;
	struct meta_need *n;

	if (!given && !offered_written(&r->offered, url, &line)) {
		broken(r, "it asked for an URL that no index offered");
		return;
	}
	sdist = name_is_sdist(line.filename);
	if ((sdist && !r->asked.allow_sdist) || (build && !sdist)) {
		broken(r, "it asked for a build that is not allowed");
		digest_line_done(&line);
		return;
	}
	if (sdist && ++r->sdists > LIMIT_RESOLVE_SDISTS) {
		give_err(r, id, ERR_LIMIT, "too many sdists were tried; pin some of the versions");
		digest_line_done(&line);
		return;
	}
	n = mem_new(struct meta_need);
	*n = (struct meta_need){ .r = ref(r),
				 .id = id,
				 .url = mem_strdup(url),
				 .filename = mem_strdup(line.filename),
				 .compute = !line.sha256[0] };
	if (sdist)
		need_sdist(n, name, &line, asked, build);
	else
		need_wheel(n, name, &line, given);
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

/* --index-url and the like of a requirements file */
static void need_index(struct resolve *r, const struct wire_msg *m)
{
	auto_free char *url = wire_get_str(m, WIRE_T_URL);
	auto_free char *mode = wire_get_str(m, WIRE_T_MODE);
	struct settings *own;
	struct err err;
	int rc = 0;

	if (!url || !mode || r->pages_open ||
	    (strcmp(mode, "none") != 0 && !offered_place(&r->offered, url))) {
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
static void need_many(struct resolve *r, const struct wire_msg *m, const char *kind)
{
	bool pages = strcmp(kind, "page") == 0, build = strcmp(kind, "build") == 0;
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
			need_metadata(r, id++, name, url, build);
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
	} else if (strcmp(kind, "page") == 0 || strcmp(kind, "metadata") == 0 ||
		   strcmp(kind, "build") == 0) {
		need_many(r, m, kind);
	} else if (name && is_name(name) && strcmp(kind, "page-all") == 0) {
		r->pages_open++;
		need_page(r, m->id, name, true);
	} else {
		broken(r, "a NEED of an unknown kind");
	}
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
		if (!offered_dist(&r->offered, &lock->dists[i])) {
			lock_free(lock);
			broken(r, "a wheel that no index offered");
			return;
		}
	lock_set_rules(lock, (const char *const *)r->asked.accept, r->asked.strict);
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

static uint64_t patience_ms(const struct resolve *r)
{
	return r->asked.allow_sdist ? LIMIT_RESOLVE_BUILD_MS : LIMIT_RESOLVE_MS;
}

static void on_deadline(uv_timer_t *t)
{
	struct err err;

	err_set(&err, ERR_TIMEOUT, "resolving took more than %llu s; pin some of the versions",
		(unsigned long long)patience_ms(t->data) / 1000);
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

	if (q->build) {
		r->settings = settings_ref(sdist_settings(q->build));
		return asked_build(&r->asked, q, err);
	}
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
	r->build = request->build;
	r->asked.allow_sdist = index->builds.always;
	r->offered.asked = &r->asked;
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
	uv_timer_start(r->deadline, on_deadline, patience_ms(r), 0);
	index->resolver.start(index->resolver.ctx, patience_ms(r), on_resolver, ref(r));
}

void resolves_close(struct index *index)
{
	struct err err;

	err_set(&err, ERR_SYSTEM, "shutting down");
	while (index->resolves)
		finish(index->resolves, NULL, &err);
}
