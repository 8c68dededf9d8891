/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/workload.h"

#include <fcntl.h>
#include <jansson.h>
#include <string.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"

/* Names to numbers while loading. */
struct names {
	json_t *numbers;
};

static int number_of(const struct names *n, const json_t *name)
{
	const json_t *v = json_object_get(n->numbers, json_string_value(name));

	return v ? (int)json_integer_value(v) : -1;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* A JSON list of names as a set; the caller frees its memory. */
static int parse_set(const struct names *names, const json_t *list, struct policy_set *out,
		     struct err *err)
{
	auto_free uint32_t *v = NULL;
	uint32_t n = 0;
	size_t i;
	const json_t *name;

	if (!json_is_array(list) || json_array_size(list) > LIMIT_LOCK_DISTS)
		return err_set(err, ERR_CORRUPT, "not a list of at most %d dists",
			       LIMIT_LOCK_DISTS);
	v = mem_zero(json_array_size(list) + 1, sizeof(*v));
	json_array_foreach(list, i, name)
	{
		int number = json_is_string(name) ? number_of(names, name) : -1;

		if (number < 0)
			return err_set(err, ERR_CORRUPT, "'%s' is not in packages.json",
				       json_is_string(name) ? json_string_value(name)
							    : "(no name)");
		v[n++] = (uint32_t)number;
	}
	qsort(v, n, sizeof(*v), by_number);
	out->n = 0;
	for (uint32_t k = 0; k < n; k++)
		if (k == 0 || v[k] != v[k - 1])
			v[out->n++] = v[k];
	out->v = steal(v);
	return 0;
}

static int read_text(const char *dir, const char *file, struct buf *out, struct err *err)
{
	auto_free char *path = mem_printf("%s/%s", dir, file);

	return buf_read_file(out, AT_FDCWD, path, err);
}

static int read_object(const char *dir, const char *file, json_t **out, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_WORKLOAD_BYTES);
	json_error_t at;

	if (read_text(dir, file, &text, err) < 0)
		return -1;
	*out = json_loadb(text.data ? text.data : "", text.len, 0, &at);
	if (!*out)
		return err_set(err, ERR_CORRUPT, "%s:%d: %s", file, at.line, at.text);
	if (!json_is_object(*out)) {
		json_decref(*out);
		return err_set(err, ERR_CORRUPT, "%s: not an object", file);
	}
	return 0;
}

static int load_package(struct workload *w, const char *name, const json_t *o, struct err *err)
{
	const json_t *ms = json_object_get(o, "import_ms"), *mb = json_object_get(o, "heap_mb");
	double t = json_number_value(ms), m = json_number_value(mb);

	if (!json_is_number(ms) || !json_is_number(mb) || t < 0 || t > 1e6 || m < 0 || m > 1e6)
		return err_set(err, ERR_CORRUPT,
			       "packages.json: '%s' has no import_ms and heap_mb from 0 to 1e6",
			       name);
	w->items[w->nitems++] = (struct sim_item){
		.name = mem_strdup(name),
		.us = (uint64_t)(t * 1000 + 0.5),
		.bytes = (uint64_t)(m * SIM_BYTES_PER_HEAP_MB + 0.5),
	};
	return 0;
}

static int load_packages(const char *dir, struct workload *w, struct names *names, struct err *err)
{
	json_t *packages, *o;
	const char *name;
	int rc = 0;

	if (read_object(dir, "packages.json", &packages, err) < 0)
		return -1;
	w->items = mem_zero(json_object_size(packages) + 1, sizeof(*w->items));
	names->numbers = json_object();
	json_object_foreach(packages, name, o)
	{
		json_object_set_new(names->numbers, name, json_integer(w->nitems));
		rc = load_package(w, name, o, err);
		if (rc < 0)
			break;
	}
	json_decref(packages);
	return rc;
}

static int load_closure(struct workload *w, uint32_t self, const struct names *names,
			const json_t *list, struct err *err)
{
	struct sim_item *item = &w->items[self];
	size_t i;
	const json_t *closure;

	item->closures = mem_zero(json_array_size(list) + 1, sizeof(*item->closures));
	json_array_foreach(list, i, closure)
	{
		if (parse_set(names, closure, &item->closures[item->nclosures], err) < 0)
			return err_wrap(err, "closures.json: '%s'", item->name);
		item->nclosures++;
		if (!policy_set_has(item->closures[i], self))
			return err_set(err, ERR_CORRUPT,
				       "closures.json: a closure of '%s' lacks the dist itself",
				       item->name);
	}
	return 0;
}

static int load_closures(const char *dir, struct workload *w, const struct names *names,
			 struct err *err)
{
	json_t *closures, *list;
	const char *name;
	int rc = 0;

