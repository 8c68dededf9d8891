/* SPDX-License-Identifier: Apache-2.0 */
#include "base/needs.h"

#include <ctype.h>
#include <errno.h>
#include <iconv.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"

void needs_done(struct needs *n)
{
	for (unsigned i = 0; i < n->nseen; i++)
		free(n->seen[i]);
	free(n->seen);
}

/* False: it was given already. */
static int first_time(struct needs *n, const char *path, struct err *err)
{
	for (unsigned i = 0; i < n->nseen; i++)
		if (strcmp(n->seen[i], path) == 0)
			return 0;
	if (n->nseen == LIMIT_NEEDS)
		return err_set(err, ERR_LIMIT,
			       "the requirements name more than %d files and wheels; put wheels "
			       "into a directory and name it with --find-links",
			       LIMIT_NEEDS);
	n->seen = mem_resize(n->seen, (n->nseen + 1) * sizeof(*n->seen));
	n->seen[n->nseen++] = mem_strdup(path);
	return 1;
}

/* --- text --------------------------------------------------------------------------------- */

/* Python's names for encodings are nearly iconv's: latin-1, utf_8. */
static iconv_t open_iconv(const char *name)
{
	auto_free char *plain = mem_strdup(name);
	iconv_t cd = iconv_open("UTF-8", name);
	char *to = plain;

	for (const char *s = name; *s; s++)
		if (*s != '-' && *s != '_')
			*to++ = *s;
	*to = '\0';
	return cd == (iconv_t)-1 ? iconv_open("UTF-8", plain) : cd;
}

static int convert(struct buf *b, const char *from, size_t skip, struct err *err)
{
	iconv_t cd = open_iconv(from);
	char *in = b->data + skip, *to, *at;
	size_t in_left = b->len - skip, room = in_left * 4 + 4, left = room;

	if (cd == (iconv_t)-1)
		return err_set(err, ERR_USAGE, "its encoding '%.40s' is not known", from);
	to = at = mem_zero(1, room + 1);
	if (iconv(cd, &in, &in_left, &at, &left) == (size_t)-1) {
		iconv_close(cd);
		free(to);
		return err_set(err, ERR_USAGE, "it is not text in %.40s", from);
	}
	iconv_close(cd);
	free(b->data);
	b->data = to;
	b->len = room - left;
	b->cap = room + 1;
	return 0;
}

/* "# -*- coding: NAME -*-" in one of the first two lines; out has 41 bytes. */
static bool coding_line(const struct buf *b, char *out)
{
	const char *line = b->data;

	for (int i = 0; i < 2 && line && *line; i++) {
		size_t len = strcspn(line, "\n");
		const char *hit = line[0] == '#' ? memmem(line, len, "coding", 6) : NULL;
		size_t n;

		if (hit && (hit[6] == ':' || hit[6] == '=')) {
			hit += 7 + strspn(hit + 7, " \t");
			n = strspn(hit, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					"0123456789-_.");
			if (n && n <= 40) {
				memcpy(out, hit, n);
				out[n] = '\0';
				return true;
			}
		}
		line = line[len] ? line + len + 1 : NULL;
	}
	return false;
}

static int to_utf8(struct buf *b, struct err *err)
{
	static const struct {
		const char *mark, *name;
		size_t len;
	} marks[] = {
		{ "\xef\xbb\xbf", "UTF-8", 3 },	   { "\xff\xfe\0\0", "UTF-32LE", 4 },
		{ "\0\0\xfe\xff", "UTF-32BE", 4 }, { "\xff\xfe", "UTF-16LE", 2 },
		{ "\xfe\xff", "UTF-16BE", 2 },
	};
	char name[41];

	for (size_t i = 0; i < array_len(marks); i++)
		if (b->len >= marks[i].len && memcmp(b->data, marks[i].mark, marks[i].len) == 0)
			return convert(b, marks[i].name, marks[i].len, err);
	if (!b->len)
		return 0;
	if (memchr(b->data, '\0', b->len))
		return err_set(err, ERR_USAGE, "it is not a text file");
	if (coding_line(b, name) && strcasecmp(name, "utf-8") != 0 && strcasecmp(name, "utf8") != 0)
		return convert(b, name, 0, err);
	return 0;
}

