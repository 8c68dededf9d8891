/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <libdeflate.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "index/digest.h"
#include "index/index.h"
#include "index/name.h"
#include "index/settings.h"
#include "index/tags.h"
#include "index/zip.h"

#define SUM "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static void test_names(void **state)
{
	char out[32];
	size_t len;

	name_normalize("Foo__Bar.-baz", 13, out);
	assert_string_equal(out, "foo-bar-baz");
	name_normalize("_x_", 3, out);
	assert_string_equal(out, "x");
	assert_true(name_is_wheel("a_b-1.0+cu1-1-cp311-cp311-linux_x86_64.whl"));
	assert_false(name_is_wheel("a-1.0-py3-none.whl"));
	assert_false(name_is_wheel("a/b-1.0-py3-none-any.whl"));
	assert_false(name_is_wheel(".a-1.0-py3-none-any.whl"));
	assert_true(name_is_sdist("a-b_c-1.0.tar.gz"));
	assert_true(name_is_sdist("v1.0.zip"));
	assert_false(name_is_sdist(".tar.gz"));
	assert_false(name_is_sdist("a-1.0.tar"));
	assert_false(name_is_sdist("a/b-1.0.tar.gz"));
	assert_non_null(name_sdist_version("a-b-1.0.tar.gz", 14, "a-b", &len));
	assert_int_equal(len, 3);
	assert_null(name_sdist_version("a-b-1.0.exe", 11, "a-b", &len));
	assert_null(name_sdist_version("a-.tar.gz", 9, "a", &len));
	assert_true(name_matches("Foo_Bar-1.0.tar.gz", 18, "foo-bar"));
	assert_true(name_matches("foo-bar-1.0.tar.gz", 18, "foo-bar"));
	assert_false(name_matches("foo_barz-1.0.tar.gz", 19, "foo-bar"));
}

static void test_tags(void **state)
{
	struct tags *t = tags_new();
	const char *wheel = "a-1-cp310.cp311-cp310.abi3-linux_x86_64.manylinux1_x86_64.whl";

	tags_add(t, "cp311-cp311-linux_x86_64");
	tags_add(t, "cp310-abi3-manylinux1_x86_64");
	tags_add(t, "py3-none-any");
	assert_int_equal(tags_rank(t, wheel, strlen(wheel)), 1);
	assert_int_equal(tags_rank(t, "a-1-py2.py3-none-any.whl", 24), 2);
	assert_int_equal(tags_rank(t, "a-1-py2-none-any.whl", 20), -1);
	assert_int_equal(tags_rank(t, "a.whl", 5), -1);
	tags_free(t);
}

static void digest_of(const char *type, const char *text, struct buf *out)
{
	struct digest_page page = { "https://h.example/simple/a/", type, text, strlen(text) };
	struct err err;

	assert_int_equal(digest_parse(&page, out, &err), 0);
}

static void test_json_page(void **state)
{
	auto_buf struct buf out = { 0 };

	digest_of("application/vnd.pypi.simple.v1+json",
		  "{\"meta\":{\"api-version\":\"1.1\"},\"files\":["
		  "{\"filename\":\"a-1-py3-none-any.whl\",\"url\":\"../../f/a-1-py3-none-any.whl\","
		  "\"hashes\":{\"sha256\":\"" SUM "\"},\"size\":7,\"requires-python\":\">=3.8\","
		  "\"yanked\":\"broken\",\"upload-time\":\"2026-01-02T03:04:05Z\","
		  "\"core-metadata\":{\"sha256\":\"" SUM "\"}},"
		  "{\"filename\":\"a-2-py3-none-any.whl\",\"url\":\"javascript:alert(1)\"},"
		  "{\"filename\":\"a-3-py3-none-any.whl\",\"url\":\"https://u:p@h/a#sha256=0\","
		  "\"requires-python\":\"x\\ty\"},"
		  "{\"filename\":\"a-4-py3-none-any.whl\",\"url\":\"https://u:p@h/4#x\"},"
		  "{\"filename\":\"a-1.tar.gz\",\"url\":\"x\"},"
		  "{\"filename\":\"a-1.exe\",\"url\":\"x\"}, 5, {}]}",
		  &out);
	assert_string_equal(out.data, "a-1-py3-none-any.whl\t"
				      "https://h.example/f/a-1-py3-none-any.whl\t" SUM
				      "\t7\t>=3.8\t1\t" SUM "\t2026-01-02T03:04:05Z\n"
				      "a-4-py3-none-any.whl\thttps://h/4\t\t0\t\t0\t\t\n"
				      "a-1.tar.gz\thttps://h.example/simple/a/x\t\t0\t\t0\t\t\n"
				      "a-1.exe\n");
}

