/* SPDX-License-Identifier: Apache-2.0
 *
 * fit: a tree for a workload; and what it shares with simulate.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/workload.h"

bool workload_number(const char *text, double low, double high, double *out)
{
	char *end;
	double x = strtod(text, &end);

	if (end == text || *end || !(x >= low && x <= high))
		return false;
	*out = x;
	return true;
}

uint64_t workload_size(const char *text)
{
	char *end;
	double x = strtod(text, &end);

	if (end == text || !*end || end[1])
		return 0;
	x *= *end == 'M' ? 1e6 : *end == 'G' ? 1e9 : 0;
	return x >= 1 && x <= 1e15 ? (uint64_t)(x + 0.5) : 0;
}

int workload_open(const char *what, uint64_t seed, struct workload *out, struct err *err)
{
	static const char word[] = "generated";
	const char *rest = what + strlen(word);
	double n = 200;

	if (strncmp(what, word, strlen(word)) != 0 || (*rest && *rest != ':'))
		return workload_load(what, out, err);
	if (*rest && !workload_number(rest + 1, 1, LIMIT_FUNCTIONS, &n))
		return err_set(err, ERR_USAGE, "'%s': generated:N with N from 1 to %d", what,
			       LIMIT_FUNCTIONS);
	workload_generate(out, (uint32_t)n, seed);
	return 0;
}

struct fit_options {
	const char *from, *output;
	uint64_t memory;
};

static int parse(int argc, char **argv, struct fit_options *o)
{
	for (int i = 1; i < argc; i++) {
		const char *flag = argv[i], *value = i + 1 < argc ? argv[++i] : NULL;

		if (!value)
			return usage_error("fit", "'%s' needs a value", flag);
		if (strcmp(flag, "--memory") == 0) {
			o->memory = workload_size(value);
			if (o->memory <= SIM_ROOT_BYTES)
				return usage_error("fit",
						   "--memory takes a size above 67M, such as 2G");
		} else if (strcmp(flag, "--from") == 0) {
			o->from = value;
		} else if (strcmp(flag, "-o") == 0 || strcmp(flag, "--output") == 0) {
			o->output = value;
		} else {
			return usage_error("fit", "unexpected '%s'", flag);
		}
	}
	if (!o->memory || !o->from || !o->output)
		return usage_error("fit", "--memory, --from and -o are needed");
	return 0;
}

static struct fit *fitted(const struct workload *w, uint64_t memory)
{
	struct fit_rules rules = { .budget_bytes = memory,
				   .root_bytes = SIM_ROOT_BYTES,
				   .node_bytes = SIM_NODE_BYTES,
				   .on_paper = true };
	struct fit *f = fit_new(&rules);

	workload_teach_items(w, f);
	for (uint32_t i = 0; i < w->ncalls; i++)
		fit_call(f, w->functions[w->calls[i]].items, 1, 0);
	fit_solve(f);
	return f;
}

int verb_fit(const struct dirs *d, int argc, char **argv)
{
	struct fit_options o = { 0 };
	struct workload w = { 0 };
	struct err err;
	struct fit *f;
	auto_free char *text = NULL;
	int code = parse(argc, argv, &o), rc = 0;

	if (code)
		return code;
	must(o.from && o.output);
	if (workload_open(o.from, 0, &w, &err) < 0)
		return complain(&err);
	f = fitted(&w, o.memory);
	text = sim_tree_print(f, &w);
	if (strcmp(o.output, "-") == 0) {
		rc = fd_write_all(STDOUT_FILENO, text, strlen(text), &err);
	} else {
		rc = file_replace(o.output, text, strlen(text), &err);
		if (rc == 0)
			fprintf(stderr, "wrote %s: %.2f GB\n", o.output,
				(double)fit_bytes(f) / 1e9);
	}
	fit_free(f);
	workload_done(&w);
	return rc < 0 ? complain(&err) : 0;
}