/* ${NAME}, where NAME is of capitals, digits and "_" and set to something; as pip. */
static int replace_variables(struct needs *n, struct buf *b, struct err *err)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
	auto_buf struct buf out = BUF_MAX(LIMIT_REQUIREMENTS_BYTES);
	const char *at = b->data, *hit;

	if (!at || !strstr(at, "${"))
		return 0;
	while ((hit = strstr(at, "${"))) {
		size_t len = strspn(hit + 2, letters);
		auto_free char *name = mem_strndup(hit + 2, len);
		const char *value = len && hit[2 + len] == '}' ? n->variable(n->ctx, name) : NULL;

		if (buf_put(&out, at, (size_t)(hit - at), err) < 0)
			return -1;
		if (value && *value && !strpbrk(value, "\r\n")) {
			if (buf_puts(&out, value, err) < 0)
				return -1;
			at = hit + len + 3;
		} else {
			if (buf_put(&out, hit, 2, err) < 0)
				return -1;
			at = hit + 2;
		}
	}
	if (buf_puts(&out, at, err) < 0)
		return -1;
	buf_done(b);
	*b = out;
	out = (struct buf){ 0 };
	return 0;
}

/* --- wheels ------------------------------------------------------------------------------- */

static char *beside(const char *file, const char *written)
{
	const char *slash = strrchr(file, '/');

	if (written[0] == '/' || !slash)
		return mem_strdup(written);
	return mem_printf("%.*s/%s", slash == file ? 0 : (int)(slash - file), file, written);
}

static void decode_percent(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '%' && isxdigit((unsigned char)s[1]) && isxdigit((unsigned char)s[2])) {
			char hex[3] = { s[1], s[2], 0 };

			*to++ = (char)strtol(hex, NULL, 16);
			s += 2;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/* Behind the first word that ends as a wheel or sdist does; NULL: there is none. */
static const char *end_of_file(const char *text, size_t len)
{
	static const char *const ends[] = {
		".whl", ".tar.gz", ".zip", ".tgz", ".tar.bz2", ".tar.xz"
	};
	const char *stop = text + len;

	for (const char *dot = text; (dot = memchr(dot, '.', (size_t)(stop - dot))) != NULL; dot++)
		for (size_t i = 0; i < array_len(ends); i++) {
			size_t n = strlen(ends[i]);

			if (n <= (size_t)(stop - dot) && memcmp(dot, ends[i], n) == 0 &&
			    (dot + n == stop || strchr(" \t\r\n\"'[;?#", dot[n])))
				return dot + n;
		}
	return NULL;
}

/* The path in "name @ file:///x.whl", "./x.whl[extra]" and the like; NULL: none. */
static char *wheel_path_in(const char *text, size_t len)
{
	const char *end = end_of_file(text, len), *file;
	auto_free char *s = end ? mem_strndup(text, (size_t)(end - text)) : NULL;
	char *path = s;

	if (!s)
		return NULL;
	file = strstr(s, "file:");
	if (file && (file == s || strchr("@ \t", file[-1])))
		path = s + (file - s);
	else if (strstr(s, "://"))
		return NULL;
	else if (strrchr(s, '@') && strpbrk(strrchr(s, '@'), "/."))
		path = strrchr(s, '@') + 1;
	path += strspn(path, " \t");
	if (strncmp(path, "file:", 5) == 0) {
		path += 5;
		decode_percent(path);
		if (strncmp(path, "///", 3) == 0)
			path += 2;
	}
	return *path ? mem_strdup(path) : NULL;
}

static int give_wheel(struct needs *n, const char *file, const char *text, size_t len,
		      struct err *err)
{
	auto_free char *written = wheel_path_in(text, len), *path = NULL;
	int fd, rc;

	if (!written)
		return 0;
	path = beside(file, written);
	rc = first_time(n, path, err);
	if (rc <= 0)
		return rc;
	fd = n->open(n->ctx, path);
	if (fd < 0)
		return 0; /* the resolver says so, if it is one at all */
	return n->wheel(n->ctx, path, fd, err);
}

int needs_word(struct needs *n, const char *word, struct err *err)
{
	return give_wheel(n, "", word, strlen(word), err);
}

int needs_toml(struct needs *n, const char *path, const char *text, struct err *err)
{
	const char *stop = text + strlen(text);

	for (const char *end = text; (end = end_of_file(end, (size_t)(stop - end))) != NULL;) {
		const char *from = end;

		while (from > text && !strchr("\"'\n", from[-1]))
			from--;
		if (give_wheel(n, path, from, (size_t)(end - from), err) < 0)
			return -1;
	}
	return 0;
}

/* --- requirements files ------------------------------------------------------------------- */

static int give_file(struct needs *n, const char *path, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_REQUIREMENTS_BYTES);
	auto_close int fd = -1;
	int rc = first_time(n, path, err);

	if (rc <= 0 || strstr(path, "://"))
		return rc < 0 ? -1 : 0;
	fd = n->open(n->ctx, path);
	if (fd < 0) {
		err_sys(err, errno, "the requirements name the file '%s'", path);
		err->kind = ERR_USAGE;
		return -1;
	}
	if (buf_read_fd(&text, fd, err) < 0)
		return err_wrap(err, "reading '%s'", path);
	if (needs_requirements(n, path, &text, err) < 0)
		return -1;
	return n->file(n->ctx, path, text.data ? text.data : "", err);
}

