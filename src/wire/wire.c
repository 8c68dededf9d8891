/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/wire.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "wire/messages.h"

#define HEADER 12
#define FIELD 8

struct header {
	uint16_t type, zero;
	uint32_t id, len;
};

struct field_header {
	uint8_t tag, zero[3];
	uint32_t len;
};

_Static_assert(sizeof(struct header) == HEADER, "wire header");
_Static_assert(sizeof(struct field_header) == FIELD, "wire field header");

void wire_init(struct wire_msg *m, uint16_t type, uint32_t id)
{
	memset(m, 0, sizeof(*m));
	m->type = type;
	m->id = id;
	m->body.max = LIMIT_FRAME_BYTES;
}

void wire_done(struct wire_msg *m)
{
	buf_done(&m->body);
	for (int i = 0; i < m->nfds; i++)
		fd_close(&m->fds[i]);
	m->nfds = 0;
}

void wire_put(struct wire_msg *m, uint8_t tag, const void *data, size_t len)
{
	struct field_header h = { .tag = tag, .len = (uint32_t)len };
	struct err err;

	must(len <= LIMIT_FRAME_BYTES);
	must(buf_put(&m->body, &h, sizeof(h), &err) == 0);
	must(buf_put(&m->body, data, len, &err) == 0);
}

void wire_put_str(struct wire_msg *m, uint8_t tag, const char *s)
{
	if (s)
		wire_put(m, tag, s, strlen(s));
}

void wire_put_u64(struct wire_msg *m, uint8_t tag, uint64_t v)
{
	wire_put(m, tag, &v, sizeof(v));
}

void wire_list_add(struct buf *list, const char *s)
{
	struct err err;

	must(buf_put(list, s, strlen(s) + 1, &err) == 0);
}

void wire_put_fd(struct wire_msg *m, int fd)
{
	must(m->nfds < LIMIT_PACKET_FDS && fd >= 0);
	m->fds[m->nfds++] = fd;
}

bool wire_next(const struct wire_msg *m, size_t *pos, struct wire_field *out)
{
	struct field_header h;

	if (*pos + FIELD > m->body.len)
		return false;
	memcpy(&h, m->body.data + *pos, FIELD);
	if (h.len > m->body.len - *pos - FIELD)
		return false;
	out->tag = h.tag;
	out->data = m->body.data + *pos + FIELD;
	out->len = h.len;
	*pos += FIELD + h.len;
	return true;
}

bool wire_get(const struct wire_msg *m, uint8_t tag, struct wire_field *out)
{
	size_t pos = 0;

	while (wire_next(m, &pos, out))
		if (out->tag == tag)
			return true;
	return false;
}

char *wire_get_str(const struct wire_msg *m, uint8_t tag)
{
	struct wire_field f;

	if (!wire_get(m, tag, &f) || memchr(f.data, '\0', f.len))
		return NULL;
	return mem_strndup(f.data, f.len);
}

uint64_t wire_get_u64(const struct wire_msg *m, uint8_t tag, uint64_t absent)
{
	struct wire_field f;
	uint64_t v;

	if (!wire_get(m, tag, &f) || f.len != sizeof(v))
		return absent;
	memcpy(&v, f.data, sizeof(v));
	return v;
}

const char *wire_list_next(const struct wire_field *list, size_t *pos)
{
	const char *s, *end;

	if (*pos >= list->len)
		return NULL;
	s = list->data + *pos;
	end = memchr(s, '\0', list->len - *pos);
	if (!end)
		return NULL; /* the last string is not terminated: not a string */
	*pos += (size_t)(end - s) + 1;
	return s;
}

int wire_take_fd(struct wire_msg *m, int index)
{
	if (index < 0 || index >= m->nfds)
		return -1;
	return fd_steal(&m->fds[index]);
}

void wire_put_err(struct wire_msg *m, const struct err *err)
{
	wire_put_str(m, WIRE_T_ERR_KIND, err_kind_name(err->kind));
	wire_put_str(m, WIRE_T_ERR_TEXT, err->text);
}

int wire_get_err(const struct wire_msg *m, struct err *err)
{
	auto_free char *kind = wire_get_str(m, WIRE_T_ERR_KIND);
	auto_free char *text = wire_get_str(m, WIRE_T_ERR_TEXT);

	if (!kind && !text)
		return 0;
	return err_set(err, kind ? err_kind_parse(kind) : ERR_SYSTEM, "%s",
		       text ? text : "no reason given");
}

/* Fields must tile the body exactly, or a reader could be made to see half a field. */
static int check_body(const struct wire_msg *m, struct err *err)
{
	struct wire_field f;
	size_t pos = 0;

	while (wire_next(m, &pos, &f))
		continue;
	if (pos != m->body.len)
		return err_set(err, ERR_CORRUPT, "message %s: broken field",
			       wire_type_name(m->type));
	return 0;
}

