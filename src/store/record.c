/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "store/installer_priv.h"

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct member *)a)->name, ((const struct member *)b)->name);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct record *)a)->path, ((const struct record *)b)->path);
}

/* One CSV field (RFC 4180 quoting); returns where the next begins, or NULL at the line's end. */
static char *csv_field(char **p, char *line_end)
{
	char *from = *p, *to = from, *start = from;
	bool quoted = from < line_end && *from == '"';

	if (quoted)
		from++;
	while (from < line_end) {
		if (quoted && *from == '"') {
			if (from + 1 < line_end && from[1] == '"') {
				from++;
			} else {
				quoted = false;
				from++;
				continue;
			}
		} else if (!quoted && *from == ',') {
			break;
		}
		*to++ = *from++;
	}
	*p = from < line_end ? from + 1 : NULL;
	*to = '\0';
	return start;
}

static int parse_hash(const char *text, struct record *r, struct err *err)
{
	const char *eq = strchr(text, '=');
	size_t len;

	if (!*text)
		return 0;
	len = eq ? (size_t)(eq - text) : 0;
	if (!len || len >= sizeof(r->algorithm) || strlen(eq + 1) >= sizeof(r->hash))
		return err_set(err, ERR_CORRUPT, "RECORD has a hash that is none: '%.100s'", text);
	memcpy(r->algorithm, text, len);
	strcpy(r->hash, eq + 1);
	return 0;
}

int record_parse(struct wheel *w, char *text, struct err *err)
{
	size_t cap = 0;

	while (*text) {
		char *end = text + strcspn(text, "\n"), *next = *end ? end + 1 : end, *p = text;
		char *path, *hash;
		struct record r = { 0 };

		if (end > text && end[-1] == '\r')
			end--;
		if (end > text) {
			path = csv_field(&p, end);
			hash = p ? csv_field(&p, end) : (char *)"";
			if (wheel_check_path(path, err) < 0 || parse_hash(hash, &r, err) < 0)
				return -1;
			if (w->nrecords == cap) {
				cap = cap ? cap * 2 : 256;
				w->records = mem_resize(w->records, cap * sizeof(r));
			}
			r.path = mem_strdup(path);
			w->records[w->nrecords++] = r;
		}
		text = next;
	}
	qsort(w->records, w->nrecords, sizeof(struct record), by_path);
	return 0;
}

const struct record *record_find(const struct wheel *w, const char *path)
{
	struct record key = { .path = (char *)path };

	return bsearch(&key, w->records, w->nrecords, sizeof(key), by_path);
}

/* Files that RECORD cannot have a hash of: itself and its signatures. */
static bool unhashed(const struct wheel *w, const char *path)
{
	size_t len = strlen(w->dist_info);

	return strncmp(path, w->dist_info, len) == 0 && path[len] == '/' &&
	       (strcmp(path + len, "/RECORD") == 0 || strcmp(path + len, "/RECORD.jws") == 0 ||
		strcmp(path + len, "/RECORD.p7s") == 0);
}

int record_check(struct wheel *w, struct err *err)
{
	if (w->lax)
		return 0;
	for (size_t i = 0; i < w->nmembers; i++) {
		const struct record *r = record_find(w, w->members[i].name);

		if (unhashed(w, w->members[i].name))
			continue;
		if (!r || !r->algorithm[0])
			return err_set(err, ERR_CORRUPT, "RECORD does not vouch for '%s'",
				       w->members[i].name);
	}
	for (size_t i = 0; i < w->nrecords; i++) {
		struct member key = { .name = w->records[i].path };
		size_t len = strlen(key.name);

		if (i && strcmp(w->records[i - 1].path, key.name) == 0)
			return err_set(err, ERR_CORRUPT, "RECORD has '%s' twice", key.name);
		if (len && key.name[len - 1] == '/')
			continue;
		if (!unhashed(w, key.name) &&
		    !bsearch(&key, w->members, w->nmembers, sizeof(key), by_name))
			return err_set(err, ERR_CORRUPT, "RECORD names '%s', which is not there",
				       key.name);
	}
	return 0;
}

static void base64url(const unsigned char *in, size_t len, char *out)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	unsigned int bits = 0, have = 0;

	for (size_t i = 0; i < len; i++) {
		bits = bits << 8 | in[i];
		have += 8;
		while (have >= 6) {
			have -= 6;
			*out++ = digits[bits >> have & 63];
		}
	}
	if (have)
		*out++ = digits[bits << (6 - have) & 63];
	*out = '\0';
}

int record_compare(const struct record *r, const unsigned char *digest, size_t len, struct err *err)
{
	char text[128];
	size_t n = strcspn(r->hash, "=");

	base64url(digest, len, text);
	if (strlen(text) != n || strncmp(text, r->hash, n) != 0)
		return err_set(err, ERR_CORRUPT, "'%s' is not what RECORD says (%s)", r->path,
			       r->algorithm);
	return 0;
}
