/* SPDX-License-Identifier: Apache-2.0
 *
 * CPU time of a call, of all its processes: looked at ten times a second, by cgroup. Where no
 * cgroup counts it, the kernel ends each process that uses more than the call may.
 */
#include "function/priv.h"

#define LOOK_MS 100

struct cpu_watch {
	struct instance *inst; /* NULL: its call is over */
	uv_timer_t timer;
	uint64_t begin_us;
	bool asking, begun;
};

static void on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void maybe_free(struct cpu_watch *w)
{
	if (!w->inst && !w->asking)
		uv_close((uv_handle_t *)&w->timer, on_closed);
}

static void on_used(void *arg, uint64_t us, const struct err *err);

static void look(struct cpu_watch *w)
{
	w->asking = true;
	zygote_child_cpu(w->inst->child, on_used, w);
}

static void on_timer(uv_timer_t *timer)
{
	look(timer->data);
}

void cpu_describe(const struct instance *inst, struct err *err)
{
	err_set(err, ERR_TIMEOUT,
		"the call used more than its limit of %g s of CPU time; raise cpu_seconds in "
		"pipsqueak.toml",
		(double)inst->v->set.cpu_ms / 1e3);
}

static void on_used(void *arg, uint64_t us, const struct err *err)
{
	struct cpu_watch *w = arg;
	struct err own;

	w->asking = false;
	if (!w->inst) {
		maybe_free(w);
		return;
	}
	if (err) {
		zygote_child_cpu_limit(w->inst->child, w->inst->v->set.cpu_ms * 1000);
		return;
	}
	if (!w->begun)
		w->begin_us = us;
	w->begun = true;
	if (us - w->begin_us > w->inst->v->set.cpu_ms * 1000) {
		cpu_describe(w->inst, &own);
		instance_exceeds(w->inst, &own);
	} else {
		uv_timer_start(&w->timer, on_timer, LOOK_MS, 0);
	}
}

void cpu_begin(struct instance *inst)
{
	struct cpu_watch *w;

	if (!inst->v->set.cpu_ms)
		return;
	w = mem_new(struct cpu_watch);
	w->inst = inst;
	must(uv_timer_init(inst->v->fn->f->config.loop, &w->timer) == 0);
	w->timer.data = w;
	inst->cpu = w;
	look(w);
}

void cpu_end(struct instance *inst)
{
	struct cpu_watch *w = steal(inst->cpu);

	if (!w)
		return;
	w->inst = NULL;
	uv_timer_stop(&w->timer);
	maybe_free(w);
}
