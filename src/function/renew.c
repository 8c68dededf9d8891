/* SPDX-License-Identifier: Apache-2.0
 *
 * Roots made anew (S9): what cannot differ below one root, its address layout and hash seed, is
 * not the same for ever. The next root grows, in the background, what the old one's tree is used
 * for; then it takes the old one's place, and that tree goes, leaf by leaf, when nothing forks from
 * it any more. Calls see none of it: until then they have the old tree, after that the new one, and
 * instances stay what they are (S5).
 */
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "function/knowledge.h"
#include "function/priv.h"

#define TICK_MIN_MS 250
#define TICK_MAX_MS (30 * 1000)

struct renewal {
	struct functions *f;
	struct interp *p;
};

/* Children come after their parents, so one pass backwards sees leaves first. */
static void drop_old(struct functions *f)
{
	for (uint32_t i = f->nnodes; i-- > 0;) {
		struct node *n = f->nodes[i], *top = knowledge_top(n);
		struct err busy;

		if (top == n->interp->root || top == n->interp->next_root || n->busy || n->children)
			continue;
		if (zygote_drop(n->z, &busy) < 0)
			log_debug("function", "node %u of an old root: %s", n->id, busy.text);
	}
}

static void change_over(struct functions *f, struct interp *p)
{
	p->root = steal(p->next_root);
	f->gen++;
	optimise_anew(f);
	log_info("function", "a new root for %s (%s) is in use", p->path, p->cache_tag);
	for (uint32_t i = 0; i < f->by_name_cap; i++)
		if (f->by_name[i] && f->by_name[i]->live)
			spare_node_made(f, f->by_name[i]->live->subject);
	drop_old(f);
	optimise_kick(f);
}

/* Parents were made before their children. */
static struct node *next_to_do(struct functions *f, const struct interp *p)
{
	for (uint32_t i = 0; i < f->nnodes; i++) {
		struct node *n = f->nodes[i];

		if (n->parent && !n->heir && n->renewed != p->next_root->id &&
		    knowledge_top(n) == p->root)
			return n;
	}
	return NULL;
}

static struct node *parent_of_heir(const struct interp *p, const struct node *n)
{
	for (n = n->parent; n; n = n->parent)
		if (n->heir)
			return n->heir;
	return p->next_root;
}

/* One after the other: below calls, and below what calls have made known, in priority. */
static void go_on(struct functions *f, struct interp *p)
{
	struct node *n = NULL;

	if (p->renewing || f->draining || f->closing)
		return;
	p->renewing = true;
	while (p->next_root && p->root && (n = next_to_do(f, p))) {
		n->renewed = p->next_root->id;
		if (grow_heir(f, n, parent_of_heir(p, n)))
			break;
	}
	p->renewing = false;
	if (p->next_root && !n)
		change_over(f, p);
}

void renew_grown(struct functions *f, struct interp *p)
{
	if (p->next_root)
		go_on(f, p);
}

static void on_next_root(void *arg, struct zygote_node *z, const struct zygote_profile *profile,
			 const struct err *err)
{
	struct renewal *r = arg;
	struct functions *f = r->f;
	struct interp *p = r->p;
	struct err busy;

	free(r);
	p->renewing = false;
	if (p->root)
		p->root->made_us = clock_us(); /* if this fails, it lives as long again */
	p->next_root = z ? knowledge_add(f, z, NULL, p) : NULL;
	if (z && !p->next_root && zygote_drop(z, &busy) < 0)
		log_debug("function", "a root too many: %s", busy.text);
	if (!p->next_root) {
		log_warn("function", "no new root for %s: %s", p->path,
			 err ? err->text : "too many interpreters and nodes");
		return;
	}
	if (profile)
		knowledge_describe(f, p->next_root, NULL, profile);
	go_on(f, p);
}

static void on_tick(uv_timer_t *timer)
{
	struct functions *f = timer->data;
	uint64_t age_us = f->config.root_age_s * 1000000, now = clock_us();

	if (f->draining)
		return;
	drop_old(f);
	for (struct interp *p = f->interps; p; p = p->next) {
		struct zygote_python python = { p->path, p->prefix };
		struct renewal *r;

		if (!p->root || p->next_root || p->renewing || now - p->root->made_us < age_us)
			continue;
		r = mem_new(struct renewal);
		*r = (struct renewal){ f, p };
		p->renewing = true;
		zygote_root(f->config.zygotes, &python, NULL, on_next_root, r);
	}
}

void renew_open(struct functions *f)
{
	uint64_t every_ms = f->config.root_age_s * 1000 / 4;

	uv_timer_init(f->config.loop, &f->renewal);
	f->renewal.data = f;
	uv_unref((uv_handle_t *)&f->renewal);
	every_ms = every_ms < TICK_MIN_MS ? TICK_MIN_MS : every_ms;
	every_ms = every_ms > TICK_MAX_MS ? TICK_MAX_MS : every_ms;
	if (f->config.root_age_s)
		uv_timer_start(&f->renewal, on_tick, every_ms, every_ms);
}

void renew_close(struct functions *f, uv_close_cb closed)
{
	uv_close((uv_handle_t *)&f->renewal, closed);
}
