/* SPDX-License-Identifier: Apache-2.0
 *
 * Why a function starts as it does: the node that its next cold start forks from, the nodes that
 * would save as much and are refused, what of it cannot sleep, and what became of a node of its
 * own. Asks room policy the very questions that a start asks.
 */
#include "function/explain.h"

#include <fcntl.h>
#include <string.h>

#include "base/clock.h"
#include "function/warm.h"
#include "policy/policy.h"

json_t *explain_text(const char *text)
{
	json_t *s = json_string(text);
	auto_free char *plain = s ? NULL : mem_strdup(text);

	for (char *p = plain; p && *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return s ? s : json_string(plain);
}

char *explain_dist(const struct functions *f, uint32_t dist)
{
	const char *text = intern_name(&f->names, dist) + strlen("dist:");

	return mem_strndup(text, (size_t)(strrchr(text, ' ') - text));
}

char *explain_subject(const char *key)
{
	if (strncmp(key, "function ", 9) == 0)
		return mem_strndup(key, 9 + strcspn(key + 9, " "));
	return mem_strdup("a script");
}

json_t *explain_dists(const struct functions *f, const struct node *n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n->dists.n; i++) {
		auto_free char *text = explain_dist(f, n->dists.v[i]);

		json_array_append_new(list, explain_text(text));
	}
	return list;
}

/* ---- what cannot sleep ---- */

static struct left_module *find_left(struct subject *s, uint32_t module)
{
	for (size_t i = 0; i < s->nleft; i++)
		if (s->left[i].module == module)
			return &s->left[i];
	if (s->nleft == LIMIT_EXPLAIN_MODULES)
		return NULL;
	s->left = mem_resize(s->left, (s->nleft + 1) * sizeof(*s->left));
	s->left[s->nleft] = (struct left_module){ .module = module };
	return &s->left[s->nleft++];
}

void explain_left(struct subject *s, const char *text)
{
	static const char *const kinds[] = {
		[LEFT_FAILS] = "failed=", [LEFT_WAY] = "way=", [LEFT_BLAMED] = "blame="
	};
	auto_free char *name = NULL;
	struct left_module *m;
	uint32_t module;
	size_t how = 0;

	while (how < array_len(kinds) && strncmp(text, kinds[how], strlen(kinds[how])) != 0)
		how++;
	if (how == array_len(kinds))
		return;
	text += strlen(kinds[how]);
	name = mem_strndup(text, how == LEFT_BLAMED ? strcspn(text, ":") : strlen(text));
	module = intern_find(&s->f->names, name);
	m = module == INTERN_NONE ? NULL : find_left(s, module);
	if (!m || (m->how > how && m->why))
		return;
	m->how = how;
	if (how == LEFT_BLAMED && text[strlen(name)]) {
		free(m->why);
		m->why = mem_printf("%.300s", text + strlen(name) + strlen(": "));
	}
}

void explain_put_off(struct subject *s, const char *why)
{
	free(s->put_off);
	s->put_off = mem_strdup(why);
}

void explain_forget(struct subject *s)
{
	free(s->put_off);
	for (size_t i = 0; i < s->nleft; i++)
		free(s->left[i].why);
	free(s->left);
}

static uint32_t dist_of(const struct subject *s, uint32_t module)
{
	for (size_t i = 0; i < s->nseen; i++)
		if (s->seen[i].module == module)
			return s->seen[i].dist;
	return INTERN_NONE;
}

static json_t *left_json(const struct subject *s, const struct left_module *m)
{
	static const char *const words[] = {
		[LEFT_FAILS] = "fails", [LEFT_WAY] = "imports", [LEFT_BLAMED] = "leaves"
	};
	static const char *const texts[] = {
		[LEFT_FAILS] = "its import fails in a sleeping interpreter",
		[LEFT_WAY] = "its import comes to one that cannot sleep",
		[LEFT_BLAMED] = "it leaves behind what no child may share",
	};
	uint32_t dist = dist_of(s, m->module);
	auto_free char *whose = dist == INTERN_NONE ? mem_strdup("the standard library")
						    : explain_dist(s->f, dist);

	return json_pack("{s:o, s:o, s:s, s:o}", "module",
			 explain_text(intern_name(&s->f->names, m->module)), "dist",
			 explain_text(whose), "how", words[m->how], "text",
			 explain_text(m->why ? m->why : texts[m->how]));
}

/* Those to blame first. */
static json_t *all_left_json(const struct subject *s)
{
	json_t *list = json_array();

	for (int how = LEFT_BLAMED; how >= LEFT_FAILS; how--)
		for (size_t i = 0; i < s->nleft; i++)
			if ((int)s->left[i].how == how)
				json_array_append_new(list, left_json(s, &s->left[i]));
	return list;
}

