/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <string.h>

#include "base/clock.h"
#include "function/explain.h"

int describe_json(json_t *root, struct buf *out, struct err *err)
{
	char *text = json_dumps(root, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(15));
	int ret;

	json_decref(root);
	if (!text)
		return err_set(err, ERR_SYSTEM, "out of memory, or a name that is not UTF-8");
	ret = buf_puts(out, text, err) < 0 ? -1 : buf_puts(out, "\n", err);
	free(text);
	return ret;
}

static json_t *function_json(const struct version *v)
{
	const struct function *fn = v->fn;
	const struct subject *s = v->subject;
	json_t *dists = json_array(), *entry = json_array();
	uint32_t idle = 0;

	for (size_t i = 0; i < s->lock->ndists; i++) {
		auto_free char *text = mem_printf("%s %s", s->lock->dists[i].name,
						  s->lock->dists[i].version);

		json_array_append_new(dists, json_string(text));
	}
	for (size_t i = 0; v->set.entry[i]; i++)
		json_array_append_new(entry, json_string(v->set.entry[i]));
	for (const struct instance *inst = v->instances; inst; inst = inst->next)
		idle += inst->state == INSTANCE_IDLE;
	return json_pack("{s:s, s:I, s:f, s:s, s:o, s:o, s:I, s:f, s:i, s:b, s:I, s:I, s:I, s:I, "
			 "s:I, s:I, s:f}",
			 "name", fn->name, "version", (json_int_t)v->number, "deployed",
			 v->deployed, "python", s->interp->path, "entry", entry, "dists", dists,
			 "memory_bytes", (json_int_t)v->set.memory_bytes, "timeout_s",
			 (double)v->set.timeout_ms / 1e3, "concurrency", (int)v->set.concurrency,
			 "reuse", v->set.reuse, "calls", (json_int_t)fn->calls, "errors",
			 (json_int_t)fn->errors, "queued", (json_int_t)fn->queued, "instances",
			 (json_int_t)v->ninstances, "idle", (json_int_t)idle, "spares",
			 (json_int_t)v->nspares, "import_ms", (double)s->import_us / 1e3);
}

int describe_version(const struct version *v, struct buf *out, struct err *err)
{
	return describe_json(function_json(v), out, err);
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(struct function *const *)a)->name, (*(struct function *const *)b)->name);
}

int functions_list(struct functions *f, struct buf *out, struct err *err)
{
	struct function **all = mem_zero(f->nfunctions, sizeof(struct function *));
	json_t *list = json_array();
	size_t n = 0;

	for (uint32_t i = 0; i < f->by_name_cap; i++)
		if (f->by_name[i] && f->by_name[i]->live)
			all[n++] = f->by_name[i];
	qsort(all, n, sizeof(struct function *), by_name);
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, function_json(all[i]->live));
	free(all);
	return describe_json(json_pack("{s:o}", "functions", list), out, err);
}

int functions_logs(struct functions *f, const char *name, struct buf *out, struct err *err)
{
	struct function *fn = function_find(f, name);

	if (!fn || !fn->live)
		return err_set(err, ERR_NOT_FOUND, "there is no function '%.80s'", name);
	return buf_put(out, fn->ring.text.data, fn->ring.text.len, err);
}

json_t *describe_node(struct functions *f, struct node *n)
{
	json_t *adds = json_array(), *o;
	struct zygote_node_info info;

	zygote_node_peek(n->z, &info);
	for (size_t i = 0; n->adds && n->adds[i]; i++)
		json_array_append_new(adds, explain_text(n->adds[i]));
	o = json_pack("{s:i, s:s, s:i, s:I, s:I, s:I, s:o, s:I, s:f, s:f, s:I, s:I}", "id",
		      (int)n->id, "python", n->interp->path, "pid", info.pid, "memory_bytes",
		      (json_int_t)n->bytes, "uses", (json_int_t)n->uses, "calls",
		      (json_int_t)n->calls, "adds", adds, "modules", (json_int_t)n->nmodules,
		      "age_s", (double)(clock_us() - n->made_us) / 1e6, "unused_s",
		      (double)(clock_us() - n->last_used_us) / 1e6, "busy", (json_int_t)n->busy,
		      "ahead", (json_int_t)info.ahead);
	if (n->made_for) {
		auto_free char *whom = explain_subject(n->made_for);

		json_object_set_new(o, "made_for", explain_text(whom));
	}
	if (n->tenant)
		json_object_set_new(
			o, "tenant",
			json_string(intern_name(&f->names, n->tenant) + strlen("tenant:")));
	else if (n->interp->tenant)
		json_object_set_new(o, "tenant", json_string(n->interp->tenant));
	return o;
}

