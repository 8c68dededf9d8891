/* SPDX-License-Identifier: Apache-2.0 */
#include "base/progress.h"

#include <stdio.h>
#include <string.h>

#define TEXT_MAX 280

/* A JSON string that needs no escapes: quotes become ', what is no plain ASCII becomes ?. */
static size_t put_text(char *out, const char *key, const char *text)
{
	size_t n = (size_t)sprintf(out, ", \"%s\": \"", key);

	for (size_t i = 0; text[i] && i < TEXT_MAX; i++) {
		char c = text[i];

		if (c == '"')
			c = '\'';
		out[n++] = c < ' ' || c > '~' || c == '\\' ? '?' : c;
	}
	out[n++] = '"';
	out[n] = '\0';
	return n;
}

void progress_print(const struct progress *p, char out[PROGRESS_LINE])
{
	size_t n = (size_t)sprintf(out, "{\"event\": \"%.20s\"", p->what);

	if (p->name)
		n += put_text(out + n, "name", p->name);
	if (p->version)
		n += put_text(out + n, "version", p->version);
	if (p->text)
		n += put_text(out + n, "text", p->text);
	if (p->done || p->total)
		n += (size_t)sprintf(out + n, ", \"done\": %llu", (unsigned long long)p->done);
	if (p->total)
		n += (size_t)sprintf(out + n, ", \"total\": %llu", (unsigned long long)p->total);
	strcpy(out + n, "}");
}
