/* SPDX-License-Identifier: Apache-2.0
 *
 * Which modules of a dist were ever seen loading, whoever loaded them: what the store compiles
 * first when it makes that dist ready again, for another interpreter or in another version. By
 * name and version, a JSON array of module names. It only orders work, so what a function says of
 * itself is good enough, and all functions of this daemon share it.
 */
#include <jansson.h>
#include <string.h>

#include "base/log.h"
#include "function/priv.h"

static json_t *read_known(const struct functions *f, const char *key)
{
	auto_buf struct buf text = { 0 };
	json_t *list = NULL, *known = json_object(), *name;
	struct err err;
	size_t i;

	if (state_get(f->state, STATE_LOADS, key, 0, &text, &err) == 1)
		list = json_loads(text.data, 0, NULL);
	json_array_foreach(list, i, name) if (json_is_string(name))
		json_object_set_new(known, json_string_value(name), json_true());
	json_decref(list);
	return known;
}

static void write_known(const struct functions *f, const char *key, json_t *known)
{
	json_t *list = json_array(), *value;
	const char *name;
	struct err err;
	char *text;

	json_object_foreach(known, name, value) json_array_append_new(list, json_string(name));
	text = json_dumps(list, JSON_COMPACT);
	json_decref(list);
	if (text && state_put(f->state, STATE_LOADS, key, 0, text, &err) < 0)
		log_warn("function", "keeping what %s loads: %s", key, err.text);
	free(text);
}

static void learn_dist(struct subject *s, uint32_t dist)
{
	struct functions *f = s->f;
	const char *text = intern_name(&f->names, dist) + strlen("dist:"); /* NAME VERSION SHA256 */
	auto_free char *key = mem_strndup(text, (size_t)(strrchr(text, ' ') - text));
	json_t *known = read_known(f, key);
	size_t before = json_object_size(known);

	for (size_t i = 0; i < s->nseen && json_object_size(known) < LIMIT_LOADS; i++)
		if (s->seen[i].dist == dist)
			json_object_set_new(known, intern_name(&f->names, s->seen[i].module),
					    json_true());
	if (json_object_size(known) != before)
		write_known(f, key, known);
	json_decref(known);
}

void loads_learn(struct subject *s)
{
	for (size_t i = 0; i < s->seen_dists.n; i++)
		learn_dist(s, s->seen_dists.v[i]);
}

bool functions_loads(const struct functions *f, const char *dist, const char *version,
		     struct buf *out)
{
	auto_free char *key = mem_printf("%s %s", dist, version);
	auto_buf struct buf text = { 0 };
	bool same = true;
	struct err err;
	json_t *list, *name;
	size_t i;
	int rc = state_get(f->state, STATE_LOADS, key, 0, &text, &err);

	if (rc == 0) {
		same = false;
		rc = state_get_near(f->state, STATE_LOADS, dist, &text, &err);
	}
	if (rc != 1)
		return false;
	list = json_loads(text.data, 0, NULL);
	json_array_foreach(list, i, name) if (json_is_string(name) &&
					      buf_putf(out, &err, "%s\n", json_string_value(name)) <
						      0) break;
	json_decref(list);
	return same;
}