static void test_html_page(void **state)
{
	auto_buf struct buf out = { 0 };

	digest_of("text/html; charset=utf-8",
		  "<!DOCTYPE html><!-- <a href='no-1-py3-none-any.whl'> --><html><body>"
		  "<A HREF='/f/a-1%2Bx-py3-none-any.whl#sha256=" SUM "' "
		  "data-requires-python=\"&gt;=3.8,&lt;4\" data-yanked>a</A><br/>"
		  "<a data-core-metadata=true href=a-2-py3-none-any.whl>b</a"
		  "<abbr href=x><a><a href=\"a-2.tar.gz\" rel",
		  &out);
	assert_string_equal(out.data,
			    "a-1+x-py3-none-any.whl\t"
			    "https://h.example/f/a-1%2Bx-py3-none-any.whl\t" SUM
			    "\t0\t>=3.8,<4\t1\t\t\n"
			    "a-2-py3-none-any.whl\t"
			    "https://h.example/simple/a/a-2-py3-none-any.whl\t\t0\t\t0\t1\t\n"
			    "a-2.tar.gz\thttps://h.example/simple/a/a-2.tar.gz\t\t0\t\t0\t\t\n");
}

static void test_broken_pages(void **state)
{
	static const char *const bad[] = { "", "{", "[]", "{\"files\":5}",
					   "{\"meta\":{\"api-version\":\"2.0\"},\"files\":[]}" };
	struct err err;

	for (size_t i = 0; i < array_len(bad); i++) {
		auto_buf struct buf out = { 0 };
		struct digest_page page = { "https://h/", "application/json", bad[i],
					    strlen(bad[i]) };

		assert_int_equal(digest_parse(&page, &out, &err), -1);
	}
}

static void test_filter_and_find(void **state)
{
	auto_buf struct buf digest = { 0 }, out = { 0 };
	struct tags *t = tags_new();
	struct digest_line line;
	struct err err;

	tags_add(t, "py3-none-any");
	assert_int_equal(buf_puts(&digest,
				  "a-1-py3-none-any.whl\thttps://h/1\t" SUM "\t7\t\t0\t1\t\n"
				  "b-1-py3-none-any.whl\thttps://h/b\t\t0\t\t0\t\t\n"
				  "a-1-cp27-none-any.whl\thttps://h/2\t\t0\t\t0\t\t\n"
				  "a-1.tar.gz\thttps://h/s\t" SUM "\t9\t\t0\t\t\n"
				  "a-b-1.zip\thttps://h/z\t\t0\t\t0\t\t\n"
				  "a-1.exe\n",
				  &err),
			 0);
	assert_int_equal(digest_filter(&digest, &(struct digest_want){ "a", t }, &out), 0);
	assert_string_equal(out.data, "1\t0\t\ta-1-py3-none-any.whl\thttps://h/1\t" SUM
				      "\t7\t\t0\t1\t\nwheels=2 other=3\n");
	assert_false(digest_find(&out, "https://h/s", &line));
	assert_false(digest_find(&out, "https://h/2", &line));
	assert_false(digest_find(&out, "https://h/1\t" SUM, &line));
	assert_true(digest_find(&out, "https://h/1", &line));
	assert_string_equal(line.filename, "a-1-py3-none-any.whl");
	assert_string_equal(line.sha256, SUM);
	assert_string_equal(line.core, "1");
	assert_int_equal(line.size, 7);
	digest_line_done(&line);
	buf_reset(&out);
	assert_int_equal(
		digest_filter(&digest, &(struct digest_want){ "a", t, .sdists = true }, &out), 0);
	assert_non_null(strstr(out.data, "\n1\t1000000\t\ta-1.tar.gz\thttps://h/s\t" SUM "\t9\t"));
	assert_true(digest_find(&out, "https://h/s", &line));
	digest_line_done(&line);
	tags_free(t);
}

