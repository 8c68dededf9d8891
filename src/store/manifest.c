/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "store/installer_priv.h"

static char *trimmed(const char *s, size_t len)
{
	while (len && isspace((unsigned char)*s))
		s++, len--;
	while (len && isspace((unsigned char)s[len - 1]))
		len--;
	return mem_strndup(s, len);
}

/* entry_points.txt: [group] and name = module:attr lines. */
static void entry_points(const char *text, json_t *groups, json_t *scripts)
{
	auto_free char *group = NULL;

	while (*text) {
		size_t n = strcspn(text, "\n");
		auto_free char *line = trimmed(text, n);
		const char *eq = strchr(line, '=');
		size_t len = strlen(line);

		if (len > 2 && line[0] == '[' && line[len - 1] == ']') {
			free(group);
			group = trimmed(line + 1, len - 2);
			json_array_append_new(groups, json_string(group));
		} else if (eq && line[0] != '#' && line[0] != ';' && group &&
			   (strcmp(group, "console_scripts") == 0 ||
			    strcmp(group, "gui_scripts") == 0)) {
			auto_free char *name = trimmed(line, (size_t)(eq - line));
			auto_free char *target = trimmed(eq + 1, strcspn(eq + 1, "["));

			if (!strpbrk(name, "/=") && *name)
				json_object_set_new(scripts, name, json_string(target));
		}
		text += n + (text[n] == '\n');
	}
}

static void add_top_level(json_t *set, const char *site_path)
{
	size_t len = strcspn(site_path, "/");
	auto_free char *name = mem_strndup(site_path, len);
	char *dot = strchr(name, '.');

	if (site_path[len] == '/') {
		if (!dot)
			json_object_set_new(set, name, json_true());
		return;
	}
	if (!dot || (strcmp(dot, ".py") != 0 && !strstr(dot, ".so")))
		return;
	*dot = '\0';
	json_object_set_new(set, name, json_true());
}

json_t *manifest_top_level(const struct wheel *w)
{
	json_t *set = json_object();

	for (size_t i = 0; i < w->nmembers; i++) {
		auto_free char *place = unpack_place(w, w->members[i].name);

		if (place && strncmp(place, "site/", 5) == 0)
			add_top_level(set, place + 5);
	}
	return set;
}

static bool is_source(const char *name)
{
	size_t len = strlen(name);

	return len > 3 && strcmp(name + len - 3, ".py") == 0;
}

static void add_files(struct wheel *w, json_t *o)
{
	json_t *files = json_array(), *data = json_array(), *top = json_array();
	json_int_t sources = 0, source_bytes = 0;
	const char *key;
	json_t *value;

	for (size_t i = 0; i < w->nmembers; i++) {
		auto_free char *place = unpack_place(w, w->members[i].name);

		if (strncmp(place, "site/", 5) == 0) {
			json_array_append_new(files, json_string(place + 5));
			if (is_source(place)) {
				sources++;
				source_bytes += (json_int_t)w->members[i].size;
			}
		} else {
			json_array_append_new(data, json_string(place + 5));
		}
	}
	json_object_foreach(w->top_level, key, value) json_array_append_new(top, json_string(key));
	json_object_set_new(o, "files", files);
	json_object_set_new(o, "data", data);
	json_object_set_new(o, "top_level", top);
	json_object_set_new(o, "sources", json_integer(sources));
	json_object_set_new(o, "source_bytes", json_integer(source_bytes));
}

/* The names in Requires-Dist lines, markers not asked: only for the order in which pip installs. */
static json_t *requires(const struct wheel *w)
{
	json_t *list = json_array();
	char *line;

	for (size_t n = 0; (line = identity_header(w->metadata.data, "Requires-Dist", n)); n++) {
		line[strspn(line, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				  "0123456789-_.")] = '\0';
		identity_normalize(line);
		json_array_append_new(list, json_string(line));
		free(line);
	}
	return list;
}

static int write_file(int dir, const char *name, const char *text, struct err *err)
{
	auto_close int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	if (fd < 0)
		return err_sys(err, errno, "creating '%s'", name);
	return fd_write_all(fd, text, strlen(text), err);
}

static int write_set(int dir, const char *name, json_t *set, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_HINT_BYTES);
	const char *key;
	json_t *value;

	json_object_foreach(set, key, value)
	{
		if (text.len + strlen(key) + 1 > LIMIT_HINT_BYTES)
			break; /* it only orders work */
		if (buf_putf(&text, err, "%s\n", key) < 0)
			return -1;
	}
	return write_file(dir, name, text.data ? text.data : "", err);
}

/* What making an environment asks, each in a file of its own: a manifest may be large. */
static int write_facts(const struct wheel *w, json_t *o, int dir, struct err *err)
{
	auto_free char *sources = mem_printf(
		"%lld\n", (long long)json_integer_value(json_object_get(o, "sources")));
	auto_buf struct buf scripts = BUF_MAX(64 * KIB);
	const char *name;
	json_t *target;

	json_object_foreach(json_object_get(o, "scripts"), name, target)
	{
		if (buf_putf(&scripts, err, "%s=%s\n", name, json_string_value(target)) < 0)
			return -1;
	}
	if (w->lax && write_file(dir, "lax", "", err) < 0)
		return -1;
	if (write_file(dir, "sources", sources, err) < 0 ||
	    write_file(dir, "dist-info", w->dist_info, err) < 0 ||
	    write_set(dir, "top-level", w->top_level, err) < 0 ||
	    write_set(dir, "imports", w->imports, err) < 0)
		return -1;
	return write_file(dir, "scripts", scripts.data ? scripts.data : "", err);
}

int manifest_write(struct wheel *w, int out_dir, struct err *err)
{
	auto_free char *points = mem_printf("%s/entry_points.txt", w->dist_info);
	auto_buf struct buf text = BUF_MAX(4 * MIB);
	json_t *o = json_object(), *groups = json_array(), *scripts = json_object();
	auto_free char *out = NULL;
	int rc = 0;

	if (wheel_member(w, points) && wheel_read(w, points, &text, err) < 0) {
		json_decref(o);
		json_decref(groups);
		json_decref(scripts);
		return -1;
	}
	if (text.data)
		entry_points(text.data, groups, scripts);
	json_object_set_new(o, "name", json_string(w->name));
	json_object_set_new(o, "version", json_string(w->version));
	json_object_set_new(o, "dist_info", json_string(w->dist_info));
	json_object_set_new(o, "requires", requires(w));
	add_files(w, o);
	json_object_set_new(o, "groups", groups);
	json_object_set_new(o, "scripts", scripts);
	out = json_dumps(o, JSON_COMPACT);
	if (!out || write_file(out_dir, "manifest.json", out, err) < 0 ||
	    write_facts(w, o, out_dir, err) < 0)
		rc = -1;
	json_decref(o);
	return rc;
}
