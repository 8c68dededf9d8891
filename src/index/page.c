/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"
#include "index/digest.h"
#include "index/name.h"
#include "index/private.h"

#define ACCEPT                                                                             \
	"application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, " \
	"text/html;q=0.01"
/* A cached page: HEAD, for how many seconds it is fresh, tab, its ETag, tab, its Last-Modified,
 * newline, the digest. */
#define HEAD "pipsqueak-page-5 "

/* One page on its way. Steps on the loop and on the thread pool take turns; nothing of this is
 * touched by two threads at once. */
struct page {
	struct index *index;
	uv_work_t work;
	char *source, *name, *url, *path; /* path: in the cache; url NULL: a directory */
	bool links, all, sdists;
	const struct tags *tags;
	struct settings *settings;
	page_fn done;
	void *arg;
	double age_s;		  /* of the cached page; -1: none */
	double fresh_s;		  /* so long it was said to be good */
	char *etag, *modified;	  /* of the cached page; NULL: none */
	struct fetch_reply reply; /* what was fetched, to be parsed */
	struct buf digest, filtered;
	char *note;
	int rc; /* of the step on the thread pool */
	struct err err;
};

static void page_free(struct page *p)
{
	free(p->source);
	free(p->name);
	free(p->url);
	free(p->path);
	free(p->etag);
	free(p->modified);
	free(p->note);
	fetch_reply_done(&p->reply);
	buf_done(&p->digest);
	buf_done(&p->filtered);
	settings_unref(p->settings);
	index_unref(p->index);
	free(p);
}

static void page_end(struct page *p, struct buf *filtered, const struct err *err)
{
	p->done(p->arg, filtered, p->note, err);
	page_free(p);
}

static void run(struct page *p, uv_work_cb work, uv_after_work_cb after)
{
	p->work.data = p;
	must(uv_queue_work(p->index->loop, &p->work, work, after) == 0);
}

static int filter(struct page *p)
{
	struct digest_want want = { p->name, p->tags, p->all, p->sdists };

	p->filtered.max = LIMIT_FRAME_BYTES - 64 * KIB;
	if (!p->note && !p->links)
		p->note = digest_status(&p->digest, p->name);
	if (digest_filter(&p->digest, &want, &p->filtered) == 0)
		return 0;
	return err_set(&p->err, ERR_LIMIT, "the index has too many files of '%s'", p->name);
}

static void on_filtered(uv_work_t *work, int status)
{
	struct page *p = work->data;

	page_end(p, p->rc < 0 ? NULL : &p->filtered, p->rc < 0 ? &p->err : NULL);
}

/* The text up to the next tab or the line's end; NULL when empty. */
static char *head_field(const char **at, const char *end)
{
	size_t n = strcspn(*at, "\t\n");
	char *copy = n ? mem_strndup(*at, n) : NULL;

	*at += n + (*at + n < end);
	return copy;
}

/* On the pool. */
static bool read_cached(struct page *p)
{
	size_t head = strlen(HEAD);
	auto_free char *fresh = NULL;
	const char *end, *at;
	struct err err;

	p->age_s = cache_age_s(p->path);
	p->digest.max = 2 * LIMIT_INDEX_PAGE_BYTES;
	if (p->age_s < 0 || buf_read_file(&p->digest, AT_FDCWD, p->path, &err) < 0 ||
	    p->digest.len <= head || memcmp(p->digest.data, HEAD, head) != 0 ||
	    !(end = memchr(p->digest.data, '\n', p->digest.len))) {
		p->age_s = -1;
		buf_reset(&p->digest);
		return false;
	}
	at = p->digest.data + head;
	fresh = head_field(&at, end);
	p->fresh_s = fresh ? strtod(fresh, NULL) : 0;
	p->etag = head_field(&at, end);
	p->modified = head_field(&at, end);
	buf_consume(&p->digest, (size_t)(end - p->digest.data) + 1);
	return true;
}

static void work_cached(uv_work_t *work)
{
	struct page *p = work->data;

	if (read_cached(p) &&
	    (p->settings->offline || (p->age_s < p->fresh_s && !p->settings->refresh &&
				      !cache_is_distrusted(p->index, p->path))))
		p->rc = filter(p);
}

