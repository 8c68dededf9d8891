/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "function/logs.h"
#include "function/priv.h"
#include "function/times.h"
#include "policy/policy.h"

#define PROFILE_PATIENCE_MS 5000
#define SWEEP_PATIENCE_MS 5000
#define UNTIDY_ENOUGH 3 /* such a function's cells are not worth sweeping */

static void on_timer(uv_timer_t *timer);

static void free_instance(uv_handle_t *handle)
{
	free(handle->data);
}

static void idle_remove(struct instance *inst)
{
	struct functions *f = inst->v->fn->f;

	if (!inst->is_listed)
		return;
	inst->is_listed = false;
	*(inst->older ? &inst->older->newer : &f->idle_oldest) = inst->newer;
	*(inst->newer ? &inst->newer->older : &f->idle_newest) = inst->older;
	inst->older = inst->newer = NULL;
	f->idle_instances -= inst->state == INSTANCE_IDLE;
}

static void idle_add(struct instance *inst, enum instance_state state, uint64_t patience_us)
{
	struct functions *f = inst->v->fn->f;

	inst->older = f->idle_newest;
	*(f->idle_newest ? &f->idle_newest->newer : &f->idle_oldest) = inst;
	f->idle_newest = inst;
	f->idle_instances += state == INSTANCE_IDLE;
	inst->is_listed = true;
	inst->state = state;
	uv_timer_start(&inst->timer, on_timer, patience_us / 1000, 0);
}

void instance_count(struct instance *inst)
{
	struct version *v = inst->v;

	*(inst->is_spare ? &v->nspares : &v->ninstances) += 1;
	*(inst->is_spare ? &v->fn->f->spares : &v->fn->f->instances) += 1;
}

void instance_uncount(struct instance *inst)
{
	struct version *v = inst->v;

	*(inst->is_spare ? &v->nspares : &v->ninstances) -= 1;
	*(inst->is_spare ? &v->fn->f->spares : &v->fn->f->instances) -= 1;
}

struct instance *instance_idle(struct version *v)
{
	for (struct instance *i = v->instances; i; i = i->next)
		if (i->state == INSTANCE_IDLE)
			return i;
	return NULL;
}

/* Its process is gone, or was never born. */
static void instance_free(struct instance *inst)
{
	struct version *v = inst->v;
	struct function *fn = v->fn;

	idle_remove(inst);
	*inst->link = inst->next;
	if (inst->next)
		inst->next->link = inst->link;
	instance_uncount(inst);
	inst->state = INSTANCE_ENDING;
	cpu_end(inst);
	uv_close((uv_handle_t *)&inst->timer, free_instance);
	if (v->retired)
		version_check(v);
	call_next(fn);
}

void instance_forget(struct instance *inst)
{
	cpu_end(inst);
	uv_timer_stop(&inst->timer);
	uv_close((uv_handle_t *)&inst->timer, free_instance);
}

void instance_end(struct instance *inst)
{
	idle_remove(inst);
	inst->state = INSTANCE_ENDING;
	cpu_end(inst);
	uv_timer_stop(&inst->timer);
	if (inst->child)
		zygote_child_kill(inst->child);
}

/* Takes the call from the instance and answers it with an error. */
static void fail_call(struct instance *inst, const struct err *err)
{
	struct function_call *call = inst->call;

	inst->call = NULL;
	if (call)
		call_fail(call, err);
}

/* A call that waited for a spare to be ready again, which will not be, goes elsewhere. */
static void leave_waiting(struct instance *inst)
{
	struct function_call *call = inst->call;

	if (!call || inst->state != INSTANCE_SWEEPING)
		return;
	inst->call = NULL;
	call->inst = NULL;
	call_place(call->fn, call);
}

void instance_exceeds(struct instance *inst, const struct err *err)
{
	instance_end(inst);
	fail_call(inst, err);
}

static void on_timer(uv_timer_t *timer)
{
	struct instance *inst = timer->data;
	struct err err = ERR_INIT;

	if (inst->state == INSTANCE_BUSY) {
		err_set(&err, ERR_TIMEOUT,
			"the call took longer than its limit of %g s; raise timeout in "
			"pipsqueak.toml",
			(double)inst->v->set.timeout_ms / 1e3);
		instance_exceeds(inst, &err);
	} else if (inst->state == INSTANCE_SPARE) {
		spare_unused(inst);
	} else {
		leave_waiting(inst);
		instance_end(inst);
	}
}

