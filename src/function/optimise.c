/* SPDX-License-Identifier: Apache-2.0
 *
 * One optimiser (policy/fit.h) for all interpreters and tenants, whose items are apart, so that
 * they compete for one budget. It belongs to the thread that plans while a job goes on: the loop
 * gives a job orders (what was called, what is in use, what is gone), the thread carries them out
 * and answers with one change, which it has then noted as done. What the loop cannot do after all
 * is told by the next job.
 *
 * The optimiser's memory is an estimate and the budget is one of measured bytes: before each plan
 * its budget is set to what it believes it holds and what in truth is left.
 *
 * Everything that it knows follows from subjects, nodes and growths: when costs or items have
 * become others, it is made anew from these.
 */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "function/knowledge.h"
#include "function/priv.h"
#include "policy/fit.h"

#define PLENTY 4      /* with a quarter of the budget free no node moves */
#define NODE_US 20000 /* a node without modules is asleep after so long */
#define GUESS 0.5     /* fit_rules.guess: memory that is free has other uses */
#define DRIFT 1.5     /* costs that are so far from what was told are told anew */
#define ANEW_MS 100   /* not more often */
#define PATIENCE 20   /* nor more often than so many times what it takes of a processor */
#define HOLD_US 500000UL
#define CALM_MIN_US 2000000UL
#define CALM_MAX_US (16 * 1000000UL)

enum verb { TELL_ITEM, TELL_CLOSURE, TELL_CALL, TELL_NODE, TELL_DROP, TELL_USE };

/* One line of what the thread is to do. */
struct order {
	enum verb verb;
	uint32_t item;	    /* ITEM, CLOSURE */
	uint64_t us, bytes; /* ITEM */
	struct ids set;	    /* CLOSURE, CALL, NODE */
	double calls, at;   /* CALL */
	int place, above;   /* DROP, USE: the place; NODE: the answer, and which NODE is above */
	bool in_use;	    /* USE, NODE */
	uint32_t node;	    /* NODE: its id; 0: */
	struct growth *growth;
};

struct job {
	uv_work_t work;	     /* first */
	struct functions *f; /* NULL: closed meanwhile */
	struct fit *fit;
	struct order *orders;
	uint32_t n, cap;
	int64_t room;
	bool plenty, calm, anew;
	bool behind; /* answer: there is more to plan */
	uint64_t cpu_ns;
	/* The answer. */
	enum fit_action action;
	struct ids set, gone; /* MAKE; DROP: the places, leaves last */
	int place, parent, next;
	uint64_t bytes;
};

struct subject **subjects_all(struct functions *f, size_t *out_n)
{
	struct subject **all = mem_zero(f->nfunctions + f->nscripts + LIMIT_PRIORS + 1,
					sizeof(*all));
	size_t n = 0;

	for (uint32_t i = 0; i < f->by_name_cap; i++)
		if (f->by_name[i] && f->by_name[i]->live)
			all[n++] = f->by_name[i]->live->subject;
	for (struct subject *s = f->scripts; s; s = s->next)
		all[n++] = s;
	for (struct subject *s = f->opt.prior_subjects; s; s = s->next)
		all[n++] = s;
	*out_n = n;
	return all;
}

/* ---- the thread's side ---- */

static void carry_out(struct job *j, struct order *o)
{
	struct fit_node n;

	switch (o->verb) {
	case TELL_ITEM:
		fit_item(j->fit, o->item, o->us, o->bytes);
		break;
	case TELL_CLOSURE:
		fit_closure(j->fit, o->item, ids_set(&o->set));
		break;
	case TELL_CALL:
		fit_call(j->fit, ids_set(&o->set), o->calls, o->at);
		break;
	case TELL_NODE:
		o->place = fit_make(j->fit, ids_set(&o->set),
				    o->above < 0 ? -1 : j->orders[o->above].place);
		fit_use(j->fit, o->place, o->in_use);
		break;
	case TELL_DROP:
		if (!fit_node(j->fit, o->place, &n))
			break;
		fit_use(j->fit, o->place, false);
		for (int i = 0; i < fit_nodes(j->fit); i++) /* those below are gone, too */
			if (fit_node(j->fit, i, &n))
				fit_use(j->fit, i, false);
		fit_drop(j->fit, o->place);
		break;
	case TELL_USE:
		if (fit_node(j->fit, o->place, &n))
			fit_use(j->fit, o->place, o->in_use);
		break;
	}
}

