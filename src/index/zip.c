/* SPDX-License-Identifier: Apache-2.0 */
#include "index/zip.h"

#include <libdeflate.h>
#include <stdbool.h>
#include <string.h>
#include <zip.h>

#include "base/limits.h"
#include "base/mem.h"
#include "index/name.h"

#define END_BYTES 22
#define ENTRY_BYTES 46
#define LOCAL_BYTES 30

static uint32_t u16(const char *p)
{
	const unsigned char *b = (const unsigned char *)p;

	return b[0] | (uint32_t)b[1] << 8;
}

static uint32_t u32(const char *p)
{
	return u16(p) | u16(p + 2) << 16;
}

int zip_find_directory(const struct zip_part *tail, uint64_t *out_from, uint64_t *out_len,
		       struct err *err)
{
	for (size_t i = tail->len < END_BYTES ? 0 : tail->len - END_BYTES + 1; i-- > 0;) {
		const char *p = tail->data + i;

		if (memcmp(p, "PK\5\6", 4) != 0 || u16(p + 20) != tail->len - i - END_BYTES)
			continue;
		*out_len = u32(p + 12);
		*out_from = u32(p + 16);
		if (*out_from == UINT32_MAX || *out_len == UINT32_MAX)
			return err_set(err, ERR_CORRUPT, "a zip64 file");
		if (*out_from + *out_len > tail->from + i)
			return err_set(err, ERR_CORRUPT, "the zip directory is broken");
		return 0;
	}
	return err_set(err, ERR_CORRUPT, "not a zip file, or cut short");
}

/* "Foo_Bar-1.0.dist-info/METADATA" for foo_bar-1.0-py3-none-any.whl: names as PEP 503 has them. */
static bool is_metadata(const char *path, size_t len, const char *filename)
{
	static const char end[] = ".dist-info/METADATA";
	size_t tail = sizeof(end) - 1;
	const char *dash;
	char have[256], want[256];
	size_t wlen = strcspn(filename, "-");

	if (len <= tail || len > 255 || wlen > 255 || memcmp(path + len - tail, end, tail) != 0 ||
	    memchr(path, '/', len - tail))
		return false;
	dash = memrchr(path, '-', len - tail);
	if (!dash)
		return false;
	name_normalize(path, (size_t)(dash - path), have);
	name_normalize(filename, wlen, want);
	return strcmp(have, want) == 0;
}

int zip_find_metadata(const struct zip_part *dir, const char *filename, struct zip_member *out,
		      struct err *err)
{
	size_t at = 0;

	while (dir->len - at >= ENTRY_BYTES && memcmp(dir->data + at, "PK\1\2", 4) == 0) {
		const char *p = dir->data + at;
		size_t name_len = u16(p + 28);
		size_t whole = ENTRY_BYTES + name_len + u16(p + 30) + u16(p + 32);

		if (whole > dir->len - at)
			break;
		at += whole;
		if (!is_metadata(p + ENTRY_BYTES, name_len, filename))
			continue;
		*out = (struct zip_member){ .from = u32(p + 42),
					    .packed = u32(p + 20),
					    .size = u32(p + 24),
					    .crc = u32(p + 16),
					    .method = (uint16_t)u16(p + 10),
					    .name_len = (uint16_t)name_len };
		if (out->size > LIMIT_METADATA_BYTES || out->packed > LIMIT_METADATA_BYTES)
			return err_set(err, ERR_LIMIT, "METADATA has more than %lu bytes",
				       LIMIT_METADATA_BYTES);
		return 0;
	}
	return err_set(err, ERR_CORRUPT, "no METADATA in the wheel");
}

static int inflate_into(const char *data, const struct zip_member *m, char *to, struct err *err)
{
	struct libdeflate_decompressor *d;
	enum libdeflate_result rc;
	size_t got = 0;

	if (m->method == 0 && m->packed == m->size) {
		memcpy(to, data, m->size);
		return 0;
	}
	if (m->method != 8)
		return err_set(err, ERR_CORRUPT, "METADATA is packed in an unknown way");
	d = libdeflate_alloc_decompressor();
	must(d);
	rc = libdeflate_deflate_decompress(d, data, m->packed, to, m->size, &got);
	libdeflate_free_decompressor(d);
	if (rc != LIBDEFLATE_SUCCESS || got != m->size)
		return err_set(err, ERR_CORRUPT, "METADATA cannot be unpacked");
	return 0;
}

