/* SPDX-License-Identifier: Apache-2.0
 * Runs in: every process, also inside interpreters (the extension links it).
 *
 * One message encoding, two carriers.
 *
 * A message is a type, a request id and a list of fields; a field is a tag and bytes. On the wire:
 *     u16 type, u16 zero, u32 id, u32 body length, then fields: u8 tag, 3 zero bytes, u32 length,
 *     bytes (not padded).   All integers little endian (both ends run on one host).
 * A list of strings is one field whose strings each end with NUL.
 *
 * packet: SOCK_SEQPACKET, one message a packet, at most LIMIT_PACKET_BYTES, carries descriptors.
 * frame:  SOCK_STREAM, at most LIMIT_FRAME_BYTES, no descriptors; but a frame of its own, when
 * nothing else is under way, can be sent as a packet is.
 *
 * Nothing received is trusted: sizes are checked here, types by wire_may() against the tables of
 * wire/messages.h, values by the reader. A peer that breaks a rule is an ERR_CORRUPT and its link
 * is to be closed by the caller.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"

struct wire_msg {
	uint16_t type;
	uint32_t id;
	struct buf body; /* fields, encoded */
	int fds[LIMIT_PACKET_FDS];
	int nfds; /* owned: closed by wire_done() unless taken by wire_take_fd() */
};

struct wire_field {
	uint8_t tag;
	const char *data; /* inside the message; not NUL-terminated */
	size_t len;
};

void wire_init(struct wire_msg *m, uint16_t type, uint32_t id);
void wire_done(struct wire_msg *m); /* frees the body, closes descriptors still in it */
#define auto_msg __attribute__((cleanup(wire_done)))

/* Writers. They cannot fail for our own small fields; what the outside sizes is checked before. */
void wire_put(struct wire_msg *m, uint8_t tag, const void *data, size_t len);
void wire_put_str(struct wire_msg *m, uint8_t tag, const char *s); /* NULL: no field */
void wire_put_u64(struct wire_msg *m, uint8_t tag, uint64_t v);
/* Append one string to a list field under construction in buf (NUL included). */
void wire_list_add(struct buf *list, const char *s);
/* Adds a duplicate-free reference: the message now owns fd. */
void wire_put_fd(struct wire_msg *m, int fd);

/* Readers. */
bool wire_next(const struct wire_msg *m, size_t *pos, struct wire_field *out); /* iterate */
bool wire_get(const struct wire_msg *m, uint8_t tag, struct wire_field *out);  /* first of tag */
/* A copy, NUL-terminated; NULL when absent or when it holds a NUL. Free it. */
char *wire_get_str(const struct wire_msg *m, uint8_t tag);
uint64_t wire_get_u64(const struct wire_msg *m, uint8_t tag, uint64_t absent);
/* Walk the strings of a list field; returns the next string or NULL at the end. */
const char *wire_list_next(const struct wire_field *list, size_t *pos);
int wire_take_fd(struct wire_msg *m, int index); /* -1 when there is none */

/* An error as fields WIRE_T_ERR_KIND, WIRE_T_ERR_TEXT. */
void wire_put_err(struct wire_msg *m, const struct err *err);
/* Fills err and returns -1 when the message carries an error, else 0. */
int wire_get_err(const struct wire_msg *m, struct err *err);

/* Carrier: packets. Send returns 0, or -1 (sys EAGAIN when the socket is full and non-blocking).
 * The message keeps its descriptors (they are duplicated by the kernel).
 * Receive returns 1 for a message, 0 for end of link, -1 for an error (sys EAGAIN: none there). */
warn_unused int wire_send(int sock, struct wire_msg *m, struct err *err);
warn_unused int wire_recv(int sock, struct wire_msg *out, struct err *err);

/* Carrier: frames. Encode into a buffer to be written when the stream takes it; decode from the
 * front of a buffer of received bytes: 1 a message (its bytes consumed), 0 not whole yet, -1. */
warn_unused int wire_frame_put(struct buf *out, const struct wire_msg *m, struct err *err);
warn_unused int wire_frame_get(struct buf *in, struct wire_msg *out, struct err *err);
/* Blocking helpers for the ends that have nothing else to do. */
warn_unused int wire_frame_send(int sock, const struct wire_msg *m, struct err *err);
/* One frame that carries descriptors, on a stream in which nothing was sent before that is not
 * read: by wire_send(). 1: a message, 0: end of link, -1. Blocks. */
warn_unused int wire_frame_recv(int sock, struct wire_msg *out, struct err *err);
