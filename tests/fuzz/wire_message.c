/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes from a link: a stream of frames, each of them also as a packet. What one carrier takes the
 * other takes too, written again it is the same bytes, and what readers make of it holds.
 */
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "fuzz.h"
#include "wire/messages.h"
#include "wire/wire.h"
#include "zygote/zygote.h"

static void read_fields(const struct wire_msg *m)
{
	struct wire_field f;
	size_t at = 0, total = 0;

	while (wire_next(m, &at, &f)) {
		const char *s;
		size_t pos = 0, had = 0;
		auto_free char *text = wire_get_str(m, f.tag);

		total += f.len + 8;
		must(!text || strlen(text) <= m->body.len);
		wire_get_u64(m, f.tag, 1);
		while ((s = wire_list_next(&f, &pos)))
			had += strlen(s) + 1;
		must(had <= f.len);
	}
	must(total == m->body.len); /* the fields tile the body */
}

static void read_profile(const struct wire_msg *m)
{
	struct zygote_profile p;
	struct err err;
	size_t n = 0;

	if (zygote_profile_parse(m, &p, &err) < 0)
		return;
	while (p.modules[n])
		must(p.origins[n++]);
	must(n == p.nmodules && !p.origins[n]);
	zygote_profile_done(&p);
}

static void read_message(const struct wire_msg *m)
{
	struct err err = ERR_INIT;

	read_fields(m);
	read_profile(m);
	must(wire_get_err(m, &err) == 0 || err.kind);
	must(wire_type_name(m->type));
	for (int phase = 0; phase < WIRE_PHASES; phase++)
		wire_may((enum wire_phase)phase, m->type);
}

static void as_packet(const void *data, size_t size, const struct wire_msg *same)
{
	struct wire_msg m;
	struct err err;
	int pair[2], rc;

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	must(send(pair[0], data, size, 0) == (ssize_t)size);
	rc = wire_recv(pair[1], &m, &err);
	must(!same || rc == 1);
	if (rc == 1) {
		must(!same ||
		     (m.type == same->type && m.id == same->id && m.body.len == same->body.len));
		read_message(&m);
		wire_done(&m);
	}
	close(pair[0]);
	close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_buf struct buf in = { 0 };
	struct err err;
	int rc;

	if (size && size <= LIMIT_PACKET_BYTES)
		as_packet(data, size, NULL);
	must(buf_put(&in, data, size, &err) == 0);
	do {
		auto_buf struct buf again = { 0 };
		size_t had = in.len;
		struct wire_msg m;

		rc = wire_frame_get(&in, &m, &err);
		if (rc < 1)
			break;
		must(wire_frame_put(&again, &m, &err) == 0 && again.len == had - in.len);
		must(memcmp(again.data, data + (size - had), again.len) == 0);
		read_message(&m);
		if (again.len <= LIMIT_PACKET_BYTES)
			as_packet(again.data, again.len, &m);
		wire_done(&m);
	} while (in.len);
	return 0;
}
