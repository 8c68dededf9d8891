/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/clock.h"
#include "function/json_check.h"
#include "function/priv.h"

void call_answer(struct function_call *call, struct function_reply *reply)
{
	struct function *fn = call->fn;
	struct functions *f = fn ? fn->f : NULL;
	uint64_t now = clock_us();

	reply->timing = call->timing;
	if (call->placed_us)
		reply->timing.queue_us = call->placed_us - call->begin_us;
	reply->timing.total_us = now - call->begin_us;
	if (fn) {
		fn->running--;
		fn->calls++;
		fn->errors += reply->err != NULL;
		f->calls--;
		f->total_calls++;
		f->total_errors += reply->err != NULL;
		usage_call(f, call);
	}
	if (call->done)
		call->done(call->arg, reply);
	free(call->event);
	free(call);
	if (f)
		functions_went_quiet(f);
}

void call_fail(struct function_call *call, const struct err *err)
{
	struct function_reply reply = { .err = err };

	call_answer(call, &reply);
}

/* Everything that can be refused before an instance is looked for. */
static int admit(struct functions *f, const char *name, struct function_call *call, struct err *err)
{
	struct function *fn = function_find(f, name);

	if (f->draining)
		return err_set(err, ERR_BUSY, "the daemon is shutting down; try again");
	if (!fn || !fn->live)
		return err_set(err, ERR_NOT_FOUND,
			       "there is no function '%.80s'; deploy it first, or see the list of "
			       "functions",
			       name);
	if (call->event_bytes > LIMIT_EVENT_BYTES)
		return err_set(err, ERR_TOO_BIG, "the event has %zu bytes, more than %lu",
			       call->event_bytes, LIMIT_EVENT_BYTES);
	if (json_check(call->event, call->event_bytes, err) < 0)
		return -1;
	if (fn->queued >= LIMIT_QUEUE)
		return err_set(err, ERR_BUSY,
			       "'%s' has %d calls waiting already; try again later, or raise "
			       "concurrency in pipsqueak.toml",
			       name, LIMIT_QUEUE);
	call->fn = fn;
	fn->running++;
	f->calls++;
	f->last_call_us = clock_us();
	return 0;
}

static void enqueue(struct function *fn, struct function_call *call)
{
	*(fn->last ? &fn->last->next : &fn->first) = call;
	fn->last = call;
	fn->queued++;
}

static void dequeue(struct function *fn, struct function_call *call)
{
	struct function_call *before = NULL, *c = fn->first;

	while (c && c != call) {
		before = c;
		c = c->next;
	}
	must(c);
	*(before ? &before->next : &fn->first) = call->next;
	if (fn->last == call)
		fn->last = before;
	call->next = NULL;
	fn->queued--;
}

/* An idle instance, a new one, or the queue. */
void call_place(struct function *fn, struct function_call *call)
{
	struct version *v = fn->live;
	struct instance *inst = v->set.reuse ? instance_idle(v) : NULL;

	if (inst)
		instance_call(inst, call);
	else if (v->ninstances < v->set.concurrency)
		instance_start(v, call);
	else
		enqueue(fn, call);
}

void call_next(struct function *fn)
{
	struct err err = ERR_INIT;

	while (fn->first && !fn->live) {
		struct function_call *call = fn->first;

		dequeue(fn, call);
		err_set(&err, ERR_NOT_FOUND, "the function '%s' was removed", fn->name);
		call_fail(call, &err);
	}
	while (fn->first && (fn->live->ninstances < fn->live->set.concurrency ||
			     (fn->live->set.reuse && instance_idle(fn->live)))) {
		struct function_call *call = fn->first;

		dequeue(fn, call);
		call_place(fn, call);
	}
}

struct function_call *functions_call(struct functions *f, const char *name, const void *event,
				     size_t event_bytes, function_reply_fn done, void *arg)
{
	struct function_call *call = mem_new(struct function_call);
	struct err err = ERR_INIT;

	call->begin_us = clock_us();
	call->id = ++f->next_request;
	call->done = done;
	call->arg = arg;
	call->timing = (struct function_timing){ UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX,
						 UINT64_MAX, UINT64_MAX, NULL };
	call->event_bytes = event_bytes;
	if (event_bytes <= LIMIT_EVENT_BYTES)
		call->event = mem_strndup(event ? event : "", event_bytes);
	if (admit(f, name, call, &err) < 0)
		call_fail(call, &err);
	else
		call_place(call->fn, call);
	return call;
}

void functions_cancel(struct function_call *call)
{
	struct instance *inst = call->inst;
	struct err err = ERR_INIT;

	call->done = NULL;
	if (inst)
		return; /* it ends by its reply or its deadline, which find nobody to tell */
	dequeue(call->fn, call);
	err_set(&err, ERR_DIED, "the client is gone");
	call_fail(call, &err);
}
