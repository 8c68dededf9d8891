/* SPDX-License-Identifier: Apache-2.0 */
#include "index/digest.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "index/html.h"
#include "index/name.h"
#include "index/settings.h"
#include "index/sha.h"

/* May this text stand in a line? */
static bool fits(const char *s)
{
	for (; s && *s; s++)
		if ((unsigned char)*s < ' ' || *s == 127)
			return false;
	return true;
}

static bool has_scheme(const char *url)
{
	return strncmp(url, "https://", 8) == 0 || strncmp(url, "http://", 7) == 0 ||
	       strncmp(url, "file:///", 8) == 0;
}

int digest_add(struct buf *out, const struct digest_file *f, struct err *err)
{
	const char *sha256 = f->sha256 && sha_is_hex(f->sha256) ? f->sha256 : "";

	if (!fits(f->filename) || !*f->filename || strchr(f->filename, '/'))
		return 0;
	if (!name_is_wheel(f->filename))
		return buf_putf(out, err, "%s\n", f->filename);
	if (!fits(f->url) || !fits(f->requires_python) || !has_scheme(f->url))
		return 0;
	return buf_putf(out, err, "%s\t%s\t%s\t%llu\t%s\t%d\t%s\n", f->filename, f->url, sha256,
			f->size, f->requires_python ? f->requires_python : "", f->yanked,
			f->core ? f->core : "");
}

/* Nearly every URL is absolute already; then only what a lock must not hold is looked for. */
static char *absolute(const char *base, const char *url)
{
	const char *authority = strstr(url, "://");

	if (authority && has_scheme(url) && url[0] != 'f' && !strchr(url, '#') &&
	    !memchr(authority + 3, '@', strcspn(authority + 3, "/?")))
		return mem_strdup(url);
	return url_join(base, url);
}

/* "core-metadata": false, true, or {"sha256": "..."} */
static const char *core_of(json_t *file)
{
	json_t *core = json_object_get(file, "core-metadata");
	const char *sha256;

	if (!core)
		core = json_object_get(file, "dist-info-metadata");
	if (json_is_true(core))
		return "1";
	sha256 = json_string_value(json_object_get(core, "sha256"));
	if (sha256 && sha_is_hex(sha256))
		return sha256;
	return json_is_object(core) ? "1" : NULL;
}

static int json_file(const char *base, json_t *file, struct buf *out, struct err *err)
{
	json_t *yanked = json_object_get(file, "yanked");
	json_t *size = json_object_get(file, "size");
	const char *url = json_string_value(json_object_get(file, "url"));
	struct digest_file f = {
		.filename = json_string_value(json_object_get(file, "filename")),
		.sha256 = json_string_value(
			json_object_get(json_object_get(file, "hashes"), "sha256")),
		.requires_python = json_string_value(json_object_get(file, "requires-python")),
		.core = core_of(file),
		.size = json_integer_value(size) > 0 ? (unsigned long long)json_integer_value(size)
						     : 0,
		.yanked = json_is_true(yanked) || json_is_string(yanked),
	};
	auto_free char *whole = url ? absolute(base, url) : NULL;

	f.url = whole;
	if (!f.filename || !f.url)
		return 0;
	return digest_add(out, &f, err);
}

static int parse_json(const struct digest_page *page, struct buf *out, struct err *err)
{
	json_error_t jerr;
	json_t *root = json_loadb(page->text, page->len, 0, &jerr);
	json_t *files = json_object_get(root, "files");
	const char *version = json_string_value(
		json_object_get(json_object_get(root, "meta"), "api-version"));
	int rc = 0;

	if (!json_is_array(files))
		rc = err_set(err, ERR_CORRUPT, "%s is no index page: %s", page->url,
			     root ? "no list of files" : jerr.text);
	else if (version && strncmp(version, "1.", 2) != 0)
		rc = err_set(err, ERR_CORRUPT,
			     "%s speaks version %.20s of the index protocol; 1 is understood",
			     page->url, version);
	for (size_t i = 0; rc == 0 && i < json_array_size(files); i++)
		rc = json_file(page->url, json_array_get(files, i), out, err);
	json_decref(root);
	return rc;
}

struct html_page {
	char *base;
	struct buf *out;
};

static void html_base(void *arg, const char *href)
{
	struct html_page *page = arg;
	char *base = url_join(page->base, href);

	if (base) {
		free(page->base);
		page->base = base;
	}
}

