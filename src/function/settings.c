/* SPDX-License-Identifier: Apache-2.0 */
#include "function/settings.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define FILE_NAME "pipsqueak.toml"

void function_settings_init(struct function_settings *s)
{
	*s = (struct function_settings){
		.memory_bytes = 512 * MIB,
		.tmp_bytes = 64 * MIB,
		.timeout_ms = 30 * 1000,
		.pids = 64,
		.concurrency = 8,
		.net = ZYGOTE_NET_NONE,
		.reuse = true,
	};
}

void function_settings_done(struct function_settings *s)
{
	for (size_t i = 0; s->entry[i]; i++)
		free(s->entry[i]);
	for (size_t i = 0; s->env && s->env[i]; i++)
		free(s->env[i]);
	free(s->env);
	free(s->python);
	free(s->tenant);
	memset(s, 0, sizeof(*s));
}

static int bad(struct err *err, const char *key, const char *want)
{
	return err_set(err, ERR_USAGE, FILE_NAME ": %s must be %s", key, want);
}

/* "module.attribute" or "file.py:attribute": one that a path cannot be smuggled through. */
static bool is_entry(const char *s)
{
	const char *attr = strchr(s, ':');
	size_t len = strlen(s);

	if (!len || len > 255 || strstr(s, "..") || s[0] == '/' || s[0] == '.')
		return false;
	attr = attr ? attr : strrchr(s, '.');
	if (!attr || attr == s || !attr[1])
		return false;
	for (const char *p = s; *p; p++)
		if (iscntrl((unsigned char)*p) || *p == '\\' || *p == ' ')
			return false;
	return true;
}

static int add_entry(struct function_settings *s, const char *text, struct err *err)
{
	size_t n = 0;

	while (s->entry[n])
		n++;
	if (!text || !is_entry(text) || n == LIMIT_ENTRIES)
		return bad(err, "entry", "\"module.attribute\" or \"file.py:attribute\"");
	s->entry[n] = mem_strdup(text);
	return 0;
}

static int parse_entry(struct function_settings *s, json_t *v, struct err *err)
{
	json_t *item;
	size_t i;

	if (!json_is_array(v))
		return add_entry(s, json_string_value(v), err);
	json_array_foreach(v, i,
			   item) if (add_entry(s, json_string_value(item), err) < 0) return -1;
	return 0;
}

static int parse_python(struct function_settings *s, json_t *v, struct err *err)
{
	const char *text = json_string_value(v);

	if (!text || text[0] != '/')
		return bad(err, "python", "the absolute path of an interpreter");
	s->python = mem_strdup(text);
	return 0;
}

static int parse_size(json_t *v, const char *key, uint64_t *out, struct err *err)
{
	static const char want[] = "a size such as 268435456 or \"256M\", at least 16M";
	const char *text = json_string_value(v);
	uint64_t n, unit = 1;
	char *end;

	if (json_is_integer(v) && json_integer_value(v) > 0) {
		n = (uint64_t)json_integer_value(v);
	} else if (text && isdigit((unsigned char)text[0])) {
		errno = 0;
		n = strtoull(text, &end, 10);
		switch (toupper((unsigned char)*end)) {
		case 'K':
			unit = KIB;
			break;
		case 'M':
			unit = MIB;
			break;
		case 'G':
			unit = GIB;
			break;
		}
		end += unit > 1;
		if (errno || (*end && strcasecmp(end, "b") != 0 && strcasecmp(end, "ib") != 0))
			return bad(err, key, want);
	} else {
		return bad(err, key, want);
	}
	if (n > UINT64_MAX / unit || n * unit < 16 * MIB || n * unit > 1024 * GIB)
		return bad(err, key, want);
	*out = n * unit;
	return 0;
}

static int parse_memory(struct function_settings *s, json_t *v, struct err *err)
{
	return parse_size(v, "memory", &s->memory_bytes, err);
}

static int parse_tmp(struct function_settings *s, json_t *v, struct err *err)
{
	return parse_size(v, "tmp", &s->tmp_bytes, err);
}

static int parse_timeout(struct function_settings *s, json_t *v, struct err *err)
{
	double seconds = json_number_value(v);

	if (!json_is_number(v) || seconds < 0.001 || seconds > LIMIT_TIMEOUT_S)
		return bad(err, "timeout", "seconds, more than 0 and at most 900");
	s->timeout_ms = (uint64_t)(seconds * 1000.0);
	return 0;
}

