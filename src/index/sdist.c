/* SPDX-License-Identifier: Apache-2.0
 *
 * An sdist becomes a wheel (PEP 517): the archive is looked at in a job, what it requires to be
 * built is resolved and put into an environment like everything else, and a second job builds. The
 * wheel is in the cache then, under its own sum, and goes the way of every wheel.
 *
 *   builds/<sdist's sha256>  the plan: what a look at it found
 *   builds/<key>             what one build gave: a wheel, or what more it requires; the key is of
 *                            the sdist, the interpreter and the lock of what it was built with
 *
 * Two that ask for one build at a time both build: to wait for each other could go round in a
 * circle.
 */
#include "index/sdist.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/progress.h"
#include "index/name.h"
#include "index/zip.h"

struct sdist {
	struct index *index;
	struct sdist *next;	    /* while it waits for its turn */
	const struct sdist *parent; /* it is needed to build this one; NULL: the user wants it */
	char *name, *filename, *sums, *python_info, *rules;
	char sha256[SHA_HEX];
	struct settings *settings;
	bool build;
	index_progress_fn progress;
	sdist_fn done;
	void *arg;
	char *path;	  /* the archive in the cache */
	json_t *plan;	  /* "requires" grows by what the backend wants beyond */
	json_t *info;	  /* python_info; what `python` points to */
	char version[16]; /* of the interpreter, major.minor */
	struct index_python python;
	struct lock *lock; /* of what it is built with */
	char *env;	   /* its environment, kept until env_drop(); NULL: none */
	int made;	   /* the wheel as the build left it; -1: none */
	char *wheel;	   /* path in the cache */
	struct sdist_built built;
	struct buf headers;
	bool looking;
	uv_work_t work;
	int rc;
	struct err err;
};

static void wait_turn(struct sdist *s);
static void turn_over(struct sdist *s);

static void env_drop(struct sdist *s)
{
	const struct index_builds *builds = &s->index->builds;

	if (s->env)
		builds->drop_env(builds->ctx, s->lock);
	free(steal(s->env));
	lock_free(steal(s->lock));
}

/* The one way it ends. */
static void end(struct sdist *s, const struct err *why)
{
	struct index *index = s->index;
	struct err err = ERR_INIT;

	if (why) {
		err = *why;
		err_wrap(&err, "%s%s", s->looking ? "" : "building ", s->filename);
	}
	env_drop(s);
	fd_close(&s->made);
	s->built.headers = &s->headers;
	s->done(s->arg, why ? NULL : &s->built, why ? &err : NULL);
	free(s->name);
	free(s->filename);
	free(s->sums);
	free(s->python_info);
	free(s->rules);
	free(s->path);
	free(s->wheel);
	free((char *)s->built.filename);
	json_decref(s->plan);
	json_decref(s->info);
	settings_unref(s->settings);
	buf_done(&s->headers);
	free(s);
	index->sdists--;
	index_unref(index);
}

static void on_progress(void *arg, const char *line)
{
	struct sdist *s = arg;

	if (s->progress)
		s->progress(s->arg, line);
}

/* --- what is known from before ----------------------------------------------------------- */

static char *record_path(const struct sdist *s)
{
	static const char *const identity[] = { "cache_tag", "version",	    "soabi",
						"platform",  "base_prefix", "path" };
	struct sha *sum = sha_new();
	char hex[SHA_HEX];

	sha_add(sum, s->sha256, SHA_HEX);
	sha_add(sum, s->lock->hash, sizeof(s->lock->hash));
	for (size_t i = 0; i < array_len(identity); i++) {
		const char *text = json_string_value(json_object_get(s->info, identity[i]));

		sha_add(sum, text ? text : "", text ? strlen(text) + 1 : 1);
	}
	sha_hex(sum, hex);
	sha_free(sum);
	return cache_path(s->index, "builds", hex);
}

static json_t *read_json(const char *path)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_REQUIREMENTS_BYTES);
	json_t *found = NULL;

	if (access(path, R_OK) == 0 &&
	    buf_read_file(&text, AT_FDCWD, path, &(struct err){ 0 }) == 0)
		found = json_loadb(text.data ? text.data : "", text.len, 0, NULL);
	return found;
}

/* Not kept: it is done again the next time. Takes value. */
static void keep_json(struct sdist *s, const char *path, json_t *value)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_REQUIREMENTS_BYTES);
	char *dumped = json_dumps(value, JSON_COMPACT);
	struct err err;

	if (!dumped || buf_puts(&text, dumped, &err) < 0 ||
	    cache_put(s->index, path, &text, &err) < 0)
		unlink(path);
	free(dumped);
	json_decref(value);
}