/* A page that cannot be kept is still an answer. */
static void keep(struct page *p)
{
	auto_buf struct buf file = BUF_MAX(2 * LIMIT_INDEX_PAGE_BYTES + 2 * KIB);
	const struct fetch_reply *r = &p->reply;
	struct err err;

	if (r->no_store) {
		unlink(p->path);
		return;
	}
	if (buf_putf(&file, &err, HEAD "%ld\t%s\t%s\n",
		     r->fresh_s < 0 ? LIMIT_PAGE_FRESH_S : r->fresh_s, r->etag ? r->etag : "",
		     r->modified ? r->modified : "") < 0 ||
	    buf_put(&file, p->digest.data, p->digest.len, &err) < 0 ||
	    cache_put(p->index, p->path, &file, &err) < 0)
		p->note = mem_printf("the page of %s was not kept: %s", p->name, err.text);
}

static void work_parse(uv_work_t *work)
{
	struct page *p = work->data;
	struct digest_page page = { p->reply.url ? p->reply.url : p->url, p->reply.content_type,
				    p->reply.body.data, p->reply.body.len };

	buf_reset(&p->digest);
	p->rc = digest_parse(&page, &p->digest, &p->err);
	if (p->rc < 0)
		return;
	buf_done(&p->reply.body); /* of up to LIMIT_INDEX_PAGE_BYTES; no longer needed */
	keep(p);
	p->rc = filter(p);
}

static void work_unchanged(uv_work_t *work)
{
	struct page *p = work->data;

	if (p->reply.fresh_s < 0 || (double)p->reply.fresh_s == p->fresh_s) {
		utimensat(AT_FDCWD, p->path, NULL, 0);
	} else { /* its tag or its time may not be said again */
		if (!p->reply.etag)
			p->reply.etag = mem_strdup(p->etag);
		if (!p->reply.modified)
			p->reply.modified = mem_strdup(p->modified);
		keep(p);
	}
	p->rc = filter(p);
}

static void work_stale(uv_work_t *work)
{
	struct page *p = work->data;

	p->rc = filter(p);
}

/* Neither a page nor "unchanged" nor "no such dist". */
static void page_failed(struct page *p, long status, const struct err *err)
{
	if (err && p->age_s >= 0 && err->kind != ERR_LIMIT && !p->index->closing) {
		p->note = mem_printf("the index is not reachable; using its page of %s from %.0f "
				     "minutes ago",
				     p->name, p->age_s / 60);
		run(p, work_stale, on_filtered);
		return;
	}
	if (err)
		p->err = *err;
	else if (status == 401 || status == 403)
		err_set(&p->err, ERR_DENIED,
			"%s answered %ld; check the credentials in pip's configuration", p->url,
			status);
	else
		err_set(&p->err, ERR_UPSTREAM, "%s answered %ld; check the index URL", p->url,
			status);
	page_end(p, NULL, &p->err);
}

static void on_page(void *arg, struct fetch_reply *reply, const struct err *err)
{
	struct page *p = arg;

	if (err) {
		page_failed(p, 0, err);
	} else if (reply->status == 200) {
		p->reply = *reply;
		memset(reply, 0, sizeof(*reply));
		run(p, work_parse, on_filtered);
	} else if (reply->status == 304 && p->age_s >= 0) {
		p->reply = *reply;
		memset(reply, 0, sizeof(*reply));
		run(p, work_unchanged, on_filtered);
	} else if (reply->status == 404 || reply->status == 410) {
		page_end(p, NULL, NULL);
	} else {
		page_failed(p, reply->status, NULL);
	}
}

static void on_cached(uv_work_t *work, int status)
{
	struct page *p = work->data;
	struct fetch_spec spec = { .url = p->url,
				   .accept = ACCEPT,
				   .etag = p->etag,
				   .modified = p->modified,
				   .settings = p->settings,
				   .max_bytes = LIMIT_INDEX_PAGE_BYTES,
				   .compressed = true };

	if (p->rc < 0 || p->filtered.len) {
		on_filtered(work, status);
	} else if (p->index->closing) {
		err_set(&p->err, ERR_SYSTEM, "shutting down");
		page_end(p, NULL, &p->err);
	} else if (p->settings->offline) {
		err_set(&p->err, ERR_UPSTREAM,
			"the page of %s is not in the cache, and --offline asks no network",
			p->name);
		page_end(p, NULL, &p->err);
	} else {
		fetch_start(p->index->fetcher, &spec, on_page, p);
	}
}

