/* SPDX-License-Identifier: Apache-2.0
 *
 * `cache verify`: each entry by an installer that reads its RECORD in a sandbox, a few at a time;
 * downloads and environments on the thread pool. Nothing is changed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "store/prune.h"
#include "store/store_priv.h"

struct verify {
	struct store *s;
	struct objects all;
	size_t next, running, checked;
	json_t *problems;
	uv_work_t work;
	struct err err;
	store_text_fn done;
	void *arg;
};

struct verify_job {
	struct verify *v;
	const struct object *object;
	int report;
};

/* What was pruned meanwhile has no problem. */
static void add_problem(struct verify *v, const struct object *o, const char *text)
{
	const struct store *s = v->s;
	auto_free char *path = o->kind == OBJECT_DOWNLOAD
				       ? mem_printf("%s/%s", s->downloads, o->name)
				       : mem_printf("%s/%s/%s", s->dir, object_kind_name(o->kind),
						    o->name);

	if (access(path, F_OK) < 0 && errno == ENOENT)
		return;
	json_array_append_new(v->problems,
			      json_pack("{s:s, s:s, s:s}", "kind", object_kind_name(o->kind),
					"name", o->name, "problem", text));
}

static void end(struct verify *v)
{
	struct store *s = v->s;
	char *text = NULL;
	json_t *o;

	if (!v->err.kind) {
		o = json_pack("{s:i, s:O}", "checked", (int)v->checked, "problems", v->problems);
		must(o);
		text = json_dumps(o, JSON_COMPACT);
		json_decref(o);
	}
	v->done(v->arg, text, v->err.kind ? &v->err : NULL);
	free(text);
	json_decref(v->problems);
	objects_free(&v->all);
	free(v);
	cache_ended(s);
}

static void go_on(struct verify *v);

static void on_job(void *arg, int status, const struct err *err)
{
	struct verify_job *job = arg;
	struct verify *v = job->v;
	auto_buf struct buf text = BUF_MAX(64 * KIB);
	const char *message = err ? err->text : "the check did not end well";
	json_t *o = NULL;

	if (!err && status && buf_read_fd(&text, job->report, &(struct err){ 0 }) == 0 && text.data)
		o = json_loadb(text.data, text.len, 0, NULL);
	if (json_is_string(json_object_get(o, "message")))
		message = json_string_value(json_object_get(o, "message"));
	if (err || status)
		add_problem(v, job->object, message);
	json_decref(o);
	fd_close(&job->report);
	free(job);
	v->running--;
	go_on(v);
}

static int start_job(struct verify *v, const struct object *o, struct err *err)
{
	auto_free char *path = store_entry_path(v->s, o->name);
	const char *argv[] = { JAIL_LIB "/pipsqueak-install", "verify", "/in", NULL };
	struct jail_job_spec spec = { .argv = argv,
				      .mounts = { { path, "/in", false } },
				      .nmounts = 1,
				      .deadline_ms = LIMIT_INSTALL_MS };
	struct verify_job *job = mem_new(struct verify_job);
	int pipefd[2] = { -1, -1 }, rc;

	*job = (struct verify_job){ v, o, -1 };
	rc = pipe2(pipefd, O_CLOEXEC) < 0 ? err_sys(err, errno, "pipe") : 0;
	if (rc == 0) {
		job->report = pipefd[0];
		spec.fds[0] = -1;
		spec.fds[1] = pipefd[1];
		spec.fds[2] = STDERR_FILENO;
		spec.nfds = 3;
		rc = jail_job_start(v->s->jail, &spec, on_job, job, err);
	}
	fd_close(&pipefd[1]);
	if (rc < 0) {
		fd_close(&job->report);
		free(job);
	}
	return rc;
}

static void go_on(struct verify *v)
{
	while (v->next < v->all.n && v->running < LIMIT_INSTALLERS && !v->s->closing) {
		const struct object *o = &v->all.v[v->next++];
		struct err err;

		if (o->kind != OBJECT_WHEEL)
			continue;
		v->checked++;
		v->running++;
		if (start_job(v, o, &err) < 0) {
			v->running--;
			add_problem(v, o, err.text);
		}
	}
	if (!v->running)
		end(v);
}

/* ---- what needs no sandbox ---- */

static int hash_file(int dir, const char *name, char *out, struct err *err)
{
	auto_close int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	auto_free unsigned char *block = mem_zero(1, MIB);
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int len = 0;
	EVP_MD_CTX *hash = EVP_MD_CTX_new();
	ssize_t n = -1;
	bool ok = fd >= 0 && hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1;

	while (ok && (n = read(fd, block, MIB)) > 0)
		ok = EVP_DigestUpdate(hash, block, (size_t)n) == 1;
	ok = ok && n == 0 && EVP_DigestFinal_ex(hash, digest, &len) == 1;
	EVP_MD_CTX_free(hash);
	if (!ok)
		return err_sys(err, errno, "reading '%s'", name);
	for (unsigned int i = 0; i < len; i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
	return 0;
}

/* DIR/<sha256>/<file name> */
static void check_download(struct verify *v, const struct object *o)
{
	auto_free char *path = mem_printf("%s/%s", v->s->downloads, o->name);
	DIR *dir = opendir(path);
	char hex[2 * EVP_MAX_MD_SIZE + 1];
	struct dirent *e;
	struct err err;

	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] == '.')
			continue;
		if (hash_file(dirfd(dir), e->d_name, hex, &err) < 0)
			add_problem(v, o, err.text);
		else if (strcmp(hex, o->name) != 0)
			add_problem(v, o, "its sha256 is another one");
	}
	if (dir)
		closedir(dir);
}

static void check_env(struct verify *v, const struct object *o)
{
	auto_free char *config = mem_printf("%s/envs/%s/pyvenv.cfg", v->s->dir, o->name);

	if (access(config, F_OK) < 0)
		add_problem(v, o, "it has no pyvenv.cfg");
	for (char **name = o->entries; name && *name; name++)
		if (!objects_find(&v->all, OBJECT_WHEEL, *name)) {
			auto_free char *text = mem_printf(
				"the wheel %.12s it is made of is not there", *name);

			add_problem(v, o, text);
		}
}

static void check_code(struct verify *v, const struct object *o)
{
	auto_free char *sha256 = mem_strndup(o->name, 64);

	if (!objects_find(&v->all, OBJECT_WHEEL, sha256))
		add_problem(v, o, "its wheel is not there");
}

static void on_thread(uv_work_t *work)
{
	struct verify *v = work->data;

	if (objects_load(v->s->dir, v->s->downloads, &v->all, &v->err) < 0)
		return;
	v->err.kind = ERR_NONE;
	for (size_t i = 0; i < v->all.n; i++) {
		const struct object *o = &v->all.v[i];

		v->checked += o->kind != OBJECT_WHEEL;
		if (o->kind == OBJECT_DOWNLOAD)
			check_download(v, o);
		else if (o->kind == OBJECT_ENV)
			check_env(v, o);
		else if (o->kind == OBJECT_CODE)
			check_code(v, o);
	}
}

static void on_looked(uv_work_t *work, int status)
{
	struct verify *v = work->data;

	if (v->err.kind)
		end(v);
	else
		go_on(v);
}

void store_verify(struct store *s, store_text_fn done, void *arg)
{
	struct verify *v = mem_new(struct verify);

	*v = (struct verify){ .s = s, .problems = json_array(), .done = done, .arg = arg };
	s->caching++;
	v->work.data = v;
	must(uv_queue_work(s->loop, &v->work, on_thread, on_looked) == 0);
}