static json_t *node_json(struct functions *f, struct node *n)
{
	json_t *o = describe_node(f, n), *children = json_array();

	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i]->parent == n)
			json_array_append_new(children, node_json(f, f->nodes[i]));
	json_object_set_new(o, "children", children);
	return o;
}

int functions_tree(struct functions *f, struct buf *out, struct err *err)
{
	json_t *roots = json_array(), *unforkable = json_array();

	optimise_measure(f);
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (!f->nodes[i]->parent)
			json_array_append_new(roots, node_json(f, f->nodes[i]));
	for (uint32_t i = 0; i < f->nunforkable; i++)
		json_array_append_new(unforkable, explain_text(f->unforkable[i]));
	return describe_json(json_pack("{s:o, s:o}", "roots", roots, "unforkable", unforkable), out,
			     err);
}

static json_t *host_json(struct functions *f)
{
	auto_buf struct buf text = { 0 };
	struct err err;
	json_t *host = NULL;

	if (jail_describe(f->config.jail, &text, &err) == 0)
		host = json_loads(text.data, 0, NULL);
	return host ? host : json_object();
}

static json_t *starts_json(const struct starts *s)
{
	json_t *o = json_object();

	for (int i = 0; i < START_KINDS; i++)
		json_object_set_new(o, usage_name(i), json_integer((json_int_t)s->n[i]));
	return o;
}

static void add_totals(struct functions *f, json_t *o)
{
	const struct {
		const char *name;
		uint64_t value;
	} totals[] = {
		{ "memory_budget_bytes", f->config.memory_bytes },
		{ "calls_total", f->total_calls },
		{ "errors_total", f->total_errors },
		{ "runs_total", f->total_runs },
		{ "violations", zygotes_violations(f->config.zygotes) },
	};

	for (size_t i = 0; i < array_len(totals); i++)
		json_object_set_new(o, totals[i].name, json_integer((json_int_t)totals[i].value));
	json_object_set_new(o, "choose_cpu_s", json_real((double)f->choose_ns / 1e9));
	json_object_set_new(o, "grow_cpu_s", json_real((double)f->grow_ns / 1e9));
	json_object_set_new(o, "calls_started", starts_json(&f->call_starts));
	json_object_set_new(o, "runs_started", starts_json(&f->run_starts));
}

int functions_status(struct functions *f, struct buf *out, struct err *err)
{
	static const char *const modes[] = {
		[JAIL_ROOT] = "root", [JAIL_SUBIDS] = "subids", [JAIL_ONE_ID] = "one-id"
	};
	uint64_t bytes = optimise_measure(f);
	uint32_t deployed = 0;
	json_t *o;

	for (uint32_t i = 0; i < f->by_name_cap; i++)
		deployed += f->by_name[i] && f->by_name[i]->live;
	o = json_pack("{s:s, s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "mode",
		      modes[jail_mode(f->config.jail)], "host", host_json(f), "python", f->python,
		      "functions", (json_int_t)deployed, "calls_now", (json_int_t)f->calls,
		      "runs_now", (json_int_t)f->runs, "instances", (json_int_t)f->instances,
		      "idle_instances", (json_int_t)f->idle_instances, "spares",
		      (json_int_t)f->spares, "nodes", (json_int_t)f->nnodes, "nodes_bytes",
		      (json_int_t)bytes, "uptime_s", (double)(clock_us() - f->started_us) / 1e6);
	add_totals(f, o);
	return describe_json(o, out, err);
}