static int parse_number(const json_t *v, const char *key, int min, int max, uint64_t *out,
			struct err *err)
{
	json_int_t n = json_integer_value(v);
	auto_free char *want = mem_printf("a number from %d to %d", min, max);

	if (!json_is_integer(v) || n < min || n > max)
		return bad(err, key, want);
	*out = (uint64_t)n;
	return 0;
}

static int parse_concurrency(struct function_settings *s, json_t *v, struct err *err)
{
	return parse_number(v, "concurrency", 1, LIMIT_CONCURRENCY, &s->concurrency, err);
}

static int parse_processes(struct function_settings *s, json_t *v, struct err *err)
{
	return parse_number(v, "processes", 1, 4096, &s->pids, err);
}

static int parse_cpu(struct function_settings *s, json_t *v, struct err *err)
{
	double cores = json_number_value(v);

	if (!json_is_number(v) || cores < 0.01 || cores > 256)
		return bad(err, "cpu", "a number of cores from 0.01 to 256, such as 0.5");
	s->cpu_milli = (uint64_t)(cores * 1000);
	return 0;
}

static int parse_cpu_seconds(struct function_settings *s, json_t *v, struct err *err)
{
	double seconds = json_number_value(v);

	if (!json_is_number(v) || seconds < 0.01 || seconds > 86400)
		return bad(err, "cpu_seconds", "a number of seconds from 0.01 to 86400");
	s->cpu_ms = (uint64_t)(seconds * 1000);
	return 0;
}

static int parse_open_files(struct function_settings *s, json_t *v, struct err *err)
{
	return parse_number(v, "open_files", 16, 65536, &s->open_files, err);
}

static int parse_network(struct function_settings *s, json_t *v, struct err *err)
{
	const char *text = json_string_value(v);

	if (text && strcmp(text, "none") == 0)
		s->net = ZYGOTE_NET_NONE;
	else if (text && strcmp(text, "loopback") == 0)
		s->net = ZYGOTE_NET_LOOPBACK;
	else if (json_is_true(v) || (text && strcmp(text, "full") == 0))
		s->net = ZYGOTE_NET_FULL;
	else
		return bad(err, "network", "\"none\", \"loopback\" or \"full\"");
	return 0;
}

static int parse_env(struct function_settings *s, json_t *v, struct err *err)
{
	const char *name;
	json_t *value;
	size_t n = 0;

	if (!json_is_object(v) || json_object_size(v) > LIMIT_FUNCTION_ENV)
		return bad(err, "env", "a table of at most 256 strings");
	s->env = mem_zero(json_object_size(v) + 1, sizeof(char *));
	json_object_foreach(v, name, value)
	{
		const char *text = json_string_value(value);

		if (!text || !*name || strchr(name, '=') ||
		    strlen(text) != json_string_length(value) || strlen(text) > 32 * KIB)
			return bad(err, "env", "a table of strings");
		if (strncmp(name, "LD_", 3) == 0)
			return err_set(err, ERR_USAGE,
				       FILE_NAME ": env: %s has no effect in a forked process; "
						 "remove it",
				       name);
		s->env[n++] = mem_printf("%s=%s", name, text);
	}
	return 0;
}

static int parse_reuse(struct function_settings *s, json_t *v, struct err *err)
{
	if (!json_is_boolean(v))
		return bad(err, "reuse", "true or false");
	s->reuse = json_is_true(v);
	return 0;
}

