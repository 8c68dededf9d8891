/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may in by TCP: the three lines of the input are Host, Origin and Authorization.
 * libmicrohttpd's look-up is this file's, so no connection is needed.
 */
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "api/priv.h"
#include "fuzz.h"

static char *values[3]; /* NULL: no such header */

const char *MHD_lookup_connection_value(struct MHD_Connection *connection, enum MHD_ValueKind kind,
					const char *key)
{
	static const char *const names[] = { "Host", "Origin", "Authorization" };

	must(kind == MHD_HEADER_KIND);
	for (size_t i = 0; i < array_len(names); i++)
		if (strcasecmp(names[i], key) == 0)
			return values[i];
	return NULL;
}

static bool is_in(const char *token)
{
	static char host[] = "box.example";
	struct api api = { .host = host, .token = (char *)token };
	const struct route route = { .max_body = 1, .tcp = true };
	struct err err;

	return gate_check(&api, NULL, &route, &err) == 0;
}

/* Said again, and plainly: a Host that is none of these three is not let in. */
static bool is_ours(const char *host)
{
	static const char *const names[] = { "localhost", "127.0.0.1", "[::1]", "box.example" };

	for (size_t i = 0; host && i < array_len(names); i++) {
		size_t n = strlen(names[i]);

		if (strncasecmp(host, names[i], n) == 0 &&
		    (!host[n] || host[n] == ':' || names[i][0] == '['))
			return true;
	}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_free char *text = mem_strndup((const char *)data, size);
	char *at = text;

	for (size_t i = 0; i < array_len(values); i++) {
		char *line = strsep(&at, "\n");

		values[i] = line && *line ? line : NULL;
	}
	if (is_in(NULL)) {
		must(is_ours(values[0]));
		must(!values[1] || strcasestr(values[1], values[0]));
	}
	if (is_in("secret"))
		must(values[2] && strcmp(values[2] + strlen("Bearer "), "secret") == 0);
	memset(values, 0, sizeof(values));
	return 0;
}
