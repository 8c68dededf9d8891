/* SPDX-License-Identifier: Apache-2.0
 *
 * One environment out of entries: hard links, laid out as a virtual environment (PEP 405). Runs on
 * the loop's thread pool, with a few threads of its own: the kernel's part is all there is to it.
 * First all sources; where two dists bring one path with different bytes, pip's order decides;
 * then bytecode, only beside a source of the same dist.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "jail/job.h"
#include "store/store_priv.h"

#define DIR_BYTES 4096 /* a small directory on most file systems */

/* A path that was there when a second dist brought other bytes for it. */
struct clash {
	char *path; /* relative to the environment */
	char *from; /* relative to an entry: the same for all dists but headers */
};

struct team {
	struct merge *m;
	int top;
	char *site; /* relative to the environment */
	size_t *order;
	atomic_size_t next;
	bool code; /* the second round */
	atomic_size_t dirs;
	uv_mutex_t lock;
	struct clash *clashes;
	size_t nclashes;
	struct err err;
};

/* Two directories in step. */
struct walk {
	struct team *team; /* NULL: bytecode into an environment in use */
	bool code;	   /* bytecode, not sources */
	int source;	   /* bytecode: the dist's own sources at this level; -1: none */
	int beside;	   /* bytecode: the environment's directory above __pycache__ */
	char path[LIMIT_WHEEL_PATH_BYTES + 256], base[64]; /* where we are; below which part */
	size_t base_len;
};

