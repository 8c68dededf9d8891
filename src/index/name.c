/* SPDX-License-Identifier: Apache-2.0 */
#include "index/name.h"

#include <ctype.h>
#include <string.h>

#include "base/mem.h"

#define NAME_MAX_BYTES 255

static bool is_separator(char c)
{
	return c == '-' || c == '_' || c == '.';
}

void name_normalize(const char *name, size_t len, char *out)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (!is_separator(name[i]))
			out[n++] = (char)tolower((unsigned char)name[i]);
		else if (n && out[n - 1] != '-')
			out[n++] = '-';
	}
	if (n && out[n - 1] == '-')
		n--;
	out[n] = '\0';
}

bool name_is_normalized(const char *name)
{
	size_t len = strlen(name);

	if (!len || len > NAME_MAX_BYTES || name[0] == '-' || name[len - 1] == '-')
		return false;
	if (strstr(name, "--"))
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

static bool is_safe(const char *filename, size_t len)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-_.+!";

	return len >= 5 && len <= NAME_MAX_BYTES && strspn(filename, allowed) == len &&
	       isalnum((unsigned char)filename[0]);
}

/* Length of an sdist's name without its ending; 0: it has none. */
static size_t stem_of(const char *filename, size_t len)
{
	static const char *const ends[] = { ".tar.gz", ".zip", ".tgz", ".tar.bz2", ".tar.xz" };

	for (size_t i = 0; i < array_len(ends); i++) {
		size_t n = strlen(ends[i]);

		if (len > n && memcmp(filename + len - n, ends[i], n) == 0)
			return len - n;
	}
	return 0;
}

bool name_is_sdist(const char *filename)
{
	size_t len = strlen(filename);

	return is_safe(filename, len) && stem_of(filename, len);
}

bool name_is_dist(const char *filename)
{
	return name_is_wheel(filename) || name_is_sdist(filename);
}

bool name_is_wheel(const char *filename)
{
	size_t len = strlen(filename), dashes = 0;

	if (!is_safe(filename, len) || strcmp(filename + len - 4, ".whl") != 0)
		return false;
	for (size_t i = 0; i < len; i++)
		dashes += filename[i] == '-';
	return (dashes == 4 || dashes == 5) && !strstr(filename, "--");
}

/* Where the dash behind the name is; 0: it is another's. */
static size_t dash_behind(const char *filename, size_t len, const char *name)
{
	char have[NAME_MAX_BYTES + 1];
	size_t want = strlen(name);

	if (len > NAME_MAX_BYTES)
		return 0;
	/* The name of an sdist may itself hold dashes: compare each prefix that ends at one. */
	for (size_t i = 1; i < len; i++) {
		if (filename[i] != '-')
			continue;
		name_normalize(filename, i, have);
		if (strcmp(have, name) == 0)
			return i;
		if (strlen(have) > want)
			return 0;
	}
	return 0;
}

bool name_matches(const char *filename, size_t len, const char *name)
{
	return dash_behind(filename, len, name) > 0;
}

char *name_wheel_version(const char *filename)
{
	const char *from = strchr(filename, '-');
	const char *to = from ? strchr(from + 1, '-') : NULL;

	return to ? mem_strndup(from + 1, (size_t)(to - from - 1)) : mem_strdup("");
}

const char *name_sdist_version(const char *filename, size_t len, const char *name, size_t *out_len)
{
	size_t dash = dash_behind(filename, len, name), stem = stem_of(filename, len);

	if (!dash || stem <= dash + 1)
		return NULL;
	*out_len = stem - dash - 1;
	return filename + dash + 1;
}