int zip_unpack(const struct zip_part *part, const struct zip_member *m, struct buf *out,
	       uint64_t *out_need, struct err *err)
{
	uint64_t data;
	char *to;

	if (part->len < LOCAL_BYTES) {
		*out_need = LOCAL_BYTES + m->name_len + m->packed;
		return 0;
	}
	if (memcmp(part->data, "PK\3\4", 4) != 0)
		return err_set(err, ERR_CORRUPT, "the zip directory does not fit the file");
	data = LOCAL_BYTES + u16(part->data + 26) + u16(part->data + 28);
	if (part->len < data + m->packed) {
		*out_need = data + m->packed;
		return 0;
	}
	to = buf_room(out, m->size, err);
	if (!to || inflate_into(part->data + data, m, to, err) < 0)
		return -1;
	if (libdeflate_crc32(0, to, m->size) != m->crc)
		return err_set(err, ERR_CORRUPT, "METADATA does not have its checksum");
	buf_grew(out, m->size);
	return 1;
}

static int read_member(zip_t *z, zip_uint64_t i, struct buf *out, struct err *err)
{
	zip_stat_t st;
	zip_file_t *f;
	zip_int64_t n = -1;
	char *to;

	if (zip_stat_index(z, i, 0, &st) < 0 || st.size > LIMIT_METADATA_BYTES)
		return err_set(err, ERR_LIMIT, "METADATA has more than %lu bytes",
			       LIMIT_METADATA_BYTES);
	to = buf_room(out, st.size, err);
	f = to ? zip_fopen_index(z, i, 0) : NULL;
	if (f) {
		n = zip_fread(f, to, st.size);
		zip_fclose(f);
	}
	if (n < 0 || (zip_uint64_t)n != st.size)
		return err_set(err, ERR_CORRUPT, "METADATA cannot be unpacked");
	buf_grew(out, (size_t)n);
	return 0;
}

int zip_read_metadata(const char *path, const char *filename, struct buf *out, struct err *err)
{
	zip_t *z = zip_open(path, ZIP_RDONLY, NULL);
	zip_int64_t n = z ? zip_get_num_entries(z, 0) : 0;
	int rc = -1;

	if (!z)
		return err_set(err, ERR_CORRUPT, "%s is not a zip file, or cut short", filename);
	err_set(err, ERR_CORRUPT, "no METADATA in %s", filename);
	for (zip_int64_t i = 0; i < n; i++) {
		const char *name = zip_get_name(z, (zip_uint64_t)i, 0);

		if (name && is_metadata(name, strlen(name), filename)) {
			rc = read_member(z, (zip_uint64_t)i, out, err);
			break;
		}
	}
	zip_discard(z);
	return rc;
}

static bool is_wanted(const char *line, size_t len)
{
	static const char *const wanted[] = { "Name:", "Version:", "Requires-Dist:",
					      "Requires-Python:", "Provides-Extra:" };

	for (size_t i = 0; i < array_len(wanted); i++)
		if (len > strlen(wanted[i]) && strncasecmp(line, wanted[i], strlen(wanted[i])) == 0)
			return true;
	return false;
}

void zip_trim_metadata(struct buf *b)
{
	size_t from = 0, to = 0;
	bool keeping = false;

	while (from < b->len) {
		const char *end = memchr(b->data + from, '\n', b->len - from);
		size_t len = end ? (size_t)(end - b->data) + 1 - from : b->len - from;
		const char *line = b->data + from;

		if (line[0] == '\n' || line[0] == '\r')
			break;			       /* the description follows */
		if (line[0] != ' ' && line[0] != '\t') /* else it continues the line before */
			keeping = is_wanted(line, len);
		if (keeping) {
			memmove(b->data + to, line, len);
			to += len;
		}
		from += len;
	}
	b->len = to;
	if (b->data)
		b->data[to] = '\0';
}
