/* SPDX-License-Identifier: Apache-2.0 */
#include "index/settings.h"

#include <ctype.h>
#include <curl/curl.h>
#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"

static void list_free(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

static void list_add(char ***list, size_t *n, char *taken)
{
	*list = mem_resize(*list, (*n + 1) * sizeof(**list));
	(*list)[(*n)++] = taken;
}

/* The plain texts: where they are, and pipconf.py's words for them. */
static const struct {
	const char *key;
	size_t offset;
} texts[] = {
	{ "cert", offsetof(struct settings, cert) },
	{ "client_cert", offsetof(struct settings, client_cert) },
	{ "cert_file", offsetof(struct settings, cert_file) },
	{ "cert_dir", offsetof(struct settings, cert_dir) },
	{ "proxy", offsetof(struct settings, proxy) },
	{ "http_proxy", offsetof(struct settings, http_proxy) },
	{ "https_proxy", offsetof(struct settings, https_proxy) },
	{ "no_proxy", offsetof(struct settings, no_proxy) },
};

static char **text_of(const struct settings *s, size_t i)
{
	return (char **)(void *)((char *)(void *)s + texts[i].offset);
}

struct settings *settings_ref(struct settings *s)
{
	if (s)
		s->refs++;
	return s;
}

void settings_unref(struct settings *s)
{
	if (!s || --s->refs)
		return;
	list_free(s->indexes, s->nindexes);
	list_free(s->first, s->nfirst);
	list_free(s->links, s->nlinks);
	list_free(s->trusted, s->ntrusted);
	for (size_t i = 0; i < s->nauths; i++) {
		free(s->auths[i].origin);
		free(s->auths[i].path);
		free(s->auths[i].user);
		free(s->auths[i].password);
	}
	free(s->auths);
	for (size_t i = 0; i < array_len(texts); i++)
		free(*text_of(s, i));
	free(s);
}

static char *part(CURLU *u, CURLUPart what, unsigned flags)
{
	char *text = NULL, *copy;

	if (curl_url_get(u, what, &text, flags) != CURLUE_OK)
		return NULL;
	copy = mem_strdup(text);
	curl_free(text);
	return copy;
}

static char *origin_of(CURLU *u)
{
	auto_free char *scheme = part(u, CURLUPART_SCHEME, 0);
	auto_free char *host = part(u, CURLUPART_HOST, 0);
	auto_free char *port = part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT);

	if (!scheme || !host)
		return NULL;
	return mem_printf("%s://%s:%s", scheme, host, port ? port : "");
}

char *url_origin(const char *url)
{
	CURLU *u = curl_url();
	char *origin = NULL;

	must(u);
	if (curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK)
		origin = origin_of(u);
	curl_url_cleanup(u);
	return origin;
}

char *url_join(const char *base, const char *relative)
{
	CURLU *u = curl_url();
	char *whole = NULL;

	must(u);
	if ((!base || curl_url_set(u, CURLUPART_URL, base, 0) == CURLUE_OK) &&
	    curl_url_set(u, CURLUPART_URL, relative, CURLU_URLENCODE) == CURLUE_OK) {
		curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0);
		curl_url_set(u, CURLUPART_USER, NULL, 0);
		curl_url_set(u, CURLUPART_PASSWORD, NULL, 0);
		whole = part(u, CURLUPART_URL, 0);
	}
	curl_url_cleanup(u);
	if (whole && strncmp(whole, "https://", 8) != 0 && strncmp(whole, "http://", 7) != 0) {
		free(whole);
		whole = NULL;
	}
	return whole;
}

static void add_auth(struct settings *s, struct settings_auth taken)
{
	s->auths = mem_resize(s->auths, (s->nauths + 1) * sizeof(*s->auths));
	s->auths[s->nauths++] = taken;
}

/* As written when it does not decode to text (a control character); NULL: there is none. */
static char *decoded(CURLU *u, CURLUPart what)
{
	char *text = part(u, what, CURLU_URLDECODE);

	return text ? text : part(u, what, 0);
}

/* Take the credentials out of an URL and remember them for its origin. NULL: not an URL. */
static char *take_auth(struct settings *s, const char *url)
{
	CURLU *u = curl_url();
	char *clean = NULL;

	must(u);
	if (curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK) {
		char *user = decoded(u, CURLUPART_USER), *password = decoded(u, CURLUPART_PASSWORD);

		if (user || password)
			add_auth(s, (struct settings_auth){
					    .origin = origin_of(u),
					    .path = part(u, CURLUPART_PATH, 0),
					    .user = user ? user : mem_strdup(""),
					    .password = password ? password : mem_strdup(""),
				    });
		curl_url_set(u, CURLUPART_USER, NULL, 0);
		curl_url_set(u, CURLUPART_PASSWORD, NULL, 0);
		clean = part(u, CURLUPART_URL, 0);
	}
	curl_url_cleanup(u);
	return clean;
}

/* The end of "user:password@" in the authority of an URL whose scheme was passed; NULL: none. */
static const char *userinfo_end(const char *authority)
{
	size_t len = strcspn(authority, "/?# \t\r\n\"'<>,;");

	return memrchr(authority, '@', len);
}

