/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "wire/messages.h"
#include "wire/wire.h"

static void test_round_trip(void **state)
{
	auto_msg struct wire_msg m, back;
	auto_buf struct buf list = { 0 };
	struct wire_field f;
	struct err err;
	int pair[2];
	size_t pos = 0;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	wire_init(&m, WIRE_FORK, 7);
	wire_put_str(&m, WIRE_T_NAME, "numpy");
	wire_put_u64(&m, WIRE_T_PID, 42);
	wire_list_add(&list, "a");
	wire_list_add(&list, "");
	wire_list_add(&list, "c");
	wire_put(&m, WIRE_T_ARGV, list.data, list.len);
	wire_put_fd(&m, open("/dev/null", O_RDONLY));
	assert_int_equal(wire_send(pair[0], &m, &err), 0);
	assert_int_equal(wire_recv(pair[1], &back, &err), 1);
	assert_int_equal(back.type, WIRE_FORK);
	assert_int_equal(back.id, 7);
	assert_int_equal(back.nfds, 1);
	assert_int_equal(wire_get_u64(&back, WIRE_T_PID, 0), 42);
	auto_free char *name = wire_get_str(&back, WIRE_T_NAME);
	assert_string_equal(name, "numpy");
	assert_true(wire_get(&back, WIRE_T_ARGV, &f));
	assert_string_equal(wire_list_next(&f, &pos), "a");
	assert_string_equal(wire_list_next(&f, &pos), "");
	assert_string_equal(wire_list_next(&f, &pos), "c");
	assert_null(wire_list_next(&f, &pos));
	close(pair[0]);
	close(pair[1]);
}

static int open_descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_descriptors_of_what_is_no_message(void **state)
{
	static const char *const lies[] = { "", "x", "\x20\0\0\0\1\0\0\0\4\0\0" };
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * 8)];
	} control = { 0 };
	struct wire_msg m;
	struct err err;
	int pair[2], before;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	before = open_descriptors();
	for (size_t i = 0; i < array_len(lies); i++) {
		struct iovec iov = { (void *)lies[i], i == 2 ? 11 : strlen(lies[i]) };
		struct msghdr msg = { .msg_iov = &iov,
				      .msg_iovlen = 1,
				      .msg_control = &control,
				      .msg_controllen = sizeof(control) };
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		int *fds = (int *)CMSG_DATA(c);

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * 8);
		for (int k = 0; k < 8; k++)
			fds[k] = pair[0];
		assert_int_equal(sendmsg(pair[0], &msg, 0), iov.iov_len);
		assert_true(wire_recv(pair[1], &m, &err) <= 0);
		assert_int_equal(open_descriptors(), before);
	}
	close(pair[0]);
	close(pair[1]);
}

static void test_broken_packets(void **state)
{
	static const char lies[][16] = {
		"\x20\0\0\0\1\0\0\0\4\0\0\0",	    /* says 4 bytes, has none */
		"\x20\0\0\0\1\0\0\0\0\0\0\0\1\2\3", /* says none, has 3 */
		"\x20\0\1\0\1\0\0\0\0\0\0\0",	    /* the zero is not zero */
	};
	static const size_t lens[] = { 12, 15, 12 };
	struct wire_msg m;
	struct err err;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	for (size_t i = 0; i < array_len(lens); i++) {
		assert_int_equal(send(pair[0], lies[i], lens[i], 0), lens[i]);
		assert_int_equal(wire_recv(pair[1], &m, &err), -1);
		assert_int_equal(err.kind, ERR_CORRUPT);
	}
	close(pair[0]);
	assert_int_equal(wire_recv(pair[1], &m, &err), 0);
	close(pair[1]);
}

static void test_frames(void **state)
{
	auto_msg struct wire_msg m, back;
	auto_buf struct buf stream = { 0 }, part = { 0 };
	struct err err;

	wire_init(&m, WIRE_CALL, 3);
	wire_put_str(&m, WIRE_T_BODY, "{}");
	assert_int_equal(wire_frame_put(&stream, &m, &err), 0);
	for (size_t i = 0; i + 1 < stream.len; i++) {
		assert_int_equal(buf_put(&part, stream.data + i, 1, &err), 0);
		assert_int_equal(wire_frame_get(&part, &back, &err), 0);
	}
	assert_int_equal(buf_put(&part, stream.data + stream.len - 1, 1, &err), 0);
	assert_int_equal(wire_frame_get(&part, &back, &err), 1);
	assert_int_equal(back.type, WIRE_CALL);
	assert_int_equal(part.len, 0);
}

