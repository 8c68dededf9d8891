/* SPDX-License-Identifier: Apache-2.0
 *
 * METADATA out of a wheel's bytes by ranges, out of the whole file, and its trimming. The input is
 * the file; how much of it is at hand is tried out.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fuzz.h"
#include "index/zip.h"

static const char name[] = "demo_pkg-1.0-py3-none-any.whl";

static void trim(const void *data, size_t size)
{
	auto_buf struct buf text = { 0 };
	struct err err;
	size_t once;

	must(buf_put(&text, data, size, &err) == 0);
	zip_trim_metadata(&text);
	once = text.len;
	must(once <= size);
	zip_trim_metadata(&text);
	must(text.len == once);
}

static void unpack(const char *file, size_t size, const struct zip_member *m)
{
	auto_buf struct buf out = { 0 };
	uint64_t need = 0;
	struct err err;

	if (m->from > size)
		return;
	for (size_t at_hand = 0; at_hand <= size - m->from;) {
		struct zip_part part = { file + m->from, at_hand, m->from };
		int rc = zip_unpack(&part, m, &out, &need, &err);

		if (rc == 1)
			must(out.len == m->size);
		if (rc != 0)
			break;
		must(need > at_hand);
		at_hand = need;
	}
	if (out.len)
		trim(out.data, out.len);
}

static void by_ranges(const char *file, size_t size)
{
	struct zip_part tail = { file, size, 0 }, dir;
	struct zip_member m;
	uint64_t from, len;
	struct err err;

	if (zip_find_directory(&tail, &from, &len, &err) < 0)
		return;
	must(from <= size && len <= size - from);
	dir = (struct zip_part){ file + from, len, from };
	if (zip_find_metadata(&dir, name, &m, &err) == 0)
		unpack(file, size, &m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_free char *path = fuzz_file(name, data, size);
	auto_buf struct buf whole = { 0 };
	struct err err;

	trim(data, size);
	by_ranges((const char *)data, size);
	if (zip_read_metadata(path, name, &whole, &err) == 0)
		trim(whole.data, whole.len);
	return 0;
}
