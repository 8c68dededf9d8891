/* SPDX-License-Identifier: Apache-2.0
 *
 * In which order would pip install these dists? It matters only where two of them bring one path:
 * the later one's file stays. pip (get_topological_weights) peels off those that require no other,
 * again and again, the first peeled being installed first; in a cycle the longest way from the top
 * counts. Markers of requirements are not asked here: what is not in the lock is not in the graph.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "store/store_priv.h"

struct graph {
	const struct merge *m;
	bool *wants; /* n * n: row requires column */
	size_t *weight;
	bool *gone;
};

static void read_requires(struct graph *g, size_t i)
{
	auto_free char *path = mem_printf("%s/manifest.json", g->m->dists[i].entry);
	auto_buf struct buf text = BUF_MAX(LIMIT_RECORD_BYTES);
	json_t *o, *value;
	size_t k;

	if (buf_read_file(&text, AT_FDCWD, path, &(struct err){ 0 }) < 0)
		return;
	o = json_loadb(text.data, text.len, 0, NULL);
	json_array_foreach(json_object_get(o, "requires"), k, value)
	{
		for (size_t j = 0; j < g->m->n && json_is_string(value); j++)
			if (j != i && strcmp(json_string_value(value), g->m->dists[j].name) == 0)
				g->wants[i * g->m->n + j] = true;
	}
	json_decref(o);
}

static bool is_leaf(const struct graph *g, size_t i)
{
	for (size_t j = 0; j < g->m->n; j++)
		if (!g->gone[j] && g->wants[i * g->m->n + j])
			return false;
	return true;
}

static void peel(struct graph *g)
{
	auto_free size_t *leaves = mem_zero(g->m->n + 1, sizeof(size_t));
	size_t left = g->m->n, found = 1;

	while (left && found) {
		found = 0;
		for (size_t i = 0; i < g->m->n; i++)
			if (!g->gone[i] && is_leaf(g, i))
				leaves[found++] = i;
		for (size_t k = 0; k < found; k++) {
			g->weight[leaves[k]] = left;
			g->gone[leaves[k]] = true;
		}
		left -= found;
	}
}

/* What is left hangs in cycles: those that nothing left requires are installed last. */
static void weigh_cycles(struct graph *g)
{
	for (size_t round = 0; round < g->m->n; round++)
		for (size_t i = 0; i < g->m->n; i++)
			for (size_t j = 0; j < g->m->n; j++)
				if (!g->gone[i] && !g->gone[j] && g->wants[i * g->m->n + j] &&
				    g->weight[j] < g->weight[i] + 1 && g->weight[i] + 1 < g->m->n)
					g->weight[j] = g->weight[i] + 1;
}

static int by_weight(const void *a, const void *b, void *ctx)
{
	size_t x = *(const size_t *)a, y = *(const size_t *)b;
	const struct graph *g = ctx;

	if (g->weight[x] != g->weight[y])
		return g->weight[x] > g->weight[y] ? -1 : 1;
	return strcmp(g->m->dists[y].name, g->m->dists[x].name);
}

void order_find(const struct merge *m, size_t *out)
{
	auto_free bool *wants = mem_zero(m->n * m->n + 1, sizeof(bool));
	auto_free bool *gone = mem_zero(m->n + 1, sizeof(bool));
	auto_free size_t *weight = mem_zero(m->n + 1, sizeof(size_t));
	struct graph g = { .m = m, .wants = wants, .weight = weight, .gone = gone };

	for (size_t i = 0; i < m->n; i++) {
		out[i] = i;
		read_requires(&g, i);
	}
	peel(&g);
	weigh_cycles(&g);
	qsort_r(out, m->n, sizeof(size_t), by_weight, &g);
}