static int send_go(struct instance *inst, struct err *err)
{
	const struct function_settings *set = &inst->v->set;
	auto_buf struct buf entry = { 0 }, env = { 0 }, flags = { 0 };
	auto_msg struct wire_msg m;

	wire_init(&m, WIRE_GO, 0);
	for (size_t i = 0; set->entry[i]; i++)
		wire_list_add(&entry, set->entry[i]);
	for (size_t i = 0; set->env && set->env[i]; i++)
		wire_list_add(&env, set->env[i]);
	wire_put(&m, WIRE_T_ENTRY, entry.data, entry.len);
	wire_put(&m, WIRE_T_ENV, env.data, env.len);
	wire_put_str(&m, WIRE_T_NAME, inst->v->fn->name);
	inst->recorded = inst->v->subject->profiles < PROFILES_ENOUGH;
	inst->forks = !inst->recorded && !inst->v->set.reuse && inst->v->untidy < UNTIDY_ENOUGH;
	if (inst->recorded || inst->forks)
		wire_list_add(&flags, inst->recorded ? "record" : "again");
	wire_put(&m, WIRE_T_FLAGS, flags.data, flags.len);
	return zygote_child_send(inst->child, &m, err);
}

static int send_call(struct instance *inst, struct err *err)
{
	struct function_call *call = inst->call;
	uint64_t deadline_ms = clock_us() / 1000 + inst->v->set.timeout_ms;
	auto_msg struct wire_msg m;
	char id[24];

	wire_init(&m, WIRE_CALL, call->id);
	snprintf(id, sizeof(id), "%u", call->id);
	wire_put(&m, WIRE_T_BODY, call->event, call->event_bytes);
	wire_put_u64(&m, WIRE_T_DEADLINE_MS, deadline_ms);
	wire_put_u64(&m, WIRE_T_MEMORY, inst->v->set.memory_bytes);
	wire_put_str(&m, WIRE_T_NAME, id);
	if (!inst->calls || inst->forks) {
		inst->timed = !inst->recorded && times_due(inst->v);
		if (inst->timed)
			wire_put(&m, WIRE_T_FLAGS, "time", sizeof("time"));
	}
	if (zygote_child_send(inst->child, &m, err) < 0)
		return -1;
	free(steal(call->event));
	zygote_child_phase(inst->child, WIRE_FROM_INSTANCE_BUSY);
	inst->state = INSTANCE_BUSY;
	cpu_begin(inst);
	uv_timer_start(&inst->timer, on_timer, inst->v->set.timeout_ms, 0);
	return 0;
}

static void start_failed(struct instance *inst, const struct err *why)
{
	struct err err = *why;

	if (err.kind != ERR_USAGE && err.kind != ERR_LIMIT)
		err.kind = ERR_START;
	err_wrap(&err, "starting the function");
	fail_call(inst, &err);
	if (inst->child)
		instance_end(inst);
	else
		instance_free(inst);
}

void instance_call(struct instance *inst, struct function_call *call)
{
	struct err err = ERR_INIT;

	idle_remove(inst);
	inst->call = call;
	call->inst = inst;
	call->placed_us = clock_us();
	call->timing.start = inst->calls && !inst->forks ? "warm" : "spare";
	if (send_call(inst, &err) < 0)
		start_failed(inst, &err);
}

static void parse_timing(const struct wire_msg *m, struct function_timing *out)
{
	struct wire_field f;
	const char *s;
	size_t pos = 0;

	if (!wire_get(m, WIRE_T_TIMING, &f))
		return;
	while ((s = wire_list_next(&f, &pos))) {
		if (strncmp(s, "import=", 7) == 0)
			out->import_us = strtoull(s + 7, NULL, 10);
		else if (strncmp(s, "handler=", 8) == 0)
			out->handler_us = strtoull(s + 8, NULL, 10);
	}
}

