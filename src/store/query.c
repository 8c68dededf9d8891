/* SPDX-License-Identifier: Apache-2.0
 *
 * What is in an environment: which dist owns a file, which names and groups there are.
 */
#include <string.h>

#include "store/store_priv.h"

static struct contents **wheels(struct store *s, const struct lock *lock, struct env **out_env)
{
	*out_env = env_ready(s, lock);
	return *out_env ? contents_of(s, lock, *out_env) : NULL;
}

int store_owner(struct store *s, const struct lock *lock, const char *path)
{
	struct env *e;
	struct contents **w = wheels(s, lock, &e);
	size_t site = w ? strlen(e->site) : 0;

	if (!w || strncmp(path, e->site, site) != 0 || path[site] != '/')
		return -1;
	return contents_owner(w, e->ndists, path + site + 1);
}

static bool any_has(struct store *s, const struct lock *lock, const char *list, const char *name)
{
	struct env *e;
	struct contents **w = wheels(s, lock, &e);
	json_t *value;
	size_t i;

	for (size_t d = 0; w && d < e->ndists; d++)
		json_array_foreach(contents_list(w[d], list), i,
				   value) if (json_is_string(value) &&
					      strcmp(json_string_value(value), name) ==
						      0) return true;
	return false;
}

bool store_provides_module(struct store *s, const struct lock *lock, const char *top_level)
{
	return any_has(s, lock, "top_level", top_level);
}

bool store_provides_group(struct store *s, const struct lock *lock, const char *group)
{
	return any_has(s, lock, "groups", group);
}

void store_names(struct store *s, const struct lock *lock, size_t dist, const char *list,
		 void (*each)(void *ctx, const char *name), void *ctx)
{
	struct env *e;
	struct contents **w = wheels(s, lock, &e);
	json_t *value;
	size_t i;

	if (w && dist < e->ndists)
		json_array_foreach(contents_list(w[dist], list), i,
				   value) if (json_is_string(value))
			each(ctx, json_string_value(value));
}
