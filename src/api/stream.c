/* SPDX-License-Identifier: Apache-2.0
 *
 * An answer that comes in lines: events while something is made, at last what the answer would have
 * been without (docs/API.md). Begins with the first event, so that what is refused at once, or
 * done at once, has its own status as ever.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/priv.h"

#define MEDIA_TYPE "application/x-ndjson"
#define BLOCK (4 * KIB)

bool stream_wanted(struct request *r)
{
	const char *accept = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND,
							 MHD_HTTP_HEADER_ACCEPT);

	return accept && strcasecmp(accept, MEDIA_TYPE) == 0;
}

/* MHD asks for what is to be sent; a connection with nothing to send sleeps, or it would ask all
 * the time. */
static ssize_t read_lines(void *cls, uint64_t pos, char *out, size_t max)
{
	struct request *r = cls;
	size_t n = r->lines.len < max ? r->lines.len : max;

	if (!n && r->lines_end)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (!n)
		request_suspend(r);
	else
		memcpy(out, r->lines.data, n);
	buf_consume(&r->lines, n);
	return (ssize_t)n;
}

static void begin(struct request *r)
{
	struct MHD_Response *resp = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK,
								      read_lines, r, NULL);

	r->streams = true;
	MHD_add_response_header(resp, MHD_HTTP_HEADER_CONTENT_TYPE, MEDIA_TYPE);
	request_respond(r, MHD_HTTP_OK, resp);
}

void stream_line(struct request *r, const char *line)
{
	/* As on the run socket: who does not read misses some. */
	if (r->lines.len + strlen(line) + 1 > LIMIT_PROGRESS_BYTES ||
	    buf_putf(&r->lines, NULL, "%s\n", line) < 0)
		return;
	if (!r->streams)
		begin(r);
	else
		request_resume(r);
}

static void end(struct request *r, unsigned status, json_t *body)
{
	json_t *line = json_pack("{s:s, s:i, s:o}", "event", "answer", "status", (int)status,
				 "body", body);
	char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;

	must(text && buf_putf(&r->lines, NULL, "%s\n", text) == 0);
	free(text);
	json_decref(line);
	r->lines_end = true;
	request_resume(r);
}

void stream_json(struct request *r, const char *json)
{
	end(r, MHD_HTTP_OK, json_loads(json, 0, NULL));
}

void stream_error(struct request *r, const struct err *err)
{
	end(r, (unsigned)err_http_status(err->kind), error_json(err, NULL, 0));
}
