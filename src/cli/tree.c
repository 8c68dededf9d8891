/* SPDX-License-Identifier: Apache-2.0
 *
 * tree: the sleeping interpreters; why a function starts as it does; what a node is there for.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "cli/show.h"

#define NAMED 6 /* dists of one node that a line names */

/* "numpy 2.4.6, pandas 3.1.1 and 2 more"; none: or. */
static void put_names(const json_t *list, const char *mark, const char *none)
{
	size_t n = json_array_size(list);

	for (size_t i = 0; i < n && i < NAMED; i++)
		printf("%s%s", i ? mark : "", json_string_value(json_array_get(list, i)));
	if (n > NAMED)
		printf("%s%zu more", strcmp(mark, ", ") == 0 ? " and " : mark, n - NAMED);
	if (!n)
		printf("%s", none);
}

/* ---- the tree ---- */

static void show_node(const json_t *node, const char *indent, bool last, bool root)
{
	const json_t *adds = json_object_get(node, "adds"), *children, *child;
	auto_free char *below = mem_printf("%s%s", indent, root ? "" : last ? "   " : "│  ");
	const char *tenant = show_text(node, "tenant");
	char age[SHOW_AGE];
	size_t i;

	printf("%s%s", indent, root ? "" : last ? "└─ " : "├─ ");
	if (root)
		printf("%s%s", show_text(node, "python"), json_array_size(adds) ? " + " : "");
	put_names(adds, ", ", root ? "" : "standard library");
	printf("  [node %.0f, %.0f modules, %.1f MB, %.0f forks, %s%s%s]\n",
	       show_number(node, "id"), show_number(node, "modules"),
	       show_number(node, "memory_bytes") / 1e6, show_number(node, "uses"),
	       show_age(show_number(node, "age_s"), age), *tenant ? ", tenant " : "", tenant);
	children = json_object_get(node, "children");
	json_array_foreach(children, i, child)
		show_node(child, below, i + 1 == json_array_size(children), false);
}

static void show_tree(const json_t *o)
{
	const json_t *roots = json_object_get(o, "roots"), *node;
	const json_t *bad = json_object_get(o, "unforkable");
	size_t i;

	if (!json_array_size(roots))
		printf("no interpreter sleeps yet\n");
	json_array_foreach(roots, i, node) show_node(node, "", true, true);
	json_array_foreach(bad, i, node)
		printf("imported after the fork: %s\n", json_string_value(node));
}

/* ---- Graphviz ---- */

/* In a quoted string of DOT only these two mean something. */
static void put_quoted(const char *text)
{
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar(*text);
	}
}

static void put_label(const json_t *node, bool root)
{
	const json_t *adds = json_object_get(node, "adds");
	size_t n = json_array_size(adds);

	if (root)
		put_quoted(show_text(node, "python"));
	for (size_t i = 0; i < n && i < NAMED; i++) {
		printf("%s", i || root ? "\\n" : "");
		put_quoted(json_string_value(json_array_get(adds, i)));
	}
	if (n > NAMED)
		printf("\\nand %zu more", n - NAMED);
	if (!n && !root)
		printf("standard library");
	printf("\\n%.1f MB, %.0f uses", show_number(node, "memory_bytes") / 1e6,
	       show_number(node, "uses"));
}

static void dot_node(const json_t *node, const json_t *parent)
{
	const json_t *children = json_object_get(node, "children"), *child;
	size_t i;

	printf("  n%.0f [label=\"", show_number(node, "id"));
	put_label(node, !parent);
	printf("\"];\n");
	if (parent)
		printf("  n%.0f -> n%.0f;\n", show_number(parent, "id"), show_number(node, "id"));
	json_array_foreach(children, i, child) dot_node(child, node);
}

static void show_dot(const json_t *o)
{
	const json_t *roots = json_object_get(o, "roots"), *node;
	size_t i;

	printf("digraph pipsqueak {\n  rankdir=LR;\n  node [shape=box, "
	       "fontname=\"sans-serif\"];\n");
	json_array_foreach(roots, i, node) dot_node(node, NULL);
	printf("}\n");
}

/* ---- why a function starts as it does ---- */

