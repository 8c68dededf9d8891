/* SPDX-License-Identifier: Apache-2.0
 *
 * Which environments of the store are needed here: by deployed functions, now and after a restart,
 * and by what runs.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "function/priv.h"
#include "store/store.h"

static bool uses(const struct subject *s, const char *path)
{
	return s && s->env_path && strcmp(s->env_path, path) == 0;
}

bool functions_use_env(const struct functions *f, const char *path)
{
	if (f->deploys) /* one may hold an environment that no version has yet */
		return true;
	for (uint32_t i = 0; i < f->by_name_cap; i++)
		if (f->by_name[i] && f->by_name[i]->live &&
		    uses(f->by_name[i]->live->subject, path))
			return true;
	for (const struct version *v = f->retired; v; v = v->next)
		if (uses(v->subject, path))
			return true;
	/* A script that runs, or for which a node is made, holds its subject; what the list alone
	 * holds is found anew by the next run. */
	for (const struct subject *s = f->scripts; s; s = s->next)
		if (s->refs > 1 && uses(s, path))
			return true;
	return false;
}

void functions_keep_envs(struct functions *f)
{
	auto_free const char **hashes = mem_zero(f->by_name_cap + 1, sizeof(char *));
	size_t len = strlen(f->state_dir);
	auto_free char *owner = mem_strdup(f->state_dir + (len > 200 ? len - 200 : 0));
	struct err err;
	size_t n = 0;

	for (uint32_t i = 0; i < f->by_name_cap; i++)
		if (f->by_name[i] && f->by_name[i]->live &&
		    f->by_name[i]->live->subject->lock->ndists)
			hashes[n++] = f->by_name[i]->live->subject->lock->hash;
	for (char *c = owner; *c; c++)
		if (*c == '/')
			*c = '%';
	if (store_keep(f->config.store, owner, hashes, &err) < 0)
		log_warn("function", "saying which environments functions need: %s", err.text);
}