/* find-links with a file: a page of links (.html, .htm), or a wheel or sdist itself, as pip has it.
 */
static int read_file(struct page *p)
{
	auto_free char *url = digest_file_url(p->source);
	auto_buf struct buf text = BUF_MAX(LIMIT_INDEX_PAGE_BYTES);
	struct digest_page page = { .url = url, .content_type = "text/html" };
	struct digest_file f = { .filename = strrchr(p->source, '/') + 1, .url = url };
	const char *dot = strrchr(f.filename, '.');

	if (!dot || (strcasecmp(dot, ".html") != 0 && strcasecmp(dot, ".htm") != 0))
		return digest_add(&p->digest, &f, &p->err);
	if (buf_read_file(&text, AT_FDCWD, p->source, &p->err) < 0)
		return -1;
	page.text = text.data ? text.data : "";
	page.len = text.len;
	return digest_parse(&page, &p->digest, &p->err);
}

/* ... with a directory: every wheel and sdist of the dist in it. Its sha256 is computed when the
 * file is taken into the cache, not here. */
static int read_directory(struct page *p, DIR *dir)
{
	struct dirent *e;
	int rc = 0;

	while (rc == 0 && (e = readdir(dir))) {
		auto_free char *path = mem_printf("%s/%s", p->source, e->d_name), *url = NULL;
		struct digest_file f = { .filename = e->d_name };
		struct stat st;

		if (!name_is_dist(e->d_name) ||
		    !name_matches(e->d_name, strlen(e->d_name), p->name) ||
		    fstatat(dirfd(dir), e->d_name, &st, 0) < 0 || !S_ISREG(st.st_mode))
			continue;
		f.url = url = digest_file_url(path);
		f.size = (unsigned long long)st.st_size;
		rc = digest_add(&p->digest, &f, &p->err);
	}
	return rc;
}

static void work_local(uv_work_t *work)
{
	struct page *p = work->data;
	struct stat st = { 0 };
	bool is_file = stat(p->source, &st) == 0 && S_ISREG(st.st_mode);
	DIR *dir = is_file ? NULL : opendir(p->source);

	if (is_file)
		p->rc = read_file(p);
	else if (dir)
		p->rc = read_directory(p, dir);
	else /* pip says so and goes on */
		p->note = mem_printf("find-links: '%s' cannot be read: %s", p->source,
				     strerror(errno));
	if (dir)
		closedir(dir);
	if (p->rc < 0)
		err_wrap(&p->err, "find-links '%s'", p->source);
	else
		p->rc = filter(p);
}

/* Under the credentials too: who has none must not be given what was fetched with some. */
static char *page_path(struct page *p)
{
	const struct settings_auth *auth = settings_find_auth(p->settings, p->url);
	auto_free char *key = mem_printf("%s\n%s\n%s", p->url, auth ? auth->user : "",
					 auth ? auth->password : "");
	struct sha *sum = sha_new();
	char hex[SHA_HEX];

	sha_add(sum, p->index->salt, sizeof(p->index->salt));
	sha_add(sum, key, strlen(key));
	sha_hex(sum, hex);
	sha_free(sum);
	return cache_path(p->index, "pages", hex);
}

void page_get(struct index *index, const struct page_want *want, page_fn done, void *arg)
{
	struct page *p = mem_new(struct page);

	p->index = index_ref(index);
	p->source = mem_strdup(want->source);
	p->name = mem_strdup(want->name);
	p->links = want->links;
	p->all = want->all;
	p->sdists = want->sdists;
	p->tags = want->tags;
	p->settings = settings_ref(want->settings);
	p->done = done;
	p->arg = arg;
	if (want->links && p->source[0] == '/') {
		run(p, work_local, on_filtered);
		return;
	}
	p->url = want->links ? mem_strdup(p->source) : mem_printf("%s/%s/", p->source, p->name);
	p->path = page_path(p);
	run(p, work_cached, on_cached);
}
