/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (any thread). Private to the room.
 *
 * METADATA out of a wheel of which only parts are at hand: the end of a zip file names its
 * directory, the directory names the place of the member. Zip64 is refused (then the whole wheel
 * is fetched). Everything is from outside and checked.
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct zip_part { /* bytes of the file from `from` on */
	const char *data;
	size_t len;
	uint64_t from;
};

/* Where the directory is, from the file's last bytes. */
warn_unused int zip_find_directory(const struct zip_part *tail, uint64_t *out_from,
				   uint64_t *out_len, struct err *err);

struct zip_member {
	uint64_t from; /* of the local header */
	uint64_t packed, size;
	uint32_t crc;
	uint16_t method, name_len;
};
/* NAME-VERSION.dist-info/METADATA of this wheel, found in the directory's bytes. */
warn_unused int zip_find_metadata(const struct zip_part *directory, const char *filename,
				  struct zip_member *out, struct err *err);
/* Unpack the member; part begins at its local header. 1: done; 0: *out_need bytes from the
 * header on are needed. */
warn_unused int zip_unpack(const struct zip_part *part, const struct zip_member *member,
			   struct buf *out, uint64_t *out_need, struct err *err);

/* From a whole wheel on disk. */
warn_unused int zip_read_metadata(const char *path, const char *filename, struct buf *out,
				  struct err *err);
/* Keep only the header lines that resolving needs. */
void zip_trim_metadata(struct buf *metadata);
