/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"
#include "index/private.h"
#include "index/zip.h"

/* The first look at a wheel's end, which shall hold directory and METADATA: a share of the whole,
 * since the directory grows with it. */
#define TAIL_SHARE 48
#define TAIL_MIN (32 * KIB)
#define TAIL_MAX (384 * KIB)
#define MEMBER_SLACK 512 /* the local header's extra field is not known in advance */

/* METADATA of one wheel on its way: cache, then the index's own file, then parts of the wheel by
 * ranges, then the whole wheel. */
struct meta {
	struct index *index;
	uv_work_t work;
	char *url, *filename, *core;
	char sha256[SHA_HEX];
	uint64_t size;
	bool early, whole;
	struct settings *settings;
	index_progress_fn progress;
	meta_fn done;
	void *arg;
	struct buf tail, directory, body; /* body: METADATA */
	uint64_t tail_from, dir_from, dir_len;
	struct zip_member member;
	char *wheel; /* the whole wheel's path */
	int rc;
	struct err err;
};

static void meta_free(struct meta *m)
{
	free(m->url);
	free(m->filename);
	free(m->core);
	free(m->wheel);
	settings_unref(m->settings);
	buf_done(&m->tail);
	buf_done(&m->directory);
	buf_done(&m->body);
	index_unref(m->index);
	free(m);
}

static void meta_end(struct meta *m, const struct err *err)
{
	m->done(m->arg, err ? NULL : &m->body, m->sha256, err);
	meta_free(m);
}

/* Under URL and sha256: what was read by ranges is not covered by the wheel's sum, so a hostile
 * index could otherwise give another index's wheel a METADATA of its own. */
static char *meta_path(const struct meta *m)
{
	auto_free char *key = mem_printf("%s\n%s", m->url, m->sha256);
	char sum[SHA_HEX];

	sha_text(key, strlen(key), sum);
	return cache_path(m->index, "metadata", sum);
}

/* METADATA is whole in body: trim it, keep it, give it. A file of a few KB: no thread needed. */
static void finish(struct meta *m)
{
	struct err err;

	zip_trim_metadata(&m->body);
	if (m->sha256[0]) {
		auto_free char *path = meta_path(m);

		if (cache_put(m->index, path, &m->body, &err) < 0)
			unlink(path); /* not kept: asked for again the next time */
	}
	meta_end(m, NULL);
}

static void work_whole(uv_work_t *work)
{
	struct meta *m = work->data;

	buf_reset(&m->body);
	m->rc = zip_read_metadata(m->wheel, m->filename, &m->body, &m->err);
}

static void on_whole_read(uv_work_t *work, int status)
{
	struct meta *m = work->data;

	if (m->rc < 0)
		meta_end(m, &m->err);
	else
		finish(m);
}

static void on_wheel(void *arg, const char *path, const char *sha256, const struct err *err)
{
	struct meta *m = arg;

	if (err) {
		m->err = *err;
		meta_end(m, &m->err);
		return;
	}
	m->wheel = mem_strdup(path);
	memcpy(m->sha256, sha256, SHA_HEX);
	m->work.data = m;
	must(uv_queue_work(m->index->loop, &m->work, work_whole, on_whole_read) == 0);
}

static void on_progress(void *arg, const char *line)
{
	struct meta *m = arg;

	if (m->progress)
		m->progress(m->arg, line);
}

static void by_whole(struct meta *m)
{
	struct wheel_want want = { m->url, m->filename, m->sha256, m->size, m->settings };

	wheel_get(m->index, &want, on_progress, on_wheel, m);
}

static void get_range(struct meta *m, uint64_t from, uint64_t to, fetch_done_fn done)
{
	struct fetch_spec spec = { .url = m->url,
				   .settings = m->settings,
				   .max_bytes = from == FETCH_TAIL ? to : to - from + 1,
				   .range = true,
				   .from = from,
				   .to = to };

	fetch_start(m->index->fetcher, &spec, done, m);
}

static void on_member(void *arg, struct fetch_reply *reply, const struct err *err)
{
	struct meta *m = arg;
	struct zip_part part = { .from = m->member.from };
	uint64_t need = 0;

	if (err || reply->status != 206) {
		by_whole(m);
		return;
	}
	part.data = reply->body.data;
	part.len = reply->body.len;
	if (part.len && zip_unpack(&part, &m->member, &m->body, &need, &m->err) == 1)
		finish(m);
	else
		by_whole(m);
}

/* The directory is whole: in tail or in directory. */
static void find_member(struct meta *m)
{
	struct zip_part dir = { .from = m->dir_from, .len = m->dir_len };
	uint64_t last, need = 0;

	if (m->directory.len)
		dir.data = m->directory.data;
	else
		dir.data = m->tail.data + (m->dir_from - m->tail_from);
	if (zip_find_metadata(&dir, m->filename, &m->member, &m->err) < 0 ||
	    m->member.from >= m->dir_from) {
		by_whole(m);
		return;
	}
	if (m->member.from >= m->tail_from) {
		size_t skip = (size_t)(m->member.from - m->tail_from);
		struct zip_part part = { m->tail.data + skip, m->tail.len - skip, m->member.from };

		if (zip_unpack(&part, &m->member, &m->body, &need, &m->err) == 1)
			finish(m);
		else
			by_whole(m);
		return;
	}
	last = m->member.from + 30 + m->member.name_len + m->member.packed + MEMBER_SLACK;
	if (last >= m->dir_from)
		last = m->dir_from - 1;
	get_range(m, m->member.from, last, on_member);
}