	if (read_object(dir, "closures.json", &closures, err) < 0)
		return -1;
	json_object_foreach(closures, name, list)
	{
		const json_t *number = json_object_get(names->numbers, name);

		if (!number || !json_is_array(list))
			rc = err_set(err, ERR_CORRUPT, "closures.json: '%s': %s", name,
				     number ? "not a list" : "not in packages.json");
		else
			rc = load_closure(w, (uint32_t)json_integer_value(number), names, list,
					  err);
		if (rc < 0)
			break;
	}
	json_decref(closures);
	return rc;
}

static int load_function(struct workload *w, const struct names *names, const char *line,
			 size_t len, struct err *err)
{
	struct sim_function *f;
	json_error_t at;
	json_t *o = json_loadb(line, len, 0, &at);
	int rc;

	if (!o)
		return err_set(err, ERR_CORRUPT, "%s", at.text);
	w->functions = mem_resize(w->functions, (w->nfunctions + 1) * sizeof(*w->functions));
	f = &w->functions[w->nfunctions];
	*f = (struct sim_function){ 0 };
	if (!json_is_string(json_object_get(o, "name")))
		rc = err_set(err, ERR_CORRUPT, "no name");
	else
		rc = parse_set(names, json_object_get(o, "requirements"), &f->items, err);
	if (rc == 0) {
		double calls = json_number_value(json_object_get(o, "calls"));
		double left = json_number_value(json_object_get(o, "left_ms"));

		f->left_us = left >= 0 && left < 1e6 ? (uint64_t)(left * 1000 + 0.5) : 0;
		f->name = mem_strdup(json_string_value(json_object_get(o, "name")));
		f->calls = calls > SIM_CALLS ? SIM_CALLS : calls > 1 ? (uint32_t)(calls + 0.5) : 1;
		w->nfunctions++;
	}
	json_decref(o);
	return rc;
}

static int load_functions(const char *dir, struct workload *w, const struct names *names,
			  struct err *err)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_WORKLOAD_BYTES);
	int number = 1;

	if (read_text(dir, "functions.jsonl", &text, err) < 0)
		return -1;
	for (const char *line = text.data; line && *line; number++) {
		size_t len = strcspn(line, "\n");

		if (w->nfunctions == LIMIT_FUNCTIONS)
			return err_set(err, ERR_LIMIT, "functions.jsonl: more than %d functions",
				       LIMIT_FUNCTIONS);
		if (len && load_function(w, names, line, len, err) < 0)
			return err_wrap(err, "functions.jsonl:%d", number);
		line += len + (line[len] == '\n');
	}
	if (w->nfunctions == 0)
		return err_set(err, ERR_CORRUPT, "functions.jsonl: no function");
	return 0;
}

int workload_load(const char *dir, struct workload *out, struct err *err)
{
	struct workload w = { 0 };
	struct names names = { 0 };
	int rc = load_packages(dir, &w, &names, err);

	if (rc == 0)
		rc = load_closures(dir, &w, &names, err);
	if (rc == 0)
		rc = load_functions(dir, &w, &names, err);
	json_decref(names.numbers);
	if (rc < 0) {
		workload_done(&w);
		return err_wrap(err, "workload '%s'", dir);
	}
	for (uint32_t i = 0; i < w.nfunctions; i++)
		w.ncalls += w.functions[i].calls;
	w.calls = mem_zero(w.ncalls, sizeof(*w.calls));
	for (uint32_t i = 0, at = 0; i < w.nfunctions; i++)
		for (uint32_t k = 0; k < w.functions[i].calls; k++)
			w.calls[at++] = i;
	*out = w;
	return 0;
}

void workload_done(struct workload *w)
{
	for (uint32_t i = 0; i < w->nitems; i++) {
		for (uint32_t k = 0; k < w->items[i].nclosures; k++)
			free((void *)w->items[i].closures[k].v);
		free(w->items[i].closures);
		free(w->items[i].name);
	}
	for (uint32_t i = 0; i < w->nfunctions; i++) {
		free(w->functions[i].name);
		free((void *)w->functions[i].items.v);
	}
	free(w->items);
	free(w->functions);
	free(w->calls);
	*w = (struct workload){ 0 };
}

void workload_teach_items(const struct workload *w, struct fit *f)
{
	for (uint32_t i = w->nitems; i-- > 0;)
		fit_item(f, i, w->items[i].us, w->items[i].bytes);
	for (uint32_t i = 0; i < w->nitems; i++)
		for (uint32_t k = 0; k < w->items[i].nclosures; k++)
			fit_closure(f, i, w->items[i].closures[k]);
}