/* What leaves threads and sleeps all the same, with its reason and proof (forksafe.json). */
static json_t *threads_json(const struct subject *s)
{
	struct functions *f = s->f;
	auto_free char *path = f->config.lib_dir ? mem_printf("%s/forksafe.json", f->config.lib_dir)
						 : NULL;
	auto_buf struct buf text = BUF_MAX(LIMIT_TOML_BYTES);
	json_t *list = json_array(), *file = NULL, *row;
	size_t i;

	if (path && buf_read_file(&text, AT_FDCWD, path, NULL) == 0)
		file = json_loadb(text.data, text.len, 0, NULL);
	json_array_foreach(json_object_get(file, "idle_threads"), i, row)
	{
		const char *module = json_string_value(json_object_get(row, "module"));

		if (module && policy_set_has(ids_set(&s->modules), intern_find(&f->names, module)))
			json_array_append(list, row);
	}
	json_decref(file);
	return list;
}

/* ---- why a node is refused ---- */

static char *closure_text(const struct subject *s, const char *dist)
{
	auto_free char *name = mem_strndup(dist, strcspn(dist, " "));
	const struct lock_dist *own = lock_find(s->lock, name);

	if (!own)
		return mem_printf("it imported %s, which the function has not", dist);
	if (strcmp(own->version, dist + strlen(name) + 1) == 0)
		return mem_printf("it imported %s from another wheel than the function's", dist);
	return mem_printf("it imported %s; the function has %s", dist, own->version);
}

static char *absent_text(const char *thing)
{
	static const char *const kinds[][2] = {
		{ "import:", "%s was looked for and not found there; the function has it" },
		{ "meta:", "the metadata of %s was looked for and not found there; the function "
			   "has it" },
		{ "group:", "entry points of the group %s were looked for and not found there; the "
			    "function has some" },
		{ "own:", "it imported %s; the function has a file of that name" },
	};

	for (size_t i = 0; i < array_len(kinds); i++) {
		size_t len = strlen(kinds[i][0]), before = strcspn(kinds[i][1], "%");

		if (strncmp(thing, kinds[i][0], len) == 0)
			return mem_printf("%.*s%s%s", (int)before, kinds[i][1], thing + len,
					  kinds[i][1] + before + 2);
	}
	return mem_printf("%s was not there; the function has it", thing);
}

static char *root_text(const struct subject *s, const struct node *n)
{
	if (strcmp(n->interp->path, s->interp->path) != 0)
		return mem_printf("it is of another interpreter, %s", n->interp->path);
	if (n->interp->tenant && n->interp != s->interp)
		return mem_printf("it is below the root of the tenant %s alone", n->interp->tenant);
	if (n->interp != s->interp)
		return mem_strdup(
			"it is below everybody's root; the function's tenant has its own");
	return mem_strdup(knowledge_top((struct node *)n) == s->interp->next_root
				  ? "it is below the root that will take the present one's place"
				  : "it is below a root that another has replaced");
}

static char *tenant_text(const struct functions *f, uint32_t tenant)
{
	if (!tenant)
		return mem_strdup("the function shares with its own tenant alone");
	return mem_printf("it is of the tenant %s alone",
			  intern_name(&f->names, tenant) + strlen("tenant:"));
}

/* The exact thing of a reason, without its prefix; "": none. */
static char *thing_of(const struct functions *f, const struct policy_reason *r)
{
	const char *name = intern_name(&f->names, r->which);

	switch (r->rule) {
	case POLICY_CLOSURE:
	case POLICY_LOADED:
	case POLICY_METADATA:
		return explain_dist(f, r->which);
	case POLICY_ABSENT:
	case POLICY_VARIABLE:
		return mem_strdup(name + strcspn(name, ":") + 1);
	case POLICY_TENANT:
		return mem_strdup(r->which ? name + strlen("tenant:") : "");
	default:
		return mem_strdup("");
	}
}

static char *text_of(const struct subject *s, const struct node *n, const struct policy_reason *r,
		     const char *thing)
{
	switch (r->rule) {
	case POLICY_ASLEEP:
		return mem_strdup("it does not sleep");
	case POLICY_ROOT:
		return root_text(s, n);
	case POLICY_TENANT:
		return tenant_text(s->f, r->which);
	case POLICY_CLOSURE:
		return closure_text(s, thing);
	case POLICY_LOADED:
		return mem_printf("it imported %s, which the function has, but was not seen "
				  "loading",
				  thing);
	case POLICY_METADATA:
		return mem_printf("it read the metadata of %s, which the function has not", thing);
	case POLICY_LISTED:
		return mem_strdup("it listed all its dists; the function has others");
	case POLICY_ABSENT:
		return absent_text(intern_name(&s->f->names, r->which));
	case POLICY_VARIABLE:
		return mem_printf("it read the variable %s, which the function sets", thing);
	}
	return mem_strdup("");
}