static bool same_bytes(int a_dir, int b_dir, const char *name)
{
	auto_close int a = openat(a_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	auto_close int b = openat(b_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char x[16384], y[16384];
	ssize_t n, m;

	do {
		n = read(a, x, sizeof(x));
		m = read(b, y, sizeof(y));
	} while (n > 0 && n == m && memcmp(x, y, (size_t)n) == 0);
	return n == 0 && m == 0;
}

static int add_clash(struct walk *w, const char *name, struct err *err)
{
	struct team *t = w->team;
	int rc = 0;

	uv_mutex_lock(&t->lock);
	if (t->nclashes == LIMIT_CLASHES) {
		rc = err_set(err, ERR_LIMIT, "more than %d files are in two packages",
			     LIMIT_CLASHES);
	} else {
		t->clashes = mem_resize(t->clashes, (t->nclashes + 1) * sizeof(struct clash));
		t->clashes[t->nclashes++] = (struct clash){
			.path = mem_printf("%s/%s", w->path, name),
			.from = mem_printf("%s%s/%s", w->base, w->path + w->base_len, name),
		};
	}
	uv_mutex_unlock(&t->lock);
	return rc;
}

static int place_file(struct walk *w, int from, int to, const char *name, struct err *err)
{
	if (linkat(from, name, to, name, 0) == 0)
		return 0;
	if (errno != EEXIST)
		return err_sys(err, errno, "linking '%s'", name);
	return same_bytes(from, to, name) ? 0 : add_clash(w, name, err);
}

static bool same_file(int a_dir, int b_dir, const char *name)
{
	struct stat a, b;

	return fstatat(a_dir, name, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstatat(b_dir, name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_ino == b.st_ino &&
	       a.st_dev == b.st_dev;
}

/* name is x.TAG.pyc in a __pycache__ directory: is the x.py above it, here and there, one file?
 * Bytecode that a wheel brought itself gives way, as with pip. */
static int place_code(struct walk *w, int from, int to, const char *name, struct err *err)
{
	char source[NAME_MAX + 8];
	size_t len = strlen(name);

	for (int dots = 0; len && dots < 2; len--)
		dots += name[len - 1] == '.';
	snprintf(source, sizeof(source), "%.*s.py", (int)len, name);
	/* Nothing clashed: every source is of its dist. */
	if ((!w->team || w->team->nclashes) &&
	    (w->source < 0 || !same_file(w->source, w->beside, source)))
		return 0;
	if (linkat(from, name, to, name, 0) == 0)
		return 0;
	if (errno != EEXIST)
		return err_sys(err, errno, "linking '%s'", name);
	if (!w->team || same_file(from, to, name))
		return 0; /* never replaced under a process that uses it */
	if (unlinkat(to, name, 0) < 0 || linkat(from, name, to, name, 0) < 0)
		return err_sys(err, errno, "replacing '%s'", name);
	return 0;
}

static int link_tree(struct walk *w, int from, int to, struct err *err);

static int link_dir(struct walk *w, int from, int to, const char *name, struct err *err)
{
	auto_close int sub_from = -1, sub_to = -1, source = -1;
	size_t len = strlen(w->path);
	int kept = w->source, rc;

	w->beside = to;

	bool made = mkdirat(to, name, 0755) == 0;

	if (!made && errno != EEXIST)
		return err_sys(err, errno, "making '%s'", name);
	if (made && w->team)
		atomic_fetch_add(&w->team->dirs, 1);
	sub_from = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	sub_to = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (sub_from < 0 || sub_to < 0)
		return err_sys(err, errno, "opening '%s'", name);
	if (len + strlen(name) + 2 > sizeof(w->path))
		return err_set(err, ERR_LIMIT, "'%s' is nested too deeply", name);
	if (w->source >= 0 && strcmp(name, "__pycache__") != 0) {
		source = openat(w->source, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (source < 0 && errno != ENOENT && errno != ENOTDIR)
			return err_sys(err, errno, "opening the sources at '%s'", name);
		w->source = source;
	}
	snprintf(w->path + len, sizeof(w->path) - len, "/%s", name);
	rc = link_tree(w, sub_from, sub_to, err);
	w->path[len] = '\0';
	w->source = kept;
	return rc;
}

static int link_tree(struct walk *w, int from, int to, struct err *err)
{
	int copy = fcntl(from, F_DUPFD_CLOEXEC, 0);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *e;
	int rc = 0, more = 0;

	if (!dir)
		return err_sys(err, errno, "reading a store entry");
	while (rc == 0 && (more = fd_next_entry(dir, &e, err)) > 0) {
		if (e->d_type == DT_DIR)
			rc = link_dir(w, from, to, e->d_name, err);
		else if (w->code)
			rc = place_code(w, from, to, e->d_name, err);
		else
			rc = place_file(w, from, to, e->d_name, err);
	}
	closedir(dir);
	return more < 0 ? -1 : rc;
}

/* One part of an entry to its place in the environment; absent parts are fine. */
static int link_part(struct team *t, int entry, const char *part, const char *place,
		     struct err *err)
{
	struct walk w = { .team = t, .source = -1 };
	auto_close int from = openat(entry, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_free char *whole = NULL;
	auto_close int to = -1;

	if (from < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "opening a store entry");
	whole = mem_printf("%s/%s", t->m->out, place);
	snprintf(w.path, sizeof(w.path), "%s", place);
	snprintf(w.base, sizeof(w.base), "%s", part);
	w.base_len = strlen(place);
	if (fd_mkdirs(whole, 0755, err) < 0)
		return -1;
	to = openat(t->top, place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return to < 0 ? err_sys(err, errno, "opening '%s'", place) : link_tree(&w, from, to, err);
}

static int link_sources(struct team *t, const struct merge_dist *d, struct err *err)
{
	auto_close int entry = open(d->entry, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_free char *headers = mem_printf("include/site/python%s/%s", t->m->version, d->name);

	if (entry < 0)
		return err_sys(err, errno, "opening the store entry of %s", d->name);
	if (link_part(t, entry, "site", t->site, err) < 0 ||
	    link_part(t, entry, "data/data", ".", err) < 0)
		return -1;
	return link_part(t, entry, "data/headers", headers, err);
}

static int link_code(struct team *t, const char *site_path, const struct merge_dist *d, int part,
		     struct err *err)
{
	struct walk w = { .team = t, .code = true };
	auto_close int entry = open(d->entry, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_close int source = openat(entry, "site", O_PATH | O_DIRECTORY | O_CLOEXEC);
	auto_close int from = open(d->code[part], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_close int to = open(site_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (from < 0 && errno == ENOENT)
		return 0; /* it did not compile */
	if (source < 0 || from < 0 || to < 0)
		return err_sys(err, errno, "opening the bytecode of %s", d->name);
	w.source = source;
	return link_tree(&w, from, to, err);
}

int merge_code(const char *site, const struct merge_dist *dist, int part, struct err *err)
{
	return link_code(NULL, site, dist, part, err);
}

/* ---- the team ---- */

static int merge_one(struct team *t, const struct merge_dist *d, struct err *err)
{
	auto_free char *site = mem_printf("%s/%s", t->m->out, t->site);

	if (!t->code)
		return link_sources(t, d, err);
	for (int part = 0; part < 2; part++)
		if (d->code[part] && link_code(t, site, d, part, err) < 0)
			return -1;
	return 0;
}

static void work(void *arg)
{
	struct team *t = arg;
	struct err err;
	size_t i;

	while ((i = atomic_fetch_add(&t->next, 1)) < t->m->n)
		if (merge_one(t, &t->m->dists[t->order[i]], &err) < 0) {
			uv_mutex_lock(&t->lock);
			if (!t->err.kind)
				t->err = err;
			uv_mutex_unlock(&t->lock);
			atomic_store(&t->next, t->m->n);
		}
}

static int run_team(struct team *t, struct err *err)
{
	uv_thread_t threads[LIMIT_WORKERS];
	int n = 0;

	atomic_store(&t->next, 0);
	while (n + 1 < t->m->threads && n < LIMIT_WORKERS &&
	       uv_thread_create(&threads[n], work, t) == 0)
		n++;
	work(t);
	while (n--)
		uv_thread_join(&threads[n]);
	if (!t->err.kind)
		return 0;
	*err = t->err;
	return -1;
}

static int by_size(const void *a, const void *b, void *ctx)
{
	const struct merge *m = ctx;
	uint64_t x = m->dists[*(const size_t *)a].bytes, y = m->dists[*(const size_t *)b].bytes;

	return x > y ? -1 : x < y;
}

/* ---- one path, two dists ---- */

/* The first and the last dist, in pip's order, that bring the path; the first is NULL when only one
 * does: what it clashes with is of another kind, or our own. */
static void find_pair(const struct team *t, const struct clash *c, const size_t *order,
		      const struct merge_dist *out[2])
{
	out[0] = out[1] = NULL;
	for (size_t i = 0; i < t->m->n; i++) {
		const struct merge_dist *d = &t->m->dists[order[i]];
		auto_free char *path = mem_printf("%s/%s", d->entry, c->from);

		if (access(path, F_OK) < 0)
			continue;
		out[0] = out[1] ? out[0] ? out[0] : out[1] : NULL;
		out[1] = d;
	}
}

static int settle_clash(struct team *t, const struct clash *c, const size_t *order, struct err *err)
{
	const struct merge_dist *pair[2];
	const char *first, *last;
	struct err full;

	find_pair(t, c, order, pair);
	if (!pair[1])
		return err_set(err, ERR_SYSTEM, "nobody brings '%s'", c->path);
	first = pair[0] ? pair[0]->name : "the environment";
	last = pair[1]->name;
	if (t->m->strict)
		return err_set(err, ERR_CONFLICT, "%s and %s both bring '%s', with different bytes",
			       first, last, c->path);
	if (buf_putf(&t->m->warnings, &full,
		     "%s and %s both bring '%s', with different bytes; that of %s is used\n", first,
		     last, c->path, last) < 0)
		buf_reset(&t->m->warnings);
	auto_free char *from = mem_printf("%s/%s", pair[1]->entry, c->from);

	if (unlinkat(t->top, c->path, 0) < 0 || linkat(AT_FDCWD, from, t->top, c->path, 0) < 0)
		return err_sys(err, errno, "replacing '%s'", c->path);
	return 0;
}

static int settle_clashes(struct team *t, struct err *err)
{
	auto_free size_t *order = mem_zero(t->m->n + 1, sizeof(size_t));
	int rc = 0;

	if (t->nclashes)
		order_find(t->m, order);
	for (size_t i = 0; i < t->nclashes; i++) {
		bool seen = false;

		for (size_t k = 0; k < i && !seen; k++)
			seen = strcmp(t->clashes[k].path, t->clashes[i].path) == 0;
		if (rc == 0 && !seen)
			rc = settle_clash(t, &t->clashes[i], order, err);
	}
	return rc;
}

/* ---- the frame ---- */

static int layout(struct merge *m, const char *site, struct err *err)
{
	auto_free char *whole = mem_printf("%s/%s", m->out, site);
	auto_free char *bin = mem_printf("%s/bin", m->out);
	auto_free char *home = mem_strdup(m->python), *config = NULL, *versioned = NULL;
	const char *names[] = { "bin/python", "bin/python3", NULL };
	auto_close int top = -1;

	if (fd_mkdirs(whole, 0755, err) < 0 || fd_mkdirs(bin, 0755, err) < 0)
		return -1;
	top = open(m->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	versioned = mem_printf("bin/python%s", m->version);
	names[2] = versioned;
	for (size_t i = 0; i < array_len(names); i++)
		if (symlinkat(m->python, top, names[i]) < 0)
			return err_sys(err, errno, "making '%s'", names[i]);
	*strrchr(home, '/') = '\0';
	config = mem_printf("home = %s\ninclude-system-site-packages = false\nversion = %s\n"
			    "executable = %s\n",
			    home, m->version, m->python);
	return scripts_put(top, "pyvenv.cfg", 0644, config, strlen(config), err);
}

/* bin/, INSTALLER, and which entries it is made of, by name: these stay as long as it does. */
static int finish(struct team *t, struct err *err)
{
	auto_close int bin = openat(t->top, "bin", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_close int site = openat(t->top, t->site, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_buf struct buf entries = BUF_MAX(LIMIT_LOCK_DISTS * 128);

	for (size_t i = 0; i < t->m->n; i++) {
		const struct merge_dist *d = &t->m->dists[i];
		auto_close int entry = open(d->entry, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		auto_buf struct buf info = BUF_MAX(LIMIT_WHEEL_PATH_BYTES);

		if (entry < 0 || bin < 0 || site < 0)
			return err_sys(err, errno, "opening the store entry of %s", d->name);
		if (scripts_write(entry, bin, err) < 0 ||
		    buf_read_file(&info, entry, "dist-info", err) < 0 ||
		    buf_puts(&info, "/INSTALLER", err) < 0 ||
		    scripts_put(site, info.data, 0644, "pipsqueak\n", 10, err) < 0 ||
		    buf_putf(&entries, err, "%s\n", strrchr(d->entry, '/') + 1) < 0)
			return -1;
	}
	return scripts_put(t->top, ".entries", 0644, entries.data ? entries.data : "", entries.len,
			   err);
}

static int merge_all(struct team *t, struct err *err)
{
	t->top = open(t->m->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->top < 0)
		return err_sys(err, errno, "opening '%s'", t->m->out);
	for (size_t i = 0; i < t->m->n; i++)
		t->order[i] = i;
	qsort_r(t->order, t->m->n, sizeof(size_t), by_size, t->m);
	if (run_team(t, err) < 0 || settle_clashes(t, err) < 0)
		return -1;
	t->code = true;
	return run_team(t, err) < 0 ? -1 : finish(t, err);
}

int merge_run(struct merge *m, struct err *err)
{
	struct team t = { .m = m,
			  .top = -1,
			  .site = mem_printf("lib/python%s/site-packages", m->version),
			  .order = mem_zero(m->n + 1, sizeof(size_t)) };
	int rc;

	umask(022);
	must(uv_mutex_init(&t.lock) == 0);
	rc = layout(m, t.site, err);
	if (rc == 0)
		rc = merge_all(&t, err);
	m->own_bytes = atomic_load(&t.dirs) * DIR_BYTES;
	for (size_t i = 0; i < t.nclashes; i++) {
		free(t.clashes[i].path);
		free(t.clashes[i].from);
	}
	uv_mutex_destroy(&t.lock);
	free(t.clashes);
	free(t.order);
	free(t.site);
	fd_close(&t.top);
	return rc;
}
