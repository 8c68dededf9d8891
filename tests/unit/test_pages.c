/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/progress.h"
#include "index/digest.h"
#include "index/scan.h"
#include "index/settings.h"

static bool is_json(const char *text, size_t len)
{
	struct scan s = { .at = text, .end = text + len };

	scan_skip(&s);
	return scan_end(&s);
}

static void test_scan(void **state)
{
	static const char *const good[] = {
		"{}", " [ ] ", "\"\"", "1", "{\"a\":[1,-2.5e3,null,true]}", "[{\"a\":{}},\"\\\"\"]"
	};
	static const char *const bad[] = { "",	 "{",	  "[1",	 "[1,]", "{\"a\"}",	"{\"a\":}",
					   "\"", "\"\\",  "{}}", "[}",	 "{\"a\":1 2}", "{1:2}",
					   ",",	 "\"\n\"" };

	for (size_t i = 0; i < array_len(good); i++)
		assert_true(is_json(good[i], strlen(good[i])));
	for (size_t i = 0; i < array_len(bad); i++)
		assert_false(is_json(bad[i], strlen(bad[i])));
}

static void test_scan_depth(void **state)
{
	auto_free char *deep = mem_zero(1, 2 * LIMIT_JSON_DEPTH + 4);

	memset(deep, '[', LIMIT_JSON_DEPTH);
	memset(deep + LIMIT_JSON_DEPTH, ']', LIMIT_JSON_DEPTH);
	assert_true(is_json(deep, 2 * LIMIT_JSON_DEPTH));
	memset(deep, '[', LIMIT_JSON_DEPTH + 1);
	memset(deep + LIMIT_JSON_DEPTH + 1, ']', LIMIT_JSON_DEPTH + 1);
	assert_false(is_json(deep, 2 * LIMIT_JSON_DEPTH + 2));
}

/* The same strings as another reader of JSON. */
static void test_scan_copy(void **state)
{
	static const char *const texts[] = { "plain",		"\\\"\\\\\\/\\b\\f\\n\\r\\t",
					     "\\u0041\\u00e9",	"\\u20ac",
					     "\\ud83d\\ude00!", "\xc3\xa9" };
	static const char *const bad[] = { "\\u0000", "\\ud83d", "\\ud83d\\u0041", "\\ude00",
					   "\\u12",   "\\x",	 "\\ud83d\\ude" };

	for (size_t i = 0; i < array_len(texts); i++) {
		struct scan_text t = { texts[i], strlen(texts[i]), true };
		auto_free char *quoted = mem_printf("\"%s\"", texts[i]), *copy = scan_copy(&t);
		json_t *other = json_loads(quoted, JSON_DECODE_ANY, NULL);

		assert_non_null(other);
		assert_string_equal(copy, json_string_value(other));
		json_decref(other);
	}
	for (size_t i = 0; i < array_len(bad); i++) {
		struct scan_text t = { bad[i], strlen(bad[i]), true };

		assert_null(scan_copy(&t));
	}
}

static void test_utf8(void **state)
{
	static const char *const good[] = { "",
					    "abcdefghijk",
					    "\xc3\xa9",
					    "abcdefg\xe2\x82\xac",
					    "\xf0\x9f\x98\x80",
					    "\xed\x9f\xbf",
					    "\xf4\x8f\xbf\xbf" };
	static const char *const bad[] = { "\x80",	   "\xc0\xaf",	       "\xc3",
					   "\xe0\x80\xaf", "\xed\xa0\x80",     "\xf4\x90\x80\x80",
					   "\xff",	   "abcdefgh\xe2\x82", "\xf0\x80\x80\xaf" };

	for (size_t i = 0; i < array_len(good); i++)
		assert_true(scan_is_utf8(good[i], strlen(good[i])));
	for (size_t i = 0; i < array_len(bad); i++)
		assert_false(scan_is_utf8(bad[i], strlen(bad[i])));
}