static void test_settings(void **state)
{
	const char *json =
		"{\"index_url\":\"https://u:p%40@h.example/simple/\","
		"\"extra_index_urls\":[\"http://x.example:81/s\"],"
		"\"find_links\":[\"file:///w\",\"/v\"],\"trusted_hosts\":[\"x.example\"],"
		"\"timeout\":7}";
	const struct settings_auth *auth;
	struct settings *s;
	struct err err;

	assert_int_equal(settings_parse(json, NULL, &s, &err), 0);
	assert_string_equal(s->indexes[0], "https://h.example/simple");
	assert_string_equal(s->links[0], "/w");
	assert_int_equal(s->timeout_s, 7);
	auth = settings_find_auth(s, "https://h.example/other");
	assert_non_null(auth);
	assert_string_equal(auth->password, "p@");
	assert_null(settings_find_auth(s, "https://h.example:444/other"));
	assert_null(settings_find_auth(s, "http://h.example/other"));
	assert_true(settings_is_trusted(s, "http://x.example:81/s/a"));
	assert_false(settings_is_trusted(s, "https://x.example.org/"));
	settings_unref(s);
	/* No user, and one that does not decode to text: neither stays in the URL. */
	assert_int_equal(settings_parse("{\"index_url\":\"https://:token@h.example/\","
					"\"extra_index_urls\":[\"https://%12:pw@x.example/s\"]}",
					NULL, &s, &err),
			 0);
	assert_string_equal(s->indexes[0], "https://h.example");
	assert_string_equal(s->indexes[1], "https://x.example/s");
	auth = settings_find_auth(s, "https://h.example/a");
	assert_string_equal(auth->user, "");
	assert_string_equal(auth->password, "token");
	auth = settings_find_auth(s, "https://x.example/s");
	assert_string_equal(auth->user, "%12");
	settings_unref(s);
	assert_int_equal(settings_parse(json, "ftp://x", &s, &err), -1);
	assert_int_equal(settings_parse("[]", NULL, &s, &err), -1);
	assert_int_equal(settings_parse("{\"find_links\":[5]}", NULL, &s, &err), -1);
}

static void test_request_key(void **state)
{
	const char *ab[] = { "ab", NULL }, *a_b[] = { "a", "b", NULL };
	struct index_request q = { .with = ab }, r = { .with = a_b };
	char x[65], y[65];

	index_request_key(&q, x);
	index_request_key(&q, y);
	assert_string_equal(x, y);
	index_request_key(&r, y);
	assert_string_not_equal(x, y);
	q.index_url = "https://other";
	index_request_key(&q, y);
	assert_string_not_equal(x, y);
	q.index_url = NULL;
	q.pyproject = "";
	index_request_key(&q, y);
	assert_string_not_equal(x, y);
}

static void test_trim_metadata(void **state)
{
	auto_buf struct buf b = { 0 };
	struct err err;

	assert_int_equal(buf_puts(&b,
				  "Metadata-Version: 2.1\nName: a\nSummary: x\n  more\n"
				  "Requires-Dist: b\n  ; extra == 'c'\r\nrequires-python: >3\n\n"
				  "Requires-Dist: not me\n",
				  &err),
			 0);
	zip_trim_metadata(&b);
	assert_string_equal(b.data, "Name: a\nRequires-Dist: b\n  ; extra == 'c'\r\n"
				    "requires-python: >3\n");
}

static void test_zip_of_garbage(void **state)
{
	char junk[512];
	struct zip_part part = { junk, sizeof(junk), 0 };
	struct zip_member m;
	uint64_t from, len;
	struct err err;

	memset(junk, 'P', sizeof(junk));
	assert_int_equal(zip_find_directory(&part, &from, &len, &err), -1);
	part.len = 3;
	assert_int_equal(zip_find_directory(&part, &from, &len, &err), -1);
	/* an end record that points beyond itself */
	memset(junk, 0, sizeof(junk));
	memcpy(junk + 490, "PK\5\6", 4);
	memset(junk + 490 + 12, 0x7f, 8);
	part.len = sizeof(junk);
	assert_int_equal(zip_find_directory(&part, &from, &len, &err), -1);
	/* a directory entry whose name is longer than the directory */
	memcpy(junk, "PK\1\2", 4);
	memset(junk + 28, 0xff, 2);
	assert_int_equal(zip_find_metadata(&part, "a-1-py3-none-any.whl", &m, &err), -1);
}

