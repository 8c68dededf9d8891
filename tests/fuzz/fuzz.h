/* SPDX-License-Identifier: Apache-2.0
 *
 * What every target here is: libFuzzer's one function. Made by clang with -Dfuzz=true it is fuzzed;
 * in every other build replay.c calls it for each file of its corpus. A target fails by must().
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A directory of this process, empty; a path that stays valid. Gone at exit. */
const char *fuzz_dir(void);
/* A file `name` there with these bytes; the caller frees the path. */
char *fuzz_file(const char *name, const void *data, size_t size);
/* Empty it again. Returns what was in it: regular files and directories, nothing else, or must()
 * fails. */
size_t fuzz_empty(void);
