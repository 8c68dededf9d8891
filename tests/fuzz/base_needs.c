/* SPDX-License-Identifier: Apache-2.0
 *
 * Requirements files and what they name. Every file that is named is the input itself, so includes
 * go on until they are too many.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/needs.h"
#include "fuzz.h"

struct input {
	const uint8_t *data;
	size_t size;
	int given;
};

static int open_it(void *ctx, const char *path)
{
	struct input *in = ctx;
	int fd = memfd_create("file", MFD_CLOEXEC);

	must(*path && fd >= 0 && write(fd, in->data, in->size) == (ssize_t)in->size);
	must(lseek(fd, 0, SEEK_SET) == 0);
	return fd;
}

static const char *variable(void *ctx, const char *name)
{
	must(*name && strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == strlen(name));
	return name[0] == 'A' ? "-r ${B}" : NULL;
}

static int file(void *ctx, const char *path, const char *text, struct err *err)
{
	struct input *in = ctx;

	must(++in->given <= LIMIT_NEEDS && strlen(text) <= LIMIT_REQUIREMENTS_BYTES);
	return 0;
}

static int wheel(void *ctx, const char *path, int fd, struct err *err)
{
	struct input *in = ctx;

	close(fd);
	/* a wheel or an sdist */
	must(++in->given <= LIMIT_NEEDS && (strstr(path, ".whl") || strstr(path, ".zip") ||
					    strstr(path, ".tgz") || strstr(path, ".tar.")));
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, size > 4096 ? 4096 : size, 0 };
	struct needs n = { &in, open_it, variable, file, wheel };
	auto_buf struct buf raw = BUF_MAX(LIMIT_REQUIREMENTS_BYTES);
	struct err err;

	must(buf_put(&raw, data, in.size, &err) == 0);
	must(needs_requirements(&n, "d/r.txt", &raw, &err) == 0 || err.kind);
	if (raw.data)
		must(needs_toml(&n, "d/p.toml", raw.data, &err) == 0 || err.kind);
	needs_done(&n);
	return 0;
}
