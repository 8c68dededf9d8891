/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/limits.h"
#include "base/mem.h"
#include "store/installer_priv.h"

static bool is_dots(const char *part, size_t len)
{
	return len == 0 || (len == 1 && part[0] == '.') ||
	       (len == 2 && part[0] == '.' && part[1] == '.');
}

int wheel_check_path(const char *path, struct err *err)
{
	size_t len = strlen(path);

	if (!len || *path == '/')
		return err_set(err, ERR_CORRUPT, "the wheel has an absolute path: '%.200s'", path);
	if (len > LIMIT_WHEEL_PATH_BYTES)
		return err_set(err, ERR_CORRUPT, "the wheel has a path of %zu bytes", len);
	for (const char *c = path; *c; c++)
		if (*c == '\\' || (unsigned char)*c < ' ' || *c == 0x7f)
			return err_set(err, ERR_CORRUPT, "the wheel has an odd path: '%.200s'",
				       path);
	for (const char *p = path; *p;) {
		size_t n = strcspn(p, "/");

		if (is_dots(p, n))
			return err_set(err, ERR_CORRUPT, "the wheel has an unsafe path: '%.200s'",
				       path);
		p += n + (p[n] == '/');
	}
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct member *)a)->name, ((const struct member *)b)->name);
}

static int by_folded_name(const void *a, const void *b)
{
	return strcasecmp(*(char *const *)a, *(char *const *)b);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct record *)a)->path, ((const struct record *)b)->path);
}

static int check_member(struct wheel *w, const zip_stat_t *st, mode_t *out_mode, struct err *err)
{
	zip_uint8_t system = 0;
	zip_uint32_t attributes = 0;

	if (wheel_check_path(st->name, err) < 0)
		return -1;
	if (st->size > LIMIT_WHEEL_UNPACKED_BYTES)
		return err_set(err, ERR_LIMIT, "'%s' unpacks to %llu bytes", st->name,
			       (unsigned long long)st->size);
	if (st->size > MIB && st->size / LIMIT_WHEEL_RATIO > st->comp_size)
		return err_set(err, ERR_CORRUPT, "'%s' is packed more than %d times: a bomb",
			       st->name, LIMIT_WHEEL_RATIO);
	*out_mode = 0;
	if (zip_file_get_external_attributes(w->zip, st->index, 0, &system, &attributes) == 0 &&
	    system == ZIP_OPSYS_UNIX)
		*out_mode = (mode_t)(attributes >> 16);
	if ((*out_mode & S_IFMT) && !S_ISREG(*out_mode) && !S_ISDIR(*out_mode))
		return err_set(err, ERR_CORRUPT, "'%s' is not a regular file", st->name);
	return 0;
}

static int read_members(struct wheel *w, struct err *err)
{
	zip_int64_t n = zip_get_num_entries(w->zip, 0);
	uint64_t total = 0;

	if (n < 0 || n > LIMIT_WHEEL_MEMBERS)
		return err_set(err, ERR_LIMIT, "the wheel has %lld members", (long long)n);
	w->members = mem_zero((size_t)n + 1, sizeof(struct member));
	for (zip_int64_t i = 0; i < n; i++) {
		zip_stat_t st;
		size_t len;
		mode_t mode = 0;

		if (zip_stat_index(w->zip, (zip_uint64_t)i, ZIP_FL_ENC_STRICT, &st) < 0 || !st.name)
			return err_set(err, ERR_CORRUPT, "the wheel's directory is broken");
		len = strlen(st.name);
		if (len && st.name[len - 1] == '/')
			continue; /* directories come from the files in them */
		if (check_member(w, &st, &mode, err) < 0)
			return -1;
		total += st.size;
		w->members[w->nmembers++] = (struct member){ .name = mem_strdup(st.name),
							     .index = (uint64_t)i,
							     .size = st.size,
							     .executable = mode & 0111 };
	}
	if (total > LIMIT_WHEEL_UNPACKED_BYTES)
		return err_set(err, ERR_LIMIT, "the wheel unpacks to %llu bytes",
			       (unsigned long long)total);
	qsort(w->members, w->nmembers, sizeof(struct member), by_name);
	return 0;
}

static int check_duplicates(struct wheel *w, struct err *err)
{
	auto_free char **names = mem_zero(w->nmembers + 1, sizeof(char *));

	for (size_t i = 0; i < w->nmembers; i++)
		names[i] = w->members[i].name;
	qsort(names, w->nmembers, sizeof(char *), by_folded_name);
	for (size_t i = 1; i < w->nmembers; i++) {
		if (strcmp(names[i - 1], names[i]) == 0)
			return err_set(err, ERR_CORRUPT, "the wheel has '%s' twice", names[i]);
		/* A file cannot also be a directory. */
		size_t len = strlen(names[i - 1]);
		if (strncmp(names[i - 1], names[i], len) == 0 && names[i][len] == '/')
			return err_set(err, ERR_CORRUPT, "'%s' is a file and a directory",
				       names[i - 1]);
	}
	return 0;
}

