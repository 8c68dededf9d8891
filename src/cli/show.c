/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/show.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

const char *show_text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

double show_number(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

void show_visible(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++) {
		if (*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f) /* both bytes of a C1 control */
			*p++ = '?';
		else if (*p >= ' ' && *p != 127)
			continue;
		*p = '?';
	}
}

void show_visible_json(json_t *o)
{
	json_t *value;
	const char *key;
	size_t i;

	if (json_is_string(o)) {
		auto_free char *text = mem_strdup(json_string_value(o));

		show_visible(text);
		if (strcmp(text, json_string_value(o)) != 0)
			json_string_set(o, text);
	} else if (json_is_array(o)) {
		json_array_foreach(o, i, value) show_visible_json(value);
	} else if (json_is_object(o)) {
		json_object_foreach(o, key, value) show_visible_json(value);
	}
}

const char *show_age(double s, char out[SHOW_AGE])
{
	if (s < 120)
		snprintf(out, SHOW_AGE, "%.0f s", s);
	else if (s < 7200)
		snprintf(out, SHOW_AGE, "%.0f min", s / 60);
	else
		snprintf(out, SHOW_AGE, "%.0f h", s / 3600);
	return out;
}

int show_fetch(const struct dirs *d, const char *path, bool raw, void (*show)(const json_t *o))
{
	struct http_reply reply = { 0 };
	struct err err;
	json_t *o;

	if (api_call(d, true, "GET", path, &reply, &err) < 0) {
		http_reply_done(&reply);
		return complain(&err);
	}
	o = json_loadb(reply.body.data, reply.body.len, 0, NULL);
	if (raw || !o) {
		printf("%s\n", reply.body.data ? reply.body.data : "");
	} else {
		show_visible_json(o);
		show(o);
	}
	json_decref(o);
	http_reply_done(&reply);
	return 0;
}

void show_functions(const json_t *o)
{
	const json_t *list = json_is_array(o) ? o : json_object_get(o, "functions"), *f;
	size_t i;

	printf("%-24s %7s %9s %7s %9s  %s\n", "FUNCTION", "VERSION", "INSTANCES", "CALLS", "ERRORS",
	       "PACKAGES");
	json_array_foreach(list, i, f) printf(
		"%-24s %7.0f %9.0f %7.0f %9.0f  %zu\n", show_text(f, "name"),
		show_number(f, "version"), show_number(f, "instances"), show_number(f, "calls"),
		show_number(f, "errors"), json_array_size(json_object_get(f, "dists")));
}

static void show_value(const json_t *o, const char *key, int depth)
{
	const json_t *value;
	const char *name;
	size_t i;

	printf("%*s%s:", depth * 2, "", key);
	if (json_is_object(o)) {
		printf("\n");
		json_object_foreach((json_t *)o, name, value) show_value(value, name, depth + 1);
	} else if (json_is_array(o)) {
		printf(json_array_size(o) ? "\n" : " none\n");
		json_array_foreach(o, i, value) show_value(value, "-", depth + 1);
	} else if (json_is_string(o)) {
		printf(" %s\n", json_string_value(o));
	} else {
		char *dumped = json_dumps(o, JSON_ENCODE_ANY);

		printf(" %s\n", dumped);
		free(dumped);
	}
}

void show_status(const json_t *o)
{
	const json_t *value;
	const char *key;

	json_object_foreach((json_t *)o, key, value) show_value(value, key, 0);
}

void show_timing(const char *header)
{
	auto_free char *copy = mem_strdup(header);
	char *save = NULL;

	for (char *w = strtok_r(copy, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		char *value = strchr(w, ';');

		w += strspn(w, " ");
		if (!value)
			continue;
		*value++ = '\0';
		if (strncmp(value, "dur=", 4) == 0)
			fprintf(stderr, "%10s %10s ms\n", w, value + 4);
		else
			fprintf(stderr, "%10s %10.*s\n", w, (int)strcspn(value + 6, "\""),
				strlen(value) > 6 ? value + 6 : "");
	}
}
