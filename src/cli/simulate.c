/* SPDX-License-Identifier: Apache-2.0
 *
 * simulate: a workload replayed against policies.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/workload.h"
#include "sim/report.h"

#define POLICIES 32
#define MEMORIES 32

struct simulate {
	const char *what, *svg;
	struct sim_policy policies[POLICIES];
	const char *files[POLICIES]; /* of trees, to be loaded */
	uint64_t memories[MEMORIES];
	uint32_t npolicies, nmemories;
	double train, splits, half_life, seed;
	double calls, zipf, drift, burst, one_shot;
	bool mixed, json;
};

static const struct {
	const char *name;
	enum sim_kind kind;
	bool file;
} policies[] = {
	{ "none", SIM_NONE },		{ "root", SIM_ROOT },
	{ "sock", SIM_SOCK },		{ "lru", SIM_LRU },
	{ "gdsf", SIM_GDSF },		{ "forklift", SIM_FIRST, true },
	{ "forklift", SIM_BEST, true }, { "tree", SIM_BEST, true },
	{ "online", SIM_ONLINE },	{ "fitted", SIM_FITTED },
	{ "bound", SIM_BOUND },
};

static char *policy_name(const char *file, const char *name, enum sim_kind kind)
{
	const char *slash;

	if (!file)
		return mem_strdup(name);
	slash = strrchr(file, '/');
	return mem_printf("%s%s", slash ? slash + 1 : file, kind == SIM_FIRST ? ", first fit" : "");
}

/* A forklift tree is replayed as published, by first fit, and by best fit. */
static bool add_policy(struct simulate *s, const char *word, size_t len)
{
	const char *colon = memchr(word, ':', len);
	size_t stem = colon ? (size_t)(colon - word) : len;
	bool found = false;

	for (size_t i = 0; i < array_len(policies); i++) {
		const char *name = policies[i].name;
		struct sim_policy *p = &s->policies[s->npolicies];

		if (strlen(name) != stem || strncmp(name, word, stem) != 0 ||
		    policies[i].file != (colon != NULL) || s->npolicies == POLICIES)
			continue;
		found = true;
		if (colon)
			s->files[s->npolicies] = mem_strndup(colon + 1, len - stem - 1);
		*p = (struct sim_policy){ .kind = policies[i].kind };
		p->name = policy_name(s->files[s->npolicies], name, p->kind);
		s->npolicies++;
	}
	return found;
}

static bool add_memory(struct simulate *s, const char *word, size_t len)
{
	auto_free char *text = mem_strndup(word, len);
	uint64_t bytes = workload_size(text);

	if (bytes <= SIM_ROOT_BYTES || s->nmemories == MEMORIES)
		return false;
	s->memories[s->nmemories++] = bytes;
	return true;
}

/* Each word of a list that commas separate. */
static bool each(struct simulate *s, const char *list,
		 bool (*add)(struct simulate *s, const char *word, size_t len))
{
	for (;;) {
		size_t len = strcspn(list, ",");

		if (!add(s, list, len))
			return false;
		if (!list[len])
			return true;
		list += len + 1;
	}
}

static int list_option(struct simulate *s, const char *flag, const char *value)
{
	if (strcmp(flag, "--policy") == 0)
		return each(s, value, add_policy)
			       ? 0
			       : usage_error("simulate", "no policy '%s', or too many", value);
	if (strcmp(flag, "--memory") == 0)
		return each(s, value, add_memory)
			       ? 0
			       : usage_error("simulate",
					     "--memory takes sizes above 67M, such as 512M or 2G");
	if (strcmp(flag, "--svg") == 0) {
		s->svg = value;
		return 0;
	}
	return -1;
}

static int number_option(struct simulate *s, const char *flag, const char *value)
{
	const struct {
		const char *flag;
		double *to, low, high;
		bool mixed;
	} numbers[] = {
		{ "--train", &s->train, 0, 1e6 },	    { "--splits", &s->splits, 1, 100 },
		{ "--half-life", &s->half_life, 1, 1e9 },   { "--seed", &s->seed, 0, 1e9 },
		{ "--calls", &s->calls, 1, 1e6, true },	    { "--zipf", &s->zipf, 0, 4, true },
		{ "--drift", &s->drift, 0, 1, true },	    { "--burst", &s->burst, 0, 0.99, true },
		{ "--one-shot", &s->one_shot, 0, 1, true },
	};

	for (size_t i = 0; i < array_len(numbers); i++) {
		if (strcmp(numbers[i].flag, flag) != 0)
			continue;
		s->mixed |= numbers[i].mixed;
		if (workload_number(value, numbers[i].low, numbers[i].high, numbers[i].to))
			return 0;
		return usage_error("simulate", "%s takes a number from %g to %g", flag,
				   numbers[i].low, numbers[i].high);
	}
	return usage_error("simulate", "unexpected '%s'", flag);
}

