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
	free(i->views);
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
		fit_set_done(&f->candidates[i].set);
	for (uint32_t i = 0; i < f->nnodes; i++)
		fit_set_done(&f->nodes[i].set);
	fit_table_done(&f->by_set);
	fit_table_done(&f->by_raw);
	fit_table_done(&f->by_candidate);
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
	int best = -1;

	for (uint32_t i = 0; i < f->nnodes; i++)
		if (f->nodes[i].alive && f->nodes[i].set.us > fit_view_us(f, best) &&
		    fit_set_within(&f->nodes[i].set, &set))
			best = (int)i;
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

	for (uint32_t i = 0; i < f->nviews; i++)
		sum += fit_weight(f, &f->views[i]) * (double)fit_view_us(f, f->views[i].best);
	return sum * f->scale;
}
