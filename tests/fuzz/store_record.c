/* SPDX-License-Identifier: Apache-2.0
 *
 * What is inside a wheel: RECORD, METADATA, entry points, names. The input is text, a member
 * after each line "=== NAME"; a wheel with right checksums is made of it, so that mutations get
 * past the zip format.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

#include "base/mem.h"
#include "fuzz.h"
#include "store_install.h"

#define MARK "\n=== "
#define MEMBERS 64

static void add(zip_t *zip, const char *from, const char *to)
{
	const char *nl = memchr(from, '\n', (size_t)(to - from));
	auto_free char *member = mem_strndup(from, (size_t)((nl ? nl : to) - from));
	const char *text = nl ? nl + 1 : to;
	zip_source_t *source = zip_source_buffer(zip, text, (size_t)(to - text), 0);
	zip_int64_t i = zip_file_add(zip, member, source, ZIP_FL_ENC_UTF_8);

	if (i < 0)
		zip_source_free(source); /* no name for a member, or one that is there */
	else
		zip_set_file_compression(zip, (zip_uint64_t)i, ZIP_CM_STORE, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *at = (const char *)data, *end = at + size;
	auto_free char *path = mem_printf("%s/demo_pkg-1.0-py3-none-any.whl", fuzz_dir());
	zip_t *zip = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, NULL);

	must(zip);
	for (int n = 0; n < MEMBERS && at < end; n++) {
		const char *next = memmem(at, (size_t)(end - at), MARK, strlen(MARK));

		if (n) /* before the first mark there is no name */
			add(zip, at, next ? next + 1 : end);
		at = next ? next + strlen(MARK) : end;
	}
	if (zip_close(zip) < 0)
		zip_discard(zip);
	if (access(path, F_OK) < 0) /* without a member none is written */
		free(fuzz_file("demo_pkg-1.0-py3-none-any.whl", "", 0));
	fuzz_install(path);
	return 0;
}