static void test_a_frame_with_descriptors(void **state)
{
	auto_msg struct wire_msg m, next, back, after;
	struct err err;
	char text[2] = "";
	int pair[2], pipes[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(pipe(pipes), 0);
	wire_init(&m, WIRE_ADOPT, 5);
	wire_put_str(&m, WIRE_T_ROLE, "instance");
	wire_put_fd(&m, pipes[1]);
	wire_init(&next, WIRE_GO, 6);
	assert_int_equal(wire_send(pair[0], &m, &err), 0);
	assert_int_equal(wire_frame_send(pair[0], &next, &err), 0);
	assert_int_equal(wire_frame_recv(pair[1], &back, &err), 1);
	assert_int_equal(back.type, WIRE_ADOPT);
	assert_int_equal(back.nfds, 1);
	assert_int_equal(write(back.fds[0], "x", 1), 1);
	assert_int_equal(read(pipes[0], text, 1), 1);
	assert_string_equal(text, "x");
	/* Of the next frame nothing was taken. */
	assert_int_equal(wire_frame_recv(pair[1], &after, &err), 1);
	assert_int_equal(after.type, WIRE_GO);
	assert_int_equal(after.nfds, 0);
	close(pair[0]);
	wire_done(&after);
	assert_int_equal(wire_frame_recv(pair[1], &after, &err), 0);
	close(pair[1]);
	close(pipes[0]);
}

static void test_a_broken_frame_with_descriptors(void **state)
{
	static const struct {
		const char *data;
		size_t len;
	} lies[] = {
		{ "\x3b\0\0\0\1\0\0\0\4\0\0\0ab", 14 },	      /* and then the end */
		{ "\x3b\0\0\0", 4 },			      /* not even a header */
		{ "\x3b\0\1\0\1\0\0\0\0\0\0\0", 12 },	      /* the zero is not zero */
		{ "\x3b\0\0\0\1\0\0\0\xff\xff\xff\xff", 12 }, /* 4 GiB */
		{ "\x3b\0\0\0\1\0\0\0\4\0\0\0abcd", 16 },     /* no field */
	};
	struct wire_msg m;
	struct err err;
	int pair[2];

	for (size_t i = 0; i < array_len(lies); i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
		assert_int_equal(send(pair[0], lies[i].data, lies[i].len, 0), lies[i].len);
		close(pair[0]);
		assert_int_equal(wire_frame_recv(pair[1], &m, &err), -1);
		assert_int_equal(err.kind, ERR_CORRUPT);
		close(pair[1]);
	}
}

static void test_a_field_that_lies(void **state)
{
	auto_buf struct buf in = { 0 };
	struct wire_msg m;
	struct err err;
	/* one frame with 8 bytes of body: a field that claims 100 bytes */
	static const char frame[] = "\x33\0\0\0\1\0\0\0\x08\0\0\0\x09\0\0\0\x64\0\0\0";

	assert_int_equal(buf_put(&in, frame, 20, &err), 0);
	assert_int_equal(wire_frame_get(&in, &m, &err), -1);
	assert_int_equal(err.kind, ERR_CORRUPT);
}

static void test_who_may_send_what(void **state)
{
	assert_true(wire_may(WIRE_FROM_CHILD_BORN, WIRE_READY));
	assert_false(wire_may(WIRE_FROM_CHILD_BORN, WIRE_REPLY));
	assert_false(wire_may(WIRE_FROM_ZYGOTE_ASLEEP, WIRE_FORKED));
	assert_false(wire_may(WIRE_FROM_INSTANCE_IDLE, WIRE_REPLY));
	assert_true(wire_may(WIRE_FROM_INSTANCE_BUSY, WIRE_REPLY));
	assert_false(wire_may(WIRE_FROM_CLIENT_NEW, WIRE_SIGNAL));
	for (int type = 0; type < 128; type++)
		assert_false(wire_may(WIRE_PHASES, (uint16_t)type));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_broken_packets),
		cmocka_unit_test(test_descriptors_of_what_is_no_message),
		cmocka_unit_test(test_frames),
		cmocka_unit_test(test_a_frame_with_descriptors),
		cmocka_unit_test(test_a_broken_frame_with_descriptors),
		cmocka_unit_test(test_a_field_that_lies),
		cmocka_unit_test(test_who_may_send_what),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
