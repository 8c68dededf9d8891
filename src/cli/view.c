/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/view.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/progress.h"
#include "cli/cli.h"
#include "cli/show.h"

#define DRAW_US (70 * 1000UL) /* between two pictures: 14 a second */
#define ITEMS 1024	      /* dists that are told apart */
#define ROWS 8		      /* of downloads, at most */
#define WIDTH_MAX 100
#define WORTH_A_LINE 1000000 /* bytes of a download, where lines are all there is */

enum state { NEW, DOWNLOADING, DOWNLOADED, INSTALLING, INSTALLED };

struct item {
	char *name, *version;
	enum state state;
	uint64_t done, total;
};

struct view {
	enum view_mode mode;
	bool bars, color;
	struct item *items;
	size_t n;
	uint64_t looked;   /* names that the resolver asked for */
	uint64_t dists;	   /* of the lock, once it is there */
	char last[96];	   /* what was asked for last */
	uint64_t bytes_us; /* when the first byte came */
	uint64_t drawn_us;
	bool installing; /* that was said */
	bool stale;	 /* something is to be drawn */
	struct buf picture;
	int rows; /* that stand on the terminal */
};

struct view *view_new(enum view_mode mode)
{
	const char *term = getenv("TERM"), *plain = getenv("NO_COLOR");
	struct view *v = mem_new(struct view);

	v->mode = mode;
	v->bars = mode == VIEW_AUTO && isatty(STDERR_FILENO) && term && *term &&
		  strcmp(term, "dumb") != 0;
	v->color = v->bars && !(plain && *plain);
	return v;
}

/* ---- what is known ---- */

static struct item *find_item(struct view *v, const char *name, const char *version)
{
	struct item *it;

	for (size_t i = 0; i < v->n; i++)
		if (strcmp(v->items[i].name, name) == 0)
			return &v->items[i];
	if (v->n == ITEMS)
		return NULL;
	v->items = mem_resize(v->items, (v->n + 1) * sizeof(*v->items));
	it = &v->items[v->n++];
	*it = (struct item){ .name = mem_strdup(name), .version = mem_strdup(version) };
	return it;
}

/* Indexes are quoted in notes. */
static void say(const char *line)
{
	auto_free char *shown = mem_strdup(line);

	show_visible(shown);
	fprintf(stderr, "pipsqueak: %s\n", shown);
}

static void say_download(const struct item *it)
{
	if (it->total >= WORTH_A_LINE)
		fprintf(stderr, "pipsqueak: downloading %s %s (%.1f MB)\n", it->name, it->version,
			(double)it->total / 1e6);
	else if (!it->total)
		fprintf(stderr, "pipsqueak: downloading %s %s\n", it->name, it->version);
}

static void say_install(const struct view *v)
{
	fprintf(stderr, "pipsqueak: installing %llu packages\n",
		(unsigned long long)(v->dists > v->n ? v->dists : v->n));
}

static void take_download(struct view *v, struct item *it, const struct progress *p)
{
	it->done = p->done;
	it->total = p->total;
	if (!v->bytes_us)
		v->bytes_us = clock_us();
	if (!v->bars && !p->done && !p->total)
		return; /* how much it is comes with the next, and whether to tell it */
	if (!v->bars && it->state == NEW)
		say_download(it);
	it->state = it->total && it->done >= it->total ? DOWNLOADED : DOWNLOADING;
}

static void take_item(struct view *v, const struct progress *p)
{
	struct item *it = find_item(v, p->name, p->version ? p->version : "");

	if (!it)
		return;
	if (strcmp(p->what, "download") == 0) {
		take_download(v, it, p);
	} else if (strcmp(p->what, "install") == 0) {
		it->state = INSTALLING;
		if (!v->bars && !v->installing)
			say_install(v);
		v->installing = true;
	} else if (strcmp(p->what, "installed") == 0) {
		it->state = INSTALLED;
	}
}

