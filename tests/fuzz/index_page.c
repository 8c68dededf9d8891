/* SPDX-License-Identifier: Apache-2.0
 *
 * An index page, JSON and HTML, through the digest to what the resolver is given. The first line of
 * the input is the dist's name, the page follows.
 */
#include <string.h>

#include "base/mem.h"
#include "fuzz.h"
#include "index/digest.h"
#include "index/name.h"

static void check_line(const char *line, size_t len)
{
	size_t tabs = 0;
	auto_free char *name = mem_strndup(line, strcspn(line, "\t\n"));

	for (size_t i = 0; i < len; i++) {
		must((unsigned char)line[i] >= ' ' || line[i] == '\t');
		tabs += line[i] == '\t';
	}
	must(*name && !strchr(name, '/'));
	must(tabs == 0 || tabs == 7);
	must((tabs == 7) == name_is_dist(name));
}

static void check_digest(const struct buf *digest)
{
	for (size_t at = 0; at < digest->len;) {
		const char *end = memchr(digest->data + at, '\n', digest->len - at);

		must(end);
		check_line(digest->data + at, (size_t)(end - digest->data) - at);
		at = (size_t)(end - digest->data) + 1;
	}
}

/* Each wheel that is offered is found again by its URL. */
static void check_filtered(const struct buf *filtered)
{
	const char *line = filtered->data;

	for (; *line; line += strcspn(line, "\n") + 1) {
		auto_free char *text = mem_strndup(line, strcspn(line, "\n"));
		struct digest_line found;
		char *url = strchr(text, '\t');

		for (int i = 0; i < 3 && url; i++) /* rank, build, file name */
			url = strchr(url + 1, '\t');
		if (!url)
			continue; /* a name, or the counts */
		url[1 + strcspn(url + 1, "\t")] = '\0';
		if (!url[1])
			continue;
		must(digest_find(filtered, url + 1, &found));
		must(strcmp(found.url, url + 1) == 0);
		digest_line_done(&found);
	}
}

static void one(const struct digest_page *page, const char *name)
{
	auto_buf struct buf digest = { 0 }, filtered = { 0 };
	struct tags *tags = tags_new();
	struct err err;

	tags_add(tags, "cp311-cp311-manylinux_2_17_x86_64");
	tags_add(tags, "py3-none-any");
	if (digest_parse(page, &digest, &err) == 0) {
		check_digest(&digest);
		must(digest_filter(&digest, &(struct digest_want){ name, tags, true, true },
				   &filtered) == 0);
		check_filtered(&filtered);
	}
	tags_free(tags);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data, *nl = size ? memchr(text, '\n', size) : NULL;
	auto_free char *name = nl ? mem_strndup(text, (size_t)(nl - text)) : NULL;
	static const char *const types[] = { NULL, "application/json", "text/html" };

	for (size_t i = 0; nl && i < array_len(types); i++) {
		struct digest_page page = { "https://index.example/simple/x/", types[i], nl + 1,
					    size - (size_t)(nl + 1 - text) };

		one(&page, name);
	}
	return 0;
}
