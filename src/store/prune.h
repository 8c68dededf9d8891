/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (any thread). Private to the room.
 *
 * The objects of tiers 1 and 2 as they are on disk, and which of them go first.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum object_kind { OBJECT_DOWNLOAD, OBJECT_WHEEL, OBJECT_CODE, OBJECT_ENV, OBJECT_KINDS };

struct object {
	enum object_kind kind;
	char *name; /* of its directory */
	uint64_t bytes, cost_ms;
	double used_s; /* since the epoch */
	double value;  /* seconds saved per byte, decayed */
	bool gone;
	char **entries; /* of an environment: NULL-terminated */
};

struct objects {
	struct object *v;
	size_t n;
	uint64_t bytes;
};

const char *object_kind_name(enum object_kind kind); /* as in the answer and in facts */
/* dir: the store's; downloads: where wheels as fetched are. */
warn_unused int objects_load(const char *dir, const char *downloads, struct objects *out,
			     struct err *err);
/* Their values, and the last uses that follow from others'. */
void objects_judge(struct objects *o);
void objects_free(struct objects *o);
const struct object *objects_find(const struct objects *o, enum object_kind kind, const char *name);

struct prune {
	const char *dir, *downloads, *trash; /* trash: names in this daemon's tmp begin so */
	uint64_t to_bytes;		     /* UINT64_MAX: no bound */
	uint64_t budget;		     /* not 0: prune only when there is more than that */
	double older_s;			     /* what was not used for so long goes; 0: no bound */
	size_t removed[OBJECT_KINDS];
	uint64_t freed_bytes, left_bytes;
	size_t in_use; /* objects that had to stay */
};
warn_unused int prune_run(struct prune *p, struct err *err);