char *settings_take_auths(struct settings *s, const char *text)
{
	auto_buf struct buf out = BUF_MAX(strlen(text) + 1);
	const char *done = text;

	for (const char *hit = strstr(text, "://"); hit; hit = strstr(hit + 3, "://")) {
		const char *at = userinfo_end(hit + 3), *from = hit;
		auto_free char *url = NULL, *clean = NULL;

		while (from > text && isalpha((unsigned char)from[-1]))
			from--;
		if (!at || (strncmp(from, "http://", 7) != 0 && strncmp(from, "https://", 8) != 0))
			continue;
		url = mem_strndup(from, strcspn(from, " \t\r\n\"'<>;"));
		clean = take_auth(s, url);
		if (!clean)
			continue;
		must(buf_put(&out, done, (size_t)(hit + 3 - done), NULL) == 0);
		done = at + 1;
	}
	must(buf_puts(&out, done, NULL) == 0);
	return buf_steal(&out);
}

/* An index's URL without credentials and trailing slash. */
static int clean_index(struct settings *s, const char *url, char **out, struct err *err)
{
	char *clean = take_auth(s, url);

	if (!clean || (strncmp(clean, "https://", 8) != 0 && strncmp(clean, "http://", 7) != 0)) {
		free(clean);
		return err_set(err, ERR_USAGE,
			       "the index URL is not an http or https URL; check --index-url and "
			       "pip's configuration");
	}
	for (size_t len = strlen(clean); len && clean[len - 1] == '/'; len--)
		clean[len - 1] = '\0';
	*out = clean;
	return 0;
}

int settings_add_index(struct settings *s, const char *url, bool first, struct err *err)
{
	char *clean = NULL;

	if (clean_index(s, url, &clean, err) < 0)
		return -1;
	if (s->nindexes > LIMIT_INDEX_SOURCES) {
		free(clean);
		return err_set(err, ERR_LIMIT, "more than %d index URLs", LIMIT_INDEX_SOURCES);
	}
	if (first && s->nindexes) {
		free(s->indexes[0]);
		s->indexes[0] = clean;
	} else {
		list_add(&s->indexes, &s->nindexes, clean);
	}
	return 0;
}

/* The path of a file:// URL; NULL: it has none, or is of another host. */
static char *file_path(const char *url)
{
	CURLU *u = curl_url();
	char *path = NULL;

	must(u);
	if (curl_url_set(u, CURLUPART_URL, url, CURLU_URLENCODE) == CURLUE_OK)
		path = part(u, CURLUPART_PATH, CURLU_URLDECODE);
	curl_url_cleanup(u);
	return path;
}

int settings_add_link(struct settings *s, const char *link, struct err *err)
{
	char *clean;

	if (strncmp(link, "file://", 7) == 0)
		clean = file_path(link);
	else if (strstr(link, "://"))
		clean = take_auth(s, link);
	else
		clean = mem_strdup(link);
	if (!clean)
		return err_set(err, ERR_USAGE,
			       "a find-links entry is neither a directory nor an URL; check "
			       "--find-links and pip's configuration");
	if (s->nlinks > LIMIT_INDEX_SOURCES) {
		free(clean);
		return err_set(err, ERR_LIMIT, "more than %d find-links entries",
			       LIMIT_INDEX_SOURCES);
	}
	list_add(&s->links, &s->nlinks, clean);
	return 0;
}

void settings_drop_indexes(struct settings *s)
{
	list_free(s->indexes, s->nindexes);
	s->indexes = NULL;
	s->nindexes = 0;
}

static int add_trusted(struct settings *s, const char *host, struct err *err)
{
	list_add(&s->trusted, &s->ntrusted, mem_strdup(host));
	return 0;
}

static int add_first(struct settings *s, const char *url, struct err *err)
{
	char *clean = NULL;

	if (clean_index(s, url, &clean, err) < 0)
		return -1;
	list_add(&s->first, &s->nfirst, clean);
	return 0;
}

static int add_extra(struct settings *s, const char *url, struct err *err)
{
	return settings_add_index(s, url, false, err);
}

static int each(struct settings *s, json_t *list,
		int (*add)(struct settings *s, const char *text, struct err *err), struct err *err)
{
	if (!list || json_is_null(list))
		return 0;
	if (!json_is_array(list) || json_array_size(list) > LIMIT_INDEX_SOURCES)
		return err_set(err, ERR_USAGE, "pip's settings: a list is broken or too long");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *text = json_string_value(json_array_get(list, i));

		if (!text)
			return err_set(err, ERR_USAGE, "pip's settings: a list holds no text");
		if (add(s, text, err) < 0)
			return -1;
	}
	return 0;
}

static void parse_auth(struct settings *s, json_t *list)
{
	for (size_t i = 0; i < json_array_size(list) && i < LIMIT_INDEX_SOURCES; i++) {
		const char *origin, *user, *password;

		if (json_unpack(json_array_get(list, i), "{s:s, s:s, s:s}", "origin", &origin,
				"user", &user, "password", &password) < 0)
			continue;
		add_auth(s, (struct settings_auth){ .origin = url_origin(origin),
						    .user = mem_strdup(user),
						    .password = mem_strdup(password) });
	}
}