/* A stored member, its directory and end record, as the smallest wheel has them. */
static size_t small_zip(char *to)
{
	static const char name[] = "a-1.dist-info/METADATA", text[] = "Name: a\n";
	unsigned nlen = sizeof(name) - 1, tlen = sizeof(text) - 1;
	uint32_t crc = libdeflate_crc32(0, text, tlen);
	size_t dir = 30 + nlen + tlen, end = dir + 46 + nlen;

	memset(to, 0, end + 22);
	memcpy(to, "PK\3\4", 4);
	to[26] = (char)nlen;
	memcpy(to + 30, name, nlen);
	memcpy(to + 30 + nlen, text, tlen);
	memcpy(to + dir, "PK\1\2", 4);
	memcpy(to + dir + 16, &crc, 4);
	to[dir + 20] = to[dir + 24] = (char)tlen;
	to[dir + 28] = (char)nlen;
	memcpy(to + dir + 46, name, nlen);
	memcpy(to + end, "PK\5\6", 4);
	to[end + 12] = (char)(46 + nlen);
	to[end + 16] = (char)dir;
	return end + 22;
}

static int read_zip(char *zip, size_t len, struct buf *out)
{
	struct zip_part whole = { zip, len, 0 };
	struct zip_part dir, part;
	struct zip_member m;
	uint64_t from, size, need;
	struct err err;

	if (zip_find_directory(&whole, &from, &size, &err) < 0)
		return -1;
	dir = (struct zip_part){ zip + from, size, from };
	if (zip_find_metadata(&dir, "a-1-py3-none-any.whl", &m, &err) < 0 || m.from >= from)
		return -1;
	part = (struct zip_part){ zip + m.from, len - m.from, m.from };
	return zip_unpack(&part, &m, out, &need, &err);
}

static void test_small_zip(void **state)
{
	auto_buf struct buf out = { 0 };
	char zip[256];

	assert_int_equal(read_zip(zip, small_zip(zip), &out), 1);
	assert_string_equal(out.data, "Name: a\n");
}

static uint32_t next_random(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

/* Bytes of everything that comes from outside, changed at random: the sanitizers judge. The data
 * is on the heap at its exact size, so reading one byte too many shows. */
static void test_mutated_input(void **state)
{
	static const char *const pages[] = {
		"{\"meta\":{\"api-version\":\"1.1\"},\"files\":[{\"filename\":\"a-1-py3-none-any."
		"whl\","
		"\"url\":\"../x\",\"hashes\":{\"sha256\":\"" SUM "\"},\"yanked\":true}]}",
		"<base href=/y/><a href='x/a-1-py3-none-any.whl#sha256=" SUM "' data-yanked "
		"data-requires-python=\"&gt;=3\">a</a><!-- x --><a href=b>",
	};
	uint32_t seed = 7;
	char zip[256];
	size_t zip_len = small_zip(zip);
	int whole = 0;

	for (int round = 0; round < 30000; round++) {
		int kind = round % 3;
		const char *from = kind < 2 ? pages[kind] : zip;
		size_t len = kind < 2 ? strlen(from) : zip_len;
		char *copy = mem_zero(1, len);
		auto_buf struct buf out = { 0 };
		struct digest_page page = { "https://h/s/", NULL, copy, len };
		struct err err;

		memcpy(copy, from, len);
		for (uint32_t n = next_random(&seed) % 4; n; n--)
			copy[next_random(&seed) % len] = (char)next_random(&seed);
		page.len = len - (next_random(&seed) % 8 == 0 ? next_random(&seed) % len : 0);
		if (kind < 2)
			whole += digest_parse(&page, &out, &err) == 0;
		else
			whole += read_zip(copy, page.len, &out) == 1;
		free(copy);
	}
	assert_true(whole > 1000); /* or it tests nothing */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),	      cmocka_unit_test(test_tags),
		cmocka_unit_test(test_json_page),     cmocka_unit_test(test_html_page),
		cmocka_unit_test(test_broken_pages),  cmocka_unit_test(test_filter_and_find),
		cmocka_unit_test(test_settings),      cmocka_unit_test(test_request_key),
		cmocka_unit_test(test_trim_metadata), cmocka_unit_test(test_zip_of_garbage),
		cmocka_unit_test(test_small_zip),     cmocka_unit_test(test_mutated_input),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