/* --- the wheel --------------------------------------------------------------------------- */

static void work_metadata(uv_work_t *work)
{
	struct sdist *s = work->data;

	s->rc = zip_read_metadata(s->wheel, s->built.filename, &s->headers, &s->err);
}

static void on_metadata(uv_work_t *work, int status)
{
	struct sdist *s = work->data;

	if (s->rc == 0)
		zip_trim_metadata(&s->headers);
	end(s, s->rc < 0 ? &s->err : NULL);
}

static void have_wheel(struct sdist *s, const char *filename, const char *sha256)
{
	s->built.filename = mem_strdup(filename);
	memcpy(s->built.wheel_sha256, sha256, SHA_HEX);
	s->wheel = wheel_path(s->index, sha256, filename);
	s->work.data = s;
	must(uv_queue_work(s->index->loop, &s->work, work_metadata, on_metadata) == 0);
}

static void on_taken(void *arg, const struct index_local *local, const struct err *err)
{
	struct sdist *s = arg;
	const char *filename = local ? strrchr(local->path, '/') + 1 : "";
	auto_free char *path = record_path(s);

	if (err) {
		end(s, err);
		return;
	}
	keep_json(s, path, json_pack("{s:s, s:s}", "wheel", filename, "sha256", local->sha256));
	have_wheel(s, filename, local->sha256);
}

static void take_wheel(struct sdist *s, const char *filename, int fd)
{
	auto_free char *path = mem_printf("/%s", filename);

	if (!name_is_wheel(filename) || !name_matches(filename, strlen(filename), s->name)) {
		err_set(&s->err, ERR_CORRUPT, "it made %s, which is no wheel of %s",
			name_is_wheel(filename) ? filename : "something", s->name);
		end(s, &s->err);
		return;
	}
	s->made = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (s->made < 0) {
		err_sys(&s->err, errno, "keeping the wheel");
		end(s, &s->err);
		return;
	}
	index_take(s->index, path, s->made, on_taken, s);
}

/* --- the build --------------------------------------------------------------------------- */

static void ask_requires(struct sdist *s);

static bool is_strings(json_t *list)
{
	json_t *item;
	size_t i;

	json_array_foreach(list, i, item) if (!json_is_string(item)) return false;
	return json_is_array(list);
}

/* The backend wants these, too; it is asked only once. */
static void want_more(struct sdist *s, json_t *more)
{
	if (!is_strings(more) || json_is_true(json_object_get(s->plan, "final"))) {
		err_set(&s->err, ERR_CORRUPT, "the build gave no wheel");
		end(s, &s->err);
		return;
	}
	json_array_extend(json_object_get(s->plan, "requires"), more);
	json_object_set_new(s->plan, "final", json_true());
	env_drop(s);
	ask_requires(s);
}

static void on_built(void *arg, json_t *report, int fd, const struct err *err)
{
	struct sdist *s = arg;
	json_t *more = json_object_get(report, "more");
	const char *wheel = json_string_value(json_object_get(report, "wheel"));

	turn_over(s);
	if (err) {
		end(s, err);
	} else if (wheel) {
		take_wheel(s, wheel, fd);
	} else {
		auto_free char *path = record_path(s);

		keep_json(s, path, json_pack("{s:O?}", "more", more));
		want_more(s, more);
	}
}

static int start_build(struct sdist *s, struct err *err)
{
	json_t *plan = json_pack(
		"{s:O, s:O, s:O, s:b}", "requires", json_object_get(s->plan, "requires"), "backend",
		json_object_get(s->plan, "backend"), "path", json_object_get(s->plan, "path"),
		"final", json_is_true(json_object_get(s->plan, "final")));
	char *text = plan ? json_dumps(plan, JSON_COMPACT) : NULL;
	struct sdist_job_spec spec = { s->path, text ? text : "{}", s->env, s->python.prefix };
	auto_free char *said = mem_printf("building %s", s->filename);
	struct progress p = { .what = "build", .name = s->filename, .text = said };
	char line[PROGRESS_LINE];
	int rc;

	progress_print(&p, line);
	on_progress(s, line);
	if (!text || strlen(text) > LIMIT_BUILD_PLAN_BYTES)
		rc = err_set(err, ERR_LIMIT, "what it needs to be built is more than %lu bytes",
			     LIMIT_BUILD_PLAN_BYTES);
	else
		rc = sdist_job_start(s->index, &spec, on_built, s, err);
	free(text);
	json_decref(plan);
	return rc;
}