/* Fills reply from REPLY; err is where its error lives. */
static void read_reply(const struct wire_msg *m, struct function_reply *reply, struct err *err)
{
	struct wire_field f;

	if (wire_get_err(m, err) < 0) {
		if (err->kind != ERR_START)
			err->kind = ERR_HANDLER; /* whatever it calls itself */
		reply->err = err;
	}
	if (wire_get(m, WIRE_T_BODY, &f)) {
		reply->body = f.data;
		reply->body_len = f.len;
	}
	reply->is_bytes = wire_get(m, WIRE_T_KIND, &f) && f.len == 5 &&
			  memcmp(f.data, "bytes", 5) == 0;
	if (reply->body_len > LIMIT_REPLY_BYTES) {
		err_set(err, ERR_HANDLER, "the result has %zu bytes, more than %lu",
			reply->body_len, LIMIT_REPLY_BYTES);
		*reply = (struct function_reply){ .err = err };
	}
}

static void first_call_done(struct instance *inst)
{
	struct version *v = inst->v;

	if (!inst->forks) /* which is a spare itself again */
		spare_refill(v);
	/* Known from before a restart, or its node was dropped: no profile need come. */
	if (inst->from_root)
		grow_consider(v->fn->f, v->subject);
}

static void settle(struct instance *inst, bool broken)
{
	struct version *v = inst->v;
	bool is_over = broken || v->retired || v->fn->f->draining;

	cpu_end(inst);
	uv_timer_stop(&inst->timer);
	zygote_child_phase(inst->child, WIRE_FROM_INSTANCE_IDLE);
	inst->profile_due = !broken && (inst->calls == 0 || inst->forks) &&
			    (inst->recorded || inst->timed);
	if (inst->calls++ == 0)
		first_call_done(inst);
	if (!is_over && v->set.reuse) {
		idle_add(inst, INSTANCE_IDLE, LIMIT_IDLE_US);
	} else if (!is_over && inst->forks) {
		inst->state = INSTANCE_SWEEPING;
		spare_become(inst);
		uv_timer_start(&inst->timer, on_timer, SWEEP_PATIENCE_MS, 0);
	} else if (inst->profile_due) {
		inst->state = INSTANCE_ENDING; /* its profile is on the way */
		uv_timer_start(&inst->timer, on_timer, PROFILE_PATIENCE_MS, 0);
	} else {
		instance_end(inst);
	}
}

static void on_reply(struct instance *inst, struct wire_msg *m)
{
	struct function_reply reply = { 0 };
	struct function_call *call = inst->call;
	struct function *fn = inst->v->fn;
	struct err err = ERR_INIT;

	if (!call || m->id != call->id) {
		log_warn("function", "%s: an instance answered what was not asked", fn->name);
		instance_end(inst);
		return;
	}
	read_reply(m, &reply, &err);
	parse_timing(m, &call->timing);
	inst->call = NULL;
	call_answer(call, &reply);
	settle(inst, reply.err && reply.err->kind == ERR_START);
	call_next(fn);
}

static void on_profile(struct instance *inst, struct wire_msg *m)
{
	struct zygote_profile profile;
	struct err err = ERR_INIT;

	if (inst->profile_due) {
		inst->profile_due = false;
		if (zygote_profile_parse(m, &profile, &err) < 0) {
			log_warn("function", "%s: profile: %s", inst->v->fn->name, err.text);
			instance_end(inst);
			return;
		}
		if (inst->timed)
			times_of_call(inst->v->subject, &profile);
		else
			times_learn(inst->v->subject, &profile);
		zygote_profile_done(&profile);
	} else if (inst->state != INSTANCE_ENDING) {
		log_warn("function", "%s: an instance told a profile unasked", inst->v->fn->name);
		instance_end(inst);
	}
	if (inst->state == INSTANCE_ENDING)
		instance_end(inst);
}

static void describe_end(const struct instance *inst, const struct zygote_end *end, struct err *err)
{
	if (end->oom)
		err_set(err, ERR_DIED,
			"the function ran out of memory: its limit is %llu MiB; raise memory in "
			"pipsqueak.toml",
			(unsigned long long)(inst->v->set.memory_bytes / MIB));
	else if (WIFSIGNALED(end->status) && WTERMSIG(end->status) == SIGXCPU &&
		 inst->v->set.cpu_ms)
		cpu_describe(inst, err);
	else if (WIFSIGNALED(end->status))
		err_set(err, ERR_DIED,
			"the function's process died during the call (signal %d, %s)",
			WTERMSIG(end->status), strsignal(WTERMSIG(end->status)));
	else
		err_set(err, ERR_DIED,
			"the function's process ended during the call (exit status %d)",
			WEXITSTATUS(end->status));
}

