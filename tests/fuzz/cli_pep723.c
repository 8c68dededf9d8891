/* SPDX-License-Identifier: Apache-2.0
 *
 * A script with a PEP 723 block, as the command and as the daemon read it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "function/upload.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_free char *text = mem_strndup((const char *)data, size);
	auto_free char *block = NULL, *other = NULL;
	struct err err;

	if (pep723_extract((const char *)data, size, &block, &err) == 0 && block)
		must(strlen(block) <= size);
	if (upload_pep723(text, &other, &err) == 0 && other)
		must(strlen(other) <= size);
	return 0;
}
