/* SPDX-License-Identifier: Apache-2.0
 *
 * The numbers of the status for Prometheus (text format 0.0.4).
 */
#include <string.h>

#include "api/priv.h"

static const struct {
	const char *key, *name, *type, *help; /* key: in the status */
} metrics[] = {
	{ "calls_total", "calls_total", "counter", "Calls answered" },
	{ "errors_total", "errors_total", "counter", "Calls answered with an error" },
	{ "calls_started", "calls_started_total", "counter",
	  "Calls, by where their process came from" },
	{ "calls_now", "calls", "gauge", "Calls that run or wait" },
	{ "runs_total", "runs_total", "counter", "Scripts ended" },
	{ "runs_started", "runs_started_total", "counter",
	  "Scripts, by where their process came from" },
	{ "runs_now", "runs", "gauge", "Scripts that run" },
	{ "functions", "functions", "gauge", "Deployed functions" },
	{ "instances", "instances", "gauge", "Instances, busy and warm" },
	{ "idle_instances", "idle_instances", "gauge", "Warm instances" },
	{ "spares", "spares", "gauge", "Instances forked ahead" },
	{ "nodes", "nodes", "gauge", "Sleeping interpreters" },
	{ "nodes_bytes", "nodes_bytes", "gauge", "Memory of the sleeping interpreters" },
	{ "memory_budget_bytes", "memory_budget_bytes", "gauge", "What they may have" },
	{ "choose_cpu_s", "choose_cpu_seconds_total", "counter",
	  "CPU time of choosing what to fork from" },
	{ "grow_cpu_s", "grow_cpu_seconds_total", "counter",
	  "CPU time of thinking about the tree" },
	{ "violations", "violations_total", "counter",
	  "Messages that a sandboxed process may not send" },
	{ "uptime_s", "uptime_seconds", "gauge", "Since the daemon's start" },
};

static int add_value(struct buf *out, const char *name, const char *label, const json_t *value,
		     struct err *err)
{
	if (json_is_integer(value))
		return buf_putf(out, err, "pipsqueak_%s%s %lld\n", name, label,
				(long long)json_integer_value(value));
	return buf_putf(out, err, "pipsqueak_%s%s %.3f\n", name, label, json_number_value(value));
}

static int add_metric(struct buf *out, size_t i, json_t *value, struct err *err)
{
	json_t *one;
	const char *from;

	if (buf_putf(out, err, "# HELP pipsqueak_%s %s\n# TYPE pipsqueak_%s %s\n", metrics[i].name,
		     metrics[i].help, metrics[i].name, metrics[i].type) < 0)
		return -1;
	if (!json_is_object(value))
		return add_value(out, metrics[i].name, "", value, err);
	json_object_foreach(value, from, one)
	{
		auto_free char *label = mem_printf("{from=\"%s\"}", from);

		if (add_value(out, metrics[i].name, label, one, err) < 0)
			return -1;
	}
	return 0;
}

void get_metrics(struct request *r)
{
	auto_buf struct buf status = { 0 }, out = { 0 };
	struct err err = ERR_INIT;
	int ret = functions_status(r->server->api->config.functions, &status, &err);
	json_t *o = ret < 0 ? NULL : json_loadb(status.data, status.len, 0, NULL);

	for (size_t i = 0; ret == 0 && i < array_len(metrics); i++)
		ret = add_metric(&out, i, json_object_get(o, metrics[i].key), &err);
	json_decref(o);
	if (ret < 0)
		request_error(r, &err);
	else
		request_text(r, out.data, out.len);
}