int wire_send(int sock, struct wire_msg *m, struct err *err)
{
	struct header h = { m->type, 0, m->id, (uint32_t)m->body.len };
	struct iovec iov[2] = { { &h, sizeof(h) }, { m->body.data, m->body.len } };
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * LIMIT_PACKET_FDS)];
	} control;
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t n;

	if (m->body.len + HEADER > LIMIT_PACKET_BYTES)
		return err_set(err, ERR_LIMIT, "message %s has %zu bytes, more than %lu",
			       wire_type_name(m->type), m->body.len, LIMIT_PACKET_BYTES);
	if (m->nfds) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)m->nfds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)m->nfds);
		memcpy(CMSG_DATA(c), m->fds, sizeof(int) * (size_t)m->nfds);
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_sys(err, errno, "sending %s", wire_type_name(m->type));
	return 0;
}

static void take_rights(struct msghdr *msg, struct wire_msg *out)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (out->nfds < LIMIT_PACKET_FDS)
				out->fds[out->nfds++] = fd;
			else
				close(fd);
		}
	}
}

int wire_recv(int sock, struct wire_msg *out, struct err *err)
{
	struct header h;
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * LIMIT_PACKET_FDS)];
	} control;
	char room[LIMIT_PACKET_BYTES]; /* on the stack: its untouched pages cost nothing */
	struct iovec iov[2] = { { &h, sizeof(h) }, { room, sizeof(room) - HEADER } };
	struct msghdr msg = { .msg_iov = iov,
			      .msg_iovlen = 2,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	ssize_t n;

	wire_init(out, 0, 0);
	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_sys(err, errno, "receiving");
	take_rights(&msg,
		    out); /* a packet of no bytes, which reads as the end, can have some, too */
	if (n == 0) {
		wire_done(out);
		return 0;
	}
	if (n < HEADER || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || h.zero ||
	    h.len != (size_t)n - HEADER) {
		wire_done(out);
		return err_set(err, ERR_CORRUPT, "broken packet of %zd bytes", n);
	}
	out->type = h.type;
	out->id = h.id;
	must(buf_put(&out->body, room, h.len, err) == 0);
	if (check_body(out, err) < 0) {
		wire_done(out);
		return -1;
	}
	return 1;
}

int wire_frame_put(struct buf *out, const struct wire_msg *m, struct err *err)
{
	struct header h = { m->type, 0, m->id, (uint32_t)m->body.len };

	if (buf_put(out, &h, sizeof(h), err) < 0)
		return -1;
	return buf_put(out, m->body.data, m->body.len, err);
}

int wire_frame_get(struct buf *in, struct wire_msg *out, struct err *err)
{
	struct header h;

	if (in->len < HEADER)
		return 0;
	memcpy(&h, in->data, HEADER);
	if (h.zero || h.len > LIMIT_FRAME_BYTES)
		return err_set(err, ERR_CORRUPT, "broken frame of %u bytes", h.len);
	if (in->len < HEADER + (size_t)h.len)
		return 0;
	wire_init(out, h.type, h.id);
	must(buf_put(&out->body, in->data + HEADER, h.len, err) == 0);
	buf_consume(in, HEADER + (size_t)h.len);
	if (check_body(out, err) < 0) {
		wire_done(out);
		return -1;
	}
	return 1;
}

int wire_frame_send(int sock, const struct wire_msg *m, struct err *err)
{
	auto_buf struct buf out = BUF_MAX(LIMIT_FRAME_BYTES + HEADER);

	if (wire_frame_put(&out, m, err) < 0)
		return -1;
	return fd_write_all(sock, out.data, out.len, err);
}

/* Descriptors come with the first byte of what they were sent with, and only with that. */
static int recv_some(int sock, void *to, size_t len, struct wire_msg *out, struct err *err)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * LIMIT_PACKET_FDS)];
	} control;
	struct iovec iov = { to, len };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	ssize_t n;

	do
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | MSG_WAITALL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_sys(err, errno, "receiving");
	take_rights(&msg, out);
	if (n && (size_t)n < len)
		return err_set(err, ERR_CORRUPT, "part of a frame, and then nothing");
	return n > 0;
}

int wire_frame_recv(int sock, struct wire_msg *out, struct err *err)
{
	struct header h;
	char *to;
	int rc;

	wire_init(out, 0, 0);
	rc = recv_some(sock, &h, HEADER, out, err);
	if (rc == 1 && (h.zero || h.len > LIMIT_FRAME_BYTES))
		rc = err_set(err, ERR_CORRUPT, "broken frame of %u bytes", h.len);
	if (rc == 1 && h.len) {
		to = buf_room(&out->body, h.len, err);
		rc = to ? recv_some(sock, to, h.len, out, err) : -1;
		if (rc == 1)
			buf_grew(&out->body, h.len);
	}
	if (rc == 1 && check_body(out, err) < 0)
		rc = -1;
	if (rc != 1) {
		wire_done(out);
		return rc;
	}
	out->type = h.type;
	out->id = h.id;
	return 1;
}
