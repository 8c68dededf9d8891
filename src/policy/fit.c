/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/fit_priv.h"

#include "base/mem.h"

struct fit *fit_new(const struct fit_rules *rules)
{
	struct fit *f = mem_new(struct fit);

	f->rules = *rules;
	f->scale = 1;
	f->bytes = rules->root_bytes;
	return f;
}

static void item_done(struct fit_item *i)
{
	for (uint32_t k = 0; k < i->nclosures; k++)
		fit_set_done(&i->closures[k]);
	free(i->closures);
	free(i->views.v);
	free(i->nodes.v);
	free(i->candidates.v);
}

static void candidate_done(struct fit_candidate *c)
{
	fit_set_done(&c->set);
	free(c->views.bytes);
}

void fit_free(struct fit *f)
{
	if (!f)
		return;
	for (uint32_t i = 0; i < f->nitems; i++)
		item_done(&f->items[i]);
	for (uint32_t i = 0; i < f->ndemands; i++)
		fit_set_done(&f->demands[i].set);
	for (uint32_t i = 0; i < f->nviews; i++)
		fit_set_done(&f->views[i].set);
	for (uint32_t i = 0; i < f->ncandidates; i++)
		candidate_done(&f->candidates[i]);
	for (uint32_t i = 0; i < f->nnodes; i++)
		fit_set_done(&f->nodes[i].set);
	fit_table_done(&f->by_set);
	fit_table_done(&f->by_raw);
	fit_table_done(&f->by_candidate);
	free(f->heap);
	free(f->pile.v);
	free(f->piled);
	free(f->items);
	free(f->demands);
	free(f->views);
	free(f->candidates);
	free(f->nodes);
	free(f);
}

void fit_budget(struct fit *f, uint64_t bytes)
{
	f->rules.budget_bytes = bytes;
}

int fit_choose(const struct fit *f, struct policy_set items, uint64_t *out_us)
{
	struct fit_set set = fit_set_of(f, items);
	struct fit_walk w = fit_walk_nodes(&set);
	int32_t best = -1, n;

	while ((n = fit_next_within(f, &w, &set)) >= 0)
		if (fit_better(f, n, best))
			best = n;
	*out_us = fit_view_us(f, best);
	fit_set_done(&set);
	return best;
}

void fit_use(struct fit *f, int node, bool in_use)
{
	f->nodes[node].in_use = in_use;
}

bool fit_node(const struct fit *f, int node, struct fit_node *out)
{
	const struct fit_place *p;

	if (node < 0 || (uint32_t)node >= f->nnodes || !f->nodes[node].alive)
		return false;
	p = &f->nodes[node];
	*out = (struct fit_node){ .items = fit_set_plain(&p->set),
				  .parent = p->parent,
				  .us = p->set.us,
				  .own_bytes = f->rules.node_bytes + p->set.bytes -
					       fit_node_bytes(f, p->parent) };
	return true;
}

bool fit_is_behind(const struct fit *f)
{
	return f->nsuggested < f->ndemands;
}

int fit_nodes(const struct fit *f)
{
	return (int)f->nnodes;
}

uint64_t fit_bytes(const struct fit *f)
{
	return f->bytes;
}

double fit_value(const struct fit *f)
{
	double sum = 0;

	for (uint32_t d = 0; d < f->ndemands; d++) {
		struct fit_demand demand = f->demands[d];

		fit_weigh_one(f, &demand);
		for (uint32_t i = 0; i < demand.nviews; i++) {
			const struct fit_view *v = &f->views[demand.first_view + i];

			sum += demand.part[v->left_out] * (double)fit_view_us(f, v->best);
		}
	}
	return sum * f->scale;
}