static bool is_below(const struct fit *fit, int node, int top)
{
	struct fit_node n;

	while (node >= 0 && node != top && fit_node(fit, node, &n))
		node = n.parent;
	return node == top;
}

static uint64_t bytes_of(const struct fit *fit, int node)
{
	struct fit_node n;
	uint64_t sum = 0;

	for (; node >= 0 && fit_node(fit, node, &n); node = n.parent)
		sum += n.own_bytes - NODE_BYTES;
	return sum;
}

/* Would it be dropped only to be made again below another? */
static bool is_move(const struct fit *fit, int node)
{
	struct fit_node n, other;
	uint64_t above;

	if (!fit_node(fit, node, &n))
		return false;
	above = bytes_of(fit, n.parent);
	for (int i = 0; i < fit_nodes(fit); i++)
		if (fit_node(fit, i, &other) && other.items.n < n.items.n &&
		    bytes_of(fit, i) >= above + NODE_BYTES &&
		    policy_set_within(other.items, n.items))
			return true;
	return false;
}

static void note_drop(struct job *j, int top)
{
	struct fit_node n;

	for (int i = 0; i < fit_nodes(j->fit); i++)
		if (fit_node(j->fit, i, &n) && is_below(j->fit, i, top))
			ids_add(&j->gone, (uint32_t)i);
	fit_drop(j->fit, top);
}

static void note_make(struct job *j, const struct fit_step *step)
{
	struct fit_node n;

	for (size_t i = 0; i < step->items.n; i++)
		ids_add(&j->set, step->items.v[i]);
	j->parent = step->parent;
	j->place = fit_make(j->fit, ids_set(&j->set), step->parent);
	fit_use(j->fit, j->place, true);
	j->bytes = fit_node(j->fit, j->place, &n) ? n.own_bytes : 0;
}

static void plan(uv_work_t *work)
{
	struct job *j = (struct job *)work;
	struct fit_step step;
	int64_t bytes;
	uint64_t begin_ns = clock_cpu_ns();

	for (uint32_t i = 0; i < j->n; i++)
		carry_out(j, &j->orders[i]);
	bytes = (int64_t)fit_bytes(j->fit) + j->room;
	fit_budget(j->fit, bytes > 0 ? (uint64_t)bytes : 0);
	step = fit_plan(j->fit);
	for (int i = 0; i < LIMIT_NODES && step.action == FIT_DROP && j->room >= 0 &&
			(j->calm || (j->plenty && is_move(j->fit, step.node)));
	     i++) {
		fit_use(j->fit, step.node, true); /* until the next job's orders */
		step = fit_plan(j->fit);
	}
	j->action = step.action;
	j->next = -1;
	if (step.action == FIT_DROP)
		note_drop(j, step.node);
	else if (step.action == FIT_MAKE)
		note_make(j, &step);
	j->behind = fit_is_behind(j->fit);
	fit_budget(j->fit, 0); /* what would go first, if something had to? */
	step = fit_bytes(j->fit) ? fit_plan(j->fit) : (struct fit_step){ .action = FIT_NOTHING };
	if (step.action == FIT_DROP)
		j->next = step.node;
	j->cpu_ns = clock_cpu_ns() - begin_ns;
}

/* ---- the loop's side: orders ---- */

static struct order *order(struct job *j, enum verb verb)
{
	if (j->n == j->cap) {
		j->cap = j->cap ? j->cap * 2 : 64;
		j->orders = mem_resize(j->orders, j->cap * sizeof(*j->orders));
	}
	j->orders[j->n] = (struct order){ .verb = verb, .place = -1, .above = -1 };
	return &j->orders[j->n++];
}