static void take_event(struct view *v, const struct progress *p)
{
	if (strcmp(p->what, "resolve") == 0) {
		if (!v->looked && !v->bars)
			say("resolving");
		v->looked++;
		snprintf(v->last, sizeof(v->last), "%s", p->name ? p->name : "");
	} else if (strcmp(p->what, "resolved") == 0) {
		v->dists = p->total;
	} else if (p->text) {
		view_clear(v);
		say(p->text);
	} else if (p->name) {
		take_item(v, p);
	}
	v->stale = true;
}

static const char *text_of(json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

static uint64_t number_of(json_t *o, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(o, key));

	return n > 0 ? (uint64_t)n : 0;
}

void view_take(struct view *v, const char *line)
{
	json_t *o = *line == '{' ? json_loads(line, 0, NULL) : NULL;
	struct progress p = { .what = o ? text_of(o, "event") : "note" };
	char event[PROGRESS_LINE];

	if (!p.what)
		p.what = "note";
	p.text = o ? text_of(o, "text") : line;
	p.name = text_of(o, "name");
	p.version = text_of(o, "version");
	p.done = number_of(o, "done");
	p.total = number_of(o, "total");
	if (v->mode == VIEW_JSON) {
		if (!o)
			progress_print(&p, event);
		fprintf(stderr, "%s\n", o ? line : event);
	} else if (v->mode == VIEW_AUTO) {
		take_event(v, &p);
		view_draw(v);
	}
	json_decref(o);
}

/* ---- the picture ---- */

struct sums {
	uint64_t done, total;
	size_t downloading, installing, installed;
};

static struct sums sum_up(const struct view *v)
{
	struct sums s = { 0 };

	for (size_t i = 0; i < v->n; i++) {
		const struct item *it = &v->items[i];

		s.done += it->done;
		s.total += it->total > it->done ? it->total : it->done;
		s.downloading += it->state == DOWNLOADING;
		s.installing += it->state == INSTALLING;
		s.installed += it->state == INSTALLED;
	}
	return s;
}

static void draw_row(struct view *v, const char *text, int width)
{
	must(buf_putf(&v->picture, NULL, "%.*s\033[K\n", width, text) == 0);
	v->rows++;
}

static void draw_head(struct view *v, const struct sums *s, int width)
{
	double seconds = (double)(clock_us() - v->bytes_us) / 1e6;
	char text[256];
	size_t n;

	if (!v->dists && !s->installing && !s->installed)
		n = (size_t)snprintf(text, sizeof(text), "resolving: %llu packages (%s)",
				     (unsigned long long)v->looked, v->last);
	else
		n = (size_t)snprintf(text, sizeof(text), "installed %zu of %llu packages",
				     s->installed,
				     (unsigned long long)(v->dists > v->n ? v->dists : v->n));
	if (s->total && v->bytes_us)
		snprintf(text + n, sizeof(text) - n, ", %.1f of %.1f MB, %.1f MB/s",
			 (double)s->done / 1e6, (double)s->total / 1e6,
			 seconds > 0.05 ? (double)s->done / 1e6 / seconds : 0.0);
	draw_row(v, text, width);
}

/* "numpy 2.4.6    ######------   8.1/16.4 MB" in what room there is. */
static void draw_download(struct view *v, const struct item *it, int width)
{
	char label[64], size[40], bar[64];
	int room, full;

	snprintf(label, sizeof(label), "%s %s", it->name, it->version);
	if (it->total)
		snprintf(size, sizeof(size), "%.1f/%.1f MB", (double)it->done / 1e6,
			 (double)it->total / 1e6);
	else
		snprintf(size, sizeof(size), "%.1f MB", (double)it->done / 1e6);
	room = width - 28 - 2 - 17;
	room = room > 40 ? 40 : room;
	if (room < 8 || !it->total) {
		char text[128];

		snprintf(text, sizeof(text), "  %-24.24s %s", label, size);
		draw_row(v, text, width);
		return;
	}
	full = (int)((double)room * (double)it->done / (double)it->total);
	full = full > room ? room : full;
	memset(bar, '#', (size_t)full);
	memset(bar + full, '-', (size_t)(room - full));
	bar[room] = '\0';
	must(buf_putf(&v->picture, NULL, "  %-24.24s %s%.*s%s%s %17s\033[K\n", label,
		      v->color ? "\033[32m" : "", full, bar, v->color ? "\033[0m" : "", bar + full,
		      size) == 0);
	v->rows++;
}

