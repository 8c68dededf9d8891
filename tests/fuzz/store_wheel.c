/* SPDX-License-Identifier: Apache-2.0
 *
 * A wheel's bytes.
 */
#include "base/mem.h"
#include "fuzz.h"
#include "store_install.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_free char *path = fuzz_file("demo_pkg-1.0-py3-none-any.whl", data, size);

	fuzz_install(path);
	return 0;
}