static void copy_ids(struct ids *to, const struct ids *from)
{
	ids_reset(to);
	for (size_t i = 0; i < from->n; i++)
		ids_add(to, from->v[i]);
}

static bool has_drifted(const struct item *i)
{
	double us = (double)i->us, bytes = (double)i->bytes;

	return i->told_us &&
	       (us > DRIFT * (double)i->told_us || us * DRIFT < (double)i->told_us ||
		bytes > DRIFT * (double)i->told_bytes || bytes * DRIFT < (double)i->told_bytes);
}

static void tell_items(struct functions *f, struct job *j)
{
	for (uint32_t i = f->items.n; i-- > 0;) {
		struct item *item = &f->items.v[i];
		struct order *o;

		if (j->anew)
			item->told_us = item->told_closures = 0;
		if (item->us && !item->told_us) {
			o = order(j, TELL_ITEM);
			o->item = i;
			o->us = item->told_us = item->us;
			o->bytes = item->told_bytes = item->bytes;
		}
	}
	for (uint32_t i = 0; i < f->items.n; i++)
		for (struct item *item = &f->items.v[i];
		     item->told_us && item->told_closures < item->nclosures;) {
			struct order *o = order(j, TELL_CLOSURE);

			o->item = i;
			copy_ids(&o->set, &item->closures[item->told_closures++]);
		}
}

static bool differs(const struct ids *a, const struct ids *b)
{
	return a->n != b->n || (a->n && memcmp(a->v, b->v, a->n * sizeof(*a->v)) != 0);
}

/* The calls since the last job. Of one whose items have changed, what was told is wrong now. */
static void look_at_notes(struct functions *f, bool *out_changed)
{
	for (uint32_t i = 0; i < f->opt.nnoted; i++) {
		struct subject *s = f->opt.noted[i];

		items_refresh(f, s);
		*out_changed = *out_changed || (s->told.n && differs(&s->items, &s->told));
	}
	for (uint32_t i = 0; i < f->items.n; i++)
		*out_changed = *out_changed || has_drifted(&f->items.v[i]);
}

static void tell_call(struct job *j, struct subject *s, double calls, double at)
{
	struct order *o;

	if (!s->items.n || calls <= 0)
		return;
	o = order(j, TELL_CALL);
	copy_ids(&o->set, &s->items);
	copy_ids(&s->told, &s->items);
	o->calls = calls;
	o->at = at;
}

static void tell_notes(struct functions *f, struct job *j)
{
	double now = clock_wall_s();

	for (uint32_t i = 0; i < f->opt.nnoted; i++) {
		struct subject *s = f->opt.noted[i];

		s->noted = false;
		if (!s->profiles)
			continue;
		demand_add(s, s->fresh, now);
		tell_call(j, s, s->fresh, now);
		s->fresh = 0;
	}
	f->opt.nnoted = 0;
}

static int by_time(const void *a, const void *b)
{
	const struct subject *x = *(struct subject *const *)a, *y = *(struct subject *const *)b;

	return (x->demand_at > y->demand_at) - (x->demand_at < y->demand_at);
}

/* Since a job's orders were made that one's node or growth may be gone: found by what it is. */
static void tell_node(struct job *j, const struct ids *items, int above, bool in_use)
{
	struct order *o = order(j, TELL_NODE);

	copy_ids(&o->set, items);
	o->above = above;
	o->in_use = in_use;
}

static bool is_in_use(const struct node *n)
{
	struct zygote_node_info info;

	zygote_node_peek(n->z, &info);
	return n->busy || info.busy;
}

/* Parents have lower ids than their children, and nodes are in the order of their ids. */
static void tell_nodes(struct functions *f, struct job *j)
{
	auto_free int *at = mem_zero(f->nnodes + 1, sizeof(int));

	for (uint32_t i = 0; i < f->nnodes; i++) {
		struct node *n = f->nodes[i];
		struct ids items = { 0 };
		int above = -1;

		at[i] = -1;
		n->place = -1;
		if (!n->parent || knowledge_top(n) != n->interp->root)
			continue;
		if (n->sponsor)
			items_of_node(f, n, n->sponsor, &items);
		else
			copy_ids(&items, &n->items);
		for (uint32_t k = 0; k < i; k++)
			if (f->nodes[k] == n->parent)
				above = at[k];
		if (items.n) {
			copy_ids(&n->items, &items);
			at[i] = (int)j->n;
			tell_node(j, &items, above, is_in_use(n));
			j->orders[j->n - 1].node = n->id;
		}
		ids_done(&items);
	}
}

