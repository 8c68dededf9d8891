/* SPDX-License-Identifier: Apache-2.0 */
#include "index/digest.h"

#include <ctype.h>
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
	if (!name_is_dist(f->filename))
		return buf_putf(out, err, "%s\n", f->filename);
	if (!fits(f->url) || !fits(f->requires_python) || !has_scheme(f->url))
		return 0;
	if (!fits(f->uploaded))
		return 0;
	return buf_putf(out, err, "%s\t%s\t%s\t%llu\t%s\t%d\t%s\t%s\n", f->filename, f->url, sha256,
			f->size, f->requires_python ? f->requires_python : "", f->yanked,
			f->core ? f->core : "", f->uploaded ? f->uploaded : "");
}

/* Only what may stand in a path as it is, and no part that goes up. */
static bool is_plain_path(const char *s, size_t len)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "-._~%+!/";

	return len && strspn(s, plain) >= len && !memmem(s, len, "/.", 2) && s[0] != '.';
}

/* Where the path of a plain http or https URL begins; 0: it is none, or holds credentials. */
static size_t path_of(const char *url)
{
	const char *authority = has_scheme(url) && url[0] != 'f' ? strstr(url, "://") + 3 : NULL;
	size_t len = authority ? strcspn(authority, "/?#") : 0;

	if (!authority || !isalnum((unsigned char)*authority) || memchr(authority, '@', len))
		return 0;
	return (size_t)(authority - url) + len;
}

/* The common forms, a hundred times as fast as curl's parser; NULL: it is none of them. */
static char *quick_url(const char *base, const char *url)
{
	size_t len = strcspn(url, "#"), to = strcspn(base, "?"), root = path_of(base), up = 0;

	if (path_of(url))
		return mem_strndup(url, len);
	for (; strncmp(url, "../", 3) == 0; url += 3, len -= 3)
		up++;
	if (!root || !is_plain_path(url, len) || strncmp(url, "//", 2) == 0)
		return NULL;
	if (url[0] == '/')
		return up ? NULL : mem_printf("%.*s%.*s", (int)root, base, (int)len, url);
	for (up++; up && to > root; up--) /* the last part of base, and what "../" takes */
		while (to > root && base[--to] != '/')
			continue;
	return up ? NULL : mem_printf("%.*s/%.*s", (int)to, base, (int)len, url);
}

/* %-escapes decoded. */
static char *decoded(const char *text, size_t len)
{
	char *out = mem_zero(1, len + 1);
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		char hex[3] = { 0 };

		if (text[i] == '%' && i + 2 < len) {
			memcpy(hex, text + i + 1, 2);
			out[n++] = (char)strtol(hex, NULL, 16);
			i += 2;
		} else {
			out[n++] = text[i];
		}
	}
	return out;
}

char *digest_file_url(const char *path)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "-._~/+";
	auto_buf struct buf url = { 0 };

	must(buf_puts(&url, "file://", NULL) == 0);
	for (; *path; path++)
		must(buf_putf(&url, NULL, strchr(plain, *path) ? "%c" : "%%%02X",
			      (unsigned char)*path) == 0);
	return buf_steal(&url);
}

char *digest_file_path(const char *url)
{
	return strncmp(url, "file:///", 8) == 0 ? decoded(url + 7, strlen(url + 7)) : NULL;
}

/* A link of a page that is a file of the caller's: only such a page may name files. */
static char *file_url(const char *base, const char *url)
{
	static const char localhost[] = "file://localhost/";
	auto_free char *path = NULL, *dir = NULL;

	if (strncmp(url, localhost, strlen(localhost)) == 0)
		url += strlen(localhost) - 1;
	else if (strncmp(url, "file:///", 8) == 0)
		url += 7;
	else if (strstr(url, "://") || strncmp(url, "//", 2) == 0)
		return url_join(NULL, url);
	path = decoded(url, strcspn(url, "?#"));
	dir = digest_file_path(base);
	*(strrchr(dir, '/') + 1) = '\0';
	if (path[0] != '/') {
		auto_free char *below = path;

		path = mem_printf("%s%s", dir, below);
	}
	return digest_file_url(path);
}

char *digest_url(const char *base, const char *url)
{
	char *quick = strncmp(base, "file:///", 8) == 0 ? file_url(base, url)
							: quick_url(base, url);

	return quick ? quick : url_join(base, url);
}

/* A line that no file's name can match; it stands first. Whoever offers files of a quarantined
 * dist breaks PEP 792: they are not taken. */
int digest_set_status(struct buf *out, const char *status, const char *reason, struct err *err)
{
	auto_buf struct buf old = *out;

	if (strcmp(status, "active") == 0 || !fits(status))
		return (memset(&old, 0, sizeof(old)), 0);
	*out = BUF_MAX(old.max);
	if (buf_putf(out, err, "#status=%.40s\t%.300s\n", status,
		     reason && fits(reason) ? reason : "") < 0)
		return -1;
	if (strcmp(status, "quarantined") == 0 || !old.len)
		return 0;
	return buf_put(out, old.data, old.len, err);
}

