/* SPDX-License-Identifier: Apache-2.0 */
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

static int check_member(struct wheel *w, const zip_stat_t *st, mode_t *out_mode, struct err *err)
{
	zip_uint8_t system = 0;
	zip_uint32_t attributes = 0;

	if (wheel_check_path(st->name, err) < 0)
		return -1;
	if (st->size > LIMIT_WHEEL_UNPACKED_BYTES)
		return err_set(err, ERR_LIMIT, "'%s' unpacks to %llu bytes", st->name,
			       (unsigned long long)st->size);
	if (st->encryption_method != ZIP_EM_NONE)
		return err_set(err, ERR_CORRUPT, "'%s' is encrypted", st->name);
	if (st->comp_method != ZIP_CM_STORE && st->comp_method != ZIP_CM_DEFLATE)
		return err_set(err, ERR_CORRUPT, "'%s' is packed by a method (%d) no wheel uses",
			       st->name, st->comp_method);
	if (st->comp_method == ZIP_CM_STORE && st->size != st->comp_size)
		return err_set(err, ERR_CORRUPT, "'%s' lies about its size", st->name);
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

static int read_member(struct wheel *w, zip_uint64_t index, uint64_t *total, struct err *err)
{
	zip_stat_t st;
	size_t len;
	mode_t mode = 0;

	if (zip_stat_index(w->zip, index, ZIP_FL_ENC_STRICT, &st) < 0 || !st.name)
		return err_set(err, ERR_CORRUPT, "the wheel's directory is broken");
	len = strlen(st.name);
	if (len && st.name[len - 1] == '/')
		return 0; /* directories come from the files in them */
	if (check_member(w, &st, &mode, err) < 0)
		return -1;
	*total += st.size;
	w->members[w->nmembers++] = (struct member){ .name = mem_strdup(st.name),
						     .index = index,
						     .size = st.size,
						     .packed = st.comp_size,
						     .crc = st.crc,
						     .method = st.comp_method,
						     .executable = mode & 0111 };
	return 0;
}

static int read_members(struct wheel *w, uint64_t file_bytes, struct err *err)
{
	zip_int64_t n = zip_get_num_entries(w->zip, 0);
	uint64_t total = 0;

	if (n < 0 || n > LIMIT_WHEEL_MEMBERS)
		return err_set(err, ERR_LIMIT, "the wheel has %lld members", (long long)n);
	w->members = mem_zero((size_t)n + 1, sizeof(struct member));
	for (zip_int64_t i = 0; i < n; i++)
		if (read_member(w, (zip_uint64_t)i, &total, err) < 0)
			return -1;
	if (total > LIMIT_WHEEL_UNPACKED_BYTES)
		return err_set(err, ERR_LIMIT, "the wheel unpacks to %llu bytes",
			       (unsigned long long)total);
	/* Members that share their packed bytes pass the check of each. */
	if (total > MIB && total / LIMIT_WHEEL_RATIO > file_bytes)
		return err_set(err, ERR_CORRUPT,
			       "the wheel unpacks to more than %d times its size: a bomb",
			       LIMIT_WHEEL_RATIO);
	qsort(w->members, w->nmembers, sizeof(struct member), by_name);
	return 0;
}

const struct member *wheel_member(const struct wheel *w, const char *name)
{
	struct member key = { .name = (char *)name };

	return bsearch(&key, w->members, w->nmembers, sizeof(key), by_name);
}

/* Two names that one file system or another takes for the same. */
static int check_duplicates(struct wheel *w, struct err *err)
{
	auto_free char **names = mem_zero(w->nmembers + 1, sizeof(char *));

	for (size_t i = 0; i < w->nmembers; i++)
		names[i] = w->members[i].name;
	qsort(names, w->nmembers, sizeof(char *), by_folded_name);
	for (size_t i = 1; i < w->nmembers; i++) {
		if (strcmp(names[i - 1], names[i]) == 0)
			return err_set(err, ERR_CORRUPT, "the wheel has '%s' twice", names[i]);
		if (strcasecmp(names[i - 1], names[i]) == 0)
			return err_set(err, ERR_CORRUPT,
				       "the wheel has both '%s' and '%s': they differ in case only",
				       names[i - 1], names[i]);
	}
	for (size_t i = 0; i < w->nmembers; i++)
		for (char *slash = strchr(names[i], '/'); slash; slash = strchr(slash + 1, '/')) {
			auto_free char *parent = mem_strndup(names[i], (size_t)(slash - names[i]));

			if (bsearch(&parent, names, w->nmembers, sizeof(char *), by_folded_name))
				return err_set(err, ERR_CORRUPT, "'%s' is a file and a directory",
					       parent);
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

int wheel_open(const char *path, bool lax, struct wheel *w, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_RECORD_BYTES);
	auto_free char *record = NULL;
	struct stat st;
	int code = 0;

	memset(w, 0, sizeof(*w));
	w->lax = lax;
	w->zip = zip_open(path, ZIP_RDONLY | ZIP_CHECKCONS, &code);
	if (!w->zip)
		w->zip = zip_open(path, ZIP_RDONLY, &code);
	if (!w->zip || stat(path, &st) < 0)
		return err_set(err, ERR_CORRUPT, "the wheel is not a readable zip file");
	if (read_members(w, (uint64_t)st.st_size, err) < 0 || check_duplicates(w, err) < 0 ||
	    find_dist_info(w, err) < 0)
		return -1;
	record = mem_printf("%s/RECORD", w->dist_info);
	if (wheel_read(w, record, &text, err) < 0 || !text.data ||
	    record_parse(w, text.data, err) < 0 || record_check(w, err) < 0)
		return -1;
	return identity_check(w, path, err);
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
	buf_done(&w->metadata);
	json_decref(w->top_level);
	json_decref(w->imports);
	if (w->zip)
		zip_discard(w->zip);
}
