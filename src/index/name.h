/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (any thread). Private to the room.
 *
 * The names of dists and wheels (PEP 503, PEP 427), as far as C has to read them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Lower case, runs of "-_." become one "-". out has room for len + 1 bytes. */
void name_normalize(const char *name, size_t len, char *out);
bool name_is_normalized(const char *name);
/* NAME-VERSION(-BUILD)?-PYTHON-ABI-PLATFORM.whl, safe as a file name. */
bool name_is_wheel(const char *filename);
/* ANYTHING.tar.gz and the like (an archive of source by URL need not be NAME-VERSION), safe as a
 * file name. */
bool name_is_sdist(const char *filename);
/* A file that can be installed, or built. */
bool name_is_dist(const char *filename);
/* Is this file (wheel or sdist) one of the dist `name` (normalized)? */
bool name_matches(const char *filename, size_t len, const char *name);
/* The version part of a wheel's file name: a copy. */
char *name_wheel_version(const char *filename);
/* Where the version of an sdist of this dist begins, and its length; NULL: it is not one of it. */
const char *name_sdist_version(const char *filename, size_t len, const char *name, size_t *out_len);
