/* SPDX-License-Identifier: Apache-2.0
 *
 * An event: whatever jansson takes as JSON is JSON, and nothing that jansson refuses for its
 * grammar is.
 */
#include <jansson.h>
#include <stdbool.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "function/json_check.h"
#include "fuzz.h"

/* At most this deep: brackets in strings count too, which only makes the comparison rarer. */
static bool is_shallow(const uint8_t *data, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < size; i++)
		n += data[i] == '[' || data[i] == '{';
	return n <= LIMIT_JSON_DEPTH;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct err err = ERR_INIT;
	json_error_t jerr;
	json_t *root = json_loadb((const char *)data, size, JSON_DECODE_ANY, &jerr);
	int rc = json_check((const char *)data, size, &err);

	must(rc == 0 || err.kind == ERR_USAGE);
	if (root && !memchr(data, '\0', size)) /* for jansson NUL is an end of text */
		must(rc == 0 || !is_shallow(data, size));
	if (!root && (json_error_code(&jerr) == json_error_premature_end_of_input ||
		      json_error_code(&jerr) == json_error_end_of_input_expected ||
		      json_error_code(&jerr) == json_error_invalid_utf8))
		must(rc < 0);
	json_decref(root);
	return 0;
}
