/* SPDX-License-Identifier: Apache-2.0
 *
 * What was called and what that cost, as the workload that `pipsqueak simulate` and `fit` read
 * (sim/workload.h): functions with how much they are called, dists with what their import takes,
 * and closures of dependencies. Without names of modules, of files, or of wheels.
 */
#include <jansson.h>
#include <string.h>

#include "base/clock.h"
#include "function/explain.h"
#include "function/knowledge.h"
#include "function/priv.h"

#define BYTES_PER_HEAP_MB 4.73e6 /* of ReqBench's measure: sim/workload.h */

/* "NAME==VERSION" of each item's dist; NULL: it is the standard library's. Further items of the
 * same dist (optimise.h) are "NAME==VERSION#2" and so on. */
static char **name_items(const struct functions *f)
{
	char **names = mem_zero(f->items.n + 1, sizeof(char *));
	json_t *seen = json_object();

	for (uint32_t i = 0; i < f->items.n; i++) {
		const char *text, *space;
		json_int_t count;

		if (f->items.v[i].dist == INTERN_NONE)
			continue;
		text = intern_name(&f->names, f->items.v[i].dist) + strlen("dist:");
		space = strchr(text, ' ');
		auto_free char *name = mem_printf("%.*s==%.*s", (int)(space - text), text,
						  (int)strcspn(space + 1, " "), space + 1);

		count = json_integer_value(json_object_get(seen, name)) + 1;
		json_object_set_new(seen, name, json_integer(count));
		names[i] = count > 1 ? mem_printf("%s#%lld", name, (long long)count)
				     : mem_strdup(name);
	}
	json_decref(seen);
	return names;
}

static json_t *names_of(char *const *names, struct policy_set items, struct policy_set without)
{
	json_t *list = json_array();

	for (size_t i = 0; i < items.n; i++)
		if (names[items.v[i]] && !policy_set_has(without, items.v[i]))
			json_array_append_new(list, json_string(names[items.v[i]]));
	return list;
}

static void put_item(const struct item *item, char *const *names, const char *name,
		     json_t *packages, json_t *closures)
{
	json_t *ways = json_array();

	json_object_set_new(packages, name,
			    json_pack("{s:f, s:f}", "import_ms", (double)item->us / 1e3, "heap_mb",
				      (double)item->bytes / BYTES_PER_HEAP_MB));
	for (uint32_t k = 0; k < item->nclosures; k++)
		json_array_append_new(ways, names_of(names, ids_set(&item->closures[k]),
						     (struct policy_set){ 0 }));
	json_object_set_new(closures, name, ways);
}

static json_t *list_functions(struct functions *f, char *const *names, struct subject *const *all,
			      size_t n)
{
	json_t *list = json_array();
	double now = clock_wall_s();

	for (size_t i = 0; i < n; i++) {
		double calls = demand_of(all[i], now) + all[i]->fresh;
		struct ids seen = { 0 };
		json_t *dists;

		items_seen(f, all[i], &seen);
		dists = names_of(names, ids_set(&seen), (struct policy_set){ 0 });
		ids_done(&seen);
		if (json_array_size(dists) && !all[i]->assumed)
			json_array_append_new(
				list, json_pack("{s:s, s:O, s:f, s:f}", "name", all[i]->key,
						"requirements", dists, "calls", calls, "left_ms",
						(double)items_left_us(f, all[i]) / 1e3));
		json_decref(dists);
	}
	return list;
}

/* What it holds: also dists of which none of its sponsor's own nodes is made any more. */
static void held_items(const struct functions *f, const struct node *n, struct ids *out)
{
	struct ids seen = { 0 };

	for (size_t i = 0; i < n->items.n; i++)
		ids_add(out, n->items.v[i]);
	if (n->sponsor)
		items_seen(f, n->sponsor, &seen);
	for (size_t i = 0; i < seen.n; i++)
		if (policy_set_has(ids_set(&n->dists), f->items.v[seen.v[i]].dist))
			ids_add(out, seen.v[i]);
	ids_seal(out);
	ids_done(&seen);
}

/* The nodes of all interpreters, below one root. */
static json_t *list_nodes(const struct functions *f, char *const *names)
{
	json_t *root = json_pack("{s:[], s:[]}", "packages", "children");
	auto_free json_t **made = mem_zero(f->nnodes + 1, sizeof(json_t *));
	auto_free struct ids *held = mem_zero(f->nnodes + 1, sizeof(struct ids));

	for (uint32_t i = 0; i < f->nnodes; i++) { /* parents come before their children */
		const struct node *n = f->nodes[i];
		struct policy_set above = { 0 };

		made[i] = root;
		if (!n->parent)
			continue;
		for (uint32_t k = 0; k < i; k++)
			if (f->nodes[k] == n->parent) {
				made[i] = made[k];
				above = ids_set(&held[k]);
			}
		held_items(f, n, &held[i]);
		json_t *o = json_pack("{s:o, s:[]}", "packages",
				      names_of(names, ids_set(&held[i]), above), "children");

		json_array_append_new(json_object_get(made[i], "children"), o);
		made[i] = o;
	}
	for (uint32_t i = 0; i < f->nnodes; i++)
		ids_done(&held[i]);
	return root;
}

int functions_history(struct functions *f, struct buf *out, struct err *err)
{
	json_t *packages = json_object(), *closures = json_object(), *list, *tree;
	size_t n;
	auto_free struct subject **all = subjects_all(f, &n);
	char **names;

	for (size_t i = 0; i < n; i++)
		items_refresh(f, all[i]);
	names = name_items(f);
	for (uint32_t i = 0; i < f->items.n; i++)
		if (f->items.v[i].us && names[i])
			put_item(&f->items.v[i], names, names[i], packages, closures);
	list = list_functions(f, names, all, n);
	tree = list_nodes(f, names);
	for (uint32_t i = 0; i < f->items.n; i++)
		free(names[i]);
	free(names);
	return describe_json(json_pack("{s:o, s:o, s:o, s:o}", "functions", list, "packages",
				       packages, "closures", closures, "tree", tree),
			     out, err);
}
