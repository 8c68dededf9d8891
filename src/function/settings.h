/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * What a function may set in pipsqueak.toml (turned into JSON by a job: there is no TOML parser in
 * C here). The same JSON shape is kept in the state database.
 *
 * | key         | value                                     | default            |
 * |-------------|-------------------------------------------|--------------------|
 * | entry       | "module.attribute" or "file.py:attribute" | by convention      |
 * | python      | absolute path of an interpreter           | the daemon's       |
 * | memory      | bytes, or "256M", "1G"                    | 512M               |
 * | tmp         | size of /tmp (counts as memory)           | 64M                |
 * | timeout     | seconds, up to LIMIT_TIMEOUT_S            | 30                 |
 * | concurrency | instances, up to LIMIT_CONCURRENCY        | 8                  |
 * | processes   | processes and threads of one instance     | 64                 |
 * | cpu         | cores, 0.01 to 256                        | as many as are     |
 * | cpu_seconds | CPU time of one call, 0.01 to 86400       | no limit           |
 * | open_files  | descriptors of a process, 16 to 65536     | 1024               |
 * | network     | "none" or "loopback"                      | "none"             |
 * | env         | table of strings                          | empty              |
 * | reuse       | false: a fresh instance for every call    | true               |
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"
#include "zygote/zygote.h"

struct function_settings {
	char *entry[LIMIT_ENTRIES + 1]; /* candidates in order, NULL-terminated */
	char *python;			/* NULL: not said */
	uint64_t memory_bytes, tmp_bytes, timeout_ms, pids;
	uint64_t cpu_milli;  /* thousandths of a core; 0: as much as there is */
	uint64_t cpu_ms;     /* CPU time of one call; 0: as much as its timeout lets it have */
	uint64_t open_files; /* 0: the usual */
	uint64_t concurrency;
	enum zygote_net net;
	char **env; /* NAME=VALUE, NULL-terminated; NULL: none */
	bool reuse;
	char *tenant;  /* a label; NULL: none */
	bool isolate;  /* no node but a root is shared with another tenant's functions */
	bool own_root; /* nor that */
};

void function_settings_init(struct function_settings *s); /* the defaults */
void function_settings_done(struct function_settings *s);
/* Over the defaults. ERR_USAGE names the key and what it may be; an unknown key is an error. */
warn_unused int function_settings_parse(const char *json, size_t len, struct function_settings *out,
					struct err *err);
warn_unused int function_settings_print(const struct function_settings *s, struct buf *out,
					struct err *err);