/* What an option's word has behind "-r", "--requirement=", or in the next word. */
static const char *include_of(const char *word, const char *next, bool *takes_next)
{
	static const char *const names[] = { "-r", "-c", "--requirement", "--constraint" };

	for (size_t i = 0; i < array_len(names); i++) {
		size_t len = strlen(names[i]);

		if (strncmp(word, names[i], len) != 0)
			continue;
		*takes_next = !word[len];
		if (!word[len])
			return next;
		if (word[len] == '=')
			return word + len + 1;
		if (i < 2)
			return word + len;
	}
	return NULL;
}

static void strip_quotes(char *word)
{
	size_t len = strlen(word);

	if (len >= 2 && (word[0] == '"' || word[0] == '\'') && word[len - 1] == word[0]) {
		memmove(word, word + 1, len - 2);
		word[len - 2] = '\0';
	}
}

static int read_line(struct needs *n, const char *path, char *line, struct err *err)
{
	char *save = NULL, *word = strtok_r(line, " \t\r", &save);
	bool options = false;

	while (word) {
		char *next = strtok_r(NULL, " \t\r", &save);
		const char *include;
		bool takes_next = false;

		options = options || word[0] == '-';
		if (next)
			strip_quotes(next);
		include = options ? include_of(word, next, &takes_next) : NULL;
		if (include) {
			auto_free char *whole = beside(path, include);

			if (give_file(n, whole, err) < 0)
				return -1;
		} else if (!options && give_wheel(n, path, word, strlen(word), err) < 0) {
			return -1;
		}
		word = takes_next ? strtok_r(NULL, " \t\r", &save) : next;
	}
	return 0;
}

/* Without its comment: "#" at the front or after white space. */
static size_t bare_length(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (line[i] == '#' && (i == 0 || isspace((unsigned char)line[i - 1])))
			return i;
	return len;
}

int needs_requirements(struct needs *n, const char *path, struct buf *text, struct err *err)
{
	auto_buf struct buf line = BUF_MAX(LIMIT_REQUIREMENTS_BYTES + 1);
	const char *at;

	if (to_utf8(text, err) < 0 || replace_variables(n, text, err) < 0)
		return err_wrap(err, "'%s'", path);
	for (at = text->data; at && *at;) {
		size_t len = strcspn(at, "\n"), whole = len + (at[len] == '\n');
		bool goes_on;

		if (len && at[len - 1] == '\r')
			len--;
		goes_on = len && at[len - 1] == '\\' && bare_length(at, len) == len;
		if (buf_put(&line, at, goes_on ? len - 1 : bare_length(at, len), err) < 0)
			return -1;
		at += whole;
		if (goes_on && *at)
			continue;
		if (line.len && read_line(n, path, line.data, err) < 0)
			return -1;
		buf_reset(&line);
	}
	return 0;
}