static void draw_installing(struct view *v, int width)
{
	char text[WIDTH_MAX + 1] = "  unpacking and compiling";
	size_t n = strlen(text);
	const char *mark = " ";

	for (size_t i = 0; i < v->n && n < sizeof(text) - 1; i++)
		if (v->items[i].state == INSTALLING) {
			int put = snprintf(text + n, sizeof(text) - n, "%s%s", mark,
					   v->items[i].name);

			n += (size_t)put < sizeof(text) - n ? (size_t)put : sizeof(text) - 1 - n;
			mark = ", ";
		}
	draw_row(v, text, width);
}

static void window(int *width, int *height)
{
	struct winsize w = { 0 };

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) < 0 || !w.ws_col)
		w = (struct winsize){ .ws_col = 80, .ws_row = 24 };
	*width = w.ws_col - 1 < WIDTH_MAX ? w.ws_col - 1 : WIDTH_MAX;
	*height = w.ws_row ? w.ws_row : 24;
}

int view_wait_ms(const struct view *v)
{
	uint64_t passed = clock_us() - v->drawn_us;

	if (!v->bars || !v->stale)
		return -1;
	return passed >= DRAW_US ? 0 : (int)((DRAW_US - passed) / 1000 + 1);
}

static void erase(struct view *v)
{
	if (v->rows)
		must(buf_putf(&v->picture, NULL, "\r\033[%dA\033[J", v->rows) == 0);
	v->rows = 0;
}

static void show(struct view *v)
{
	if (v->picture.len)
		fwrite(v->picture.data, 1, v->picture.len, stderr);
	buf_reset(&v->picture);
}

/* One write, without wrapping: a window that was made narrower must not be filled with rests. */
void view_draw(struct view *v)
{
	struct sums s = sum_up(v);
	int width, height, left;

	if (view_wait_ms(v) != 0)
		return;
	window(&width, &height);
	v->drawn_us = clock_us();
	v->stale = false;
	erase(v);
	must(buf_puts(&v->picture, "\033[?7l", NULL) == 0);
	draw_head(v, &s, width);
	left = height - 3 < ROWS ? height - 3 : ROWS;
	for (size_t i = 0; i < v->n && left > 0; i++)
		if (v->items[i].state == DOWNLOADING) {
			draw_download(v, &v->items[i], width);
			left--;
		}
	if (s.installing && height > 3)
		draw_installing(v, width);
	must(buf_puts(&v->picture, "\033[?7h", NULL) == 0);
	show(v);
}

void view_clear(struct view *v)
{
	if (!v)
		return;
	erase(v);
	show(v);
	v->stale = v->n || v->looked;
}

int view_complain(struct view *v, const struct err *err)
{
	json_t *o;
	char *text;

	view_clear(v);
	if (!v || v->mode != VIEW_JSON)
		return complain(err);
	o = json_pack("{s:s, s:s, s:s}", "event", "error", "kind", err_kind_name(err->kind), "text",
		      err->text);
	text = o ? json_dumps(o, 0) : NULL;
	if (!text) { /* it is not UTF-8 */
		json_decref(o);
		return complain(err);
	}
	fprintf(stderr, "%s\n", text);
	free(text);
	json_decref(o);
	return err_exit_code(err->kind);
}

void view_free(struct view *v)
{
	if (!v)
		return;
	view_clear(v);
	for (size_t i = 0; i < v->n; i++) {
		free(v->items[i].name);
		free(v->items[i].version);
	}
	free(v->items);
	buf_done(&v->picture);
	free(v);
}
