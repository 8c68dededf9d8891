/* SPDX-License-Identifier: Apache-2.0 */
#include "index/fetch.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "base/mem.h"

#define CONNECT_TIMEOUT_MS 20000L
#define BACKOFF_MS 150 /* before the second attempt; doubles with each */
#define MAX_CONNECTIONS 16L

struct fetcher {
	uv_loop_t *loop;
	CURLM *multi;
	uv_timer_t *timer;
	struct fetch *all;
	bool closing;
};

/* One curl socket and its watcher. */
struct watch {
	uv_poll_t poll;
	curl_socket_t fd;
	struct fetcher *fetcher;
};

struct fetch {
	struct fetcher *fetcher;
	struct fetch *next, **self; /* in fetcher->all */
	struct fetch_spec spec;	    /* its strings are ours */
	fetch_done_fn done;
	void *arg;
	CURL *easy; /* NULL while pausing between attempts */
	struct curl_slist *headers;
	uv_timer_t *pause;
	int attempt;
	uint64_t got;
	bool no_range, stopped; /* stopped: err holds why data() or a ceiling ended it */
	struct fetch_reply reply;
	struct err err;
};

static void free_handle(uv_handle_t *h)
{
	free(h);
}

static void attempt_start(struct fetch *f);

static void fetch_free(struct fetch *f)
{
	if (f->self) {
		*f->self = f->next;
		if (f->next)
			f->next->self = f->self;
	}
	if (f->easy) {
		curl_multi_remove_handle(f->fetcher->multi, f->easy);
		curl_easy_cleanup(f->easy);
	}
	if (f->pause)
		uv_close((uv_handle_t *)f->pause, free_handle);
	curl_slist_free_all(f->headers);
	free((char *)f->spec.url);
	free((char *)f->spec.accept);
	free((char *)f->spec.etag);
	settings_unref(f->spec.settings);
	free(f->reply.content_type);
	free(f->reply.etag);
	free(f->reply.url);
	buf_done(&f->reply.body);
	free(f);
}

static void fetch_end(struct fetch *f, const struct err *err)
{
	f->done(f->arg, err ? NULL : &f->reply, err);
	fetch_free(f);
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
	struct fetch *f = arg;
	size_t len = size * n;

	while (len && (line[len - 1] == '\r' || line[len - 1] == '\n'))
		len--;
	if (len > 5 && strncmp(line, "HTTP/", 5) == 0) { /* a new answer after a redirect */
		free(f->reply.etag);
		f->reply.etag = NULL;
	} else if (len > 6 && len < 256 && strncasecmp(line, "etag: ", 6) == 0) {
		free(f->reply.etag);
		f->reply.etag = mem_strndup(line + 6, len - 6);
	}
	return size * n;
}

/* CURL_WRITEFUNC_ERROR exists from 7.87 on; any other count than the given one stops too. */
static size_t stop(struct fetch *f)
{
	f->stopped = true;
	return 0;
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
	struct fetch *f = arg;
	long status = 0;
	int rc;

	curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status >= 300)
		return size * n; /* the page of an error: nobody reads it */
	if (f->spec.range && status == 200) {
		f->no_range = true;
		return 0;
	}
	f->got += size * n;
	if (f->got > f->spec.max_bytes) {
		err_set(&f->err, ERR_LIMIT, "%s has more than %llu bytes", f->spec.url,
			(unsigned long long)f->spec.max_bytes);
		return stop(f);
	}
	if (f->spec.data)
		rc = f->spec.data(f->arg, data, size * n, &f->err);
	else
		rc = buf_put(&f->reply.body, data, size * n, &f->err);
	return rc < 0 ? stop(f) : size * n;
}

