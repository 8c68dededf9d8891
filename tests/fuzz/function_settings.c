/* SPDX-License-Identifier: Apache-2.0
 *
 * A function's settings (pipsqueak.toml as JSON): what is taken can be kept, and is then the same.
 */
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"
#include "function/settings.h"
#include "fuzz.h"

static bool print(const char *text, size_t len, struct buf *out)
{
	struct function_settings s;
	struct err err;

	if (function_settings_parse(text, len, &s, &err) < 0)
		return false;
	must(s.memory_bytes >= 16 * MIB && s.pids && s.concurrency);
	must(s.concurrency <= LIMIT_CONCURRENCY && s.timeout_ms <= LIMIT_TIMEOUT_S * 1000);
	must(function_settings_print(&s, out, &err) == 0);
	function_settings_done(&s);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_buf struct buf once = { 0 }, twice = { 0 };

	if (!print((const char *)data, size, &once))
		return 0;
	must(print(once.data, once.len, &twice));
	must(strcmp(once.data, twice.data) == 0);
	return 0;
}
