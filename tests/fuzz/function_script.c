/* SPDX-License-Identifier: Apache-2.0
 *
 * What a client asks of `run`: kinds, paths to grant, a directory. NUL ends each string: kind,
 * code, cwd, then one path a mount.
 */
#include <string.h>

#include "base/fd.h"
#include "base/mem.h"
#include "function/script.h"
#include "fuzz.h"

#define STRINGS 8

static void check(const struct run_request *r)
{
	struct script s = { .r = *r };
	struct err err;
	int dir;

	if (script_check(r, &err) < 0)
		return;
	for (size_t i = 0; i < r->nmounts; i++) {
		must(r->mounts[i].path[0] == '/' && !strstr(r->mounts[i].path, "/../"));
		must(strncmp(r->mounts[i].path, "/proc", 6) != 0);
	}
	dir = script_open_dir(&s);
	must(dir < 0 || r->nmounts);
	fd_close(&dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_free char *copy = mem_zero(1, size + STRINGS + 1);
	struct run_request r = { .stdio = { -1, -1, -1 } };
	const char *strings[STRINGS];
	char *at = copy;

	memcpy(copy, data, size);
	for (size_t i = 0; i < STRINGS; i++) {
		strings[i] = at;
		at += at < copy + size ? strlen(at) + 1 : 0;
	}
	r.kind = strings[0];
	r.code = strings[1];
	r.cwd = strings[2];
	for (size_t i = 3; i < STRINGS && *strings[i]; i++)
		r.mounts[r.nmounts++] = (struct run_mount){ .path = strings[i], .tree = -1 };
	check(&r);
	return 0;
}
