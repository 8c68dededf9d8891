/* SPDX-License-Identifier: Apache-2.0 */
#include "index/fetch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/limits.h"
#include "base/mem.h"
#include "index/fetch_priv.h"

#define BACKOFF_MS 150	    /* before the second attempt; doubles with each */
#define ENOUGH_PROGRESS MIB /* of a body: an attempt that brought so much counts as none */

static void free_handle(uv_handle_t *h)
{
	free(h);
}

void fetch_reply_done(struct fetch_reply *r)
{
	free(r->content_type);
	free(r->etag);
	free(r->modified);
	free(r->url);
	buf_done(&r->body);
	memset(r, 0, sizeof(*r));
}

static void fetch_free(struct fetch *f)
{
	*f->self = f->next;
	if (f->next)
		f->next->self = f->self;
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
	free((char *)f->spec.modified);
	settings_unref(f->spec.settings);
	fetch_reply_done(&f->reply);
	free(f);
}

static void fetch_end(struct fetch *f, const struct err *err)
{
	f->done(f->arg, err ? NULL : &f->reply, err);
	fetch_free(f);
}

/* Forget what an attempt brought, unless the next goes on behind it. */
static int begin_again(struct fetch *f)
{
	if (fetch_resumes(f)) {
		f->reply.resumed = true;
		return 0;
	}
	buf_reset(&f->reply.body);
	if (f->got && f->spec.restart && f->spec.restart(f->arg, &f->err) < 0)
		return -1;
	f->got = 0;
	f->reply.resumed = false;
	return 0;
}

static void attempt_start(struct fetch *f)
{
	if (begin_again(f) < 0) {
		fetch_end(f, &f->err);
		return;
	}
	f->got_before = f->got;
	f->waste = f->header_bytes = 0;
	f->settled = f->enough = f->misplaced = false;
	curl_slist_free_all(steal(f->headers));
	fetch_easy_prepare(f);
	must(curl_multi_add_handle(f->fetcher->multi, f->easy) == CURLM_OK);
}

static void on_pause_over(uv_timer_t *t)
{
	struct fetch *f = t->data;

	uv_close((uv_handle_t *)steal(f->pause), free_handle);
	attempt_start(f);
}

/* Half to one and a half times the pause: those who failed together do not come back together. */
static uint64_t jitter(uint64_t ms)
{
	unsigned char dice = 128;

	if (getrandom(&dice, 1, GRND_NONBLOCK) != 1)
		return ms;
	return ms / 2 + ms * dice / 255;
}

static void attempt_again(struct fetch *f, uint64_t wait_ms)
{
	f->pause = mem_new(uv_timer_t);
	uv_timer_init(f->fetcher->loop, f->pause);
	f->pause->data = f;
	uv_timer_start(f->pause, on_pause_over, wait_ms, 0);
}

