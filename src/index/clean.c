/* SPDX-License-Identifier: Apache-2.0
 *
 * A request without the credentials that its URLs hold ("name @ https://user:password@host/..."):
 * they go to the settings, so neither the resolver, nor a lock, nor an error ever sees them.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "index/private.h"

static const char *clean_text(struct clean *c, struct settings *s, const char *text)
{
	char *clean = text ? settings_take_auths(s, text) : NULL;

	must(c->n < array_len(c->texts));
	c->texts[c->n++] = clean;
	return clean;
}

void clean_request(struct clean *c, struct settings *s, const struct index_request *q)
{
	size_t n = 0;

	*c = (struct clean){ .q = *q };
	while (q->with && q->with[n])
		n++;
	c->with = mem_zero(n + 1, sizeof(*c->with));
	for (size_t i = 0; i < n; i++)
		c->with[i] = settings_take_auths(s, q->with[i]);
	c->q.with = q->with ? (const char *const *)c->with : NULL;
	c->q.requirements = clean_text(c, s, q->requirements);
	c->q.pep723 = clean_text(c, s, q->pep723);
	c->q.pyproject = clean_text(c, s, q->pyproject);
	c->q.pylock = clean_text(c, s, q->pylock);
	c->q.inputs = clean_text(c, s, q->inputs);
}

void clean_done(struct clean *c)
{
	for (size_t i = 0; c->with && c->with[i]; i++)
		free(c->with[i]);
	free(c->with);
	for (size_t i = 0; i < c->n; i++)
		free(c->texts[i]);
}