static int find_dist_info(struct wheel *w, struct err *err)
{
	static const char suffix[] = ".dist-info";

	for (size_t i = 0; i < w->nmembers; i++) {
		const char *slash = strchr(w->members[i].name, '/');
		size_t len = slash ? (size_t)(slash - w->members[i].name) : 0;

		if (len < sizeof(suffix) || strncmp(w->members[i].name + len - (sizeof(suffix) - 1),
						    suffix, sizeof(suffix) - 1) != 0)
			continue;
		if (!w->dist_info)
			w->dist_info = mem_strndup(w->members[i].name, len);
		else if (strncmp(w->dist_info, w->members[i].name, len) != 0 || w->dist_info[len])
			return err_set(err, ERR_CORRUPT, "the wheel has two dist-info directories");
	}
	if (!w->dist_info)
		return err_set(err, ERR_CORRUPT, "the wheel has no dist-info directory");
	w->data_dir = mem_printf("%.*s.data/", (int)(strlen(w->dist_info) - strlen(suffix)),
				 w->dist_info);
	return 0;
}

int wheel_read(struct wheel *w, const char *member, struct buf *out, struct err *err)
{
	zip_file_t *f = zip_fopen(w->zip, member, 0);
	zip_int64_t n = 0;
	int rc = 0;

	if (!f)
		return err_set(err, ERR_CORRUPT, "the wheel has no %s", member);
	for (;;) {
		char *to = buf_room(out, 65536, err);

		if (!to) {
			rc = -1;
			break;
		}
		n = zip_fread(f, to, 65536);
		if (n <= 0)
			break;
		buf_grew(out, (size_t)n);
	}
	if (zip_fclose(f) != 0 || n < 0)
		rc = err_set(err, ERR_CORRUPT, "'%s' in the wheel is damaged", member);
	return rc;
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

static int parse_record(struct wheel *w, char *text, struct err *err)
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

const struct record *wheel_record(const struct wheel *w, const char *path)
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

static int check_record(struct wheel *w, struct err *err)
{
	for (size_t i = 0; i < w->nmembers; i++) {
		const struct record *r = wheel_record(w, w->members[i].name);

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

/* PEP 503 for names; versions may spell '-' as '_' in file names. */
static void normalize(char *s)
{
	char *to = s;

	for (char *p = s; *p; p++) {
		char c = *p == '_' || *p == '.' || *p == '-' ? '-' : (char)tolower(*p);

		if (c == '-' && to > s && to[-1] == '-')
			continue;
		*to++ = c;
	}
	*to = '\0';
}

static char *header(const char *text, const char *name)
{
	size_t len = strlen(name);

	for (const char *line = text; *line && *line != '\n' && *line != '\r';) {
		size_t n = strcspn(line, "\n");

		if (n > len && strncasecmp(line, name, len) == 0 && line[len] == ':') {
			const char *value = line + len + 1;
			size_t m = n - len - 1;

			while (m && isspace((unsigned char)*value))
				value++, m--;
			while (m && isspace((unsigned char)value[m - 1]))
				m--;
			return mem_strndup(value, m);
		}
		line += n + (line[n] == '\n');
	}
	return NULL;
}

static int check_identity(struct wheel *w, const char *path, struct err *err)
{
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	auto_free char *member = mem_printf("%s/METADATA", w->dist_info);
	auto_free char *file = NULL, *own = NULL;
	auto_buf struct buf text = BUF_MAX(LIMIT_METADATA_BYTES);
	const char *first = strchr(base, '-'), *second = first ? strchr(first + 1, '-') : NULL;

	if (!second)
		return err_set(err, ERR_CORRUPT, "'%s' is not a wheel's file name", base);
	if (wheel_read(w, member, &text, err) < 0)
		return -1;
	w->name = header(text.data, "Name");
	w->version = header(text.data, "Version");
	if (!w->name || !w->version)
		return err_set(err, ERR_CORRUPT, "METADATA lacks Name or Version");
	file = mem_strndup(base, (size_t)(first - base));
	own = mem_strdup(w->name);
	normalize(file);
	normalize(own);
	if (strcmp(file, own) != 0)
		return err_set(err, ERR_CORRUPT, "the wheel of '%s' says that it is '%s'", file,
			       own);
	free(steal(file));
	free(steal(own));
	file = mem_strndup(
		w->dist_info,
		(size_t)(strchr(w->dist_info, '-') ? strchr(w->dist_info, '-') - w->dist_info : 0));
	own = mem_strdup(w->name);
	normalize(file);
	normalize(own);
	if (strcmp(file, own) != 0)
		return err_set(err, ERR_CORRUPT, "'%s' is not the dist-info of %s", w->dist_info,
			       w->name);
	return 0;
}

int wheel_open(const char *path, struct wheel *w, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(64 * MIB);
	auto_free char *record = NULL;
	int code = 0;

	memset(w, 0, sizeof(*w));
	w->zip = zip_open(path, ZIP_RDONLY | ZIP_CHECKCONS, &code);
	if (!w->zip)
		w->zip = zip_open(path, ZIP_RDONLY, &code);
	if (!w->zip)
		return err_set(err, ERR_CORRUPT, "the wheel is not a readable zip file");
	if (read_members(w, err) < 0 || check_duplicates(w, err) < 0 || find_dist_info(w, err) < 0)
		return -1;
	record = mem_printf("%s/RECORD", w->dist_info);
	if (wheel_read(w, record, &text, err) < 0 || !text.data ||
	    parse_record(w, text.data, err) < 0 || check_record(w, err) < 0)
		return -1;
	return check_identity(w, path, err);
}

void wheel_done(struct wheel *w)
{
	for (size_t i = 0; i < w->nmembers; i++)
		free(w->members[i].name);
	for (size_t i = 0; i < w->nrecords; i++)
		free(w->records[i].path);
	free(w->members);
	free(w->records);
	free(w->dist_info);
	free(w->data_dir);
	free(w->name);
	free(w->version);
	if (w->zip)
		zip_discard(w->zip);
}
