/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/top.h"

#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "cli/show.h"

#define BAR 20

struct drawing {
	const struct look *now, *before;
	const struct picture *p;
	struct buf *out;
	double seconds; /* between the looks, or since the daemon's start */
	int rows, left_out;
};

/* In columns, if each character takes one; the bytes of one are not torn apart. */
static size_t fitting(const char *text, int width)
{
	size_t n = 0;
	int columns = 0;

	while (text[n] &&
	       (width <= 0 || columns < width || ((unsigned char)text[n] & 0xc0) == 0x80)) {
		n++;
		columns += ((unsigned char)text[n] & 0xc0) != 0x80;
	}
	return n;
}

/* The last row says how much is not shown. */
static void put_row(struct drawing *d, const char *text, bool head)
{
	bool color = head && d->p->color;

	if (d->p->height > 0 && d->rows >= d->p->height - 1) {
		d->left_out++;
		return;
	}
	d->rows++;
	must(buf_putf(d->out, NULL, "%s%.*s%s\n", color ? "\033[7m" : "",
		      (int)fitting(text, d->p->width), text, color ? "\033[0m" : "") == 0);
}

static double rate(double now, double before, const struct drawing *d)
{
	double gained = now - (d->before ? before : 0);

	return gained > 0 && d->seconds > 0 ? gained / d->seconds : 0;
}

static double total_rate(const struct drawing *d, const char *key)
{
	return rate(show_number(d->now->status, key),
		    d->before ? show_number(d->before->status, key) : 0, d);
}

static void draw_head(struct drawing *d)
{
	const json_t *s = d->now->status;
	char clock[32] = "", up[SHOW_AGE];
	time_t t = time(NULL);
	struct tm tm;

	if (localtime_r(&t, &tm))
		strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
	auto_free char *text = mem_printf("pipsqueak %s, up %s, %s", show_text(s, "version"),
					  show_age(show_number(s, "uptime_s"), up),
					  d->p->note ? d->p->note : clock);

	put_row(d, text, false);
}

static void draw_calls(struct drawing *d)
{
	const json_t *s = d->now->status;
	double idle = show_number(s, "idle_instances");
	auto_free char *calls = mem_printf(
		"calls   %.1f/s, %.0f now, %.0f in all; errors %.1f/s, %.0f in all",
		total_rate(d, "calls_total"), show_number(s, "calls_now"),
		show_number(s, "calls_total"), total_rate(d, "errors_total"),
		show_number(s, "errors_total"));
	auto_free char *runs = mem_printf("runs    %.1f/s, %.0f now, %.0f in all",
					  total_rate(d, "runs_total"), show_number(s, "runs_now"),
					  show_number(s, "runs_total"));
	auto_free char *instances = mem_printf(
		"procs   %.0f busy, %.0f warm, %.0f spare; %.0f functions",
		show_number(s, "instances") - idle, idle, show_number(s, "spares"),
		show_number(s, "functions"));

	put_row(d, calls, false);
	put_row(d, runs, false);
	put_row(d, instances, false);
}

static void draw_memory(struct drawing *d)
{
	const json_t *s = d->now->status;
	double used = show_number(s, "nodes_bytes"), budget = show_number(s, "memory_budget_bytes");
	int full = budget > 0 ? (int)(used / budget * BAR + 0.5) : 0;
	char bar[BAR + 1];

	full = full > BAR ? BAR : full;
	memset(bar, '#', (size_t)full);
	memset(bar + full, '-', (size_t)(BAR - full));
	bar[BAR] = '\0';
	auto_free char *text = mem_printf("memory  %.1f of %.1f MB in %.0f nodes  [%s]", used / 1e6,
					  budget / 1e6, show_number(s, "nodes"), bar);

	put_row(d, text, false);
}

