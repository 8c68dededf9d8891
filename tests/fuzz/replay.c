/* SPDX-License-Identifier: Apache-2.0
 *
 * replay DIR...: the target, once for each file of its corpus. No clang is needed for this.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/mem.h"
#include "fuzz.h"

static size_t replay(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	size_t n = 0;

	while (dir && (e = readdir(dir))) {
		auto_buf struct buf text = { 0 };
		auto_free uint8_t *exact = NULL;
		struct err err;

		if (e->d_name[0] == '.')
			continue;
		printf("%s\n", e->d_name);
		fflush(stdout);
		must(buf_read_file(&text, dirfd(dir), e->d_name, &err) == 0);
		exact = malloc(text.len ? text.len : 1); /* what is read behind it is found */
		must(exact);
		for (size_t i = 0; i < text.len; i++)
			exact[i] = (uint8_t)text.data[i];
		LLVMFuzzerTestOneInput(exact, text.len);
		n++;
	}
	if (dir)
		closedir(dir);
	return n;
}

int main(int argc, char **argv)
{
	size_t n = 0;

	for (int i = 1; i < argc; i++)
		n += replay(argv[i]);
	printf("%zu inputs\n", n);
	return n ? 0 : 1; /* no corpus: nothing was tested */
}
