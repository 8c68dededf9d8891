/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "zygote/zygote.h"

static size_t count(const struct wire_field *list)
{
	size_t pos = 0, n = 0;

	while (wire_list_next(list, &pos))
		n++;
	return n;
}

/* A list as an array of copies that ends with NULL; never NULL itself. */
static char **copy_list(const struct wire_msg *m, uint8_t tag, size_t *out_n)
{
	struct wire_field list = { 0 };
	size_t pos = 0, n = 0;
	const char *s;
	char **out;

	if (!wire_get(m, tag, &list))
		list.len = 0;
	out = mem_zero(count(&list) + 1, sizeof(char *));
	while ((s = wire_list_next(&list, &pos)))
		out[n++] = mem_strdup(s);
	if (out_n)
		*out_n = n;
	return out;
}

static void free_list(char **list)
{
	for (char **s = list; s && *s; s++)
		free(*s);
	free(list);
}

int zygote_profile_parse(const struct wire_msg *m, struct zygote_profile *out, struct err *err)
{
	char **times;
	size_t norigins, ntimes;

	memset(out, 0, sizeof(*out));
	if (m->body.len > LIMIT_PROFILE_BYTES)
		return err_set(err, ERR_LIMIT, "a profile of %zu bytes", m->body.len);
	out->modules = copy_list(m, WIRE_T_MODULES, &out->nmodules);
	out->origins = copy_list(m, WIRE_T_ORIGIN, &norigins);
	times = copy_list(m, WIRE_T_SELF_US, &ntimes);
	out->absent = copy_list(m, WIRE_T_ABSENT, NULL);
	out->env_read = copy_list(m, WIRE_T_ENV_READ, NULL);
	out->reads = copy_list(m, WIRE_T_READS, NULL);
	out->left = copy_list(m, WIRE_T_LEFT, NULL);
	out->self_us = mem_zero(out->nmodules + 1, sizeof(uint64_t));
	if (norigins == out->nmodules && ntimes == out->nmodules &&
	    out->nmodules <= LIMIT_MODULES) {
		for (size_t i = 0; i < ntimes; i++)
			out->self_us[i] = strtoull(times[i], NULL, 10);
		free_list(times);
		return 0;
	}
	free_list(times);
	zygote_profile_done(out);
	return err_set(err, ERR_CORRUPT, "a profile whose lists differ in length");
}

void zygote_profile_done(struct zygote_profile *p)
{
	free_list(p->modules);
	free_list(p->origins);
	free_list(p->absent);
	free_list(p->env_read);
	free_list(p->reads);
	free_list(p->left);
	free(p->self_us);
	memset(p, 0, sizeof(*p));
}