static int parse_tenant(struct function_settings *s, json_t *v, struct err *err)
{
	const char *text = json_string_value(v);
	size_t len = text ? strlen(text) : 0;

	if (!len || len > 63 || len != json_string_length(v))
		return bad(err, "tenant", "a label of 1 to 63 letters, digits, '.', '_' or '-'");
	for (const char *p = text; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
			return bad(err, "tenant",
				   "a label of 1 to 63 letters, digits, '.', '_' or '-'");
	s->tenant = mem_strdup(text);
	return 0;
}

static int parse_isolate(struct function_settings *s, json_t *v, struct err *err)
{
	const char *text = json_string_value(v);

	if (!text ||
	    (strcmp(text, "none") != 0 && strcmp(text, "tenant") != 0 && strcmp(text, "root") != 0))
		return bad(err, "isolate", "\"none\", \"tenant\" or \"root\"");
	s->own_root = strcmp(text, "root") == 0;
	s->isolate = s->own_root || strcmp(text, "tenant") == 0;
	return 0;
}

static const struct {
	const char *key;
	int (*parse)(struct function_settings *s, json_t *v, struct err *err);
} keys[] = {
	{ "entry", parse_entry },
	{ "python", parse_python },
	{ "memory", parse_memory },
	{ "tmp", parse_tmp },
	{ "timeout", parse_timeout },
	{ "concurrency", parse_concurrency },
	{ "processes", parse_processes },
	{ "cpu", parse_cpu },
	{ "cpu_seconds", parse_cpu_seconds },
	{ "open_files", parse_open_files },
	{ "network", parse_network },
	{ "env", parse_env },
	{ "reuse", parse_reuse },
	{ "tenant", parse_tenant },
	{ "isolate", parse_isolate },
};

static int parse_key(struct function_settings *s, const char *key, json_t *v, struct err *err)
{
	for (size_t i = 0; i < array_len(keys); i++)
		if (strcmp(keys[i].key, key) == 0)
			return keys[i].parse(s, v, err);
	return err_set(err, ERR_USAGE,
		       FILE_NAME
		       ": unknown key '%.60s'; known are entry, python, memory, tmp, "
		       "timeout, concurrency, processes, cpu, cpu_seconds, open_files, network, "
		       "env, reuse, tenant, isolate",
		       key);
}

int function_settings_parse(const char *json, size_t len, struct function_settings *out,
			    struct err *err)
{
	json_error_t je;
	json_t *root = json_loadb(json, len, 0, &je), *v;
	const char *key;
	int ret = 0;

	function_settings_init(out);
	if (!json_is_object(root)) {
		json_decref(root);
		return err_set(err, ERR_CORRUPT, "settings are not a JSON object: %s", je.text);
	}
	json_object_foreach(root, key, v)
	{
		ret = parse_key(out, key, v, err);
		if (ret < 0)
			break;
	}
	json_decref(root);
	if (ret == 0 && out->isolate && !out->tenant)
		ret = err_set(err, ERR_USAGE,
			      FILE_NAME ": isolate needs a tenant, such as tenant = \"acme\"");
	if (ret < 0)
		function_settings_done(out);
	return ret;
}

int function_settings_print(const struct function_settings *s, struct buf *out, struct err *err)
{
	static const char *const networks[] = { "none", "loopback", "full" };
	json_t *entry = json_array(), *env = json_object(), *root;
	char *text;
	int ret;

	for (size_t i = 0; s->entry[i]; i++)
		json_array_append_new(entry, json_string(s->entry[i]));
	for (size_t i = 0; s->env && s->env[i]; i++) {
		const char *eq = strchr(s->env[i], '=');
		auto_free char *name = mem_strndup(s->env[i], (size_t)(eq - s->env[i]));

		json_object_set_new(env, name, json_string(eq + 1));
	}
	root = json_pack("{s:o, s:I, s:I, s:f, s:i, s:I, s:s, s:o, s:b}", "entry", entry, "memory",
			 (json_int_t)s->memory_bytes, "tmp", (json_int_t)s->tmp_bytes, "timeout",
			 (double)s->timeout_ms / 1000.0, "concurrency", (int)s->concurrency,
			 "processes", (json_int_t)s->pids, "network", networks[s->net], "env", env,
			 "reuse", s->reuse);
	must(root);
	if (s->python)
		json_object_set_new(root, "python", json_string(s->python));
	if (s->cpu_milli)
		json_object_set_new(root, "cpu", json_real((double)s->cpu_milli / 1000.0));
	if (s->cpu_ms)
		json_object_set_new(root, "cpu_seconds", json_real((double)s->cpu_ms / 1000.0));
	if (s->open_files)
		json_object_set_new(root, "open_files", json_integer((json_int_t)s->open_files));
	if (s->tenant)
		json_object_set_new(root, "tenant", json_string(s->tenant));
	json_object_set_new(root, "isolate",
			    json_string(s->own_root  ? "root"
					: s->isolate ? "tenant"
						     : "none"));
	text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	ret = buf_puts(out, text, err);
	free(text);
	return ret;
}