static void on_env(void *arg, const char *path, const struct err *err)
{
	struct sdist *s = arg;

	if (err) {
		end(s, err);
		return;
	}
	s->env = mem_strdup(path);
	wait_turn(s);
}

static void on_lock(void *arg, struct lock *lock, const struct err *err)
{
	const struct index_builds *builds;
	struct sdist *s = arg;
	auto_free char *path = NULL, *wheel = NULL;
	const char *filename = NULL, *sha256 = NULL;
	json_t *record;

	if (!lock) {
		must(err);
		s->err = *err;
		err_wrap(&s->err, "what it needs to be built");
		end(s, &s->err);
		return;
	}
	s->lock = lock;
	builds = &s->index->builds;
	path = record_path(s);
	record = read_json(path);
	if (json_unpack(record, "{s:s, s:s}", "wheel", &filename, "sha256", &sha256) == 0 &&
	    sha_is_hex(sha256) && name_is_wheel(filename))
		wheel = wheel_path(s->index, sha256, filename);
	if (wheel && access(wheel, R_OK) == 0)
		have_wheel(s, filename, sha256);
	else if (json_is_array(json_object_get(record, "more")) &&
		 !json_is_true(json_object_get(s->plan, "final")))
		want_more(s, json_object_get(record, "more"));
	else
		builds->make_env(builds->ctx, lock, &s->python, on_progress, on_env, s);
	json_decref(record);
}

static void ask_requires(struct sdist *s)
{
	json_t *list = json_object_get(s->plan, "requires");
	const char *with[LIMIT_BUILD_REQUIRES + 1] = { 0 };
	struct index_request request = { .with = with,
					 .inputs = s->rules,
					 .python_info = s->python_info,
					 .wheels = true,
					 .build = s };

	if (json_array_size(list) > LIMIT_BUILD_REQUIRES) {
		err_set(&s->err, ERR_LIMIT, "it needs more than %d dists to be built",
			LIMIT_BUILD_REQUIRES);
		end(s, &s->err);
		return;
	}
	for (size_t i = 0; i < json_array_size(list); i++)
		with[i] = json_string_value(json_array_get(list, i));
	index_resolve(s->index, &request, on_progress, on_lock, s);
}

/* --- the look ---------------------------------------------------------------------------- */

static bool is_plan(json_t *plan)
{
	return is_strings(json_object_get(plan, "requires")) &&
	       is_strings(json_object_get(plan, "path")) &&
	       json_is_string(json_object_get(plan, "backend"));
}

static void have_plan(struct sdist *s)
{
	const char *metadata = json_string_value(json_object_get(s->plan, "metadata"));

	s->looking = false;
	if (s->build || !metadata) {
		ask_requires(s);
		return;
	}
	if (buf_puts(&s->headers, metadata, &s->err) == 0)
		zip_trim_metadata(&s->headers);
	end(s, s->err.kind ? &s->err : NULL);
}

static void on_look(void *arg, json_t *report, int fd, const struct err *err)
{
	struct sdist *s = arg;
	auto_free char *path = cache_path(s->index, "builds", s->sha256);

	turn_over(s);
	if (err) {
		end(s, err);
	} else if (!is_plan(report)) {
		err_set(&s->err, ERR_CORRUPT, "it cannot be looked at");
		end(s, &s->err);
	} else {
		s->plan = json_incref(report);
		keep_json(s, path, json_incref(report));
		have_plan(s);
	}
}

static int start_look(struct sdist *s, struct err *err)
{
	struct sdist_job_spec spec = { .archive = s->path };

	return sdist_job_start(s->index, &spec, on_look, s, err);
}

/* --- turns ------------------------------------------------------------------------------- */

static void start_next(struct index *index)
{
	while (index->building < LIMIT_BUILDS && index->to_build) {
		struct sdist **last = &index->to_build, *s;

		while ((*last)->next)
			last = &(*last)->next;
		s = steal(*last); /* who asked first */
		index->building++;
		if ((s->looking ? start_look(s, &s->err) : start_build(s, &s->err)) < 0) {
			index->building--;
			end(s, &s->err);
		}
	}
}

static void turn_over(struct sdist *s)
{
	s->index->building--;
	start_next(s->index);
}

