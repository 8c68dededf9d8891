/* SPDX-License-Identifier: Apache-2.0
 *
 * A function's upload: only plain files and directories come of it, all inside.
 */
#include <fcntl.h>
#include <unistd.h>

#include "base/mem.h"
#include "function/upload.h"
#include "fuzz.h"

static void look(const char *dir)
{
	struct function_settings settings;
	struct upload_needs needs;
	struct err err;
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char **names;

	must(fd >= 0);
	if (upload_find_needs(dir, NULL, &needs, &err) == 0)
		upload_needs_done(&needs);
	function_settings_init(&settings);
	must(upload_find_entry(dir, &settings, &err) < 0 || settings.entry[0]);
	function_settings_done(&settings);
	names = upload_own_names(fd);
	must(names);
	upload_names_free(names);
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_free char *dir = mem_printf("%s/app", fuzz_dir());
	struct err err;

	if (upload_unpack(data, size, dir, &err) == 0)
		look(dir);
	else
		must(err.kind);
	fuzz_empty();
	return 0;
}
