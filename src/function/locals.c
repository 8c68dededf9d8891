/* SPDX-License-Identifier: Apache-2.0 */
#include "function/locals.h"

#include <stdlib.h>

#include "base/fd.h"
#include "base/mem.h"

struct taking {
	struct locals_wanted w;
	size_t at;
	locals_fn done;
	void *arg;
};

void locals_done(struct locals *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->list[i].path);
	free(l->list);
	*l = (struct locals){ 0 };
}

static void next(struct taking *t);

static void on_taken(void *arg, const struct index_local *local, const struct err *err)
{
	struct taking *t = arg;
	struct locals *out = t->w.out;

	if (!local) {
		t->done(t->arg, err);
		free(t);
		return;
	}
	fd_close(&t->w.wheels[t->at].fd);
	out->list[out->n] = *local;
	out->list[out->n++].path = mem_strdup(local->path);
	t->at++;
	next(t);
}

static void next(struct taking *t)
{
	struct run_wheel *wheel = &t->w.wheels[t->at];

	if (t->at < t->w.n) {
		index_take(t->w.index, wheel->path, wheel->fd, on_taken, t);
		return;
	}
	t->done(t->arg, NULL);
	free(t);
}

void locals_take(const struct locals_wanted *wanted, locals_fn done, void *arg)
{
	struct taking *t = mem_new(struct taking);

	t->w = *wanted;
	t->done = done;
	t->arg = arg;
	locals_done(wanted->out);
	wanted->out->list = mem_zero(wanted->n + 1, sizeof(*wanted->out->list));
	next(t);
}
