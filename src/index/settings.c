/* SPDX-License-Identifier: Apache-2.0 */
#include "index/settings.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

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
	list_free(s->links, s->nlinks);
	list_free(s->trusted, s->ntrusted);
	for (size_t i = 0; i < s->nauths; i++) {
		free(s->auths[i].origin);
		free(s->auths[i].user);
		free(s->auths[i].password);
	}
	free(s->auths);
	free(s->cert);
	free(s->client_cert);
	free(s->proxy);
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

/* Take the credentials out of an URL and remember them for its origin. NULL: not an URL. */
static char *take_auth(struct settings *s, const char *url)
{
	CURLU *u = curl_url();
	char *user, *clean = NULL;

	must(u);
	if (curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK) {
		user = part(u, CURLUPART_USER, CURLU_URLDECODE);
		if (user) {
			struct settings_auth *a;
			char *password = part(u, CURLUPART_PASSWORD, CURLU_URLDECODE);

			s->auths = mem_resize(s->auths, (s->nauths + 1) * sizeof(*s->auths));
			a = &s->auths[s->nauths++];
			a->origin = origin_of(u);
			a->user = user;
			a->password = password ? password : mem_strdup("");
			curl_url_set(u, CURLUPART_USER, NULL, 0);
			curl_url_set(u, CURLUPART_PASSWORD, NULL, 0);
		}
		clean = part(u, CURLUPART_URL, 0);
	}
	curl_url_cleanup(u);
	return clean;
}

int settings_add_index(struct settings *s, const char *url, bool first, struct err *err)
{
	char *clean = take_auth(s, url);
	size_t len;

	if (!clean || (strncmp(clean, "https://", 8) != 0 && strncmp(clean, "http://", 7) != 0)) {
		free(clean);
		return err_set(err, ERR_USAGE,
			       "the index URL is not an http or https URL; check --index-url and "
			       "pip's configuration");
	}
	for (len = strlen(clean); len && clean[len - 1] == '/'; len--)
		clean[len - 1] = '\0';
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

static int add_link(struct settings *s, const char *link, struct err *err)
{
	char *clean;

	if (strncmp(link, "file://", 7) == 0)
		clean = mem_strdup(link + 7);
	else if (strstr(link, "://"))
		clean = take_auth(s, link);
	else
		clean = mem_strdup(link);
	if (!clean)
		return err_set(err, ERR_USAGE,
			       "a find-links entry of pip's configuration is "
			       "neither a directory nor an URL");
	list_add(&s->links, &s->nlinks, clean);
	return 0;
}

static int add_trusted(struct settings *s, const char *host, struct err *err)
{
	list_add(&s->trusted, &s->ntrusted, mem_strdup(host));
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
		struct settings_auth *a;

		if (json_unpack(json_array_get(list, i), "{s:s, s:s, s:s}", "origin", &origin,
				"user", &user, "password", &password) < 0)
			continue;
		s->auths = mem_resize(s->auths, (s->nauths + 1) * sizeof(*s->auths));
		a = &s->auths[s->nauths++];
		a->origin = url_origin(origin);
		a->user = mem_strdup(user);
		a->password = mem_strdup(password);
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
	if (each(s, json_object_get(root, "extra_index_urls"), add_extra, err) < 0 ||
	    each(s, json_object_get(root, "find_links"), add_link, err) < 0 ||
	    each(s, json_object_get(root, "trusted_hosts"), add_trusted, err) < 0)
		return -1;
	parse_auth(s, json_object_get(root, "auth"));
	s->cert = mem_strdup(json_string_value(json_object_get(root, "cert")));
	s->client_cert = mem_strdup(json_string_value(json_object_get(root, "client_cert")));
	s->proxy = mem_strdup(json_string_value(json_object_get(root, "proxy")));
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
	for (size_t i = 0; i < s->nlinks; i++)
		list_add(&c->links, &c->nlinks, mem_strdup(s->links[i]));
	for (size_t i = 0; i < s->ntrusted; i++)
		list_add(&c->trusted, &c->ntrusted, mem_strdup(s->trusted[i]));
	c->auths = mem_zero(s->nauths + 1, sizeof(*c->auths));
	for (; c->nauths < s->nauths; c->nauths++) {
		c->auths[c->nauths].origin = mem_strdup(s->auths[c->nauths].origin);
		c->auths[c->nauths].user = mem_strdup(s->auths[c->nauths].user);
		c->auths[c->nauths].password = mem_strdup(s->auths[c->nauths].password);
	}
	c->cert = mem_strdup(s->cert);
	c->client_cert = mem_strdup(s->client_cert);
	c->proxy = mem_strdup(s->proxy);
	c->timeout_s = s->timeout_s;
	return c;
}

const struct settings_auth *settings_find_auth(const struct settings *s, const char *url)
{
	auto_free char *origin = s->nauths ? url_origin(url) : NULL;

	for (size_t i = 0; origin && i < s->nauths; i++)
		if (s->auths[i].origin && strcmp(s->auths[i].origin, origin) == 0)
			return &s->auths[i];
	return NULL;
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
