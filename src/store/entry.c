/* SPDX-License-Identifier: Apache-2.0
 *
 * One wheel from the index to an entry: fetch, install in a job, publish.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/progress.h"
#include "store/store_priv.h"

struct waiter {
	struct waiter *next;
	entry_fn done;
	void *arg;
	bool vouches; /* it takes the wheel though its RECORD lies */
};

struct entry_work {
	struct store *s;
	struct entry_work *next;
	bool queued;  /* fetched, waits for its turn */
	bool vouched; /* by one who waits */
	bool lax;     /* it was found to lie: tried again without comparing */
	char *name, *version, *filename, *wheel;
	char sha256[65];
	uint64_t size;
	struct waiter *waiters;
	index_progress_fn progress;
	void *progress_arg;
};

static void start_next(struct store *s);

/* To one who does not vouch for a wheel that is there because others do. */
static void set_lies(struct err *err, const char *name, const char *version)
{
	err_set(err, ERR_CORRUPT,
		"installing %s %s: the wheel's RECORD does not vouch for its files, and it was "
		"installed for others who accept that; if you trust it, use --accept-record %s",
		name, version, name);
}

static void finish(struct entry_work *w, const struct err *err)
{
	struct store *s = w->s;
	struct err own = ERR_INIT, lies = ERR_INIT;

	for (struct entry_work **p = &s->entries; *p; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			break;
		}
	if (err) {
		own = *err;
		err_wrap(&own, "installing %s %s", w->name, w->version);
	}
	set_lies(&lies, w->name, w->version);
	while (w->waiters) {
		struct waiter *one = w->waiters;

		w->waiters = one->next;
		one->done(one->arg, err ? &own : w->lax && !one->vouches ? &lies : NULL);
		free(one);
	}
	free(w->name);
	free(w->version);
	free(w->filename);
	free(w->wheel);
	free(w);
	start_next(s);
	facts_settle(s);
}

static void say(struct entry_work *w, const char *what)
{
	struct progress p = { .what = what, .name = w->name, .version = w->version };
	char line[PROGRESS_LINE];

	if (!w->progress)
		return;
	progress_print(&p, line);
	w->progress(w->progress_arg, line);
}

static void on_installed(void *arg, const struct err *err)
{
	struct entry_work *w = arg;
	struct err own;

	w->s->installers--;
	if (!err)
		say(w, "installed");
	if (err && err->kind == ERR_CORRUPT && w->vouched && !w->lax) {
		w->lax = w->queued = true;
		start_next(w->s);
		return;
	}
	if (err && err->kind == ERR_CORRUPT && !w->lax && strstr(err->text, "RECORD")) {
		own = *err;
		err_set(&own, ERR_CORRUPT,
			"%.800s; if you trust this wheel, use --accept-record %s", err->text,
			w->name);
		err = &own;
	}
	finish(w, err);
}

static void install(struct entry_work *w)
{
	auto_free char *inside = mem_printf("/in/%s", w->filename);
	const char *argv[] = { JAIL_LIB "/pipsqueak-install", inside, "/out", w->lax ? "lax" : NULL,
			       NULL };
	struct build_spec spec = {
		.job = { .argv = argv,
			 .mounts = { { w->wheel, inside, false } },
			 .nmounts = 1,
			 .deadline_ms = LIMIT_INSTALL_MS },
		.kind = "wheels",
		.name = w->sha256,
	};

	w->queued = false;
	say(w, "install");
	w->s->installers++;
	build_start(w->s, &spec, on_installed, w);
}

/* The largest first, so that the last ones end together. */
static void start_next(struct store *s)
{
	while (s->installers < LIMIT_INSTALLERS) {
		struct entry_work *best = NULL;

		for (struct entry_work *w = s->entries; w; w = w->next)
			if (w->queued && (!best || w->size > best->size))
				best = w;
		if (!best)
			return;
		install(best);
	}
}

static void on_fetched(void *arg, const char *path, const struct err *err)
{
	struct entry_work *w = arg;

	if (err) {
		finish(w, err);
		return;
	}
	w->wheel = mem_strdup(path);
	w->queued = true;
	start_next(w->s);
}

static bool is_lax(const struct store *s, const char *name)
{
	for (const char *const *one = s->lax; one && *one; one++)
		if (strcmp(*one, name) == 0)
			return true;
	return false;
}

static void on_fetch_progress(void *arg, const char *line)
{
	struct entry_work *w = arg;

	if (w->progress)
		w->progress(w->progress_arg, line);
}

void entry_make(struct store *s, const struct lock_dist *dist, index_progress_fn progress,
		entry_fn done, void *arg)
{
	auto_free char *target = store_entry_path(s, dist->sha256);
	auto_free char *mark = mem_printf("%s/lax", target);
	bool vouches = dist->lax || is_lax(s, dist->name);
	struct waiter *one;
	struct entry_work *w;

	if (access(target, F_OK) == 0) {
		struct err lies;

		set_lies(&lies, dist->name, dist->version);
		done(arg, !vouches && access(mark, F_OK) == 0 ? &lies : NULL);
		return;
	}
	one = mem_new(struct waiter);
	one->done = done;
	one->arg = arg;
	one->vouches = vouches;
	for (w = s->entries; w; w = w->next)
		if (strcmp(w->sha256, dist->sha256) == 0) {
			one->next = w->waiters;
			w->waiters = one;
			w->vouched = w->vouched || vouches;
			return;
		}
	w = mem_new(struct entry_work);
	w->s = s;
	w->name = mem_strdup(dist->name);
	w->version = mem_strdup(dist->version);
	w->filename = mem_strdup(dist->filename);
	memcpy(w->sha256, dist->sha256, sizeof(w->sha256));
	w->size = dist->size_bytes;
	w->vouched = vouches;
	w->progress = progress;
	w->progress_arg = arg;
	w->waiters = one;
	w->next = s->entries;
	s->entries = w;
	index_fetch(s->index, dist, on_fetch_progress, on_fetched, w);
}

bool entry_is_unpacking(const struct store *s, const char *sha256)
{
	for (const struct entry_work *w = s->entries; w; w = w->next)
		if (w->wheel && strcmp(w->sha256, sha256) == 0)
			return true;
	return false;
}

int entry_sources(const struct store *s, const char *sha256, size_t *out, struct err *err)
{
	auto_free char *entry = store_entry_path(s, sha256);
	auto_free char *path = mem_printf("%s/sources", entry);
	auto_buf struct buf text = BUF_MAX(64);

	if (buf_read_file(&text, AT_FDCWD, path, err) < 0)
		return -1;
	*out = text.data ? strtoul(text.data, NULL, 10) : 0;
	return 0;
}
