/* SPDX-License-Identifier: Apache-2.0
 *
 * What a node is there for: who would be forked from it now, what it has saved, what it costs, and
 * whether it is the next to go.
 */
#include "base/clock.h"
#include "function/explain.h"
#include "policy/policy.h"

struct users {
	json_t *named;		     /* functions */
	uint32_t asked;		     /* functions and scripts that were asked */
	uint32_t all;		     /* that there are */
	uint32_t functions, scripts; /* that would take the node */
};

static bool would_take(struct functions *f, struct subject *s, struct node *n)
{
	/* The first is cheap, and false for most. */
	return s->interp == n->interp && s->interp->root && knowledge_admits(f, n, s) &&
	       knowledge_choose(f, s) == n;
}

static bool may_ask(struct users *u)
{
	u->all++;
	u->asked += u->asked < LIMIT_EXPLAIN_SUBJECTS;
	return u->asked == u->all;
}

static void name_user(struct users *u, const struct function *fn, const struct subject *s)
{
	if (u->functions++ < LIMIT_EXPLAIN_USERS)
		json_array_append_new(u->named,
				      json_pack("{s:s, s:f, s:f, s:I}", "function", fn->name,
						"saves_ms", (double)s->saved_us / 1e3, "of_ms",
						(double)s->import_us / 1e3, "calls",
						(json_int_t)fn->calls));
}

static void find_users(struct functions *f, struct node *n, struct users *u)
{
	for (uint32_t i = 0; i < f->by_name_cap; i++) {
		struct version *v = f->by_name[i] ? f->by_name[i]->live : NULL;

		if (v && may_ask(u) && would_take(f, v->subject, n))
			name_user(u, v->fn, v->subject);
	}
	for (struct subject *s = f->scripts; s; s = s->next)
		u->scripts += may_ask(u) && would_take(f, s, n);
}

static json_t *users_json(struct functions *f, struct node *n)
{
	struct users u = { .named = json_array() };

	find_users(f, n, &u);
	return json_pack("{s:o, s:I, s:I, s:I, s:I}", "named", u.named, "functions",
			 (json_int_t)u.functions, "scripts", (json_int_t)u.scripts, "asked",
			 (json_int_t)u.asked, "of", (json_int_t)u.all);
}

static json_t *saves_json(const struct node *n)
{
	struct usage_rates lately;

	usage_rates(n, &lately);
	return json_pack("{s:f, s:f, s:f, s:f, s:i}", "all_ms", (double)n->usage.all_us / 1e3,
			 "per_use_ms",
			 n->uses ? (double)n->usage.all_us / 1e3 / (double)n->uses : 0,
			 "uses_per_s", lately.forks_per_s, "saved_ms_per_s", lately.saved_ms_per_s,
			 "half_life_s", USAGE_HALF_LIFE_S);
}

/* Memory of the node and all below: what would be free when all of them had gone. */
static uint64_t subtree_bytes(struct functions *f, struct node *n)
{
	struct zygote_node_info info;
	uint64_t sum;

	zygote_node_info(n->z, &info);
	sum = info.unique_bytes;
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i]->parent == n)
			sum += subtree_bytes(f, f->nodes[i]);
	return sum;
}

static uint64_t tree_bytes(struct functions *f)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < f->nnodes; i++)
		if (!f->nodes[i]->parent)
			sum += subtree_bytes(f, f->nodes[i]);
	return sum;
}

static json_t *children_json(const struct functions *f, const struct node *n)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i]->parent == n)
			json_array_append_new(list, json_integer(f->nodes[i]->id));
	return list;
}

static const char *why_it_stays(const struct node *n, const struct node *next)
{
	if (n == next)
		return "it is the next to be dropped when memory is short";
	if (!n->parent)
		return "it is a root: roots are not dropped";
	if (n->busy)
		return "it is in use";
	if (n->children)
		return "other nodes are below it: they go first";
	return next ? "another is to be dropped first" : "nothing may be dropped now";
}

static json_t *drop_json(struct functions *f, const struct node *n)
{
	const struct node *next = optimise_next_to_go(f);
	json_t *o = json_pack("{s:b, s:s, s:I, s:I}", "next", n == next, "text",
			      why_it_stays(n, next), "tree_bytes", (json_int_t)tree_bytes(f),
			      "budget_bytes", (json_int_t)f->config.memory_bytes);

	if (next)
		json_object_set_new(o, "first", json_integer(next->id));
	return o;
}

int functions_node(struct functions *f, uint32_t id, struct buf *out, struct err *err)
{
	struct node *n = knowledge_find(f, id);
	struct zygote_node_info info;
	json_t *o;

	if (!n)
		return err_set(err, ERR_NOT_FOUND, "there is no node %u; see the tree", id);
	zygote_node_info(n->z, &info);
	o = describe_node(f, n);
	json_object_set_new(o, "dists", explain_dists(f, n));
	json_object_set_new(o, "parent", n->parent ? json_integer(n->parent->id) : json_null());
	json_object_set_new(o, "depth", json_integer(info.depth));
	json_object_set_new(o, "child_ids", children_json(f, n));
	json_object_set_new(o, "rss_bytes", json_integer((json_int_t)info.rss_bytes));
	json_object_set_new(o, "subtree_bytes", json_integer((json_int_t)subtree_bytes(f, n)));
	json_object_set_new(o, "users", users_json(f, n));
	json_object_set_new(o, "saves", saves_json(n));
	json_object_set_new(o, "drop", drop_json(f, n));
	return describe_json(o, out, err);
}
