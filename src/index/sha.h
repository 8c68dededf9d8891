/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (any thread). Private to the room.
 *
 * sha256 by OpenSSL, whole and in pieces; hex is always lower case, 64 digits and a NUL.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define SHA_HEX 65

struct sha; /* one running sum */

struct sha *sha_new(void);
void sha_free(struct sha *s); /* NULL is fine */
void sha_add(struct sha *s, const void *data, size_t len);
void sha_restart(struct sha *s);
void sha_hex(struct sha *s, char *out_hex); /* ends the sum; restart before adding again */

void sha_text(const void *data, size_t len, char *out_hex);
warn_unused int sha_file(const char *path, char *out_hex, struct err *err);
bool sha_is_hex(const char *s); /* exactly 64 lower-case hex digits */
