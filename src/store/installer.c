/* SPDX-License-Identifier: Apache-2.0
 *
 * pipsqueak-install WHEEL OUT [lax]
 * Unpacks and checks one wheel below OUT. lax: the user vouches for it, RECORD is not compared.
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

int main(int argc, char **argv)
{
	bool lax = argc == 4 && strcmp(argv[3], "lax") == 0;
	struct err err = ERR_INIT;
	json_t *o;

	if (argc != 3 && !lax) {
		fprintf(stderr, "usage: pipsqueak-install WHEEL OUT [lax]\n");
		return 2;
	}
	if (install(argv[1], argv[2], lax, &err) == 0)
		return 0;
	o = json_pack("{s:s, s:s}", "kind", err_kind_name(err.kind), "message", err.text);
	if (o)
		json_dumpf(o, stdout, JSON_COMPACT);
	return 1;
}
