/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "base/mem.h"
#include "index/fetch_priv.h"

#define CONNECT_TIMEOUT_MS 20000L
/* Slower than this for the time that the settings allow is a stall: a server that drips a byte now
 * and then must not hold a resolve for ever. */
#define STALL_BYTES_PER_S 128L

/* ---- what the server says ---- */

static void forget_headers(struct fetch_reply *r)
{
	free(steal(r->etag));
	free(steal(r->modified));
	r->fresh_s = -1;
	r->no_store = false;
	r->part = UINT64_MAX;
	r->whole = 0;
}

/* The value of this header in a line without its end, or NULL. */
static const char *value_of(const char *line, const char *name)
{
	size_t n = strlen(name);

	if (strncasecmp(line, name, n) != 0 || line[n] != ':')
		return NULL;
	line += n + 1;
	return line + strspn(line, " \t");
}

static void keep_value(char **to, const char *value)
{
	if (strlen(value) > 256)
		return;
	free(*to);
	*to = mem_strdup(value);
}

/* RFC 9111: of interest are max-age, no-cache and no-store; a private cache is what this is. */
static void read_cache_control(struct fetch_reply *r, const char *value)
{
	for (const char *at = value; *at; at += strcspn(at, ","), at += strspn(at, ", \t")) {
		if (strncasecmp(at, "no-store", 8) == 0)
			r->no_store = true;
		else if (strncasecmp(at, "no-cache", 8) == 0)
			r->fresh_s = 0;
		else if (strncasecmp(at, "max-age=", 8) == 0 && r->fresh_s != 0)
			r->fresh_s = strtol(at + 8 + (at[8] == '"'), NULL, 10);
	}
	if (r->fresh_s > LIMIT_PAGE_FRESH_MAX_S)
		r->fresh_s = LIMIT_PAGE_FRESH_MAX_S;
}

/* "bytes FROM-TO/WHOLE" */
static void read_content_range(struct fetch_reply *r, const char *value)
{
	const char *slash = strchr(value, '/');

	if (strncasecmp(value, "bytes ", 6) == 0 && isdigit((unsigned char)value[6]))
		r->part = strtoull(value + 6, NULL, 10);
	if (slash && isdigit((unsigned char)slash[1]))
		r->whole = strtoull(slash + 1, NULL, 10);
}

/* Did a range that was asked for come? */
static bool is_asked_part(const struct fetch *f)
{
	uint64_t whole = f->reply.whole, tail = f->spec.to;

	if (f->spec.from != FETCH_TAIL)
		return f->reply.part == f->spec.from;
	return whole && f->reply.part == (whole > tail ? whole - tail : 0);
}

static void read_header(struct fetch *f, const char *line)
{
	const char *v;

	if ((v = value_of(line, "etag")))
		keep_value(&f->reply.etag, v);
	else if ((v = value_of(line, "last-modified")))
		keep_value(&f->reply.modified, v);
	else if ((v = value_of(line, "cache-control")))
		read_cache_control(&f->reply, v);
	else if ((v = value_of(line, "age")))
		f->age_s = strtol(v, NULL, 10);
	else if ((v = value_of(line, "content-range")))
		read_content_range(&f->reply, v);
}

/* CURL_WRITEFUNC_ERROR exists from 7.87 on; any other count than the given one stops too. */
static size_t stop(struct fetch *f)
{
	f->stopped = true;
	return 0;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
	struct fetch *f = arg;
	size_t len = size * n;
	char text[1024] = { 0 };

	f->header_bytes += len;
	if (f->header_bytes > LIMIT_HEADER_BYTES) {
		err_set(&f->err, ERR_LIMIT, "%s answers with more than %lu bytes of headers",
			f->spec.url, LIMIT_HEADER_BYTES);
		return stop(f);
	}
	while (len && isspace((unsigned char)line[len - 1]))
		len--;
	if (len >= sizeof(text)) /* none that is of interest is so long */
		return size * n;
	memcpy(text, line, len);
	text[len] = '\0';
	if (strncmp(text, "HTTP/", 5) == 0) { /* a new answer after a redirect */
		forget_headers(&f->reply);
		f->age_s = 0;
	} else {
		read_header(f, text);
	}
	return size * n;
}

/* The first byte of a body: is it what was asked for? 0: stop, all is known. */
static int settle(struct fetch *f, long status)
{
	f->settled = true;
	if (f->spec.range) {
		f->enough = status == 200 || !is_asked_part(f);
		return f->enough ? 0 : 1;
	}
	if (!f->got)
		return 1;
	if (status == 206) {
		f->misplaced = f->reply.part != f->got;
		return f->misplaced ? 0 : 1;
	}
	f->got = f->got_before = 0; /* the whole again */
	f->reply.resumed = false;
	if (f->spec.restart(f->arg, &f->err) < 0) {
		f->stopped = true;
		return 0;
	}
	return 1;
}

