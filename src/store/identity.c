/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/limits.h"
#include "base/mem.h"
#include "store/installer_priv.h"

void identity_normalize(char *name)
{
	char *to = name;

	for (const char *p = name; *p; p++) {
		char c = *p == '_' || *p == '.' || *p == '-' ? '-' : (char)tolower(*p);

		if (c == '-' && to > name && to[-1] == '-')
			continue;
		*to++ = c;
	}
	*to = '\0';
}

char *identity_header(const char *text, const char *name, size_t n)
{
	size_t len = strlen(name);

	for (const char *line = text; *line && *line != '\n' && *line != '\r';) {
		size_t end = strcspn(line, "\n");

		if (end > len && strncasecmp(line, name, len) == 0 && line[len] == ':' && !n--) {
			const char *value = line + len + 1;
			size_t m = end - len - 1;

			while (m && isspace((unsigned char)*value))
				value++, m--;
			while (m && isspace((unsigned char)value[m - 1]))
				m--;
			return mem_strndup(value, m);
		}
		line += end + (line[end] == '\n');
	}
	return NULL;
}

/* The letters of a pre-, post- or development release, as PEP 440 normalizes them. */
static const char *letters(const char *word, size_t len)
{
	static const struct {
		const char *spelled, *normal;
	} words[] = { { "alpha", "a" },	   { "beta", "b" },   { "c", "rc" },  { "pre", "rc" },
		      { "preview", "rc" }, { "rev", "post" }, { "r", "post" } };

	for (size_t i = 0; i < array_len(words); i++)
		if (strlen(words[i].spelled) == len && strncmp(words[i].spelled, word, len) == 0)
			return words[i].normal;
	return NULL;
}

struct version {
	char *out, *to, *release_end; /* release_end: zeros beyond it do not count */
	bool release, local;
};

static size_t put_number(struct version *v, const char *p)
{
	size_t zeros = 0, n;

	while (p[zeros] == '0' && isdigit((unsigned char)p[zeros + 1]))
		zeros++;
	n = strspn(p + zeros, "0123456789");
	if (v->to > v->out)
		*v->to++ = '.';
	v->to = mempcpy(v->to, p + zeros, n);
	if (v->release && (n > 1 || p[zeros] != '0'))
		v->release_end = v->to;
	return zeros + n;
}

static void end_release(struct version *v)
{
	if (v->release)
		v->to = v->release_end;
	v->release = false;
}

static size_t put_word(struct version *v, const char *p)
{
	char word[64];
	const char *normal;
	size_t n = 0;

	while (isalpha((unsigned char)p[n]) && n < sizeof(word))
		word[n] = (char)tolower(p[n]), n++;
	end_release(v);
	normal = v->local ? NULL : letters(word, n);
	v->to = normal ? stpcpy(v->to, normal) : mempcpy(v->to, word, n);
	return n;
}

static void put_separator(struct version *v, const char *p)
{
	if (*p == '!') {
		*v->to++ = '!';
		v->release_end = v->to;
	} else if (*p == '+') {
		end_release(v);
		v->local = true;
		*v->to++ = '+';
	} else if (*p == '-' && isdigit((unsigned char)p[1]) && !v->local) {
		end_release(v); /* "1.0-1" is "1.0.post1" */
		v->to = stpcpy(v->to, "post");
	}
}

/* Without what does not count: case, 'v', separators, zeros in front, zeros at the release's end.
 * Only for comparing: it need not be a version that an index would take. */
char *identity_version(const char *text)
{
	struct version v = { .out = mem_zero(1, 6 * strlen(text) + 8), .release = true };
	const char *p = text + (*text == 'v' || *text == 'V');

	v.to = v.release_end = v.out;
	while (*p) {
		if (isdigit((unsigned char)*p))
			p += put_number(&v, p);
		else if (isalpha((unsigned char)*p))
			p += put_word(&v, p);
		else
			put_separator(&v, p++);
	}
	end_release(&v);
	*v.to = '\0';
	return v.out;
}

static bool same_name(const char *a, size_t len, const char *b)
{
	auto_free char *x = mem_strndup(a, len), *y = mem_strdup(b);

	identity_normalize(x);
	identity_normalize(y);
	return strcmp(x, y) == 0;
}

static bool same_version(const char *a, size_t len, const char *b)
{
	auto_free char *text = mem_strndup(a, len), *x = NULL, *y = identity_version(b);

	for (char *c = text; *c; c++) /* file names spell '-' so, and a local version's '+' stays */
		if (*c == '_')
			*c = '-';
	x = identity_version(text);
	return strcmp(x, y) == 0;
}

/* NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl */
static int check_name(const struct wheel *w, const char *base, struct err *err)
{
	const char *dash = strchr(base, '-'), *second = dash ? strchr(dash + 1, '-') : NULL;
	size_t stem = strlen(w->dist_info) - strlen(".dist-info");
	const char *split = memchr(w->dist_info, '-', stem);

	if (!second)
		return err_set(err, ERR_CORRUPT, "'%s' is not a wheel's file name", base);
	if (!same_name(base, (size_t)(dash - base), w->name))
		return err_set(err, ERR_CORRUPT, "the wheel of '%.*s' says that it is '%s'",
			       (int)(dash - base), base, w->name);
	if (!same_version(dash + 1, (size_t)(second - dash - 1), w->version))
		return err_set(err, ERR_CORRUPT, "the wheel of version %.*s says that it is %s",
			       (int)(second - dash - 1), dash + 1, w->version);
	if (!split || !same_name(w->dist_info, (size_t)(split - w->dist_info), w->name) ||
	    !same_version(split + 1, stem - (size_t)(split + 1 - w->dist_info), w->version))
		return err_set(err, ERR_CORRUPT, "'%s' is not the dist-info of %s %s", w->dist_info,
			       w->name, w->version);
	return 0;
}

static bool in_set(const char *set, size_t len, const char *word, size_t word_len)
{
	while (len) {
		size_t n = 0;

		while (n < len && set[n] != '.')
			n++;
		if (n == word_len && strncmp(set, word, n) == 0)
			return true;
		n += n < len;
		set += n;
		len -= n;
	}
	return false;
}

/* Is the WHEEL file's tag one of those that the file's name promises? The platform may have been
 * renamed by who repaired the wheel (linux_x86_64 to manylinux), but "any" is no platform. */
static bool tag_fits(const char *tag, const char *name_tags)
{
	const char *abi = strchr(name_tags, '-') + 1, *platform = strchr(abi, '-') + 1;
	const char *tag_abi = strchr(tag, '-'), *tag_platform = NULL;

	if (!tag_abi++)
		return false;
	tag_platform = strchr(tag_abi, '-');
	if (!tag_platform++)
		return false;
	return in_set(name_tags, (size_t)(abi - name_tags - 1), tag, (size_t)(tag_abi - tag - 1)) &&
	       in_set(abi, (size_t)(platform - abi - 1), tag_abi,
		      (size_t)(tag_platform - tag_abi - 1)) &&
	       (strcmp(tag_platform, "any") == 0) == in_set(platform, strlen(platform), "any", 3);
}

static int check_tags(struct wheel *w, const char *base, struct err *err)
{
	auto_free char *member = mem_printf("%s/WHEEL", w->dist_info);
	auto_free char *version = NULL, *stem = NULL, *name_tags = NULL;
	auto_buf struct buf text = BUF_MAX(LIMIT_METADATA_BYTES);
	size_t n = 0;
	char *dash, *tag;

	if (wheel_read(w, member, &text, err) < 0)
		return -1;
	version = identity_header(text.data ? text.data : "", "Wheel-Version", 0);
	if (!version)
		return err_set(err, ERR_CORRUPT, "%s names no Wheel-Version", member);
	if (strncmp(version, "1.", 2) != 0 && strcmp(version, "1") != 0)
		return err_set(err, ERR_CORRUPT,
			       "its format is of version %.20s; 1.x is known here", version);
	stem = mem_strndup(base, strlen(base) > 4 ? strlen(base) - 4 : 0);
	dash = stem + strlen(stem);
	for (int i = 0; i < 3 && dash; i++)
		dash = memrchr(stem, '-', (size_t)(dash - stem));
	if (!dash)
		return err_set(err, ERR_CORRUPT, "'%s' is not a wheel's file name", base);
	name_tags = mem_strdup(dash + 1);
	while ((tag = identity_header(text.data, "Tag", n++))) {
		bool fits = tag_fits(tag, name_tags);

		free(tag);
		if (fits)
			return 0;
	}
	return err_set(err, ERR_CORRUPT, "its WHEEL file speaks of other tags than '%s'", base);
}

int identity_check(struct wheel *w, const char *path, struct err *err)
{
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	auto_free char *member = mem_printf("%s/METADATA", w->dist_info);

	w->metadata.max = LIMIT_METADATA_BYTES;
	if (wheel_read(w, member, &w->metadata, err) < 0)
		return -1;
	if (w->metadata.data) {
		w->name = identity_header(w->metadata.data, "Name", 0);
		w->version = identity_header(w->metadata.data, "Version", 0);
	}
	if (!w->name || !w->version)
		return err_set(err, ERR_CORRUPT, "METADATA lacks Name or Version");
	if (check_name(w, base, err) < 0)
		return -1;
	return w->lax ? 0 : check_tags(w, base, err);
}
