/* SPDX-License-Identifier: Apache-2.0
 *
 * A lock as PEP 751 has it, for other tools: one wheel (or sdist) a package, for one interpreter.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "index/digest.h"
#include "index/lock.h"

/* A basic string; what stands in a lock is printable ASCII (lock_parse() saw to it). */
static int put_string(struct buf *out, const char *key, const char *value, struct err *err)
{
	if (buf_putf(out, err, "%s = \"", key) < 0)
		return -1;
	while (*value) {
		size_t plain = strcspn(value, "\"\\");

		if (buf_put(out, value, plain, err) < 0 ||
		    (value[plain] && buf_putf(out, err, "\\%c", value[plain]) < 0))
			return -1;
		value += plain + (value[plain] != '\0');
	}
	return buf_puts(out, "\"", err);
}

/* The one environment that the wheels were chosen for. */
static int put_environment(struct buf *out, const char *python_info, struct err *err)
{
	static const char *const names[] = { "python_version", "implementation_name",
					     "sys_platform", "platform_machine" };
	json_error_t jerr;
	json_t *info = json_loads(python_info, 0, &jerr);
	json_t *markers = json_object_get(info, "markers");
	const char *version = json_string_value(json_object_get(markers, "python_version"));
	int rc = 0;

	if (version)
		rc = buf_putf(out, err, "environments = [\"");
	for (size_t i = 0; version && rc == 0 && i < array_len(names); i++) {
		const char *value = json_string_value(json_object_get(markers, names[i]));

		if (value && !strpbrk(value, "'\"\\\n"))
			rc = buf_putf(out, err, "%s%s == '%s'", i ? " and " : "", names[i], value);
	}
	if (version && rc == 0)
		rc = buf_putf(out, err, "\"]\nrequires-python = \"==%s.*\"\n", version);
	json_decref(info);
	return rc;
}

static int put_sum(struct buf *out, const struct lock_dist *d, struct err *err)
{
	uint64_t size = d->sdist ? d->sdist_bytes : d->size_bytes;

	if (size && buf_putf(out, err, "\nsize = %llu", (unsigned long long)size) < 0)
		return -1;
	return buf_putf(out, err, "\nhashes = { sha256 = \"%s\" }\n",
			d->sdist ? d->sdist_sha256 : d->sha256);
}

static int put_dist(struct buf *out, const struct lock_dist *d, struct err *err)
{
	auto_free char *local = digest_file_path(d->url);

	if (buf_puts(out, "\n[[packages]]\n", err) < 0 ||
	    put_string(out, "name", d->name, err) < 0 || buf_puts(out, "\n", err) < 0 ||
	    put_string(out, "version", d->version, err) < 0 ||
	    buf_puts(out, d->sdist ? "\n\n[packages.sdist]\n" : "\n\n[[packages.wheels]]\n", err) <
		    0 ||
	    put_string(out, "name", d->sdist ? d->sdist : d->filename, err) < 0 ||
	    buf_puts(out, "\n", err) < 0 ||
	    put_string(out, local ? "path" : "url", local ? local : d->url, err) < 0)
		return -1;
	return put_sum(out, d, err);
}

int lock_print_pylock(const struct lock *lock, const char *python_info, struct buf *out,
		      struct err *err)
{
	if (buf_puts(out, "lock-version = \"1.0\"\ncreated-by = \"pipsqueak\"\n", err) < 0 ||
	    put_environment(out, python_info, err) < 0)
		return -1;
	if (!lock->ndists && buf_puts(out, "packages = []\n", err) < 0)
		return -1;
	for (size_t i = 0; i < lock->ndists; i++)
		if (put_dist(out, &lock->dists[i], err) < 0)
			return -1;
	return 0;
}