static void tell_length(struct fetch *f)
{
	curl_off_t left = -1;

	if (f->length_told || !f->spec.length)
		return;
	f->length_told = true;
	curl_easy_getinfo(f->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &left);
	if (left > 0)
		f->spec.length(f->arg, f->got + (uint64_t)left);
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
	struct fetch *f = arg;
	long status = 0;
	int rc;

	curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status >= 300) { /* the page of an error: nobody reads it */
		f->waste += size * n;
		f->enough = f->waste > LIMIT_ERROR_PAGE_BYTES;
		return f->enough ? 0 : size * n;
	}
	if (!f->settled && !settle(f, status))
		return 0;
	tell_length(f);
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

/* ---- what curl is told ---- */

static void set_auth(CURL *easy, const struct fetch_spec *spec)
{
	const struct settings_auth *auth = settings_find_auth(spec->settings, spec->url);

	if (auth) { /* curl keeps them from other hosts when it is redirected */
		curl_easy_setopt(easy, CURLOPT_USERNAME, auth->user);
		curl_easy_setopt(easy, CURLOPT_PASSWORD, auth->password);
		curl_easy_setopt(easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
	}
}

static bool is_dir(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* What pip is told to trust is all that is trusted: Debian's libcurl would add its own. */
static void set_trust(CURL *easy, const struct fetch_spec *spec)
{
	const struct settings *s = spec->settings;
	const char *file = s->cert ? s->cert : s->cert_file;
	const char *dir = s->cert ? NULL : s->cert_dir;

	if (s->cert && is_dir(s->cert)) {
		dir = s->cert;
		file = NULL;
	}
	if (file || dir) {
		curl_easy_setopt(easy, CURLOPT_CAINFO, file);
		curl_easy_setopt(easy, CURLOPT_CAPATH, dir);
	}
	if (s->client_cert)
		curl_easy_setopt(easy, CURLOPT_SSLCERT, s->client_cert);
	if (settings_is_trusted(s, spec->url)) {
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
}

/* The daemon's environment is that of whoever happened to start it: the caller's counts. */
static void set_proxy(CURL *easy, const struct fetch_spec *spec)
{
	const struct settings *s = spec->settings;
	bool secure = strncmp(spec->url, "https://", 8) == 0;
	const char *proxy = s->proxy ? s->proxy : secure ? s->https_proxy : s->http_proxy;

	curl_easy_setopt(easy, CURLOPT_PROXY, proxy ? proxy : "");
	curl_easy_setopt(easy, CURLOPT_NOPROXY, s->proxy || !s->no_proxy ? "" : s->no_proxy);
}

static void add_header(struct fetch *f, const char *name, const char *value)
{
	auto_free char *line = value ? mem_printf("%s: %s", name, value) : NULL;

	if (line)
		f->headers = curl_slist_append(f->headers, line);
}

static void set_headers(struct fetch *f)
{
	const struct fetch_spec *spec = &f->spec;

	add_header(f, "Accept", spec->accept ? spec->accept : "*/*");
	add_header(f, "If-None-Match", spec->etag);
	add_header(f, "If-Modified-Since", spec->modified);
	/* A weak tag cannot promise the same bytes (RFC 9110, 13.1.5). */
	if (fetch_resumes(f) && f->reply.etag && strncmp(f->reply.etag, "W/", 2) != 0)
		add_header(f, "If-Range", f->reply.etag);
	else if (fetch_resumes(f) && !f->reply.etag)
		add_header(f, "If-Range", f->reply.modified);
	must(f->headers);
	curl_easy_setopt(f->easy, CURLOPT_HTTPHEADER, f->headers);
}

static void set_range(struct fetch *f)
{
	const struct fetch_spec *spec = &f->spec;
	auto_free char *range = NULL;

	if (spec->range && spec->from == FETCH_TAIL)
		range = mem_printf("-%llu", (unsigned long long)spec->to);
	else if (spec->range)
		range = mem_printf("%llu-%llu", (unsigned long long)spec->from,
				   (unsigned long long)spec->to);
	else if (fetch_resumes(f))
		range = mem_printf("%llu-", (unsigned long long)f->got);
	if (range)
		curl_easy_setopt(f->easy, CURLOPT_RANGE, range);
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
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, spec->max_ms ? spec->max_ms : LIMIT_FETCH_MS);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, STALL_BYTES_PER_S);
	curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, spec->settings->timeout_s);
}

void fetch_easy_prepare(struct fetch *f)
{
	const struct fetch_spec *spec = &f->spec;
	CURL *easy = curl_easy_init();

	must(easy);
	f->easy = easy;
	curl_easy_setopt(easy, CURLOPT_URL, spec->url);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, f);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "pipsqueak/0.1");
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, f);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, f);
	curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L); /* rather one connection than many */
	if (spec->compressed)
		curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
	set_range(f);
	set_limits(easy, spec);
	set_headers(f);
	set_auth(easy, spec);
	set_trust(easy, spec);
	set_proxy(easy, spec);
}
