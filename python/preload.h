/* SPDX-License-Identifier: Apache-2.0
 * Runs in: zygotes and their children: preload.so (LD_PRELOAD) and the extension that reads it.
 *
 * A raw clone3 skips what libc's fork() does for libraries: the handlers that they registered with
 * pthread_atfork(). preload.so sees every registration (pthread_atfork is static code in each
 * library that calls __register_atfork), keeps a list of its own, and passes it on. It also notes
 * the names of variables that C code asks getenv() for (DESIGN 3.4).
 *
 * The one mutable global of the project: registration happens from constructors, before anyone
 * could hand us a place to keep it.
 */
#pragma once

#include <stddef.h>

#define PRELOAD_HANDLERS 256
#define PRELOAD_NAMES 512
#define PRELOAD_NAME_BYTES 64

struct preload_handler {
	void (*prepare)(void), (*parent)(void), (*child)(void);
};

struct preload_state {
	size_t nhandlers;
	size_t lost; /* registrations beyond PRELOAD_HANDLERS: then forking is not safe */
	struct preload_handler handlers[PRELOAD_HANDLERS];
	size_t nnames;
	char names[PRELOAD_NAMES][PRELOAD_NAME_BYTES];
};

/* Found by dlsym("pipsqueak_preload"). */
typedef struct preload_state *(*preload_get)(void);