static void show_start(const json_t *o)
{
	const json_t *start = json_object_get(o, "start");
	const char *from = show_text(start, "from"), *name = show_text(o, "function");

	printf("%s, version %.0f, %s\n", name, show_number(o, "version"), show_text(o, "python"));
	if (strcmp(from, "nothing") == 0) {
		printf("next cold start: makes its interpreter first, which does not sleep now\n");
		return;
	}
	if (strcmp(from, "fresh") == 0)
		printf("next cold start: an interpreter of its own, which imports all\n");
	else
		printf("next cold start: forks from %s %.0f\n",
		       strcmp(from, "root") == 0 ? "the bare interpreter, node" : "node",
		       show_number(start, "node"));
	if (strcmp(from, "node") == 0) {
		printf("  it holds ");
		put_names(json_object_get(start, "dists"), ", ", "standard library");
		printf("\n");
	}
	if (json_is_true(json_object_get(o, "known")))
		printf("  saves %.1f ms of the %.1f ms that its imports take; %.1f ms are left\n",
		       show_number(start, "saves_ms"), show_number(start, "of_ms"),
		       show_number(start, "left_ms"));
	if (json_array_size(json_object_get(start, "warmed"))) {
		printf("  warmed up in it: ");
		put_names(json_object_get(start, "warmed"), ", ", "");
		printf("\n");
	}
	if (show_number(o, "spares") > 0)
		printf("  %.0f forked ahead and waiting\n", show_number(o, "spares"));
}

static void show_own(const json_t *own)
{
	double tries = show_number(own, "tries");

	printf("a node of its own: %s: %s", show_text(own, "state"), show_text(own, "text"));
	if (strcmp(show_text(own, "state"), "failed") == 0)
		printf(" (%.0f of %.0f tries)", tries, show_number(own, "tries_max"));
	printf("\n");
	if (*show_text(own, "next_try"))
		printf("  next try: %s\n", show_text(own, "next_try"));
}

static void show_other(const json_t *other)
{
	const json_t *reasons = json_object_get(other, "reasons"), *reason;
	size_t i;

	printf("  node %.0f would save %.1f ms: ", show_number(other, "node"),
	       show_number(other, "saves_ms"));
	put_names(json_object_get(other, "dists"), ", ", "standard library");
	printf("\n");
	if (!json_array_size(reasons))
		printf("    it may be used, and is not the best\n");
	json_array_foreach(reasons, i, reason)
		printf("    refused (%s%s%s): %s\n", show_text(reason, "rule"),
		       *show_text(reason, "promise") ? ", " : "", show_text(reason, "promise"),
		       show_text(reason, "text"));
}

static void show_explanation(const json_t *o)
{
	const json_t *others = json_object_get(o, "others"), *item;
	const json_t *bad = json_object_get(o, "cannot_sleep");
	const json_t *idle = json_object_get(o, "idle_threads");
	const json_t *cold = json_object_get(o, "not_warmed");
	size_t i;

	show_start(o);
	show_own(json_object_get(o, "own_node"));
	if (json_array_size(others))
		printf("other nodes that have much of what it imports:\n");
	json_array_foreach(others, i, item) show_other(item);
	if (show_number(o, "others_left_out") > 0)
		printf("  and %.0f more\n", show_number(o, "others_left_out"));
	if (json_array_size(bad))
		printf("imported after the fork, because it cannot sleep:\n");
	json_array_foreach(bad, i, item) printf("  %s of %s: %s\n", show_text(item, "module"),
						show_text(item, "dist"), show_text(item, "text"));
	if (json_array_size(idle))
		printf("sleeps though it has threads:\n");
	json_array_foreach(idle, i, item) printf(
		"  %s, up to %.0f: %s (proof: %s)\n", show_text(item, "module"),
		show_number(item, "threads"), show_text(item, "reason"), show_text(item, "proof"));
	if (json_array_size(cold))
		printf("not warmed up any more, in any node:\n");
	json_array_foreach(cold, i, item) printf("  %s\n", json_string_value(item));
}

/* ---- what a node is there for ---- */