static int order_of(const struct job *j, const struct node *n)
{
	for (uint32_t i = 0; n && i < j->n; i++)
		if (j->orders[i].verb == TELL_NODE && j->orders[i].node == n->id)
			return (int)i;
	return -1;
}

static void tell_growths(struct functions *f, struct job *j)
{
	const struct ids *items;
	struct node *parent;
	struct growth *next = NULL;

	for (struct growth *g = grow_next(f, NULL); g; g = next) {
		next = grow_next(f, g);
		if (!grow_look(g, &items, &parent))
			continue;
		tell_node(j, items, order_of(j, parent), true);
		j->orders[j->n - 1].growth = g;
	}
}

static void tell_all(struct functions *f, struct job *j)
{
	struct fit_rules rules = { .node_bytes = NODE_BYTES,
				   .node_us = NODE_US,
				   .least_us = POLICY_GROW_MIN_US,
				   .half_life = LIMIT_HALF_LIFE_S,
				   .guess = GUESS };
	size_t n;
	auto_free struct subject **all = subjects_all(f, &n);

	grow_forget_waiting(f);
	fit_free(f->opt.fit);
	f->opt.fit = fit_new(&rules);
	for (size_t i = 0; i < n; i++)
		if (all[i]->demand > 0)
			items_refresh(f, all[i]);
	tell_items(f, j);
	if (n)
		qsort(all, n, sizeof(struct subject *), by_time);
	for (size_t i = 0; i < n; i++)
		tell_call(j, all[i], all[i]->demand, all[i]->demand_at);
	tell_nodes(f, j);
	tell_growths(f, j);
}

static void tell_uses(struct functions *f, struct job *j)
{
	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i]->place >= 0) {
			struct order *o = order(j, TELL_USE);

			o->place = f->nodes[i]->place;
			o->in_use = is_in_use(f->nodes[i]);
		}
}

/* ---- the loop's side: what comes of it ---- */

static void job_free(struct job *j)
{
	for (uint32_t i = 0; i < j->n; i++)
		ids_done(&j->orders[i].set);
	ids_done(&j->set);
	ids_done(&j->gone);
	free(j->orders);
	free(j);
}

static void take_places(struct functions *f, struct job *j)
{
	for (uint32_t i = 0; i < j->n; i++) {
		const struct order *o = &j->orders[i];
		struct node *n = o->verb == TELL_NODE && o->node ? knowledge_find(f, o->node)
								 : NULL;

		if (n)
			n->place = o->place;
		else if (o->verb == TELL_NODE && o->growth && grow_is_there(f, o->growth))
			grow_take_place(o->growth, o->place);
		else if (o->verb == TELL_NODE)
			optimise_gone(f, o->place);
	}
}

static uint64_t sum_of(struct policy_set set)
{
	uint64_t sum = 14695981039346656037u;

	for (size_t i = 0; i < set.n; i++)
		sum = (sum ^ set.v[i]) * 1099511628211u;
	return sum;
}

static void note_dropped(struct functions *f, const struct node *n)
{
	f->opt.dropped[f->opt.ndropped].set = sum_of(ids_set(&n->items));
	f->opt.dropped[f->opt.ndropped].at_us = clock_us();
	f->opt.ndropped = (f->opt.ndropped + 1) % DROPPED;
}

