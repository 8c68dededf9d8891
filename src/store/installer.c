/* SPDX-License-Identifier: Apache-2.0
 *
 * pipsqueak-install WHEEL OUT [lax]
 * pipsqueak-install verify ENTRY
 * Unpacks and checks one wheel below OUT. lax: the user vouches for it, RECORD is not compared.
 * verify: compare an entry with its RECORD.
 * Exit 0; or 1 with one JSON object {"kind", "message"} on standard output.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/mem.h"
#include "store/installer_priv.h"

static int install(const char *path, const char *to, bool lax, struct err *err)
{
	__attribute__((cleanup(wheel_done))) struct wheel w = { 0 };
	auto_close int out = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (out < 0)
		return err_sys(err, errno, "open '%s'", to);
	if (wheel_open(path, lax, &w, err) < 0 || unpack_all(&w, out, err) < 0)
		return -1;
	return manifest_write(&w, out, err);
}

static int verify(const char *path, struct err *err)
{
	auto_close int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return dir < 0 ? err_sys(err, errno, "open '%s'", path) : verify_entry(dir, err);
}

int main(int argc, char **argv)
{
	bool lax = argc == 4 && strcmp(argv[3], "lax") == 0;
	struct err err = ERR_INIT;
	json_t *o;
	int rc;

	if (argc != 3 && !lax) {
		fprintf(stderr, "usage: pipsqueak-install WHEEL OUT [lax] | verify ENTRY\n");
		return 2;
	}
	rc = strcmp(argv[1], "verify") == 0 ? verify(argv[2], &err)
					    : install(argv[1], argv[2], lax, &err);
	if (rc == 0)
		return 0;
	o = json_pack("{s:s, s:s}", "kind", err_kind_name(err.kind), "message", err.text);
	if (o)
		json_dumpf(o, stdout, JSON_COMPACT);
	json_decref(o);
	return 1;
}
