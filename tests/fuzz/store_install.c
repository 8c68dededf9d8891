/* SPDX-License-Identifier: Apache-2.0
 *
 * Whatever is in a wheel, only files and directories below the given directory come of it.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "fuzz.h"
#include "store/installer_priv.h"
#include "store_install.h"

void fuzz_install(const char *path)
{
	auto_free char *out = mem_printf("%s/out", fuzz_dir());
	struct wheel w;
	struct err err;

	must(mkdir(out, 0755) == 0);
	if (wheel_open(path, false, &w, &err) == 0) {
		auto_close int dir = open(out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		int rc = unpack_all(&w, dir, &err);

		must(rc < 0 || manifest_write(&w, dir, &err) == 0);
		for (size_t i = 0; rc == 0 && i < w.nmembers; i++) {
			auto_free char *place = unpack_place(&w, w.members[i].name);
			struct stat st;

			must(fstatat(dir, place, &st, AT_SYMLINK_NOFOLLOW) == 0);
			must(S_ISREG(st.st_mode) && (uint64_t)st.st_size == w.members[i].size);
		}
	}
	wheel_done(&w);
	must(unlink(path) == 0);
	must(access(out, F_OK) == 0);
	fuzz_empty();
}
