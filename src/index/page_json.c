/* SPDX-License-Identifier: Apache-2.0
 *
 * A page of the JSON form (PEP 691, 700, 714, 792).
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "index/digest.h"
#include "index/name.h"
#include "index/scan.h"
#include "index/sha.h"

struct page {
	const struct digest_page *in;
	struct buf *out;
	bool has_files;
	char *version, *status, *reason;
	struct err *err;
	bool failed; /* err is set */
};

struct file {
	char *filename, *url, *sha256, *requires_python, *core, *uploaded;
	unsigned long long size;
	bool yanked, core_found;
};

static void keep(struct scan *s, char **to)
{
	struct scan_text text;

	if (!scan_string(s, &text))
		return;
	free(*to);
	*to = scan_copy(&text);
}

static void hash_member(struct scan *s, const struct scan_text *key, void *arg)
{
	if (scan_is(key, "sha256"))
		keep(s, arg);
	else
		scan_skip(s);
}

/* "core-metadata": false, true, or {"sha256": "..."}; its old name counts when it is alone. */
static void read_core(struct scan *s, struct file *f, bool old)
{
	char *core = NULL;

	if (scan_peek(s) == '{') {
		scan_object(s, hash_member, &core);
		if (!core || !sha_is_hex(core)) {
			free(core);
			core = mem_strdup("1");
		}
	} else if (scan_true(s)) {
		core = mem_strdup("1");
	}
	if (old && f->core_found) {
		free(core);
		return;
	}
	f->core_found = !old;
	free(f->core);
	f->core = core;
}

/* A text, if it is one, is the reason; an empty one is no reason (PEP 691). */
static bool read_yanked(struct scan *s)
{
	struct scan_text text;

	if (scan_peek(s) == '"')
		return scan_string(s, &text) && text.len;
	return scan_true(s);
}

static void file_member(struct scan *s, const struct scan_text *key, void *arg)
{
	struct file *f = arg;

	if (scan_is(key, "filename"))
		keep(s, &f->filename);
	else if (scan_is(key, "url"))
		keep(s, &f->url);
	else if (scan_is(key, "requires-python"))
		keep(s, &f->requires_python);
	else if (scan_is(key, "upload-time"))
		keep(s, &f->uploaded);
	else if (scan_is(key, "hashes"))
		scan_object(s, hash_member, &f->sha256);
	else if (scan_is(key, "size"))
		f->size = scan_size(s);
	else if (scan_is(key, "yanked"))
		f->yanked = read_yanked(s);
	else if (scan_is(key, "core-metadata"))
		read_core(s, f, false);
	else if (scan_is(key, "dist-info-metadata"))
		read_core(s, f, true);
	else
		scan_skip(s);
}

static void file_item(struct scan *s, void *arg)
{
	struct page *p = arg;
	struct file f = { 0 };
	auto_free char *url = NULL;

	if (scan_object(s, file_member, &f) && f.filename && f.url && !p->failed)
		url = name_is_dist(f.filename) ? digest_url(p->in->url, f.url) : mem_strdup("");
	if (url) {
		struct digest_file file = { f.filename, url,	    f.sha256, f.requires_python,
					    f.core,	f.uploaded, f.size,   f.yanked };

		p->failed = digest_add(p->out, &file, p->err) < 0;
	}
	if (p->failed) /* nothing more is of use */
		s->at = s->end;
	free(f.filename);
	free(f.url);
	free(f.sha256);
	free(f.requires_python);
	free(f.core);
	free(f.uploaded);
}

static void meta_member(struct scan *s, const struct scan_text *key, void *arg)
{
	struct page *p = arg;

	if (scan_is(key, "api-version"))
		keep(s, &p->version);
	else
		scan_skip(s);
}

static void status_member(struct scan *s, const struct scan_text *key, void *arg)
{
	struct page *p = arg;

	if (scan_is(key, "status"))
		keep(s, &p->status);
	else if (scan_is(key, "reason"))
		keep(s, &p->reason);
	else
		scan_skip(s);
}

static void page_member(struct scan *s, const struct scan_text *key, void *arg)
{
	struct page *p = arg;

	if (scan_is(key, "files"))
		p->has_files = scan_array(s, file_item, p) || p->has_files;
	else if (scan_is(key, "meta"))
		scan_object(s, meta_member, p);
	else if (scan_is(key, "project-status"))
		scan_object(s, status_member, p);
	else
		scan_skip(s);
}

static int check(struct page *p, struct scan *s)
{
	const char *url = p->in->url;

	if (p->failed)
		return -1;
	if (!scan_end(s))
		return err_set(p->err, ERR_CORRUPT, "%s is no index page: its JSON is broken: %s",
			       url, s->bad);
	if (!p->has_files)
		return err_set(p->err, ERR_CORRUPT, "%s is no index page: no list of files", url);
	if (p->version && strncmp(p->version, "1.", 2) != 0)
		return err_set(p->err, ERR_CORRUPT,
			       "%s speaks version %.20s of the index protocol; 1 is understood",
			       url, p->version);
	return p->status ? digest_set_status(p->out, p->status, p->reason, p->err) : 0;
}

int page_json_parse(const struct digest_page *in, struct buf *out, struct err *err)
{
	struct scan s = { .at = in->text, .end = in->text + in->len };
	struct page p = { .in = in, .out = out, .err = err };
	int rc;

	if (!scan_is_utf8(in->text, in->len))
		return err_set(err, ERR_CORRUPT, "%s is no index page: it is not UTF-8", in->url);
	scan_object(&s, page_member, &p);
	rc = check(&p, &s);
	free(p.version);
	free(p.status);
	free(p.reason);
	return rc;
}