static json_t *reason_json(const struct subject *s, const struct node *n,
			   const struct policy_reason *r)
{
	static const char *const rules[][2] = {
		[POLICY_ASLEEP] = { "asleep", "" },	   [POLICY_ROOT] = { "root", "" },
		[POLICY_TENANT] = { "tenant", "" },	   [POLICY_CLOSURE] = { "closure", "S2" },
		[POLICY_LOADED] = { "loaded", "S3" },	   [POLICY_METADATA] = { "metadata", "S2" },
		[POLICY_LISTED] = { "listed", "S10" },	   [POLICY_ABSENT] = { "absent", "S10" },
		[POLICY_VARIABLE] = { "variable", "S10" },
	};
	auto_free char *thing = thing_of(s->f, r), *text = text_of(s, n, r, thing);

	return json_pack("{s:s, s:s, s:o, s:o}", "rule", rules[r->rule][0], "promise",
			 rules[r->rule][1], "thing", explain_text(thing), "text",
			 explain_text(text));
}

/* ---- the other nodes ---- */

struct other {
	uint32_t at; /* in f->nodes */
	uint64_t saved_us;
};

static int by_saving(const void *a, const void *b)
{
	const struct other *x = a, *y = b;

	if (x->saved_us != y->saved_us)
		return x->saved_us < y->saved_us ? 1 : -1;
	return x->at < y->at ? -1 : x->at > y->at;
}

static bool is_above(const struct node *above, const struct node *n)
{
	for (; n; n = n->parent)
		if (n == above)
			return true;
	return false;
}

struct question {
	struct functions *f;
	struct subject *s;
	struct node *chosen; /* NULL: its root is not there */
	struct policy_node nodes[LIMIT_NODES];
	struct policy_function fn;
	uint64_t saved_us;
};

static json_t *other_json(const struct question *q, const struct other *o)
{
	struct node *n = q->f->nodes[o->at];
	struct policy_reason r[LIMIT_EXPLAIN_REASONS];
	size_t count = policy_refuses(&q->nodes[o->at], &q->fn, r, array_len(r));
	json_t *reasons = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(reasons, reason_json(q->s, n, &r[i]));
	return json_pack("{s:i, s:o, s:f, s:b, s:o}", "node", (int)n->id, "dists",
			 explain_dists(q->f, n), "saves_ms", (double)o->saved_us / 1e3, "admitted",
			 count == 0, "reasons", reasons);
}

/* Those that would save at least half of what the chosen one saves; not those it grew from. */
static json_t *others_json(const struct question *q, size_t *out_left_out)
{
	struct other others[LIMIT_NODES];
	json_t *list = json_array();
	size_t n = 0;

	for (uint32_t i = 0; i < q->f->nnodes && !q->s->afresh; i++) {
		uint64_t saved = policy_saving(&q->nodes[i], &q->fn);

		if (saved && saved >= q->saved_us / 2 && !is_above(q->f->nodes[i], q->chosen))
			others[n++] = (struct other){ i, saved };
	}
	qsort(others, n, sizeof(others[0]), by_saving);
	*out_left_out = n > LIMIT_EXPLAIN_NODES ? n - LIMIT_EXPLAIN_NODES : 0;
	for (size_t i = 0; i < n - *out_left_out; i++)
		json_array_append_new(list, other_json(q, &others[i]));
	return list;
}

/* ---- a node of its own ---- */

static const struct node *own_node(const struct subject *s)
{
	for (uint32_t i = 0; i < s->f->nnodes; i++) {
		const struct node *n = s->f->nodes[i];

		if (n->made_for && strcmp(n->made_for, s->key) == 0)
			return n;
	}
	return NULL;
}

/* Its place among those that wait, from 1; 0: not there. */
static uint32_t queue_place(const struct subject *s, uint32_t *out_of)
{
	uint32_t place = 0;

	*out_of = 0;
	for (uint32_t i = 0; i < s->f->opt.nwaiting; i++) {
		if (grow_is_for(s->f, s->f->opt.waiting[i]))
			continue;
		++*out_of;
		if (s->f->opt.waiting[i] == s)
			place = *out_of;
	}
	return place;
}

struct own {
	const char *state;
	char *text, *next_try; /* next_try NULL: there is nothing to try */
};

static struct own describe_own(const struct subject *s, const struct node *node, uint64_t left_us)
{
	uint32_t of, place = queue_place(s, &of);

