/* SPDX-License-Identifier: Apache-2.0
 *
 * How much functions and scripts are called. It halves in LIMIT_HALF_LIFE_S, and survives restarts:
 * one fact of the state database has all of it, {KEY: [calls, when]}, written every few seconds
 * while it changes.
 */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "function/priv.h"

#define KEPT_MIN 0.01 /* less than that is not worth a line */

double demand_of(const struct subject *s, double now)
{
	return s->demand * exp2(-fmax(now - s->demand_at, 0) / LIMIT_HALF_LIFE_S);
}

void demand_add(struct subject *s, double calls, double now)
{
	s->demand = demand_of(s, now) + calls;
	s->demand_at = now;
	s->f->opt.demand_changed = true;
}

void demand_note(struct functions *f, struct subject *s, uint32_t calls)
{
	if (f->config.no_tree) { /* another daemon may have one, later */
		demand_add(s, calls, clock_wall_s());
		return;
	}
	s->fresh += calls;
	if (s->noted || !s->fresh)
		return;
	s->noted = true;
	if (f->opt.nnoted == f->opt.noted_cap) {
		f->opt.noted_cap = f->opt.noted_cap ? f->opt.noted_cap * 2 : 64;
		f->opt.noted = mem_resize(f->opt.noted, f->opt.noted_cap * sizeof(s));
	}
	f->opt.noted[f->opt.nnoted++] = s;
}

void demand_forget(struct functions *f, const struct subject *s)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < f->opt.nnoted; i++)
		if (f->opt.noted[i] != s)
			f->opt.noted[kept++] = f->opt.noted[i];
	f->opt.nnoted = kept;
}

static void put_line(json_t *all, const char *key, double calls, double at, double now)
{
	if (calls * exp2(-fmax(now - at, 0) / LIMIT_HALF_LIFE_S) >= KEPT_MIN)
		json_object_set_new(all, key, json_pack("[f, f]", calls, at));
}

/* Scripts that have not run since the start are known from the last time only. */
void demand_save(struct functions *f, bool at_once)
{
	json_t *all, *value;
	double now = clock_wall_s();
	const char *key;
	struct err err;
	char *text;
	size_t n;

	if (!f->opt.demand_changed || !f->state ||
	    (!at_once && clock_us() - f->opt.saved_us < LIMIT_DEMAND_SAVE_S * 1000000UL))
		return;
	auto_free struct subject **subjects = subjects_all(f, &n);

	all = json_object();
	json_object_foreach(f->opt.kept_demand, key, value)
		put_line(all, key, json_number_value(json_array_get(value, 0)),
			 json_number_value(json_array_get(value, 1)), now);
	for (size_t i = 0; i < n; i++)
		put_line(all, subjects[i]->key, subjects[i]->demand + subjects[i]->fresh,
			 subjects[i]->demand_at ? subjects[i]->demand_at : now, now);
	text = json_dumps(all, JSON_COMPACT);
	json_decref(all);
	if (text && state_put(f->state, STATE_DEMAND, "all", 0, text, &err) < 0)
		log_warn("function", "keeping the demand: %s", err.text);
	free(text);
	f->opt.demand_changed = false;
	f->opt.saved_us = clock_us();
}

void demand_open(struct functions *f)
{
	auto_buf struct buf text = { 0 };
	struct err err;

	if (state_get(f->state, STATE_DEMAND, "all", 0, &text, &err) == 1)
		f->opt.kept_demand = json_loads(text.data, 0, NULL);
	if (!json_is_object(f->opt.kept_demand)) {
		json_decref(f->opt.kept_demand);
		f->opt.kept_demand = json_object();
	}
}

void demand_load(struct functions *f, struct subject *s)
{
	const json_t *line = json_object_get(f->opt.kept_demand, s->key);
	double calls = json_number_value(json_array_get(line, 0));
	double at = json_number_value(json_array_get(line, 1)), now = clock_wall_s();

	if (!line || calls < 0 || calls > 1e12 || at < 0)
		return;
	s->demand = calls;
	s->demand_at = at < now ? at : now; /* a clock that was put back */
	json_object_del(f->opt.kept_demand, s->key);
}

void demand_close(struct functions *f)
{
	free(f->opt.noted);
	f->opt.noted = NULL;
	f->opt.nnoted = 0;
	json_decref(f->opt.kept_demand);
}