static void set_auth(CURL *easy, const struct fetch_spec *spec)
{
	const struct settings_auth *auth = settings_find_auth(spec->settings, spec->url);

	if (auth) { /* curl keeps them from other hosts when it is redirected */
		curl_easy_setopt(easy, CURLOPT_USERNAME, auth->user);
		curl_easy_setopt(easy, CURLOPT_PASSWORD, auth->password);
		curl_easy_setopt(easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
	}
}

static void set_trust(CURL *easy, const struct fetch_spec *spec)
{
	const struct settings *s = spec->settings;
	struct stat st;

	if (s->cert && stat(s->cert, &st) == 0 && S_ISDIR(st.st_mode))
		curl_easy_setopt(easy, CURLOPT_CAPATH, s->cert);
	else if (s->cert)
		curl_easy_setopt(easy, CURLOPT_CAINFO, s->cert);
	if (s->client_cert)
		curl_easy_setopt(easy, CURLOPT_SSLCERT, s->client_cert);
	if (s->proxy)
		curl_easy_setopt(easy, CURLOPT_PROXY, s->proxy);
	if (settings_is_trusted(s, spec->url)) {
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
}

static void set_headers(struct fetch *f)
{
	const struct fetch_spec *spec = &f->spec;
	auto_free char *accept = mem_printf("Accept: %s", spec->accept ? spec->accept : "*/*");
	auto_free char *etag = spec->etag ? mem_printf("If-None-Match: %s", spec->etag) : NULL;

	f->headers = curl_slist_append(f->headers, accept);
	if (etag)
		f->headers = curl_slist_append(f->headers, etag);
	must(f->headers);
	curl_easy_setopt(f->easy, CURLOPT_HTTPHEADER, f->headers);
}

static void set_limits(CURL *easy, const struct fetch_spec *spec)
{
	bool secure = strncmp(spec->url, "https://", 8) == 0;

	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
	curl_easy_setopt(easy, CURLOPT_MAXREDIRS, (long)LIMIT_REDIRECTS);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, spec->settings->timeout_s);
}

static void attempt_start(struct fetch *f)
{
	const struct fetch_spec *spec = &f->spec;
	CURL *easy = curl_easy_init();

	must(easy);
	f->easy = easy;
	f->got = 0;
	buf_reset(&f->reply.body);
	curl_slist_free_all(f->headers);
	f->headers = NULL;
	curl_easy_setopt(easy, CURLOPT_URL, spec->url);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, f);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "pipsqueak/0.1");
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, f);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, f);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L); /* rather one connection than many */
	if (spec->compressed)
		curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
	if (spec->range) {
		auto_free char *range = mem_printf("%llu-%llu", (unsigned long long)spec->from,
						   (unsigned long long)spec->to);
		curl_easy_setopt(easy, CURLOPT_RANGE, range);
	}
	set_limits(easy, spec);
	set_headers(f);
	set_auth(easy, spec);
	set_trust(easy, spec);
	must(curl_multi_add_handle(f->fetcher->multi, easy) == CURLM_OK);
}

static bool is_transient(CURLcode code, long status, int attempt)
{
	switch (code) {
	case CURLE_OPERATION_TIMEDOUT: /* waited for long enough already */
		return attempt == 0;
	case CURLE_OK:
		return status == 429 || status >= 500;
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_PARTIAL_FILE:
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_BAD_CONTENT_ENCODING:
		return true;
	default:
		return false;
	}
}

static void on_pause_over(uv_timer_t *t)
{
	struct fetch *f = t->data;

	uv_close((uv_handle_t *)f->pause, free_handle);
	f->pause = NULL;
	if (f->spec.restart)
		f->spec.restart(f->arg);
	attempt_start(f);
}

static void attempt_again(struct fetch *f)
{
	uint64_t wait = (uint64_t)BACKOFF_MS << f->attempt;

	f->attempt++;
	f->pause = mem_new(uv_timer_t);
	uv_timer_init(f->fetcher->loop, f->pause);
	f->pause->data = f;
	uv_timer_start(f->pause, on_pause_over, wait, 0);
}

static void say_failure(struct fetch *f, CURLcode code, long status)
{
	if (f->stopped)
		return; /* err is there already */
	if (code == CURLE_OK)
		err_set(&f->err, ERR_UPSTREAM, "%s answered %ld, %d times; try again later",
			f->spec.url, status, f->attempt + 1);
	else if (code == CURLE_TOO_MANY_REDIRECTS)
		err_set(&f->err, ERR_UPSTREAM, "%s redirects more than %d times", f->spec.url,
			LIMIT_REDIRECTS);
	else if (code == CURLE_OPERATION_TIMEDOUT)
		err_set(&f->err, ERR_TIMEOUT,
			"%s did not answer in time; check the network and the index", f->spec.url);
	else if (code == CURLE_PARTIAL_FILE)
		err_set(&f->err, ERR_UPSTREAM, "%s was cut short, %d times; try again later",
			f->spec.url, f->attempt + 1);
	else
		err_set(&f->err, ERR_UPSTREAM,
			"%s could not be fetched: %s; check the network and the index", f->spec.url,
			curl_easy_strerror(code));
}

static void keep_reply(struct fetch *f, long status)
{
	char *text = NULL;

	f->reply.status = status;
	if (curl_easy_getinfo(f->easy, CURLINFO_CONTENT_TYPE, &text) == CURLE_OK)
		f->reply.content_type = mem_strdup(text);
	if (curl_easy_getinfo(f->easy, CURLINFO_EFFECTIVE_URL, &text) == CURLE_OK)
		f->reply.url = mem_strdup(text);
}

