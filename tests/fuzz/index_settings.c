/* SPDX-License-Identifier: Apache-2.0
 *
 * pip's settings as a client sends them. No credentials stay in an index's URL.
 */
#include <string.h>

#include "base/mem.h"
#include "fuzz.h"
#include "index/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_free char *text = mem_strndup((const char *)data, size);
	struct settings *s, *copy;
	struct err err;

	if (settings_parse(text, NULL, &s, &err) < 0)
		return 0;
	must(s->timeout_s >= 1);
	for (size_t i = 0; i < s->nindexes; i++) {
		const char *authority = strstr(s->indexes[i], "://");

		must(authority && !memchr(authority, '@', strcspn(authority + 3, "/?#") + 3));
		settings_find_auth(s, s->indexes[i]);
		settings_is_trusted(s, s->indexes[i]);
	}
	copy = settings_copy(s);
	must(copy->nauths == s->nauths && copy->nindexes == s->nindexes);
	settings_unref(copy);
	settings_unref(s);
	return 0;
}