static int parse(int argc, char **argv, struct simulate *s)
{
	for (int i = 1; i < argc; i++) {
		int code;

		if (strcmp(argv[i], "--json") == 0) {
			s->json = true;
			continue;
		}
		if (argv[i][0] != '-' && !s->what) {
			s->what = argv[i];
			continue;
		}
		if (argv[i][0] != '-' || i + 1 == argc)
			return usage_error("simulate", "'%s': unexpected, or without its value",
					   argv[i]);
		code = list_option(s, argv[i], argv[i + 1]);
		if (code < 0)
			code = number_option(s, argv[i], argv[i + 1]);
		if (code)
			return code;
		i++;
	}
	if (!s->what)
		return usage_error("simulate", "which workload?");
	if (s->mixed && s->splits > 0)
		return usage_error("simulate", "--splits is for calls that are made once each");
	return 0;
}

static void defaults(struct simulate *s)
{
	if (s->npolicies == 0)
		(void)each(s, "none,sock,lru,gdsf,online,fitted,bound", add_policy);
	if (s->nmemories == 0)
		(void)each(s, "2G", add_memory);
}

static void add_up(struct sim_result *sum, const struct sim_result *r, double part)
{
	sum->mean_ms += r->mean_ms * part;
	sum->p50_ms += r->p50_ms * part;
	sum->p99_ms += r->p99_ms * part;
	sum->hits += r->hits * part;
	sum->memory_bytes += r->memory_bytes * part;
	sum->made += r->made * part;
	sum->made_ms += r->made_ms * part;
	sum->nodes += r->nodes * part;
	sum->back_calls += r->back_calls * part;
}

static void replay_all(struct simulate *s, struct workload *w, const double *after,
		       struct sim_row *rows)
{
	int splits = s->splits > 0 ? (int)s->splits : 1;

	for (int split = 0; split < splits; split++) {
		struct sim_row *row = rows;

		if (s->splits > 0)
			workload_split(w, (uint64_t)s->seed + (uint64_t)split, (uint32_t)s->train);
		for (uint32_t p = 0; p < s->npolicies; p++)
			for (uint32_t m = 0; m < s->nmemories; m++, row++) {
				struct sim_run run = { .work = w,
						       .policy = &s->policies[p],
						       .memory_bytes = s->memories[m],
						       .half_life = s->half_life,
						       .after = after };
				struct sim_result r;

				sim_replay(&run, &r);
				row->policy = s->policies[p].name;
				row->memory_gb = (double)s->memories[m] / 1e9;
				add_up(&row->result, &r, 1.0 / splits);
			}
	}
}

static int write_svg(const char *path, const struct sim_row *rows, uint32_t n, struct err *err)
{
	auto_free char *text = NULL;
	size_t len;
	FILE *memory = open_memstream(&text, &len);

	must(memory);
	report_svg(memory, rows, n);
	must(fclose(memory) == 0);
	return file_replace(path, text, len, err);
}

static int report(const struct simulate *s, const struct sim_row *rows, uint32_t n)
{
	struct err err;

	if (s->json)
		report_json(stdout, rows, n);
	else
		report_table(stdout, rows, n, s->drift > 0);
	if (s->svg && write_svg(s->svg, rows, n, &err) < 0)
		return complain(&err);
	return 0;
}

static int run(struct simulate *s)
{
	struct workload w;
	struct err err;
	auto_free struct sim_row *rows = NULL;
	auto_free double *after = NULL;
	int rc;

	if (workload_open(s->what, (uint64_t)s->seed, &w, &err) < 0)
		return complain(&err);
	for (uint32_t i = 0; i < s->npolicies; i++)
		if (s->files[i] && sim_tree_load(s->files[i], &w, &s->policies[i].tree, &err) < 0) {
			workload_done(&w);
			return complain(&err);
		}
	if (s->mixed) {
		struct sim_mix mix = { s->zipf,	    s->drift,		s->burst,
				       s->one_shot, (uint32_t)s->calls, (uint64_t)s->seed };

		workload_mix(&w, &mix, &after);
	}
	w.nwarm = s->train < w.ncalls ? (uint32_t)s->train : w.ncalls;
	rows = mem_zero((size_t)s->npolicies * s->nmemories, sizeof(*rows));
	replay_all(s, &w, s->drift > 0 ? after : NULL, rows);
	rc = report(s, rows, s->npolicies * s->nmemories);
	workload_done(&w);
	return rc;
}

int verb_simulate(const struct dirs *d, int argc, char **argv)
{
	struct simulate s = { .half_life = 1000, .calls = 5000 };
	int code = parse(argc, argv, &s);

	if (code == 0) {
		defaults(&s);
		code = run(&s);
	}
	for (uint32_t i = 0; i < s.npolicies; i++) {
		free(s.policies[i].name);
		free((void *)s.files[i]);
		sim_tree_done(&s.policies[i].tree);
	}
	return code;
}
