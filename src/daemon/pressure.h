/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (libuv loop).
 *
 * The kernel's word for memory that has become scarce (PSI): tasks waited for it 200 ms of 2 s, in
 * the daemon's own cgroup where that can be asked (v2), else on the whole machine; and a tenth or
 * less of it is left.
 */
#pragma once

#include <uv.h>

struct pressure {
	uv_poll_t poll;
	int fd;	   /* -1: this kernel does not tell, or not us */
	char *dir; /* of the own cgroup; NULL: not v2 */
	void (*pressed)(void *arg);
	void *arg;
};

/* pressed(arg) from the loop, at most once in 2 s, until pressure_close(). Quietly nothing where it
 * cannot be had. */
void pressure_open(struct pressure *p, uv_loop_t *loop, void (*pressed)(void *arg), void *arg);
void pressure_close(struct pressure *p);
