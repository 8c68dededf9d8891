/* SPDX-License-Identifier: Apache-2.0 */
#include "index/tags.h"

#include <stdint.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"

#define SLOTS (4 * LIMIT_TAGS) /* a power of two */
#define TAG_BYTES 128

struct tags {
	char **names;
	size_t n;
	uint16_t slots[SLOTS]; /* index into names + 1; 0: empty */
};

struct span {
	const char *s;
	size_t len;
};

static uint32_t hash(const char *s, size_t len)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)s[i]) * 16777619u;
	return h;
}

struct tags *tags_new(void)
{
	return mem_new(struct tags);
}

void tags_free(struct tags *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n; i++)
		free(t->names[i]);
	free(t->names);
	free(t);
}

static int find(const struct tags *t, const char *tag, size_t len, uint32_t *out_slot)
{
	uint32_t at = hash(tag, len) & (SLOTS - 1);

	for (; t->slots[at]; at = (at + 1) & (SLOTS - 1)) {
		const char *have = t->names[t->slots[at] - 1];

		if (strncmp(have, tag, len) == 0 && !have[len])
			return t->slots[at] - 1;
	}
	*out_slot = at;
	return -1;
}

void tags_add(struct tags *t, const char *tag)
{
	uint32_t slot;

	if (t->n >= LIMIT_TAGS || find(t, tag, strlen(tag), &slot) >= 0)
		return;
	t->names = mem_resize(t->names, (t->n + 1) * sizeof(*t->names));
	t->names[t->n++] = mem_strdup(tag);
	t->slots[slot] = (uint16_t)t->n;
}

size_t tags_count(const struct tags *t)
{
	return t->n;
}

/* Split "a.b.c" at its dots, one call one part; false at the end. */
static int next_part(struct span *rest, struct span *out)
{
	const char *dot;

	if (!rest->s)
		return 0;
	dot = memchr(rest->s, '.', rest->len);
	out->s = rest->s;
	out->len = dot ? (size_t)(dot - rest->s) : rest->len;
	rest->s = dot ? dot + 1 : NULL;
	rest->len -= dot ? out->len + 1 : out->len;
	return 1;
}

static int rank_of(const struct tags *t, struct span python, struct span abi, struct span platform)
{
	char tag[TAG_BYTES];
	uint32_t slot;
	size_t n = python.len + abi.len + platform.len + 2;

	if (n >= sizeof(tag))
		return -1;
	memcpy(tag, python.s, python.len);
	tag[python.len] = '-';
	memcpy(tag + python.len + 1, abi.s, abi.len);
	tag[python.len + abi.len + 1] = '-';
	memcpy(tag + python.len + abi.len + 2, platform.s, platform.len);
	return find(t, tag, n, &slot);
}

/* The last three parts between dashes of NAME-VERSION(-BUILD)?-PYTHON-ABI-PLATFORM.whl */
static int split_tags(const char *filename, size_t len, struct span out[3])
{
	size_t end = len - 4;
	int part = 2;

	if (len < 5 || memcmp(filename + end, ".whl", 4) != 0)
		return -1;
	for (size_t i = end; i-- > 0 && part >= 0;) {
		if (filename[i] != '-')
			continue;
		out[part--] = (struct span){ filename + i + 1, end - i - 1 };
		end = i;
	}
	return part < 0 ? 0 : -1;
}

int tags_rank(const struct tags *t, const char *filename, size_t len)
{
	struct span parts[3], pythons, python;
	int best = -1, left = LIMIT_WHEEL_TAGS;

	if (split_tags(filename, len, parts) < 0)
		return -1;
	pythons = parts[0];
	while (next_part(&pythons, &python)) {
		struct span abis = parts[1], abi;

		while (next_part(&abis, &abi)) {
			struct span platforms = parts[2], platform;

			while (next_part(&platforms, &platform)) {
				int rank = left-- ? rank_of(t, python, abi, platform) : -1;

				if (left < 0)
					return best;
				if (rank >= 0 && (best < 0 || rank < best))
					best = rank;
			}
		}
	}
	return best;
}
