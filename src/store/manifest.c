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

			if (!strchr(name, '/') && *name)
				json_object_set_new(scripts, name, json_string(target));
		}
		text += n + (text[n] == '\n');
	}
}

/* What `import x` could find: directories and modules at the top of site. */
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

static void add_files(struct wheel *w, json_t *o)
{
	json_t *files = json_array(), *data = json_array(), *set = json_object(),
	       *top = json_array();
	const char *key;
	json_t *value;

	for (size_t i = 0; i < w->nmembers; i++) {
		auto_free char *place = unpack_place(w, w->members[i].name);

		if (strncmp(place, "site/", 5) == 0) {
			json_array_append_new(files, json_string(place + 5));
			add_top_level(set, place + 5);
		} else {
			json_array_append_new(data, json_string(place + 5));
		}
	}
	json_object_foreach(set, key, value) json_array_append_new(top, json_string(key));
	json_decref(set);
	json_object_set_new(o, "files", files);
	json_object_set_new(o, "data", data);
	json_object_set_new(o, "top_level", top);
}

int manifest_write(struct wheel *w, int out_dir, struct err *err)
{
	auto_free char *points = mem_printf("%s/entry_points.txt", w->dist_info);
	auto_buf struct buf text = BUF_MAX(4 * MIB);
	auto_close int fd = openat(out_dir, "manifest.json",
				   O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	json_t *o = json_object(), *groups = json_array(), *scripts = json_object();
	auto_free char *out = NULL;

	if (wheel_record(w, points) && wheel_read(w, points, &text, err) < 0) {
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
	add_files(w, o);
	json_object_set_new(o, "groups", groups);
	json_object_set_new(o, "scripts", scripts);
	out = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	if (fd < 0 || !out)
		return err_sys(err, errno, "writing manifest.json");
	return fd_write_all(fd, out, strlen(out), err);
}
