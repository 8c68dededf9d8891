/* SPDX-License-Identifier: Apache-2.0
 *
 * What a resolver may name: files of the pages that it was given, and what its caller wrote down.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "index/digest.h"
#include "index/private.h"

/* A page that the resolver was given. */
struct given {
	struct given *next;
	char *name;
	bool expected; /* one of its wheels */
	struct buf filtered;
};

/* A sum that was computed: of a file of which no index had said it, or of what was built. */
struct known {
	struct known *next;
	char *url, *filename;
	char sha256[SHA_HEX];
};

void offered_done(struct offered *o)
{
	struct given *g;
	struct known *k;

	while ((g = o->given)) {
		o->given = g->next;
		free(g->name);
		buf_done(&g->filtered);
		free(g);
	}
	while ((k = o->known)) {
		o->known = k->next;
		free(k->url);
		free(k->filename);
		free(k);
	}
}

void offered_page(struct offered *o, const char *name, struct buf *filtered)
{
	struct given *g = mem_new(struct given);

	g->name = mem_strdup(name);
	g->filtered = *filtered;
	memset(filtered, 0, sizeof(*filtered));
	g->next = o->given;
	o->given = g;
}

void offered_sum(struct offered *o, const char *url, const char *filename, const char *sha256)
{
	struct known *k = mem_new(struct known);

	k->url = mem_strdup(url);
	k->filename = mem_strdup(filename);
	memcpy(k->sha256, sha256, SHA_HEX);
	k->next = o->known;
	o->known = k;
}

static bool is_known(const struct offered *o, const char *url, const char *filename,
		     const char *sha256)
{
	for (struct known *k = o->known; k; k = k->next)
		if (strcmp(k->url, url) == 0 && strcmp(k->filename, filename) == 0 &&
		    strcmp(k->sha256, sha256) == 0)
			return true;
	return false;
}

bool offered_given(const struct offered *o, const char *name, const char *url,
		   struct digest_line *out)
{
	for (struct given *g = o->given; g; g = g->next)
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

/* A file that came along with the request. */
static bool find_local(const struct asked *asked, const char *url, struct digest_line *out)
{
	for (size_t i = 0; strncmp(url, "file://", 7) == 0 && i < asked->nlocals; i++)
		if (strcmp(asked->locals[i].path, url + 7) == 0) {
			memset(out, 0, sizeof(*out));
			out->filename = mem_strdup(strrchr(url, '/') + 1);
			out->url = mem_strdup(url);
			out->core = mem_strdup("");
			out->sha256 = mem_strdup(asked->locals[i].sha256);
			out->size = asked->locals[i].size_bytes;
			return true;
		}
	return false;
}

bool offered_written(const struct offered *o, const char *url, struct digest_line *out)
{
	const char *hit;

	if (find_local(o->asked, url, out))
		return true;
	if ((strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0) ||
	    !(hit = find_whole(o->asked->text, url)))
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

bool offered_is_likely(const struct offered *o, const char *name)
{
	for (struct given *g = o->given; g; g = g->next)
		if (strcmp(g->name, name) == 0) {
			bool first = !g->expected;

			g->expected = true;
			return first;
		}
	return false;
}

bool offered_place(const struct offered *o, const char *place)
{
	size_t len = o->asked->root ? strlen(o->asked->root) : 0;

	if (find_whole(o->asked->text, place))
		return true;
	return len && strncmp(place, o->asked->root, len) == 0 && place[len] == '/' &&
	       !strstr(place, "/../") && place[0] == '/';
}

bool offered_dist(const struct offered *o, const struct lock_dist *d)
{
	const char *filename = d->sdist ? d->sdist : d->filename;
	const char *sha256 = d->sdist ? d->sdist_sha256 : d->sha256;
	struct digest_line line;
	bool ok = false, written = false;

	if (offered_given(o, d->name, d->url, &line))
		ok = strcmp(line.filename, filename) == 0;
	else if (offered_written(o, d->url, &line))
		ok = written = true;
	else
		return false;
	if (line.sha256[0])
		ok = ok && strcmp(line.sha256, sha256) == 0;
	else if (!written || !strcasestr(o->asked->text, sha256))
		ok = ok && is_known(o, d->url, filename, sha256);
	if (d->sdist)
		ok = ok && is_known(o, d->url, d->filename, d->sha256);
	digest_line_done(&line);
	return ok;
}
