/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/report.h"

#include <string.h>

void report_table(FILE *to, const struct sim_row *rows, uint32_t n, bool with_back)
{
	fprintf(to, "%-22s %7s %8s %7s %8s %6s %7s %7s %9s%s\n", "POLICY", "ALLOWED", "MEAN ms",
		"p50", "p99", "HITS", "GB", "MADE", "CPU s", with_back ? "   BACK" : "");
	for (uint32_t i = 0; i < n; i++) {
		const struct sim_result *r = &rows[i].result;

		fprintf(to, "%-22s %7.2f %8.2f %7.2f %8.2f %5.1f%% %7.2f %7.0f %9.2f",
			rows[i].policy, rows[i].memory_gb, r->mean_ms, r->p50_ms, r->p99_ms,
			100 * r->hits, r->memory_bytes / 1e9, r->made, r->made_ms / 1000);
		if (with_back && r->back_calls < 0)
			fprintf(to, "  never");
		else if (with_back)
			fprintf(to, " %6.0f", r->back_calls);
		fputc('\n', to);
	}
}

static void put_string(FILE *to, const char *s)
{
	fputc('"', to);
	for (; *s; s++)
		if (*s == '"' || *s == '\\' || (unsigned char)*s < 0x20)
			fprintf(to, "\\u%04x", (unsigned char)*s);
		else
			fputc(*s, to);
	fputc('"', to);
}

void report_json(FILE *to, const struct sim_row *rows, uint32_t n)
{
	fputs("[", to);
	for (uint32_t i = 0; i < n; i++) {
		const struct sim_result *r = &rows[i].result;

		fprintf(to, "%s\n {\"policy\": ", i ? "," : "");
		put_string(to, rows[i].policy);
		fprintf(to,
			", \"allowed_gb\": %.3f, \"residual_ms\": {\"mean\": %.4f, \"p50\": %.3f, "
			"\"p99\": %.3f}, \"hit_ratio\": %.4f, \"memory_gb\": %.4f, "
			"\"nodes\": %.1f, \"nodes_made\": %.1f, \"making_cpu_ms\": %.1f",
			rows[i].memory_gb, r->mean_ms, r->p50_ms, r->p99_ms, r->hits,
			r->memory_bytes / 1e9, r->nodes, r->made, r->made_ms);
		if (r->back_calls >= 0)
			fprintf(to, ", \"back_calls\": %.1f", r->back_calls);
		fputs("}", to);
	}
	fputs("\n]\n", to);
}

/* The picture's scale: x is memory, y residual. */
struct scale {
	double most_gb, most_ms;
};

enum { LEFT = 60, TOP = 20, WIDTH = 560, HEIGHT = 340, LEGEND = 190 };

static double at_x(const struct scale *s, double gb)
{
	return LEFT + WIDTH * gb / s->most_gb;
}

static double at_y(const struct scale *s, double ms)
{
	return TOP + HEIGHT * (1 - (ms < s->most_ms ? ms : s->most_ms) / s->most_ms);
}

static struct scale scale_of(const struct sim_row *rows, uint32_t n)
{
	struct scale s = { 1, 10 };

	for (uint32_t i = 0; i < n; i++) {
		if (rows[i].result.memory_bytes / 1e9 * 1.05 > s.most_gb)
			s.most_gb = rows[i].result.memory_bytes / 1e9 * 1.05;
		/* who has no tree is above the picture: the others are what is to be told apart */
		if (rows[i].result.memory_bytes > 1e8 && rows[i].result.mean_ms * 1.05 > s.most_ms)
			s.most_ms = rows[i].result.mean_ms * 1.05;
	}
	return s;
}

static double step_of(double most)
{
	double step = 0.1;

	while (most / step > 10)
		step *= most / step > 20 ? 5 : 2;
	return step;
}

static void svg_axes(FILE *to, const struct scale *s)
{
	double dx = step_of(s->most_gb), dy = step_of(s->most_ms);

	for (double gb = 0; gb <= s->most_gb; gb += dx)
		fprintf(to,
			"<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>"
			"<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>\n",
			at_x(s, gb), TOP, at_x(s, gb), TOP + HEIGHT, at_x(s, gb), TOP + HEIGHT + 18,
			gb);
	for (double ms = 0; ms <= s->most_ms; ms += dy)
		fprintf(to,
			"<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#ddd\"/>"
			"<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
			LEFT, at_y(s, ms), LEFT + WIDTH, at_y(s, ms), LEFT - 8, at_y(s, ms) + 4,
			ms);
	fprintf(to,
		"<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">memory of the tree, GB</text>\n"
		"<text x=\"16\" y=\"%d\" text-anchor=\"middle\" transform=\"rotate(-90 16 %d)\">"
		"still to import per call, ms (mean)</text>\n",
		LEFT + WIDTH / 2, TOP + HEIGHT + 38, TOP + HEIGHT / 2, TOP + HEIGHT / 2);
}

static void svg_policy(FILE *to, const struct scale *s, const struct sim_row *rows, uint32_t n,
		       uint32_t line)
{
	static const char *const colours[] = { "#1b6ca8", "#d1495b", "#2e8b57", "#b07d12",
					       "#7b4ea3", "#444444", "#c2548d", "#3aa6a6",
					       "#8a5a2b", "#6c7a00" };
	const char *colour = colours[line % (sizeof(colours) / sizeof(colours[0]))];

	fprintf(to, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour);
	for (uint32_t i = 0; i < n; i++)
		if (strcmp(rows[i].policy, rows[0].policy) == 0)
			fprintf(to, "%.1f,%.1f ", at_x(s, rows[i].result.memory_bytes / 1e9),
				at_y(s, rows[i].result.mean_ms));
	fputs("\"/>\n", to);
	for (uint32_t i = 0; i < n; i++)
		if (strcmp(rows[i].policy, rows[0].policy) == 0)
			fprintf(to, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n",
				at_x(s, rows[i].result.memory_bytes / 1e9),
				at_y(s, rows[i].result.mean_ms), colour);
	fprintf(to, "<text x=\"%d\" y=\"%u\" fill=\"%s\">", LEFT + WIDTH + 14, TOP + 12 + 20 * line,
		colour);
	for (const char *c = rows[0].policy; *c; c++)
		fputs(*c == '<' ? "&lt;" : *c == '&' ? "&amp;" : (char[]){ *c, 0 }, to);
	if (rows[0].result.mean_ms > s->most_ms)
		fprintf(to, " (%.1f ms)", rows[0].result.mean_ms);
	fputs("</text>\n", to);
}

void report_svg(FILE *to, const struct sim_row *rows, uint32_t n)
{
	struct scale s = scale_of(rows, n);
	uint32_t line = 0;

	fprintf(to,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
		"font-family=\"sans-serif\" font-size=\"12\">\n"
		"<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
		LEFT + WIDTH + LEGEND, TOP + HEIGHT + 50);
	svg_axes(to, &s);
	for (uint32_t i = 0; i < n; i++) {
		bool seen = false;

		for (uint32_t k = 0; k < i && !seen; k++)
			seen = strcmp(rows[k].policy, rows[i].policy) == 0;
		if (!seen)
			svg_policy(to, &s, rows + i, n - i, line++);
	}
	fputs("</svg>\n", to);
}
