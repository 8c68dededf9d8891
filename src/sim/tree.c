/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <jansson.h>
#include <string.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "sim/replay.h"

struct loading {
	const struct workload *w;
	json_t *numbers; /* of the workload's items, by name */
	struct sim_tree tree;
	uint8_t *has;
};

static int put_packages(struct loading *l, const json_t *packages, struct err *err)
{
	const json_t *name;
	size_t i;

	if (!json_is_array(packages))
		return err_set(err, ERR_CORRUPT, "a node has no list of packages");
	json_array_foreach(packages, i, name)
	{
		const json_t *number = json_object_get(l->numbers, json_string_value(name));

		if (!number)
			return err_set(err, ERR_CORRUPT, "the workload has no '%s'",
				       json_is_string(name) ? json_string_value(name) : "");
		l->has[json_integer_value(number)] = 1;
	}
	return 0;
}

static struct policy_set take_marks(struct loading *l)
{
	uint32_t *v = mem_zero(l->w->nitems + 1, sizeof(*v));
	size_t n = 0;

	for (uint32_t i = 0; i < l->w->nitems; i++)
		if (l->has[i])
			v[n++] = i;
	memset(l->has, 0, l->w->nitems);
	return (struct policy_set){ v, n };
}

/* jansson bounds how deep a file may be nested. */
static int load_node(struct loading *l, const json_t *node, int parent, struct err *err)
{
	const json_t *children = json_object_get(node, "children"), *child;
	struct sim_tree_node *n;
	size_t i;
	int at = -1;

	for (i = 0; parent >= 0 && i < l->tree.nodes[parent].items.n; i++)
		l->has[l->tree.nodes[parent].items.v[i]] = 1;
	if (put_packages(l, json_object_get(node, "packages"), err) < 0)
		return -1;
	if (!json_is_array(children))
		return err_set(err, ERR_CORRUPT, "a node has no list of children");
	l->tree.nodes = mem_resize(l->tree.nodes, (l->tree.n + 1) * sizeof(*n));
	n = &l->tree.nodes[l->tree.n];
	*n = (struct sim_tree_node){ .items = take_marks(l), .parent = parent };
	if (n->items.n == 0 && parent < 0)
		free((void *)n->items.v); /* the root is always there */
	else
		at = (int)l->tree.n++;
	json_array_foreach(children, i, child) if (load_node(l, child, at, err) < 0) return -1;
	return 0;
}

int sim_tree_load(const char *path, const struct workload *w, struct sim_tree *out, struct err *err)
{
	struct loading l = { .w = w };
	auto_buf struct buf text = BUF_MAX(LIMIT_WORKLOAD_BYTES);
	json_error_t at;
	json_t *root = NULL;
	int rc = buf_read_file(&text, AT_FDCWD, path, err);

	if (rc == 0) {
		root = json_loadb(text.data ? text.data : "", text.len, 0, &at);
		if (!root)
			rc = err_set(err, ERR_CORRUPT, "line %d: %s", at.line, at.text);
	}
	l.numbers = json_object();
	for (uint32_t i = 0; i < w->nitems; i++)
		json_object_set_new(l.numbers, w->items[i].name, json_integer(i));
	l.has = mem_zero(w->nitems + 1, 1);
	if (rc == 0)
		rc = load_node(&l, root, -1, err);
	free(l.has);
	json_decref(l.numbers);
	json_decref(root);
	if (rc < 0) {
		sim_tree_done(&l.tree);
		return err_wrap(err, "tree '%s'", path);
	}
	*out = l.tree;
	return 0;
}

void sim_tree_done(struct sim_tree *t)
{
	for (uint32_t i = 0; i < t->n; i++)
		free((void *)t->nodes[i].items.v);
	free(t->nodes);
	*t = (struct sim_tree){ 0 };
}

static json_t *node_json(const struct fit *f, const struct workload *w, int node)
{
	json_t *packages = json_array();
	struct fit_node n = { 0 }, parent = { 0 };

	if (fit_node(f, node, &n))
		(void)fit_node(f, n.parent, &parent);
	for (size_t i = 0; i < n.items.n; i++)
		if (!policy_set_has(parent.items, n.items.v[i]))
			json_array_append_new(packages, json_string(w->items[n.items.v[i]].name));
	return json_pack("{s:o, s:[]}", "packages", packages, "children");
}

char *sim_tree_print(const struct fit *f, const struct workload *w)
{
	int count = fit_nodes(f);
	json_t **all = mem_zero((size_t)count + 1, sizeof(*all)), *root = node_json(f, w, -1);
	struct fit_node n;
	char *text, *line;

	for (int i = 0; i < count; i++)
		all[i] = fit_node(f, i, &n) ? node_json(f, w, i) : NULL;
	for (int i = 0; i < count; i++)
		if (fit_node(f, i, &n))
			json_array_append_new(
				json_object_get(n.parent < 0 ? root : all[n.parent], "children"),
				all[i]);
	text = json_dumps(root, JSON_INDENT(1));
	must(text);
	line = mem_printf("%s\n", text);
	free(text);
	json_decref(root);
	free(all);
	return line;
}
