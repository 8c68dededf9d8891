/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of dists and wheels, tags, and URLs: one a line.
 */
#include <string.h>

#include "base/mem.h"
#include "fuzz.h"
#include "index/name.h"
#include "index/settings.h"
#include "index/tags.h"

static void names(const char *s, size_t len)
{
	auto_free char *once = mem_zero(1, len + 1), *twice = mem_zero(1, len + 1);
	auto_free char *version = NULL;

	name_normalize(s, len, once);
	name_normalize(once, strlen(once), twice);
	must(strcmp(once, twice) == 0);
	must(!name_is_normalized(s) || strcmp(s, once) == 0);
	version = name_wheel_version(s);
	must(strlen(version) <= len);
	if (name_is_wheel(s)) {
		size_t n = strcspn(s, "-");
		auto_free char *dist = mem_zero(1, n + 1);

		name_normalize(s, n, dist);
		must(!strchr(s, '/') && *version);
		must(name_matches(s, len, dist));
	}
}

static void ranks(const struct tags *tags, const char *s, size_t len)
{
	int rank = tags_rank(tags, s, len);

	must(rank >= -1 && rank < (int)tags_count(tags));
}

/* No credentials and no fragment may be left in what a lock could hold. */
static void urls(const char *s)
{
	auto_free char *whole = url_join("https://index.example/simple/x/", s);
	auto_free char *origin __attribute__((unused)) = url_origin(s);
	const char *authority = whole ? strstr(whole, "://") : NULL;

	if (!whole)
		return;
	must(authority && strncmp(whole, "http", 4) == 0);
	must(!memchr(authority + 3, '@', strcspn(authority + 3, "/?#")));
	must(!strchr(whole, '#'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *at = (const char *)data, *end = at + size;
	struct tags *tags = tags_new();

	while (at < end) {
		const char *nl = memchr(at, '\n', (size_t)(end - at));
		auto_free char *line = mem_strndup(at, (size_t)((nl ? nl : end) - at));
		size_t len = strlen(line);

		names(line, len);
		ranks(tags, line, len);
		urls(line);
		tags_add(tags, line);
		at = nl ? nl + 1 : end;
	}
	tags_free(tags);
	return 0;
}