/* The last part of an URL's path, %-escapes decoded as far as file names need them. */
static char *basename_of(const char *url)
{
	size_t len = strcspn(url, "?#"), from = len;
	char *name;
	size_t n = 0;

	while (from && url[from - 1] != '/')
		from--;
	name = mem_zero(1, len - from + 1);
	for (size_t i = from; i < len; i++) {
		char hex[3] = { 0 };

		if (url[i] == '%' && i + 2 < len) {
			memcpy(hex, url + i + 1, 2);
			name[n++] = (char)strtol(hex, NULL, 16);
			i += 2;
		} else {
			name[n++] = url[i];
		}
	}
	return name;
}

static int html_file(void *arg, const struct html_anchor *a, struct err *err)
{
	struct html_page *page = arg;
	const char *hash = strstr(a->href, "#sha256=");
	auto_free char *sha256 = hash ? mem_strndup(hash + 8, strcspn(hash + 8, "&")) : NULL;
	auto_free char *filename = basename_of(a->href);
	auto_free char *url = absolute(page->base, a->href);
	struct digest_file f = { .filename = filename,
				 .url = url,
				 .sha256 = sha256,
				 .requires_python = a->requires_python,
				 .yanked = a->yanked };

	if (a->core && strncmp(a->core, "sha256=", 7) == 0 && sha_is_hex(a->core + 7))
		f.core = a->core + 7;
	else if (a->core && strcmp(a->core, "false") != 0)
		f.core = "1";
	return url ? digest_add(page->out, &f, err) : 0;
}

static int parse_html(const struct digest_page *page, struct buf *out, struct err *err)
{
	static const struct html_events events = { html_file, html_base };
	struct html_page state = { mem_strdup(page->url), out };
	int rc = html_anchors(page->text, page->len, &events, &state, err);

	free(state.base);
	return rc;
}

int digest_parse(const struct digest_page *page, struct buf *out, struct err *err)
{
	size_t skip = 0;

	while (skip < page->len && isspace((unsigned char)page->text[skip]))
		skip++;

	if (page->content_type && strstr(page->content_type, "json"))
		return parse_json(page, out, err);
	if (!page->content_type && page->len > skip && page->text[skip] == '{')
		return parse_json(page, out, err);
	return parse_html(page, out, err);
}

struct line {
	const char *s;
	size_t len, name_len; /* name_len: of the file name in front */
};

static bool next_line(const struct buf *b, size_t *pos, struct line *out)
{
	const char *end, *tab;

	if (*pos >= b->len)
		return false;
	out->s = b->data + *pos;
	end = memchr(out->s, '\n', b->len - *pos);
	out->len = end ? (size_t)(end - out->s) : b->len - *pos;
	tab = memchr(out->s, '\t', out->len);
	out->name_len = tab ? (size_t)(tab - out->s) : out->len;
	*pos += out->len + 1;
	return true;
}

int digest_filter(const struct buf *digest, const char *name, const struct tags *tags, bool all,
		  struct buf *out)
{
	size_t pos = 0, wheels = 0, other = 0;
	struct line l;
	struct err err;

	while (next_line(digest, &pos, &l)) {
		int rank;

		if (!name_matches(l.s, l.name_len, name))
			continue;
		if (l.name_len == l.len)
			other++;
		else
			wheels++;
		rank = l.name_len == l.len ? -1 : tags_rank(tags, l.s, l.name_len);
		if (rank >= 0 && buf_putf(out, &err, "%d\t%.*s\n", rank, (int)l.len, l.s) < 0)
			return -1;
		if (all && buf_putf(out, &err, "%.*s\n", (int)l.name_len, l.s) < 0)
			return -1;
	}
	return buf_putf(out, &err, "wheels=%zu other=%zu\n", wheels, other);
}

static char *field(const char **at)
{
	size_t n = strcspn(*at, "\t\n");
	char *copy = mem_strndup(*at, n);

	*at += n;
	if (**at == '\t')
		(*at)++;
	return copy;
}

bool digest_find(const struct buf *filtered, const char *url, struct digest_line *out)
{
	auto_free char *needle = mem_printf("\t%s\t", url);
	const char *hit = filtered->len ? strstr(filtered->data, needle) : NULL;
	const char *at;

	if (!hit || strpbrk(url, "\t\n"))
		return false;
	for (at = hit; at > filtered->data && at[-1] != '\t' && at[-1] != '\n';)
		at--;
	out->filename = field(&at);
	out->url = field(&at);
	out->sha256 = field(&at);
	out->size = strtoull(at, NULL, 10);
	free(field(&at));
	free(field(&at));
	free(field(&at));
	out->core = field(&at);
	return true;
}

void digest_line_done(struct digest_line *line)
{
	free(line->filename);
	free(line->url);
	free(line->sha256);
	free(line->core);
}
