/* SPDX-License-Identifier: Apache-2.0 */
#include "preload.h"

#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

#define export __attribute__((visibility("default")))

struct preload_state *pipsqueak_preload(void);
int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *dso);

static struct preload_state state;

export struct preload_state *pipsqueak_preload(void)
{
	return &state;
}

export int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void),
			     void *dso)
{
	int (*next)(void (*)(void), void (*)(void), void (*)(void),
		    void *) = (int (*)(void (*)(void), void (*)(void), void (*)(void),
				       void *))dlsym(RTLD_NEXT, "__register_atfork");

	if (state.nhandlers < PRELOAD_HANDLERS)
		state.handlers[state.nhandlers++] = (struct preload_handler){ prepare, parent,
									      child };
	else
		state.lost++;
	return next ? next(prepare, parent, child, dso) : 0;
}

static void note(const char *name)
{
	size_t len = strlen(name);

	if (len >= PRELOAD_NAME_BYTES || state.nnames == PRELOAD_NAMES)
		return;
	for (size_t i = 0; i < state.nnames; i++)
		if (strcmp(state.names[i], name) == 0)
			return;
	memcpy(state.names[state.nnames++], name, len + 1);
}

/* The look-up itself is done here, not by RTLD_NEXT: dlsym may allocate, and getenv is called from
 * allocators' constructors. */
export char *getenv(const char *name)
{
	size_t len = strlen(name);

	note(name);
	for (char **e = environ; e && *e; e++)
		if (strncmp(*e, name, len) == 0 && (*e)[len] == '=')
			return *e + len + 1;
	return NULL;
}