/* The process ended while it worked on the call, which is answered so. */
static void fail_ended(struct instance *inst, const struct zygote_end *end)
{
	struct err err = ERR_INIT;

	describe_end(inst, end, &err);
	logs_note(inst->v->fn, "pipsqueak: %s", err.text);
	fail_call(inst, &err);
}

/* A spare that forks has ended what its call left behind. */
static void on_again(struct instance *inst, const struct wire_msg *m)
{
	uint64_t cell = wire_get_u64(m, WIRE_T_STATUS, WIRE_AGAIN_CLEAN);
	struct version *v = inst->v;

	v->untidy = cell == WIRE_AGAIN_UNTIDY ? v->untidy + 1 : 0;
	if (inst->state == INSTANCE_BUSY && inst->forks) {
		fail_ended(inst, &(struct zygote_end){ .status = 0 }); /* it gave no answer */
	} else if (inst->state != INSTANCE_SWEEPING) {
		log_warn("function", "%s: an instance said what it was not asked", v->fn->name);
	} else if (cell == WIRE_AGAIN_CLEAN && inst->call) {
		instance_call(inst, inst->call);
		return;
	} else if (cell == WIRE_AGAIN_CLEAN && inst->is_spare && !v->retired &&
		   !v->fn->f->draining) {
		idle_add(inst, INSTANCE_SPARE, LIMIT_SPARE_US);
		return;
	}
	leave_waiting(inst);
	instance_end(inst);
}

static void on_message(void *ctx, struct zygote_child *child, struct wire_msg *m)
{
	struct instance *inst = ctx;
	struct err err = ERR_INIT;

	if (m->type == WIRE_REPLY) {
		on_reply(inst, m);
	} else if (m->type == WIRE_AGAIN) {
		on_again(inst, m);
	} else if (m->type == WIRE_PROFILE) {
		on_profile(inst, m);
	} else {
		if (wire_get_err(m, &err) == 0)
			err_set(&err, ERR_START, "it failed without a reason");
		start_failed(inst, &err);
	}
}

static void on_ended(void *ctx, struct zygote_child *child, const struct zygote_end *end)
{
	struct instance *inst = ctx;

	inst->child = NULL;
	leave_waiting(inst);
	if (inst->call || (end->oom && inst->state != INSTANCE_ENDING))
		fail_ended(inst, end);
	instance_free(inst);
}

static const struct zygote_events instance_events = { on_message, on_ended };

static void fork_from(struct instance *inst, struct node *n);

static void not_born(struct instance *inst, struct node *n, const struct err *err)
{
	struct functions *f = inst->v->fn->f;
	struct node *root = inst->v->subject->interp->root;

	if (n)
		knowledge_failed(f, n);
	if (inst->call && !inst->from_root && root && !f->draining) {
		log_warn("function", "%s: %s; trying from the root", inst->v->fn->name, err->text);
		fork_from(inst, root);
		return;
	}
	inst->v->want_spares = 0;
	start_failed(inst, err);
}

static void born_ahead(struct instance *inst)
{
	struct err err;

	if (inst->v->retired || inst->v->fn->f->draining || send_go(inst, &err) < 0)
		instance_end(inst);
	else
		idle_add(inst, INSTANCE_SPARE, LIMIT_SPARE_US);
}

static void on_born(void *arg, struct zygote_child *child, const struct zygote_timing *timing,
		    const struct err *err)
{
	struct instance *inst = arg;
	struct node *n = knowledge_find(inst->v->fn->f, inst->node_id);
	struct err failed = ERR_INIT;

	if (n)
		n->busy--;
	inst->child = child;
	if (!child) {
		not_born(inst, n, err);
		return;
	}
	if (n)
		n->failures = 0;
	if (inst->is_spare && inst->state == INSTANCE_STARTING) {
		born_ahead(inst);
		return;
	}
	if (!inst->call || inst->state == INSTANCE_ENDING) { /* cancelled or retired meanwhile */
		instance_end(inst);
		return;
	}
	inst->call->timing.fork_us = timing->fork_us;
	inst->call->timing.sandbox_us = timing->sandbox_us;
	inst->call->timing.start = inst->from_root ? "cold" : "fork";
	if (send_go(inst, &failed) < 0 || send_call(inst, &failed) < 0)
		start_failed(inst, &failed);
}