static void attempt_over(struct fetch *f, CURLcode code)
{
	long status = 0;

	curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
	if (f->no_range)
		code = CURLE_OK;
	keep_reply(f, status);
	curl_multi_remove_handle(f->fetcher->multi, f->easy);
	curl_easy_cleanup(f->easy);
	f->easy = NULL;
	if (!f->stopped && is_transient(code, status, f->attempt) && f->attempt < LIMIT_RETRIES) {
		free(steal(f->reply.content_type));
		free(steal(f->reply.url));
		attempt_again(f);
		return;
	}
	if (code == CURLE_OK && status < 500 && status != 429) {
		fetch_end(f, NULL);
		return;
	}
	say_failure(f, code, status);
	fetch_end(f, &f->err);
}

static void reap(struct fetcher *fetcher)
{
	CURLMsg *m;
	int left;

	while (!fetcher->closing && (m = curl_multi_info_read(fetcher->multi, &left))) {
		CURLcode code = m->data.result;
		char *f = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &f);
		attempt_over((struct fetch *)(void *)f, code);
	}
}

static void on_socket(uv_poll_t *p, int status, int events)
{
	struct watch *w = p->data;
	struct fetcher *fetcher = w->fetcher;
	int flags = 0, running;

	if (status < 0)
		flags = CURL_CSELECT_ERR;
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	curl_multi_socket_action(fetcher->multi, w->fd, flags, &running);
	reap(fetcher);
}

static void free_watch(uv_handle_t *h)
{
	free(h->data);
}

static int on_watch(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct fetcher *fetcher = arg;
	struct watch *w = known;
	int events = 0;

	if (what == CURL_POLL_REMOVE) {
		if (w) {
			uv_poll_stop(&w->poll);
			uv_close((uv_handle_t *)&w->poll, free_watch);
			curl_multi_assign(fetcher->multi, fd, NULL);
		}
		return 0;
	}
	if (!w) {
		w = mem_new(struct watch);
		w->fd = fd;
		w->fetcher = fetcher;
		if (uv_poll_init_socket(fetcher->loop, &w->poll, fd) < 0) {
			free(w);
			return -1;
		}
		w->poll.data = w;
		curl_multi_assign(fetcher->multi, fd, w);
	}
	if (what != CURL_POLL_OUT)
		events |= UV_READABLE;
	if (what != CURL_POLL_IN)
		events |= UV_WRITABLE;
	uv_poll_start(&w->poll, events, on_socket);
	return 0;
}

static void on_timer(uv_timer_t *t)
{
	struct fetcher *fetcher = t->data;
	int running;

	curl_multi_socket_action(fetcher->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	reap(fetcher);
}

static int on_timeout(CURLM *multi, long ms, void *arg)
{
	struct fetcher *fetcher = arg;

	if (ms < 0)
		uv_timer_stop(fetcher->timer);
	else
		uv_timer_start(fetcher->timer, on_timer, (uint64_t)ms, 0);
	return 0;
}

int fetcher_open(uv_loop_t *loop, struct fetcher **out, struct err *err)
{
	struct fetcher *f;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return err_set(err, ERR_SYSTEM, "libcurl does not start");
	f = mem_new(struct fetcher);
	f->loop = loop;
	f->multi = curl_multi_init();
	must(f->multi);
	f->timer = mem_new(uv_timer_t);
	uv_timer_init(loop, f->timer);
	f->timer->data = f;
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETFUNCTION, on_watch);
	curl_multi_setopt(f->multi, CURLMOPT_SOCKETDATA, f);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
	curl_multi_setopt(f->multi, CURLMOPT_TIMERDATA, f);
	curl_multi_setopt(f->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX);
	curl_multi_setopt(f->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, MAX_CONNECTIONS);
	*out = f;
	return 0;
}

void fetcher_close(struct fetcher *f)
{
	struct err err;

	if (!f)
		return;
	f->closing = true;
	err_set(&err, ERR_SYSTEM, "shutting down");
	while (f->all)
		fetch_end(f->all, &err);
	curl_multi_cleanup(f->multi);
	uv_close((uv_handle_t *)f->timer, free_handle);
	curl_global_cleanup();
	free(f);
}

void fetch_start(struct fetcher *fetcher, const struct fetch_spec *spec, fetch_done_fn done,
		 void *arg)
{
	struct fetch *f = mem_new(struct fetch);

	f->fetcher = fetcher;
	f->spec = *spec;
	f->spec.url = mem_strdup(spec->url);
	f->spec.accept = mem_strdup(spec->accept);
	f->spec.etag = mem_strdup(spec->etag);
	settings_ref(f->spec.settings);
	f->done = done;
	f->arg = arg;
	f->reply.body.max = (size_t)spec->max_bytes;
	f->next = fetcher->all;
	f->self = &fetcher->all;
	if (f->next)
		f->next->self = &f->next;
	fetcher->all = f;
	if (!fetcher->closing) /* else fetcher_close() is at its loop and ends it */
		attempt_start(f);
}
