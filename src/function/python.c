/* SPDX-License-Identifier: Apache-2.0 */
#include "function/python.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "function/capture.h"
#include "function/priv.h"

struct python_wait {
	python_fn done;
	void *arg;
	struct python_wait *next;
};

static void advance(struct functions *f, struct interp *p);

static bool is_tenants(const struct interp *p, const char *tenant)
{
	return tenant && p->tenant ? strcmp(p->tenant, tenant) == 0 : !tenant && !p->tenant;
}

static struct interp *find(struct functions *f, const char *path, const char *prefix,
			   const char *tenant)
{
	for (struct interp *p = f->interps; p; p = p->next)
		if (strcmp(p->path, path) == 0 && strcmp(p->prefix, prefix) == 0 &&
		    is_tenants(p, tenant))
			return p;
	return NULL;
}

/* /opt/x/bin/python3 -> /opt/x; NULL when there is nothing two levels above. */
static char *default_prefix(const char *path)
{
	char *prefix = mem_strdup(path);

	for (int i = 0; i < 2; i++) {
		char *slash = strrchr(prefix, '/');

		if (!slash || slash == prefix) {
			free(prefix);
			return NULL;
		}
		*slash = '\0';
	}
	return prefix;
}

static void free_interp(struct interp *p)
{
	free(p->path);
	free(p->prefix);
	free(p->tenant);
	free(p->info);
	free(p->cache_tag);
	free(p->version);
	free(p->stdlib);
	free(p->soabi);
	free(p);
}

/* A path that turned out to be no interpreter: clients can name any number of those. */
static void forget(struct functions *f, struct interp *p)
{
	struct interp **link = &f->interps;

	while (*link != p)
		link = &(*link)->next;
	*link = p->next;
	free_interp(p);
}

static void answer_all(struct functions *f, struct interp *p, const struct err *err)
{
	struct python_wait *w = p->waiting, *next;

	p->waiting = NULL;
	for (; w; w = next) {
		next = w->next;
		w->done(w->arg, err ? NULL : p, err);
		free(w);
	}
	if (err && !p->info && !p->kept && !p->waiting && !p->asking)
		forget(f, p);
}

/* "3.11.2" -> "3.11" */
static char *two_parts(const char *version)
{
	const char *dot = version ? strchr(version, '.') : NULL;

	if (!dot)
		return NULL;
	return mem_strndup(version, (size_t)(dot - version) + 1 + strspn(dot + 1, "0123456789"));
}

static int take_info(struct interp *p, const char *json, struct err *err)
{
	json_error_t je;
	json_t *root = json_loads(json, 0, &je);
	const char *tag = json_string_value(json_object_get(root, "cache_tag"));
	const char *full = json_string_value(json_object_get(root, "version"));
	const char *base = json_string_value(json_object_get(root, "base_prefix"));
	const char *soabi = json_string_value(json_object_get(root, "soabi"));
	auto_free char *version = NULL;
	int ret = -1;

	version = two_parts(full);
	if (!tag || !version) {
		err_set(err, ERR_CORRUPT, "'%s' did not say what interpreter it is", p->path);
	} else {
		p->info = mem_strdup(json);
		p->cache_tag = mem_strdup(tag);
		p->stdlib = mem_printf("%s/lib/python%s/", base ? base : p->prefix, version);
		p->soabi = mem_strdup(soabi ? soabi : tag);
		p->version = steal(version);
		ret = 0;
	}
	json_decref(root);
	return ret;
}

struct question {
	struct functions *f;
	struct interp *p;
	int64_t stamp;
};

static void on_info(void *arg, struct buf *out, const struct err *failed)
{
	struct question *q = arg;
	struct interp *p = q->p;
	struct err err = ERR_INIT;

	p->asking = false;
	q->f->asking--;
	if (failed) {
		err = *failed;
		err_wrap(&err, "asking '%s' what it is", p->path);
	} else if (q->f->draining) {
		err_set(&err, ERR_START, "the daemon is stopping");
	} else if (take_info(p, out->data ? out->data : "", &err) == 0) {
		struct err ignored;

		if (q->stamp &&
		    state_put(q->f->state, STATE_INTERP, p->path, q->stamp, p->info, &ignored) < 0)
			log_warn("function", "%s", ignored.text);
	}
	if (p->info)
		advance(q->f, p);
	else
		answer_all(q->f, p, &err);
	functions_went_quiet(q->f);
	free(q);
}