static void show_users(const json_t *users)
{
	const json_t *named = json_object_get(users, "named"), *user;
	double more = show_number(users, "functions") - (double)json_array_size(named);
	double asked = show_number(users, "asked"), all = show_number(users, "of");
	size_t i;

	printf("would be forked from it now: functions %.0f, scripts %.0f",
	       show_number(users, "functions"), show_number(users, "scripts"));
	if (asked < all)
		printf(" (of the first %.0f of %.0f)", asked, all);
	printf("\n");
	json_array_foreach(named, i, user)
		printf("  %s: saves %.1f of %.1f ms; %.0f calls\n", show_text(user, "function"),
		       show_number(user, "saves_ms"), show_number(user, "of_ms"),
		       show_number(user, "calls"));
	if (more > 0)
		printf("  and %.0f more\n", more);
}

static void show_reasons_to_be(const json_t *o)
{
	const json_t *saves = json_object_get(o, "saves"), *drop = json_object_get(o, "drop");
	const char *tenant = show_text(o, "tenant"), *whom = show_text(o, "made_for");
	bool is_next = json_is_true(json_object_get(drop, "next"));
	char age[SHOW_AGE], unused[SHOW_AGE];

	printf("node %.0f: ", show_number(o, "id"));
	put_names(json_object_get(o, "dists"), ", ", "standard library");
	printf("\n  %s, process %.0f, depth %.0f, asleep for %s%s%s\n", show_text(o, "python"),
	       show_number(o, "pid"), show_number(o, "depth"),
	       show_age(show_number(o, "age_s"), age), *tenant ? ", for the tenant " : "", tenant);
	printf("made for: %s\n", *whom ? whom : "all, as a root");
	printf("used: %.0f forks, which served %.0f calls; the last %s ago; %.2f forks a second "
	       "lately\n",
	       show_number(o, "uses"), show_number(o, "calls"),
	       show_age(show_number(o, "unused_s"), unused), show_number(saves, "uses_per_s"));
	printf("saves: %.1f ms a fork, %.1f ms in all; %.2f ms a second lately\n",
	       show_number(saves, "per_use_ms"), show_number(saves, "all_ms"),
	       show_number(saves, "saved_ms_per_s"));
	printf("costs: %.1f MB of its own, %.1f MB with the nodes below it; %zu are right below\n",
	       show_number(o, "memory_bytes") / 1e6, show_number(o, "subtree_bytes") / 1e6,
	       json_array_size(json_object_get(o, "child_ids")));
	printf("next to be dropped: %s%s; the tree has %.1f of %.1f MB\n",
	       is_next ? "yes" : "no: ", is_next ? "" : show_text(drop, "text"),
	       show_number(drop, "tree_bytes") / 1e6, show_number(drop, "budget_bytes") / 1e6);
	show_users(json_object_get(o, "users"));
}

/* ---- the verb ---- */

struct asked {
	const char *explain, *why;
	bool json, dot;
};

static int check(const struct asked *o)
{
	if ((o->explain && o->why) || (o->dot && (o->json || o->explain || o->why)))
		return usage_error("tree", "these flags exclude each other");
	if (o->explain && !is_function_name(o->explain))
		return usage_error("tree", "--explain takes the name of one function");
	if (o->why && (!*o->why || o->why[strspn(o->why, "0123456789")]))
		return usage_error("tree", "--why takes the number of a node, as `tree` shows it");
	return 0;
}

static int parse(int argc, char **argv, struct asked *o)
{
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--json") == 0)
			o->json = true;
		else if (strcmp(argv[i], "--dot") == 0)
			o->dot = true;
		else if (strcmp(argv[i], "--explain") == 0 && value)
			o->explain = argv[++i];
		else if (strcmp(argv[i], "--why") == 0 && value)
			o->why = argv[++i];
		else
			return usage_error("tree", "tree does not take '%s' like this", argv[i]);
	}
	return check(o);
}

int verb_tree(const struct dirs *d, int argc, char **argv)
{
	struct asked o = { 0 };
	auto_free char *path = NULL;
	int rc = parse(argc, argv, &o);

	if (rc)
		return rc;
	if (o.explain) {
		path = mem_printf("/tree/explain/%s", o.explain);
		return show_fetch(d, path, o.json, show_explanation);
	}
	if (o.why) {
		path = mem_printf("/tree/nodes/%s", o.why);
		return show_fetch(d, path, o.json, show_reasons_to_be);
	}
	return show_fetch(d, "/tree", o.json, o.dot ? show_dot : show_tree);
}