static void on_directory(void *arg, struct fetch_reply *reply, const struct err *err)
{
	struct meta *m = arg;

	if (err || reply->status != 206 || reply->body.len != m->tail_from - m->dir_from) {
		by_whole(m);
		return;
	}
	m->directory = reply->body;
	memset(&reply->body, 0, sizeof(reply->body));
	m->directory.max = LIMIT_ZIP_DIRECTORY_BYTES + KIB;
	if (m->dir_from + m->dir_len > m->tail_from &&
	    buf_put(&m->directory, m->tail.data, m->dir_from + m->dir_len - m->tail_from, &m->err) <
		    0) {
		by_whole(m);
		return;
	}
	find_member(m);
}

static void on_tail(void *arg, struct fetch_reply *reply, const struct err *err)
{
	struct meta *m = arg;
	struct zip_part tail;

	if (err || reply->status != 206 || reply->part + reply->body.len != reply->whole ||
	    (m->size && reply->whole != m->size)) {
		by_whole(m);
		return;
	}
	m->size = reply->whole;
	m->tail_from = reply->part;
	m->tail = reply->body;
	memset(&reply->body, 0, sizeof(reply->body));
	tail = (struct zip_part){ m->tail.data, m->tail.len, m->tail_from };
	if (zip_find_directory(&tail, &m->dir_from, &m->dir_len, &m->err) < 0 ||
	    m->dir_len > LIMIT_ZIP_DIRECTORY_BYTES || m->dir_from + m->dir_len > m->size)
		by_whole(m);
	else if (m->dir_from >= m->tail_from)
		find_member(m);
	else
		get_range(m, m->dir_from, m->tail_from - 1, on_directory);
}

/* Small wheels, and those whose sum is not known, are fetched whole: nothing is won. An HTML page
 * says no size, but the end of a file can be asked for without. */
static void by_range(struct meta *m)
{
	uint64_t tail = m->size / TAIL_SHARE;

	if (!m->sha256[0] || (m->size && m->size <= 2 * TAIL_MIN)) {
		by_whole(m);
		return;
	}
	if (!m->size)
		tail = 2 * TAIL_MIN;
	else if (tail < TAIL_MIN)
		tail = TAIL_MIN;
	else if (tail > TAIL_MAX)
		tail = TAIL_MAX;
	if (m->size) /* the plainer form; some servers know no other */
		get_range(m, m->size - tail, m->size - 1, on_tail);
	else
		get_range(m, FETCH_TAIL, tail, on_tail);
}

static void on_core(void *arg, struct fetch_reply *reply, const struct err *err)
{
	struct meta *m = arg;
	char sum[SHA_HEX];

	if (err || reply->status != 200) {
		by_range(m);
		return;
	}
	m->body = reply->body;
	memset(&reply->body, 0, sizeof(reply->body));
	sha_text(m->body.data ? m->body.data : "", m->body.len, sum);
	if (sha_is_hex(m->core) && strcmp(sum, m->core) != 0) {
		err_set(&m->err, ERR_CORRUPT,
			"the metadata of %s has sha256 %s, but the index promised %s", m->filename,
			sum, m->core);
		meta_end(m, &m->err);
		return;
	}
	finish(m);
}

static void by_core(struct meta *m)
{
	auto_free char *url = mem_printf("%s.metadata", m->url);
	struct fetch_spec spec = { .url = url,
				   .settings = m->settings,
				   .max_bytes = LIMIT_METADATA_BYTES,
				   .compressed = true };

	fetch_start(m->index->fetcher, &spec, on_core, m);
}

static void work_look(uv_work_t *work)
{
	struct meta *m = work->data;
	auto_free char *path = meta_path(m);
	auto_free char *wheel = wheel_path(m->index, m->sha256, m->filename);
	struct err err;

	m->rc = 0;
	m->body.max = LIMIT_METADATA_BYTES;
	if (!m->sha256[0])
		return;
	if (access(path, R_OK) == 0 && buf_read_file(&m->body, AT_FDCWD, path, &err) == 0 &&
	    m->body.len) {
		m->rc = 1;
		return;
	}
	if (access(wheel, R_OK) == 0)
		m->rc = 2;
	buf_reset(&m->body);
}

/* Its metadata is under way: nothing ends before the loop's next turn. */
static void expect(struct meta *m)
{
	struct wheel_want want = { m->url, m->filename, m->sha256, m->size, m->settings };

	if (m->early)
		wheel_expect(m->index, &want);
}

static void on_looked(uv_work_t *work, int status)
{
	struct meta *m = work->data;
	bool is_http = strncmp(m->url, "http", 4) == 0;

	if (m->rc == 1) {
		meta_end(m, NULL);
	} else if (m->index->closing) {
		err_set(&m->err, ERR_SYSTEM, "shutting down");
		meta_end(m, &m->err);
	} else if (m->rc == 2 || m->whole || !is_http) {
		by_whole(m);
	} else if (m->core[0]) {
		by_core(m);
		expect(m);
	} else {
		by_range(m);
		expect(m);
	}
}

void meta_get(struct index *index, const struct meta_want *want, meta_fn done, void *arg)
{
	struct meta *m = mem_new(struct meta);

	m->index = index_ref(index);
	m->url = mem_strdup(want->wheel.url);
	m->filename = mem_strdup(want->wheel.filename);
	m->core = mem_strdup(want->core);
	memcpy(m->sha256, want->wheel.sha256, strlen(want->wheel.sha256) + 1);
	m->size = want->wheel.size;
	m->early = want->early;
	m->whole = want->whole;
	m->progress = want->progress;
	m->settings = settings_ref(want->wheel.settings);
	m->done = done;
	m->arg = arg;
	m->work.data = m;
	must(uv_queue_work(index->loop, &m->work, work_look, on_looked) == 0);
}