/* 0 when the path is not one that the daemon can see (a passed prefix): then it is asked anew. */
static int64_t stamp_of(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return 0;
	return (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

static void ask(struct functions *f, struct interp *p)
{
	const char *argv[] = { p->path, "-I", JAIL_LIB "/pyinfo.py", NULL };
	struct jail_job_spec spec = { .argv = argv,
				      .prefix = p->prefix,
				      .memory_bytes = 512 * MIB,
				      .deadline_ms = LIMIT_PYINFO_MS };
	auto_buf struct buf known = { 0 };
	int64_t stamp = stamp_of(p->path);
	struct question *q;
	struct err err = ERR_INIT;

	if (stamp && state_get(f->state, STATE_INTERP, p->path, stamp, &known, &err) == 1 &&
	    take_info(p, known.data, &err) == 0) {
		advance(f, p);
		return;
	}
	q = mem_new(struct question);
	*q = (struct question){ f, p, stamp };
	if (capture_start(f->config.loop, f->config.jail, &spec, on_info, q, &err) == 0) {
		p->asking = true;
		f->asking++;
		return;
	}
	free(q);
	err_wrap(&err, "asking '%s' what it is", p->path);
	answer_all(f, p, &err);
}

static void on_root(void *arg, struct zygote_node *z, const struct zygote_profile *profile,
		    const struct err *failed)
{
	struct question *q = arg;
	struct interp *p = q->p;
	struct functions *f = q->f;
	struct err err = ERR_INIT;

	free(q);
	p->rooting = false;
	if (!z) {
		err = *failed;
		err_wrap(&err, "starting %s", p->path);
		answer_all(f, p, &err);
		return;
	}
	p->root = knowledge_add(f, z, NULL, p);
	if (!p->root) {
		err_set(&err, ERR_LIMIT, "too many interpreters and nodes");
		answer_all(f, p, &err);
		return;
	}
	if (profile)
		knowledge_describe(f, p->root, NULL, profile);
	log_info("function", "root for %s (%s) is asleep", p->path, p->cache_tag);
	answer_all(f, p, NULL);
}

static void advance(struct functions *f, struct interp *p)
{
	struct zygote_python python = { p->path, p->prefix };
	struct question *q;

	if (p->root) {
		answer_all(f, p, NULL);
	} else if (p->asking || p->rooting) {
		return;
	} else if (!p->info) {
		ask(f, p);
	} else {
		q = mem_new(struct question);
		*q = (struct question){ f, p, 0 };
		p->rooting = true;
		zygote_root(f->config.zygotes, &python, NULL, on_root, q);
	}
}

static bool is_one_too_many(struct functions *f, const struct python_name *name)
{
	int n = 0;

	for (struct interp *p = f->interps; p; p = p->next)
		n += p->tenant != NULL;
	return name->tenant && n >= LIMIT_TENANT_ROOTS;
}

struct interp *python_record(struct functions *f, const struct python_name *name)
{
	const char *path = name->path ? name->path : f->python;
	auto_free char *above = name->prefix ? mem_strdup(name->prefix) : default_prefix(path);
	struct interp *p;

	if (path[0] != '/' || !above)
		return NULL;
	p = find(f, path, above, name->tenant);
	if (p || is_one_too_many(f, name))
		return p;
	p = mem_new(struct interp);
	p->path = mem_strdup(path);
	p->prefix = steal(above);
	p->tenant = name->tenant ? mem_strdup(name->tenant) : NULL;
	p->next = f->interps;
	p->id = ++f->next_interp_id;
	f->interps = p;
	return p;
}

void python_get(struct functions *f, const struct python_name *name, python_fn done, void *arg)
{
	struct interp *p = python_record(f, name);
	struct python_wait *w;
	struct err err = ERR_INIT;

	if (!p) {
		if (is_one_too_many(f, name))
			err_set(&err, ERR_LIMIT, "more than %d roots of tenants",
				LIMIT_TENANT_ROOTS);
		else
			err_set(&err, ERR_USAGE,
				"'%.200s' is not an interpreter's absolute path, such as "
				"/usr/bin/python3",
				name->path);
		done(arg, NULL, &err);
		return;
	}
	if (p->root) {
		done(arg, p, NULL);
		return;
	}
	w = mem_new(struct python_wait);
	*w = (struct python_wait){ .done = done, .arg = arg, .next = p->waiting };
	p->waiting = w;
	advance(f, p);
}

static bool is_wanted(const struct functions *f, const struct interp *p)
{
	if (!p->tenant || p->asking || p->rooting || p->renewing || p->waiting)
		return true;
	for (const struct version *v = f->retired; v; v = v->next)
		if (v->subject && v->subject->interp == p)
			return true;
	for (uint32_t i = 0; i < f->by_name_cap; i++)
		if (f->by_name[i] && f->by_name[i]->live &&
		    f->by_name[i]->live->subject->interp == p)
			return true;
	return optimise_needs(f, p);
}

/* Children come after their parents, so one pass backwards sees leaves first. Is any left? */
static bool drop_nodes(struct functions *f, const struct interp *p)
{
	bool left = false;

	for (uint32_t i = f->nnodes; i-- > 0;) {
		struct node *n = f->nodes[i];
		struct err busy;

		if (n->interp != p)
			continue;
		if (n->busy || n->children || zygote_drop(n->z, &busy) < 0)
			left = true;
	}
	return left;
}

bool python_tidy(struct functions *f)
{
	struct interp *p = f->deploys ? NULL : f->interps, *next;
	bool left = f->deploys > 0;

	for (; p; p = next) {
		next = p->next;
		if (is_wanted(f, p))
			continue;
		if (drop_nodes(f, p)) {
			left = true;
		} else {
			log_info("function", "the root of tenant %s is gone", p->tenant);
			forget(f, p);
		}
	}
	return left;
}

void python_close(struct functions *f)
{
	struct interp *p = f->interps, *next;

	for (; p; p = next) {
		next = p->next;
		while (p->waiting) {
			struct python_wait *w = p->waiting;

			p->waiting = w->next;
			free(w);
		}
		free_interp(p);
	}
	f->interps = NULL;
}

void python_store_view(const struct interp *interp, struct store_python *out)
{
	*out = (struct store_python){ .path = interp->path,
				      .prefix = interp->prefix,
				      .cache_tag = interp->cache_tag,
				      .version = interp->version };
}
