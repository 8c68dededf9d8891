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

/* "NAME==VERSION" of an item's dist; NULL: it is the standard library's. */
static char *name_of(const struct functions *f, uint32_t item)
{
	uint32_t dist = f->items.v[item].dist;
	const char *text = intern_name(&f->names, dist) + strlen("dist:"), *space;

	if (dist == INTERN_NONE)
		return NULL;
	space = strchr(text, ' ');
	return mem_printf("%.*s==%.*s", (int)(space - text), text, (int)strcspn(space + 1, " "),
			  space + 1);
}

static json_t *names_of(const struct functions *f, const struct ids *items)
{
	json_t *list = json_array();

	for (size_t i = 0; i < items->n; i++) {
		auto_free char *name = name_of(f, items->v[i]);

		if (name)
			json_array_append_new(list, json_string(name));
	}
	return list;
}

static void put_item(const struct functions *f, uint32_t number, json_t *packages, json_t *closures)
{
	const struct item *item = &f->items.v[number];
	auto_free char *name = name_of(f, number);
	json_t *ways;

	if (!name)
		return;
	json_object_set_new(packages, name,
			    json_pack("{s:f, s:f}", "import_ms", (double)item->us / 1e3, "heap_mb",
				      (double)item->bytes / BYTES_PER_HEAP_MB));
	ways = json_object_get(closures, name);
	if (!ways) {
		ways = json_array();
		json_object_set_new(closures, name, ways);
	}
	for (uint32_t k = 0; k < item->nclosures; k++)
		json_array_append_new(ways, names_of(f, &item->closures[k]));
}

int functions_history(struct functions *f, struct buf *out, struct err *err)
{
	json_t *list = json_array(), *packages = json_object(), *closures = json_object();
	double now = clock_wall_s();
	size_t n;
	auto_free struct subject **all = subjects_all(f, &n);

	for (uint32_t i = 0; i < f->items.n; i++)
		if (f->items.v[i].us)
			put_item(f, i, packages, closures);
	for (size_t i = 0; i < n; i++) {
		double calls = demand_of(all[i], now) + all[i]->fresh;
		json_t *names = names_of(f, &all[i]->items);

		if (json_array_size(names) && !all[i]->assumed)
			json_array_append_new(list,
					      json_pack("{s:s, s:O, s:f}", "name", all[i]->key,
							"requirements", names, "calls", calls));
		json_decref(names);
	}
	return describe_json(json_pack("{s:o, s:o, s:o}", "functions", list, "packages", packages,
				       "closures", closures),
			     out, err);
}