/* Moves are among them: a node comes back below another. */
static void look_for_turns(struct functions *f, struct policy_set items)
{
	uint64_t now = clock_us(), sum = sum_of(items);

	for (uint32_t i = 0; i < DROPPED; i++) {
		if (f->opt.dropped[i].set != sum || now - f->opt.dropped[i].at_us > CALM_MAX_US)
			continue;
		f->opt.dropped[i].set = 0;
		f->opt.calm_us = f->opt.calm_us ? f->opt.calm_us * 2 : CALM_MIN_US;
		if (f->opt.calm_us > CALM_MAX_US)
			f->opt.calm_us = CALM_MAX_US;
		f->opt.calm_until_us = now + f->opt.calm_us;
		log_debug("function", "calm for %.0f s", (double)f->opt.calm_us / 1e6);
		return;
	}
	if (now > f->opt.calm_until_us + 2 * f->opt.calm_us)
		f->opt.calm_us = 0;
}

static void drop(struct functions *f, struct job *j)
{
	struct err err;
	bool whole = true, more = true;

	while (more) {
		more = false;
		for (size_t i = 0; i < j->gone.n; i++) {
			struct node *n = knowledge_find_place(f, (int)j->gone.v[i]);

			if (!n || n->children)
				continue;
			n->place = -1; /* it is told already */
			log_info("function", "node %u makes room (%llu MiB)", n->id,
				 (unsigned long long)(n->bytes / MIB));
			if (j->room >= 0)
				note_dropped(f, n);
			if (zygote_drop(n->z, &err) == 0) {
				more = true;
				continue;
			}
			log_debug("function", "dropping node %u: %s", n->id, err.text);
			whole = false;
		}
	}
	for (size_t i = 0; i < j->gone.n; i++)
		whole = whole && !knowledge_find_place(f, (int)j->gone.v[i]);
	if (!whole)
		optimise_anew(f);
}

static void release_waiting(struct functions *f)
{
	while (f->opt.nwaiting) {
		struct subject *s = f->opt.waiting[--f->opt.nwaiting];

		s->queued = false;
		spare_node_made(f, s);
		subject_unref(s);
	}
}

static void planned(uv_work_t *work, int status)
{
	static const char *const actions[] = {
		[FIT_NOTHING] = "nothing", [FIT_MAKE] = "make", [FIT_DROP] = "drop"
	};
	struct job *j = (struct job *)work;
	struct functions *f = j->f;
	uint64_t took_us;

	(void)status;
	if (!f) {
		fit_free(j->fit);
		job_free(j);
		return;
	}
	f->opt.job = NULL;
	f->opt.next = j->next;
	f->grow_ns += j->cpu_ns;
	took_us = j->cpu_ns / 1000; /* not what it waited for other work on the pool */
	log_debug("function", "planned%s in %.1f ms: %s; room %lld KiB", j->anew ? " anew" : "",
		  (double)took_us / 1e3, actions[j->action], (long long)(j->room / (int64_t)KIB));
	if (j->anew)
		f->opt.anew_after_us = clock_us() + ANEW_MS * 1000 + PATIENCE * took_us;
	take_places(f, j);
	if (j->action == FIT_DROP) {
		drop(f, j);
		f->opt.plan_again = true;
	} else if (j->action == FIT_MAKE) {
		look_for_turns(f, ids_set(&j->set));
		grow_set(f, ids_set(&j->set), j->place, j->parent, j->bytes);
		f->opt.plan_again = true;
	} else {
		if (j->room < 0 && f->idle_oldest) /* a warm instance comes back in a millisecond */
			instance_end(f->idle_oldest);
		f->opt.plan_again = f->opt.plan_again || j->behind;
		if (!grow_next(f, NULL) && !j->behind)
			release_waiting(f);
	}
	job_free(j);
	if (f->opt.plan_again)
		optimise_kick(f);
	functions_went_quiet(f);
}

struct node *optimise_next_to_go(struct functions *f)
{
	struct node *n = knowledge_find_place(f, f->opt.next);

	while (n && n->children) { /* of a subtree the leaves go first */
		struct node *below = NULL;

		for (uint32_t i = 0; i < f->nnodes && !below; i++)
			if (f->nodes[i]->parent == n)
				below = f->nodes[i];
		n = below;
	}
	return n && !n->busy ? n : NULL;
}

void optimise_hold(struct functions *f)
{
	f->opt.hold_until_us = clock_us() + HOLD_US;
}