static bool is_transient(const struct fetch *f, CURLcode code, long status)
{
	switch (code) {
	case CURLE_OPERATION_TIMEDOUT: /* waited for long enough already */
		return f->attempt == 0;
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

/* What went wrong inside TLS and what the reader can do about it; NULL: another matter. */
static const char *tls_advice(CURLcode code)
{
	switch (code) {
	case CURLE_PEER_FAILED_VERIFICATION:
		return "its certificate is not trusted; name the right authority in pip's "
		       "setting 'cert' or in SSL_CERT_FILE";
	case CURLE_SSL_CACERT_BADFILE:
		return "the file of trusted certificates cannot be read; check pip's setting "
		       "'cert', REQUESTS_CA_BUNDLE and SSL_CERT_FILE";
	case CURLE_SSL_CERTPROBLEM:
		return "the client certificate cannot be used; check that pip's setting "
		       "'client-cert' names a PEM file with certificate and key which the daemon "
		       "may read";
	case CURLE_UNSUPPORTED_PROTOCOL:
		return "it redirects to what is neither http nor https, or from https to http";
	case CURLE_COULDNT_RESOLVE_PROXY:
		return "the proxy's name is not known; check pip's setting 'proxy' and the "
		       "variables http_proxy and https_proxy";
	default:
		return NULL;
	}
}

static void say_failure(struct fetch *f, CURLcode code, long status)
{
	const char *url = f->spec.url, *advice = tls_advice(code);
	int times = f->attempt + 1;

	if (f->stopped)
		return; /* err is there already */
	if (code == CURLE_OK)
		err_set(&f->err, ERR_UPSTREAM, "%s answered %ld, %d times; try again later", url,
			status, times);
	else if (code == CURLE_TOO_MANY_REDIRECTS)
		err_set(&f->err, ERR_UPSTREAM, "%s redirects more than %d times", url,
			LIMIT_REDIRECTS);
	else if (code == CURLE_OPERATION_TIMEDOUT)
		err_set(&f->err, ERR_TIMEOUT,
			"%s did not answer in time; check the network and the index", url);
	else if (code == CURLE_PARTIAL_FILE)
		err_set(&f->err, ERR_UPSTREAM, "%s was cut short, %d times; try again later", url,
			times);
	else if (advice)
		err_set(&f->err, ERR_UPSTREAM, "%s could not be fetched: %s", url, advice);
	else
		err_set(&f->err, ERR_UPSTREAM,
			"%s could not be fetched: %s; check the network and the index", url,
			curl_easy_strerror(code));
}

static void keep_reply(struct fetch *f, long status)
{
	struct fetch_reply *r = &f->reply;
	char *text = NULL;

	r->status = status;
	free(steal(r->content_type));
	free(steal(r->url));
	if (curl_easy_getinfo(f->easy, CURLINFO_CONTENT_TYPE, &text) == CURLE_OK)
		r->content_type = mem_strdup(text);
	if (curl_easy_getinfo(f->easy, CURLINFO_EFFECTIVE_URL, &text) == CURLE_OK)
		r->url = mem_strdup(text);
	if (r->fresh_s > 0)
		r->fresh_s = f->age_s < r->fresh_s ? r->fresh_s - f->age_s : 0;
}

/* 1: it is tried again; 0: that is how it ends; -1: it ends with err. */
static int try_again(struct fetch *f, CURLcode code, long status, uint64_t retry_after_s)
{
	if (f->stopped || (!f->misplaced && !is_transient(f, code, status)))
		return 0;
	if (f->misplaced) { /* at once, and from the beginning; it cannot happen twice */
		f->no_resume = true;
		attempt_again(f, 0);
		return 1;
	}
	if (f->got >= f->got_before + ENOUGH_PROGRESS)
		f->attempt = 0; /* max_bytes bounds how often */
	if (f->attempt >= LIMIT_RETRIES)
		return 0;
	if (retry_after_s > LIMIT_RETRY_AFTER_S)
		return err_set(&f->err, ERR_UPSTREAM,
			       "%s is overloaded (%ld) and asks to come back in %llu s",
			       f->spec.url, status, (unsigned long long)retry_after_s);
	attempt_again(f, retry_after_s ? retry_after_s * 1000
				       : jitter((uint64_t)BACKOFF_MS << f->attempt));
	f->attempt++;
	return 1;
}

void fetch_attempt_over(struct fetch *f, CURLcode code)
{
	curl_off_t retry_after = 0;
	long status = 0;
	int again;

	curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(f->easy, CURLINFO_RETRY_AFTER, &retry_after);
	if (f->enough)
		code = CURLE_OK;
	if (status == 416 && fetch_resumes(f))
		f->misplaced = true;
	if (f->enough && f->spec.range && status == 206)
		status = 200; /* the wrong part is as good as none */
	keep_reply(f, status);
	curl_multi_remove_handle(f->fetcher->multi, f->easy);
	curl_easy_cleanup(steal(f->easy));
	again = try_again(f, code, status, (uint64_t)retry_after);
	if (again > 0)
		return;
	if (again == 0 && code == CURLE_OK && status < 500 && status != 429) {
		fetch_end(f, NULL);
		return;
	}
	if (again == 0)
		say_failure(f, code, status);
	fetch_end(f, &f->err);
}

int fetcher_open(uv_loop_t *loop, struct fetcher **out, struct err *err)
{
	struct fetcher *f;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return err_set(err, ERR_SYSTEM, "libcurl does not start");
	f = mem_new(struct fetcher);
	f->loop = loop;
	fetch_loop_init(f);
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

static void on_offline(uv_timer_t *t)
{
	struct fetch *f = t->data;

	err_set(&f->err, ERR_UPSTREAM, "%s is not in the cache; run once without --offline",
		f->spec.url);
	fetch_end(f, &f->err);
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
	f->spec.modified = mem_strdup(spec->modified);
	settings_ref(f->spec.settings);
	f->done = done;
	f->arg = arg;
	f->got = spec->begun;
	f->reply.body.max = (size_t)spec->max_bytes;
	f->next = fetcher->all;
	f->self = &fetcher->all;
	if (f->next)
		f->next->self = &f->next;
	fetcher->all = f;
	if (fetcher->closing) /* fetcher_close() is at its loop and ends it */
		return;
	if (!spec->settings->offline) {
		attempt_start(f);
		return;
	}
	f->pause = mem_new(uv_timer_t);
	uv_timer_init(fetcher->loop, f->pause);
	f->pause->data = f;
	uv_timer_start(f->pause, on_offline, 0, 0);
}
