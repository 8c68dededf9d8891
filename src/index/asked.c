/* SPDX-License-Identifier: Apache-2.0
 *
 * A request as the resolver gets it, and what the daemon keeps of it to check the answer by.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "index/name.h"
#include "index/private.h"

void asked_done(struct asked *a)
{
	for (size_t i = 0; i < a->nlocals; i++)
		free(a->locals[i].path);
	free(a->locals);
	free(a->text);
	for (char **name = a->accept; name && *name; name++)
		free(*name);
	free(a->accept);
	free(a->root);
	free(a->python_tag);
	free(a->python_info);
	free(a->rules);
	free(a->request);
}

static int set_text(json_t *root, struct buf *all, const char *key, const char *text,
		    struct err *err)
{
	if (!text)
		return 0;
	if (strlen(text) > LIMIT_REQUIREMENTS_BYTES)
		return err_set(err, ERR_LIMIT, "%s has more than %lu bytes", key,
			       LIMIT_REQUIREMENTS_BYTES);
	if (json_object_set_new(root, key, json_string(text)) < 0)
		return err_set(err, ERR_USAGE, "%s is not UTF-8 text", key);
	return buf_putf(all, err, "%s\n", text);
}

static int set_with(json_t *root, struct buf *all, const char *const *with, struct err *err)
{
	json_t *list = json_array();

	json_object_set_new(root, "with", list);
	for (size_t i = 0; with && with[i]; i++) {
		if (strlen(with[i]) > 4096 || i > LIMIT_LOCK_DISTS)
			return err_set(err, ERR_LIMIT, "too many or too long requirements");
		if (json_array_append_new(list, json_string(with[i])) < 0)
			return err_set(err, ERR_USAGE, "a requirement is not UTF-8 text");
		if (buf_putf(all, err, "%s\n", with[i]) < 0)
			return -1;
	}
	return 0;
}

static int set_python(struct asked *a, json_t *root, const char *info, struct err *err)
{
	json_error_t jerr;
	json_t *python = info ? json_loads(info, 0, &jerr) : NULL;
	const char *tag = json_string_value(json_object_get(python, "cache_tag"));

	if (!tag) {
		json_decref(python);
		return err_set(err, ERR_USAGE, "the interpreter was not described");
	}
	a->python_tag = mem_strdup(tag);
	a->python_info = mem_strdup(info);
	json_object_set_new(root, "python", python);
	return 0;
}

/* Every text in it may name URLs. */
static int add_texts(json_t *value, struct buf *all, struct err *err)
{
	const char *key;
	json_t *item;
	size_t i;

	if (json_is_string(value))
		return buf_putf(all, err, "%s\n", json_string_value(value));
	json_array_foreach(value, i, item) if (add_texts(item, all, err) < 0) return -1;
	json_object_foreach(value, key, item) if (add_texts(item, all, err) < 0) return -1;
	return 0;
}

static int set_inputs(struct asked *a, json_t *root, struct buf *all, const char *inputs,
		      struct err *err)
{
	json_error_t jerr;
	json_t *object = inputs ? json_loads(inputs, 0, &jerr) : NULL;
	int rc;

	if (!inputs)
		return 0;
	if (!json_is_object(object)) {
		json_decref(object);
		return err_set(err, ERR_USAGE, "the requirements are not a JSON object");
	}
	json_object_update(root, object);
	json_object_set_new(root, "now", json_real(clock_wall_s()));
	a->root = mem_strdup(json_string_value(json_object_get(object, "root")));
	rc = add_texts(object, all, err);
	json_decref(object);
	return rc;
}

static void set_locals(struct asked *a, const struct index_request *q, json_t *root)
{
	json_t *sums = json_object();

	a->locals = mem_zero(q->nlocals + 1, sizeof(*a->locals));
	for (size_t i = 0; i < q->nlocals; i++) {
		const struct index_local *l = &q->locals[i];

		a->locals[a->nlocals] = *l;
		a->locals[a->nlocals++].path = mem_strdup(l->path);
		json_object_set_new(sums, l->path,
				    json_pack("{s:s, s:I}", "sha256", l->sha256, "size",
					      (json_int_t)l->size_bytes));
	}
	json_object_set_new(root, "sums", sums);
}

static int set_accept(struct asked *a, json_t *root, struct err *err)
{
	json_t *list = json_object_get(root, "accept_record"), *item;
	size_t i;

	if (list && (!json_is_array(list) || json_array_size(list) > LIMIT_ACCEPTED))
		return err_set(err, ERR_USAGE, "accept_record is no list of at most %d names",
			       LIMIT_ACCEPTED);
	a->accept = mem_zero(json_array_size(list) + 1, sizeof(char *));
	json_array_foreach(list, i, item)
	{
		const char *name = json_is_string(item) ? json_string_value(item) : "";

		a->accept[i] = mem_zero(1, strlen(name) + 1);
		name_normalize(name, strlen(name), a->accept[i]);
	}
	return 0;
}

/* What a build's requirements are resolved by: the request's own rules, as far as they are not of
 * its dists. */
static void set_rules(struct asked *a, json_t *root)
{
	static const char *const same[] = { "exclude_newer", "accept_record", "strict" };
	json_t *rules = json_pack("{s:b, s:b}", "allow_sdist", 1, "build", 1);

	a->strict = json_is_true(json_object_get(root, "strict"));
	a->allow_sdist = a->allow_sdist || json_is_true(json_object_get(root, "allow_sdist"));
	json_object_set_new(root, "allow_sdist", json_boolean(a->allow_sdist));
	for (size_t i = 0; i < array_len(same); i++)
		if (json_object_get(root, same[i]))
			json_object_set(rules, same[i], json_object_get(root, same[i]));
	a->rules = json_dumps(rules, JSON_COMPACT);
	json_decref(rules);
}

static int fill(struct asked *a, const struct index_request *q, json_t *root, struct buf *all,
		struct err *err)
{
	set_locals(a, q, root);
	if (set_inputs(a, root, all, q->inputs, err) < 0 || set_with(root, all, q->with, err) < 0 ||
	    set_text(root, all, "requirements", q->requirements, err) < 0 ||
	    set_text(root, all, "pep723", q->pep723, err) < 0 ||
	    set_text(root, all, "pyproject", q->pyproject, err) < 0 ||
	    set_text(root, all, "pylock", q->pylock, err) < 0)
		return -1;
	set_rules(a, root);
	if (set_accept(a, root, err) < 0)
		return -1;
	return set_python(a, root, q->python_info, err);
}

int asked_build(struct asked *a, const struct index_request *q, struct err *err)
{
	auto_buf struct buf all = BUF_MAX(2 * LIMIT_INPUTS_BYTES);
	json_t *root = json_object();
	int rc = fill(a, q, root, &all, err);
	char *text = rc < 0 ? NULL : json_dumps(root, JSON_COMPACT);

	json_decref(root);
	if (rc < 0)
		return -1;
	a->request = text;
	a->text = buf_steal(&all);
	if (!text || strlen(text) > LIMIT_FRAME_BYTES / 2)
		return err_set(err, ERR_LIMIT, "the requirements are too large");
	return 0;
}