/* "warm 61.0%  spare 20.1% ...": of the calls since the look before, or of all. */
static void draw_starts(struct drawing *d, const char *label, bool lately)
{
	static const char *const kinds[] = { "warm", "spare", "node", "root", "none" };
	const json_t *now = json_object_get(d->now->status, "calls_started"), *before = NULL;
	auto_buf struct buf text = { 0 };
	double n[array_len(kinds)], sum = 0;

	if (lately && d->before)
		before = json_object_get(d->before->status, "calls_started");
	for (size_t i = 0; i < array_len(kinds); i++) {
		n[i] = show_number(now, kinds[i]) - (before ? show_number(before, kinds[i]) : 0);
		sum += n[i];
	}
	must(buf_putf(&text, NULL, "%s", label) == 0);
	for (size_t i = 0; i < array_len(kinds); i++) {
		if (sum > 0)
			must(buf_putf(&text, NULL, "%s  %5.1f%%", kinds[i], n[i] / sum * 100) == 0);
		else
			must(buf_putf(&text, NULL, "%s      -", kinds[i]) == 0);
		if (i + 1 < array_len(kinds))
			must(buf_puts(&text, "  ", NULL) == 0);
	}
	put_row(d, text.data, false);
}

static const json_t *find_node(const json_t *list, double id)
{
	const json_t *node, *found;
	size_t i;

	json_array_foreach(list, i, node)
	{
		if (show_number(node, "id") == id)
			return node;
		found = find_node(json_object_get(node, "children"), id);
		if (found)
			return found;
	}
	return NULL;
}

static void draw_node(struct drawing *d, const json_t *node, const char *indent, const char *branch)
{
	const json_t *adds = json_object_get(node, "adds");
	const json_t *had = d->before ? find_node(json_object_get(d->before->tree, "roots"),
						  show_number(node, "id"))
				      : NULL;
	struct drawing own = *d; /* its own time: a new node has no look before */
	auto_buf struct buf holds = { 0 };

	if (!d->before)
		own.seconds = show_number(node, "age_s");
	for (size_t i = 0; i < json_array_size(adds); i++)
		must(buf_putf(&holds, NULL, "%s%s", i ? ", " : "",
			      json_string_value(json_array_get(adds, i))) == 0);
	if (!holds.len)
		must(buf_puts(&holds, *branch ? "standard library" : show_text(node, "python"),
			      NULL) == 0);
	auto_free char *text = mem_printf(
		"%5.0f %8.1f %8.0f %7.1f %8.0f %7.1f  %s%s%s", show_number(node, "id"),
		show_number(node, "memory_bytes") / 1e6, show_number(node, "uses"),
		rate(show_number(node, "uses"), had ? show_number(had, "uses") : 0, &own),
		show_number(node, "calls"),
		rate(show_number(node, "calls"), had ? show_number(had, "calls") : 0, &own), indent,
		branch, holds.data);

	put_row(d, text, false);
}

static void draw_nodes(struct drawing *d, const json_t *node, const char *indent,
		       const char *branch, bool last)
{
	const json_t *children = json_object_get(node, "children"), *child;
	auto_free char *below = mem_printf("%s%s", indent, !*branch ? "" : last ? "   " : "│  ");
	size_t i, n = json_array_size(children);

	draw_node(d, node, indent, branch);
	json_array_foreach(children, i, child)
		draw_nodes(d, child, below, i + 1 == n ? "└─ " : "├─ ", i + 1 == n);
}

void top_draw(const struct look *now, const struct look *before, const struct picture *p,
	      struct buf *out)
{
	struct drawing d = {
		.now = now, .before = before->status ? before : NULL, .p = p, .out = out
	};
	const json_t *roots = json_object_get(now->tree, "roots"), *node;
	size_t i;

	d.seconds = d.before ? (double)(now->at_us - before->at_us) / 1e6
			     : show_number(now->status, "uptime_s");
	draw_head(&d);
	draw_calls(&d);
	draw_memory(&d);
	draw_starts(&d, "starts  ", false);
	draw_starts(&d, "lately  ", true);
	put_row(&d, "", false);
	put_row(&d, " NODE       MB    FORKS FORKS/S    CALLS CALLS/S  HOLDS", true);
	json_array_foreach(roots, i, node) draw_nodes(&d, node, "", "", true);
	if (d.left_out && p->height > 0) {
		auto_free char *more = mem_printf("%d more rows", d.left_out);

		must(buf_putf(out, NULL, "%.*s", (int)fitting(more, p->width), more) == 0);
	}
}