/* The short cut gives what curl's parser gives, or leaves it to it. */
static void test_urls(void **state)
{
	static const char *const bases[] = { "https://h.example/simple/a/", "http://h:8080/a/b/c",
					     "https://h.example", "https://h.example/x?q=/y/",
					     "https://u:p@h.example/simple/a/" };
	static const char *const urls[] = { "/f/a.whl",
					    "a.whl",
					    "../../f/a.whl#sha256=00",
					    "../x/a.whl",
					    "../../../../a.whl",
					    "https://o.example/a.whl#x",
					    "http://o:1/b?c=d#e",
					    "https://u:p@o.example/a.whl",
					    "//o.example/a.whl",
					    "./a.whl",
					    "a/../b.whl",
					    "a b.whl",
					    "a.whl?x=1",
					    "/%2e%2e/a+b!c~.whl",
					    "http://",
					    "file:///etc/passwd",
					    "gopher://h/x" };

	for (size_t b = 0; b < array_len(bases); b++)
		for (size_t i = 0; i < array_len(urls); i++) {
			auto_free char *have = digest_url(bases[b], urls[i]);
			auto_free char *want = url_join(bases[b], urls[i]);

			if (!want) {
				assert_null(have);
				continue;
			}
			assert_non_null(have);
			assert_string_equal(have, want);
			assert_null(strchr(have, '@'));
		}
}

static void test_credentials_in_text(void **state)
{
	struct settings *s;
	const struct settings_auth *auth;
	auto_free char *clean = NULL;
	struct err err;

	assert_int_equal(settings_parse("{}", NULL, &s, &err), 0);
	clean = settings_take_auths(s, "a @ https://u:p%40@h.example/x/a.whl#sha256=1\n"
				       "b @ https://h.example/b.whl # see me@home\n"
				       "--index-url \"http://t@i.example:81/s\"\nssh://u:p@x/y\n");
	assert_string_equal(clean, "a @ https://h.example/x/a.whl#sha256=1\n"
				   "b @ https://h.example/b.whl # see me@home\n"
				   "--index-url \"http://i.example:81/s\"\nssh://u:p@x/y\n");
	auth = settings_find_auth(s, "https://h.example/x/a.whl");
	assert_non_null(auth);
	assert_string_equal(auth->password, "p@");
	assert_non_null(settings_find_auth(s, "http://i.example:81/s/b/"));
	settings_unref(s);
}

static void test_status(void **state)
{
	const char *text =
		"{\"files\": [{\"filename\": \"a-1-py3-none-any.whl\", \"url\": \"b\"}], "
		"\"project-status\": {\"status\": \"%s\", \"reason\": \"so\"}}";
	struct err err;

	for (int i = 0; i < 3; i++) {
		static const char *const words[] = { "active", "archived", "quarantined" };
		auto_free char *page = mem_printf(text, words[i]), *said = NULL;
		auto_buf struct buf out = { 0 };
		struct digest_page in = { "https://h/", "x/json", page, strlen(page) };

		assert_int_equal(digest_parse(&in, &out, &err), 0);
		said = digest_status(&out, "a");
		assert_int_equal(said != NULL, i > 0);
		assert_int_equal(strstr(out.data, "a-1-py3") != NULL, i < 2);
		if (said)
			assert_non_null(strstr(said, "(so)"));
	}
}

/* Whatever the texts are: one line, JSON, shorter than its room. */
static void test_progress(void **state)
{
	char text[3000], line[PROGRESS_LINE];

	for (size_t i = 0; i < sizeof(text) - 1; i++)
		text[i] = (char)(i % 255 + 1);
	text[sizeof(text) - 1] = '\0';
	for (size_t from = 0; from < 300; from++) {
		struct progress p = { "download", text + from, text, text, INT64_MAX, INT64_MAX };
		json_t *o;

		progress_print(&p, line);
		assert_true(strlen(line) < PROGRESS_LINE);
		assert_null(strchr(line, '\n'));
		o = json_loads(line, 0, NULL);
		assert_non_null(json_string_value(json_object_get(o, "name")));
		json_decref(o);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scan),	  cmocka_unit_test(test_scan_depth),
		cmocka_unit_test(test_scan_copy), cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_urls),	  cmocka_unit_test(test_credentials_in_text),
		cmocka_unit_test(test_status),	  cmocka_unit_test(test_progress),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