/* Only what runs is counted, not what waits for its requirements: so nothing waits in a circle. */
static void wait_turn(struct sdist *s)
{
	s->next = s->index->to_build;
	s->index->to_build = s;
	start_next(s->index);
}

/* --- the archive ------------------------------------------------------------------------- */

/* May it be built at all? Is it being built for want of itself? */
static int check_archive(struct sdist *s, struct err *err)
{
	auto_free char *chain = mem_strdup(s->filename);
	int depth = 0;

	if (s->index->closing)
		return err_set(err, ERR_SYSTEM, "shutting down");
	if (!s->index->builds.jail)
		return err_set(err, ERR_USAGE, "sdists cannot be built here");
	if (!s->python.path || !s->python.prefix || !s->python.cache_tag || !*s->version)
		return err_set(err, ERR_USAGE, "the interpreter is not well described");
	if (s->sums && !strcasestr(s->sums, s->sha256))
		return err_set(err, ERR_CORRUPT, "its sha256 is %s, which is not the one expected",
			       s->sha256);
	for (const struct sdist *p = s->parent; p; p = p->parent) {
		char *longer = mem_printf("%s needs %s", p->filename, chain);

		free(chain);
		chain = longer;
		if (strcmp(p->sha256, s->sha256) == 0)
			return err_set(err, ERR_CONFLICT, "it is needed to build itself: %s",
				       chain);
		if (++depth > LIMIT_BUILD_DEPTH)
			return err_set(err, ERR_LIMIT,
				       "more than %d sdists need each other to be built: %s",
				       LIMIT_BUILD_DEPTH, chain);
	}
	return 0;
}

static void on_archive(void *arg, const char *path, const char *sha256, const struct err *err)
{
	struct sdist *s = arg;
	auto_free char *plan = NULL;

	if (err) {
		end(s, err);
		return;
	}
	s->path = mem_strdup(path);
	memcpy(s->sha256, sha256, SHA_HEX);
	memcpy(s->built.sha256, sha256, SHA_HEX);
	if (check_archive(s, &s->err) < 0) {
		end(s, &s->err);
		return;
	}
	plan = cache_path(s->index, "builds", s->sha256);
	s->plan = read_json(plan);
	if (is_plan(s->plan)) {
		have_plan(s);
		return;
	}
	json_decref(steal(s->plan));
	wait_turn(s);
}

/* As pyinfo.py says it; the resolver has found it good. */
static void set_python(struct sdist *s)
{
	const char *version;
	size_t minor;

	s->info = json_loads(s->python_info, 0, NULL);
	s->python.path = json_string_value(json_object_get(s->info, "path"));
	s->python.prefix = json_string_value(json_object_get(s->info, "base_prefix"));
	s->python.cache_tag = json_string_value(json_object_get(s->info, "cache_tag"));
	version = json_string_value(json_object_get(s->info, "version"));
	minor = version ? strcspn(version, ".") : 0;
	minor += version && version[minor] ? 1 + strspn(version + minor + 1, "0123456789") : 0;
	snprintf(s->version, sizeof(s->version), "%.*s", (int)minor, version ? version : "");
	s->python.version = s->version;
}

void sdist_get(struct index *index, const struct sdist_want *want, sdist_fn done, void *arg)
{
	struct sdist *s = mem_new(struct sdist);

	s->index = index_ref(index);
	index->sdists++;
	s->parent = want->parent;
	s->name = mem_strdup(want->name);
	s->filename = mem_strdup(want->sdist.filename);
	s->sums = mem_strdup(want->sums);
	s->python_info = mem_strdup(want->asked->python_info);
	s->rules = mem_strdup(want->asked->rules);
	s->settings = settings_ref(want->sdist.settings);
	s->build = want->build;
	s->progress = want->progress;
	s->done = done;
	s->arg = arg;
	s->looking = true;
	s->made = -1;
	s->headers.max = LIMIT_METADATA_BYTES;
	set_python(s);
	wheel_get(index, &want->sdist, on_progress, on_archive, s);
}

struct settings *sdist_settings(const struct sdist *s)
{
	return s->settings;
}

bool index_is_busy(const struct index *index)
{
	return index->sdists > 0;
}

bool index_has_built(const struct index *index, const struct lock *lock)
{
	for (size_t i = 0; i < lock->ndists; i++) {
		const struct lock_dist *d = &lock->dists[i];
		auto_free char *path = wheel_path(index, d->sha256, d->filename);

		if (d->sdist && access(path, R_OK) < 0)
			return false;
	}
	return true;
}