	if (s->afresh)
		return (struct own){ "unused", mem_strdup("it sets a variable that an interpreter "
							  "reads at its start: each cold start "
							  "makes an interpreter of its own") };
	if (!s->profiles)
		return (struct own){ "unknown",
				     mem_strdup("it was not called yet: what it loads is not "
						"known"),
				     mem_strdup("after its first call") };
	if (place)
		return (struct own){ "queued",
				     mem_printf("it waits for its turn, %u of %u", place, of),
				     mem_strdup(s->f->calls ? "when fewer calls run" : "soon") };
	if (grow_is_for(s->f, s))
		return (struct own){ "being made",
				     mem_printf("for %.1f s by now",
						(double)(clock_us() - s->growth_us) / 1e6) };
	if (node)
		return (struct own){ "asleep", mem_printf("it is node %u", node->id) };
	if (s->cannot)
		return (struct own){ "failed", mem_strdup(s->cannot),
				     mem_strdup("when a call loads what none before did, or after "
						"a deploy") };
	if (left_us < POLICY_GROW_MIN_US)
		return (struct own){ "not needed",
				     mem_printf("it would save %.1f ms more, less than %d",
						(double)left_us / 1e3, POLICY_GROW_MIN_US / 1000) };
	if (s->put_off)
		return (struct own){ "put off", mem_strdup(s->put_off),
				     mem_strdup("after the next cold start") };
	return (struct own){ "none",
			     mem_strdup("none was asked for since what it loads is known, "
					"or it was dropped"),
			     mem_strdup("after the next cold start") };
}

static json_t *own_json(const struct subject *s, uint64_t left_us)
{
	const struct node *node = own_node(s);
	struct own own = describe_own(s, node, left_us);
	json_t *o = json_pack("{s:s, s:o, s:I, s:i}", "state", own.state, "text",
			      explain_text(own.text), "tries", (json_int_t)s->tries, "tries_max",
			      LIMIT_GROW_TRIES);

	if (node)
		json_object_set_new(o, "node", json_integer(node->id));
	if (own.next_try)
		json_object_set_new(o, "next_try", json_string(own.next_try));
	free(own.text);
	free(own.next_try);
	return o;
}

/* ---- all of it ---- */

static json_t *start_json(const struct question *q)
{
	const struct subject *s = q->s;
	const struct node *n = q->chosen;
	const char *from = !n ? "nothing" : s->afresh ? "fresh" : n->parent ? "node" : "root";
	uint64_t left = s->import_us > q->saved_us ? s->import_us - q->saved_us : 0;
	json_t *o = json_pack("{s:s, s:f, s:f, s:f}", "from", from, "saves_ms",
			      (double)q->saved_us / 1e3, "left_ms", (double)left / 1e3, "of_ms",
			      (double)s->import_us / 1e3);

	if (!n)
		return o;
	json_object_set_new(o, "node", json_integer(n->id));
	json_object_set_new(o, "dists", explain_dists(q->f, n));
	json_object_set_new(o, "warmed", warm_json(n));
	return o;
}

static void ask(struct question *q, struct functions *f, struct subject *s)
{
	memset(q, 0, sizeof(*q));
	q->f = f;
	q->s = s;
	q->chosen = knowledge_choose(f, s);
	knowledge_view(f, s, s->interp->root, q->nodes, &q->fn);
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i] == q->chosen && !s->afresh)
			q->saved_us = policy_saving(&q->nodes[i], &q->fn);
}

int functions_explain(struct functions *f, const char *name, struct buf *out, struct err *err)
{
	struct function *fn = function_find(f, name);
	struct version *v = fn ? fn->live : NULL;
	struct question q;
	size_t left_out;
	json_t *others;
	uint64_t left_us;

	if (!v)
		return err_set(err, ERR_NOT_FOUND, "there is no function '%.80s'", name);
	ask(&q, f, v->subject);
	left_us = v->subject->import_us > q.saved_us ? v->subject->import_us - q.saved_us : 0;
	others = others_json(&q, &left_out);
	return describe_json(
		json_pack("{s:s, s:I, s:s, s:b, s:I, s:o, s:o, s:I, s:o, s:o, s:o, s:o}",
			  "function", fn->name, "version", (json_int_t)v->number, "python",
			  v->subject->interp->path, "known", v->subject->profiles > 0, "spares",
			  (json_int_t)v->nspares, "start", start_json(&q), "others", others,
			  "others_left_out", (json_int_t)left_out, "cannot_sleep",
			  all_left_json(v->subject), "idle_threads", threads_json(v->subject),
			  "own_node", own_json(v->subject, left_us), "not_warmed",
			  warm_cold_json(v->subject)),
		out, err);
}
