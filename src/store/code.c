/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytecode of an entry for one interpreter: compiled by that interpreter in a sandbox that sees the
 * sources read-only, published as an object of its own. So sources are unpacked once for all
 * interpreters, and nothing that is published ever changes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "store/store_priv.h"

/* Where glibc looks whether it may ask for huge pages, as jail/job.c lets it: a compiler's heap in
 * them costs half of the page faults. */
#define HUGE_PAGES "/sys/kernel/mm/transparent_hugepage"

struct code_waiter {
	struct code_waiter *next;
	code_fn done;
	void *arg;
};

struct code_work {
	struct store *s;
	struct code_work *next;
	char *dist, *name, *sha256;
	char *python, *prefix, *tag, *version;
	int part;
	size_t sources;
	struct buf hint;
	bool running;
	struct code_waiter *waiters;
};

int code_parts(size_t sources)
{
	return sources == 0 ? 0 : sources <= CODE_FIRST ? 1 : 2;
}

static void start_next(struct store *s);

static void on_built(void *arg, const struct err *err)
{
	struct code_work *w = arg;
	struct store *s = w->s;

	s->compilers--;
	for (struct code_work **p = &s->codes; *p; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			break;
		}
	if (err)
		log_warn("store", "compiling %s: %s", w->dist, err->text);
	while (w->waiters) {
		struct code_waiter *one = w->waiters;

		w->waiters = one->next;
		one->done(one->arg);
		free(one);
	}
	free(w->dist);
	free(w->name);
	free(w->sha256);
	free(w->python);
	free(w->prefix);
	free(w->tag);
	free(w->version);
	buf_done(&w->hint);
	free(w);
	start_next(s);
	facts_settle(s);
}

/* Each process begins with nothing and forks with copies: several work on one wheel only when there
 * are not enough others to keep the processors busy. */
static int workers_of(const struct code_work *w)
{
	int waiting = 0;

	for (const struct code_work *o = w->s->codes; o; o = o->next)
		waiting += !o->running && o->part == w->part;
	return w->sources <= CODE_FIRST || waiting > w->s->cpus ? 1 : w->s->cpus;
}

static void compile(struct code_work *w)
{
	auto_free char *entry = store_entry_path(w->s, w->sha256);
	auto_free char *from = mem_printf("%s/site", entry);
	auto_free char *have = store_code_path(w->s, w->sha256, w->tag, 0);
	auto_free char *shown = mem_printf(JAIL_ENV "/lib/python%s/site-packages", w->version);
	auto_free char *workers = mem_printf("%d", workers_of(w));
	bool rest = w->part == 1 && access(have, F_OK) == 0;
	const char *which = rest				      ? "rest"
			    : code_parts(w->sources) == 2 && !w->part ? "first"
								      : "all";
	const char *argv[] = { w->python, "-I",	   "-S",  JAIL_LIB "/compile_wheel.py",
			       "/in",	  "/out",  shown, which,
			       workers,	  "/have", NULL };
	struct build_spec spec = {
		.job = { .argv = argv,
			 .prefix = w->prefix,
			 .mounts = { { from, "/in", false }, { have, "/have", false } },
			 .nmounts = rest ? 2 : 1,
			 .deadline_ms = LIMIT_COMPILE_MS },
		.kind = "bytecode",
		.name = w->name,
		.input = &w->hint,
	};

	if (access(HUGE_PAGES, R_OK) == 0)
		spec.job.mounts[spec.job.nmounts++] = (struct jail_mount){ HUGE_PAGES, HUGE_PAGES,
									   false };
	w->running = true;
	w->s->compilers++;
	build_start(w->s, &spec, on_built, w);
}

/* What somebody waits for first; then the largest, so that the last ones end together. */
static void start_next(struct store *s)
{
	while (s->compilers < LIMIT_COMPILERS) {
		struct code_work *best = NULL;

		for (struct code_work *w = s->codes; w; w = w->next)
			if (!w->running && (!best || w->part < best->part ||
					    (w->part == best->part && w->sources > best->sources)))
				best = w;
		if (!best)
			return;
		compile(best);
	}
}

void code_make(struct store *s, const struct code_want *want, code_fn done, void *arg)
{
	auto_free char *target = store_code_path(s, want->dist->sha256, want->python->cache_tag,
						 want->part);
	const char *name = strrchr(target, '/') + 1;
	struct code_waiter *one;
	struct code_work *w;
	size_t sources;
	struct err err;

	if (access(target, F_OK) == 0) {
		done(arg);
		return;
	}
	if (entry_sources(s, want->dist->sha256, &sources, &err) < 0) {
		log_warn("store", "compiling %s: %s", want->dist->name, err.text);
		done(arg);
		return;
	}
	one = mem_new(struct code_waiter);
	one->done = done;
	one->arg = arg;
	for (w = s->codes; w; w = w->next)
		if (strcmp(w->name, name) == 0) {
			one->next = w->waiters;
			w->waiters = one;
			return;
		}
	w = mem_new(struct code_work);
	*w = (struct code_work){ .s = s,
				 .next = s->codes,
				 .dist = mem_strdup(want->dist->name),
				 .name = mem_strdup(name),
				 .sha256 = mem_strdup(want->dist->sha256),
				 .python = mem_strdup(want->python->path),
				 .prefix = mem_strdup(want->python->prefix),
				 .tag = mem_strdup(want->python->cache_tag),
				 .version = mem_strdup(want->python->version),
				 .part = want->part,
				 .sources = sources,
				 .waiters = one };
	w->hint.max = LIMIT_HINT_BYTES;
	if (want->part == 0 && code_parts(w->sources) == 2)
		hint_make(s, want, &w->hint);
	s->codes = w;
	start_next(s);
}