/* What it believes is wrong, and it may not be made anew yet; or nothing is to be made now. */
static bool must_wait(struct functions *f)
{
	uint64_t now = clock_us();

	if (now < f->opt.hold_until_us) {
		release_waiting(f);
		functions_housekeep(f);
		return true;
	}

	if (now < f->opt.squeezed_until_us && optimise_room(f) >= 0) {
		release_waiting(f);
		functions_housekeep(f);
		return true;
	}
	if (!f->opt.anew || now >= f->opt.anew_after_us)
		return false;
	functions_housekeep_soon(f, (f->opt.anew_after_us - now) / 1000 + 1);
	return true;
}

static void begin_job(struct functions *f)
{
	struct job *j;
	bool changed = false;

	look_at_notes(f, &changed);
	f->opt.anew = f->opt.anew || changed || !f->opt.fit;
	if (must_wait(f))
		return;
	f->opt.plan_again = false;
	j = mem_new(struct job);
	j->f = f;
	j->anew = f->opt.anew;
	if (j->anew) {
		f->opt.anew = false;
		tell_all(f, j);
	} else {
		tell_items(f, j);
		for (uint32_t i = 0; i < f->opt.nlost; i++)
			order(j, TELL_DROP)->place = f->opt.lost[i];
		tell_uses(f, j);
	}
	f->opt.nlost = 0;
	tell_notes(f, j);
	j->room = optimise_room(f);
	j->plenty = j->room > (int64_t)(f->config.memory_bytes / PLENTY);
	j->calm = clock_us() < f->opt.calm_until_us;
	j->fit = f->opt.fit;
	f->opt.job = j;
	must(uv_queue_work(f->config.loop, &j->work, plan, planned) == 0);
}

void optimise_kick(struct functions *f)
{
	uint64_t begin_ns = clock_cpu_ns();

	if (f->config.no_tree)
		return;
	f->opt.plan_again = true;
	if (f->opt.job || f->draining || f->closing || grow_count(f) >= LIMIT_GROWING)
		return;
	begin_job(f);
	f->grow_ns += clock_cpu_ns() - begin_ns;
}

void optimise_anew(struct functions *f)
{
	f->opt.anew = true;
}

/* The place of a node that was a growth until now. Places are given anew when the job ends. */
int optimise_place(struct functions *f, int place)
{
	if (!f->opt.job || !f->opt.job->anew)
		return place;
	optimise_anew(f);
	return -1;
}

void optimise_gone(struct functions *f, int place)
{
	if (place < 0 || optimise_place(f, place) < 0)
		return;
	if (f->opt.nlost == array_len(f->opt.lost)) {
		optimise_anew(f);
		return;
	}
	f->opt.lost[f->opt.nlost++] = place;
}

void optimise_grown(struct functions *f)
{
	release_waiting(f);
	if (!f->draining)
		optimise_kick(f);
}

/* Every second while something goes on. */
void optimise_tick(struct functions *f)
{
	bool over = optimise_room(f) < 0;

	demand_save(f, false);
	if (f->opt.nnoted || f->opt.plan_again || f->opt.anew || over)
		optimise_kick(f);
}

bool optimise_needs(const struct functions *f, const struct interp *p)
{
	for (uint32_t i = 0; i < f->opt.nwaiting; i++)
		if (f->opt.waiting[i]->interp == p)
			return true;
	for (uint32_t i = 0; i < f->opt.nnoted; i++)
		if (f->opt.noted[i]->interp == p)
			return true;
	return grow_count(f) > 0;
}

bool optimise_busy(const struct functions *f)
{
	return f->opt.job != NULL;
}

void optimise_open(struct functions *f)
{
	f->opt.next = -1;
	items_init(&f->items);
	demand_open(f);
}

void optimise_close(struct functions *f)
{
	if (f->opt.job)
		f->opt.job->f = NULL;
	else
		fit_free(f->opt.fit);
	f->opt.fit = NULL;
	f->draining = true;
	release_waiting(f);
	demand_close(f);
}