static void fork_from(struct instance *inst, struct node *n)
{
	struct version *v = inst->v;
	struct zygote_fork spec = {
		.role = ZYGOTE_INSTANCE,
		.net = v->set.net,
		.env_path = v->subject->env_path,
		.mounts = { { .tree = -1, .from = v->dir, .to = JAIL_APP } },
		.nmounts = 1,
		.stdio = { -1, v->log_w, v->log_w },
		.unhurried = inst->is_spare,
		.limits = { .memory_bytes = v->set.memory_bytes,
			    .cpu_milli = v->set.cpu_milli,
			    .count_cpu = v->set.cpu_ms != 0,
			    .open_files = v->set.open_files,
			    .pids = v->set.pids +
				    (v->set.pids && !v->set.reuse), /* + the one that forks */
			    .tmp_bytes = v->set.tmp_bytes },
	};

	inst->node_id = n->id;
	inst->from_root = !n->parent;
	n->busy++;
	usage_fork(n, v->subject);
	zygote_fork(v->fn->f->config.zygotes, n->z, &spec, &instance_events, inst, on_born, inst);
}

static void on_env(void *arg, const struct store_env *env, const struct err *err)
{
	struct instance *inst = arg;
	struct node *n;
	struct err failed = ERR_INIT;

	if (env)
		inst->v->subject->env_path = env->path;
	n = env ? knowledge_choose(inst->v->fn->f, inst->v->subject) : NULL;
	if (!n) {
		err_set(&failed, ERR_START, "its interpreter is gone");
		start_failed(inst, env ? &failed : err);
		return;
	}
	fork_from(inst, n);
}

/* After a restart, or after its root died: interpreter and environment first. */
static void on_python(void *arg, struct interp *interp, const struct err *err)
{
	struct instance *inst = arg;
	struct subject *s = inst->v->subject;
	struct functions *f = s->f;
	struct store_python python;

	if (!interp) {
		start_failed(inst, err);
	} else if (s->env_path || !s->lock->ndists) {
		struct node *n = knowledge_choose(f, s);

		must(n); /* its root has just been handed to us */
		fork_from(inst, n);
	} else {
		python_store_view(interp, &python);
		store_make_env(f->config.store, s->lock, &python, NULL, on_env, inst);
	}
}

static struct instance *instance_new(struct version *v, bool is_spare)
{
	struct instance *inst = mem_new(struct instance);

	inst->v = v;
	inst->is_spare = is_spare;
	inst->link = &v->instances;
	inst->next = v->instances;
	if (inst->next)
		inst->next->link = &inst->next;
	v->instances = inst;
	instance_count(inst);
	uv_timer_init(v->fn->f->config.loop, &inst->timer);
	inst->timer.data = inst;
	return inst;
}

static bool is_ready(const struct subject *s)
{
	return s->env_path || !s->lock->ndists;
}

bool instance_spare(struct version *v)
{
	struct node *n = is_ready(v->subject) ? knowledge_choose(v->fn->f, v->subject) : NULL;

	if (n)
		fork_from(instance_new(v, true), n);
	return n != NULL;
}

void instance_start(struct version *v, struct function_call *call)
{
	struct functions *f = v->fn->f;
	struct subject *s = v->subject;
	struct instance *inst = spare_take(v);
	struct node *n = NULL;

	demand_note(f, s, 1);
	if (inst && inst->state == INSTANCE_SPARE) {
		instance_call(inst, call);
		return;
	}
	call->placed_us = clock_us();
	if (inst) { /* being born: on_born() finds the call */
		inst->call = call;
		call->inst = inst;
		return;
	}
	inst = instance_new(v, false);
	inst->call = call;
	call->inst = inst;
	if (is_ready(s))
		n = knowledge_choose(f, s);
	if (n)
		fork_from(inst, n);
	else
		python_get(f,
			   &(struct python_name){ s->interp->path, s->interp->prefix,
						  s->interp->tenant },
			   on_python, inst);
}
