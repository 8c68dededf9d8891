/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/show.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static double number(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

void show_functions(const json_t *o)
{
	const json_t *list = json_is_array(o) ? o : json_object_get(o, "functions"), *f;
	size_t i;

	printf("%-24s %7s %9s %7s %9s  %s\n", "FUNCTION", "VERSION", "INSTANCES", "CALLS", "ERRORS",
	       "PACKAGES");
	json_array_foreach(list, i, f)
		printf("%-24s %7.0f %9.0f %7.0f %9.0f  %zu\n", text(f, "name"),
		       number(f, "version"), number(f, "instances"), number(f, "calls"),
		       number(f, "errors"), json_array_size(json_object_get(f, "dists")));
}

static void put_age(double s)
{
	if (s < 120)
		printf("%.0f s", s);
	else if (s < 7200)
		printf("%.0f min", s / 60);
	else
		printf("%.0f h", s / 3600);
}

static void show_node(const json_t *node, const char *indent, bool last, bool root)
{
	const json_t *adds = json_object_get(node, "adds"), *children, *child;
	auto_free char *below = mem_printf("%s%s", indent, root ? "" : last ? "   " : "│  ");
	size_t i, n = json_array_size(adds);

	printf("%s%s", indent, root ? "" : last ? "└─ " : "├─ ");
	if (root)
		printf("%s", text(node, "python"));
	for (i = 0; i < n && i < 6; i++)
		printf("%s%s",
		       i      ? ", "
		       : root ? " + "
			      : "",
		       json_string_value(json_array_get(adds, i)));
	if (n > 6)
		printf(" and %zu more", n - 6);
	if (!n && !root)
		printf("standard library");
	printf("  [%.0f modules, %.1f MB, %.0f forks, ", number(node, "modules"),
	       number(node, "memory_bytes") / 1e6, number(node, "uses"));
	put_age(number(node, "age_s"));
	printf("%s%s]\n", *text(node, "tenant") ? ", tenant " : "", text(node, "tenant"));
	children = json_object_get(node, "children");
	json_array_foreach(children, i, child)
		show_node(child, below, i + 1 == json_array_size(children), false);
}

void show_tree(const json_t *o)
{
	const json_t *roots = json_object_get(o, "roots"), *node;
	const json_t *bad = json_object_get(o, "unforkable");
	size_t i;

	if (!json_array_size(roots))
		printf("no interpreter sleeps yet\n");
	json_array_foreach(roots, i, node) show_node(node, "", true, true);
	json_array_foreach(bad, i, node)
	{
		char *line = json_is_string(node) ? mem_strdup(json_string_value(node))
						  : json_dumps(node, JSON_COMPACT);
		printf("imported after the fork: %s\n", line);
		free(line);
	}
}

static void show_value(const json_t *o, const char *key, int depth)
{
	const json_t *value;
	const char *name;
	size_t i;

	printf("%*s%s:", depth * 2, "", key);
	if (json_is_object(o)) {
		printf("\n");
		json_object_foreach((json_t *)o, name, value) show_value(value, name, depth + 1);
	} else if (json_is_array(o)) {
		printf(json_array_size(o) ? "\n" : " none\n");
		json_array_foreach(o, i, value) show_value(value, "-", depth + 1);
	} else if (json_is_string(o)) {
		printf(" %s\n", json_string_value(o));
	} else {
		char *dumped = json_dumps(o, JSON_ENCODE_ANY);

		printf(" %s\n", dumped);
		free(dumped);
	}
}

void show_status(const json_t *o)
{
	const json_t *value;
	const char *key;

	json_object_foreach((json_t *)o, key, value) show_value(value, key, 0);
}

void show_timing(const char *header)
{
	auto_free char *copy = mem_strdup(header);
	char *save = NULL;

	for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		char *value = strchr(w, ';');

		w += strspn(w, " ");
		if (!value)
			continue;
		*value++ = '\0';
		if (strncmp(value, "dur=", 4) == 0)
			fprintf(stderr, "%10s %10s ms\n", w, value + 4);
		else
			fprintf(stderr, "%10s %10.*s\n", w, (int)strcspn(value + 6, "\""),
				strlen(value) > 6 ? value + 6 : "");
	}
}