char *digest_status(const struct buf *digest, const char *name)
{
	static const char mark[] = "#status=";
	size_t word, why;
	const char *at;

	if (digest->len <= sizeof(mark) || memcmp(digest->data, mark, sizeof(mark) - 1) != 0)
		return NULL;
	at = digest->data + sizeof(mark) - 1;
	word = strcspn(at, "\t\n");
	why = at[word] == '\t' ? strcspn(at + word + 1, "\n") : 0;
	return mem_printf("the index calls %s %.*s%s%.*s%s", name, (int)word, at, why ? " (" : "",
			  (int)why, at + word + 1, why ? ")" : "");
}

struct html_page {
	char *base;
	struct buf *out;
	char *status, *reason;
};

static void html_meta(void *arg, const char *name, const char *content)
{
	struct html_page *page = arg;
	char **to = strcmp(name, "pypi:project-status") == 0	      ? &page->status
		    : strcmp(name, "pypi:project-status-reason") == 0 ? &page->reason
								      : NULL;

	if (to) {
		free(*to);
		*to = mem_strdup(content);
	}
}

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

	while (from && url[from - 1] != '/')
		from--;
	return decoded(url + from, len - from);
}

static int html_file(void *arg, const struct html_anchor *a, struct err *err)
{
	struct html_page *page = arg;
	const char *hash = strstr(a->href, "#sha256=");
	auto_free char *sha256 = hash ? mem_strndup(hash + 8, strcspn(hash + 8, "&")) : NULL;
	auto_free char *filename = basename_of(a->href);
	/* what is neither wheel nor sdist is only counted */
	auto_free char *url = name_is_dist(filename) ? digest_url(page->base, a->href)
						     : mem_strdup("");
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
	static const struct html_events events = { html_file, html_base, html_meta };
	struct html_page state = { .base = mem_strdup(page->url), .out = out };
	int rc = html_anchors(page->text, page->len, &events, &state, err);

	if (rc == 0 && state.status)
		rc = digest_set_status(out, state.status, state.reason, err);
	free(state.base);
	free(state.status);
	free(state.reason);
	return rc;
}

int digest_parse(const struct digest_page *page, struct buf *out, struct err *err)
{
	size_t skip = 0;

	while (skip < page->len && isspace((unsigned char)page->text[skip]))
		skip++;

	if (page->content_type && strstr(page->content_type, "json"))
		return page_json_parse(page, out, err);
	if (!page->content_type && page->len > skip && page->text[skip] == '{')
		return page_json_parse(page, out, err);
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

/* Before the line, what a resolver would otherwise have to find in it: version, rank, build. */
static int put_fitting(struct buf *out, const struct line *l, int rank, struct err *err)
{
	const char *version = memchr(l->s, '-', l->name_len), *build = "";
	const char *end = l->s + l->name_len;
	size_t version_len, build_len = 0;
	int dashes = 0;

	for (const char *p = l->s; p < end; p++)
		dashes += *p == '-';
	version++; /* name_is_wheel() saw four dashes or five */
	version_len = (size_t)((const char *)memchr(version, '-', (size_t)(end - version)) -
			       version);
	if (dashes == 5) {
		build = version + version_len + 1;
		build_len = (size_t)((const char *)memchr(build, '-', (size_t)(end - build)) -
				     build);
	}
	return buf_putf(out, err, "%.*s\t%d\t%.*s\t%.*s\n", (int)version_len, version, rank,
			(int)build_len, build, (int)l->len, l->s);
}

static int put_sdist(struct buf *out, const struct line *l, const char *name, struct err *err)
{
	size_t len = 0;
	const char *version = name_sdist_version(l->s, l->name_len, name, &len);

	return version ? buf_putf(out, err, "%.*s\t%d\t\t%.*s\n", (int)len, version,
				  DIGEST_SDIST_RANK, (int)l->len, l->s)
		       : 0;
}

int digest_filter(const struct buf *digest, const struct digest_want *want, struct buf *out)
{
	size_t pos = 0, wheels = 0, other = 0;
	struct line l;
	struct err err;

	while (next_line(digest, &pos, &l)) {
		bool wheel = l.name_len > 4 && memcmp(l.s + l.name_len - 4, ".whl", 4) == 0 &&
			     l.name_len < l.len;
		int rank = -1, rc = 0;

		if (!name_matches(l.s, l.name_len, want->name))
			continue;
		if (wheel)
			wheels++;
		else
			other++;
		if (wheel)
			rank = tags_rank(want->tags, l.s, l.name_len);
		if (rank >= 0)
			rc = put_fitting(out, &l, rank, &err);
		else if (!wheel && want->sdists && l.name_len < l.len)
			rc = put_sdist(out, &l, want->name, &err);
		if (rc == 0 && want->all)
			rc = buf_putf(out, &err, "%.*s\n", (int)l.name_len, l.s);
		if (rc < 0)
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