/* Compared before it is converted: a double beyond a long has no value as one. */
static long timeout_of(json_t *timeout)
{
	double seconds = json_is_number(timeout) ? json_number_value(timeout) : 15;

	if (seconds < 1)
		return 1;
	return seconds < 600 ? (long)seconds : 600;
}

static int parse_root(struct settings *s, json_t *root, const char *index_url, struct err *err)
{
	const char *index = json_string_value(json_object_get(root, "index_url"));

	if (index_url)
		index = index_url;
	if (index && settings_add_index(s, index, false, err) < 0)
		return -1;
	if (each(s, json_object_get(root, "first_indexes"), add_first, err) < 0 ||
	    each(s, json_object_get(root, "extra_index_urls"), add_extra, err) < 0 ||
	    each(s, json_object_get(root, "find_links"), settings_add_link, err) < 0 ||
	    each(s, json_object_get(root, "trusted_hosts"), add_trusted, err) < 0)
		return -1;
	parse_auth(s, json_object_get(root, "auth"));
	for (size_t i = 0; i < array_len(texts); i++)
		*text_of(s, i) = mem_strdup(json_string_value(json_object_get(root, texts[i].key)));
	s->offline = json_is_true(json_object_get(root, "offline"));
	s->timeout_s = timeout_of(json_object_get(root, "timeout"));
	return 0;
}

int settings_parse(const char *json, const char *index_url, struct settings **out, struct err *err)
{
	json_error_t jerr;
	json_t *root = json_loads(json, 0, &jerr);
	struct settings *s;
	int rc;

	if (!json_is_object(root)) {
		json_decref(root);
		return err_set(err, ERR_USAGE, "pip's settings are not a JSON object: %s",
			       root ? "another kind" : jerr.text);
	}
	s = mem_new(struct settings);
	s->refs = 1;
	rc = parse_root(s, root, index_url, err);
	json_decref(root);
	if (rc < 0)
		settings_unref(s);
	else
		*out = s;
	return rc;
}

struct settings *settings_copy(const struct settings *s)
{
	struct settings *c = mem_new(struct settings);

	c->refs = 1;
	for (size_t i = 0; i < s->nindexes; i++)
		list_add(&c->indexes, &c->nindexes, mem_strdup(s->indexes[i]));
	for (size_t i = 0; i < s->nfirst; i++)
		list_add(&c->first, &c->nfirst, mem_strdup(s->first[i]));
	for (size_t i = 0; i < s->nlinks; i++)
		list_add(&c->links, &c->nlinks, mem_strdup(s->links[i]));
	for (size_t i = 0; i < s->ntrusted; i++)
		list_add(&c->trusted, &c->ntrusted, mem_strdup(s->trusted[i]));
	for (size_t i = 0; i < s->nauths; i++)
		add_auth(c, (struct settings_auth){ mem_strdup(s->auths[i].origin),
						    mem_strdup(s->auths[i].path),
						    mem_strdup(s->auths[i].user),
						    mem_strdup(s->auths[i].password) });
	for (size_t i = 0; i < array_len(texts); i++)
		*text_of(c, i) = mem_strdup(*text_of(s, i));
	c->offline = s->offline;
	c->timeout_s = s->timeout_s;
	c->offline = s->offline;
	c->refresh = s->refresh;
	return c;
}

/* How far the two paths are the same. */
static size_t shared_path(const char *path, const char *url_path)
{
	size_t n = 0;

	while (path && path[n] && path[n] == url_path[n])
		n++;
	return n;
}

const struct settings_auth *settings_find_auth(const struct settings *s, const char *url)
{
	auto_free char *origin = s->nauths ? url_origin(url) : NULL;
	const char *authority = strstr(url, "://");
	const struct settings_auth *best = NULL;
	size_t best_shared = 0;

	for (size_t i = 0; origin && authority && i < s->nauths; i++) {
		const struct settings_auth *a = &s->auths[i];
		size_t n = shared_path(a->path, authority + 3 + strcspn(authority + 3, "/?#"));

		if (a->origin && strcmp(a->origin, origin) == 0 && (!best || n > best_shared)) {
			best = a;
			best_shared = n;
		}
	}
	return best;
}

bool settings_is_trusted(const struct settings *s, const char *url)
{
	auto_free char *origin = s->ntrusted ? url_origin(url) : NULL;
	const char *host = origin ? strstr(origin, "://") + 3 : NULL;

	for (size_t i = 0; host && i < s->ntrusted; i++) {
		size_t len = strlen(s->trusted[i]);

		/* "host" trusts every port of it, "host:port" only that one */
		if (strncmp(host, s->trusted[i], len) == 0 &&
		    (host[len] == '\0' || (host[len] == ':' && !strchr(s->trusted[i], ':'))))
			return true;
	}
	return false;
}
