/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/messages.h"

#include <stddef.h>

#define MAX_TYPES 4

static const struct {
	const char *name;
	uint16_t types[MAX_TYPES]; /* 0 ends */
} table[WIRE_PHASES] = {
	[WIRE_FROM_MAKER] = { "maker", { WIRE_MADE, WIRE_MAKE_FAILED } },
	[WIRE_FROM_KEEPER] = { "keeper", { WIRE_CG_DONE } },
	[WIRE_FROM_ROOT_STARTING] = { "starting root", { WIRE_ASLEEP } },
	[WIRE_FROM_ZYGOTE_ASLEEP] = { "sleeping zygote", { 0 } },
	[WIRE_FROM_ZYGOTE_FORKING] = { "forking zygote", { WIRE_FORKED, WIRE_FAILED } },
	[WIRE_FROM_CHILD_BORN] = { "new child", { WIRE_READY, WIRE_FAILED } },
	[WIRE_FROM_CHILD_AHEAD] = { "child forked ahead", { 0 } },
	[WIRE_FROM_NODE_IMPORTING] = { "importing node",
				       { WIRE_PROFILE, WIRE_ASLEEP, WIRE_FAILED } },
	[WIRE_FROM_INSTANCE_IDLE] = { "idle instance", { WIRE_PROFILE, WIRE_AGAIN } },
	[WIRE_FROM_INSTANCE_BUSY] = { "busy instance",
				      { WIRE_REPLY, WIRE_PROFILE, WIRE_FAILED, WIRE_AGAIN } },
	[WIRE_FROM_RESOLVER] = { "resolver", { WIRE_NEED, WIRE_RESULT, WIRE_FAILED } },
	[WIRE_FROM_RUN_CHILD] = { "run child", { WIRE_PROFILE, WIRE_DONE, WIRE_FAILED } },
	[WIRE_FROM_CLIENT_NEW] = { "new client", { WIRE_RUN } },
	[WIRE_FROM_CLIENT_RUNNING] = { "running client", { WIRE_SIGNAL } },
};

bool wire_may(enum wire_phase phase, uint16_t type)
{
	if (phase >= WIRE_PHASES || !type)
		return false;
	for (int i = 0; i < MAX_TYPES && table[phase].types[i]; i++)
		if (table[phase].types[i] == type)
			return true;
	return false;
}

const char *wire_phase_name(enum wire_phase phase)
{
	return phase < WIRE_PHASES ? table[phase].name : "unknown peer";
}

const char *wire_type_name(uint16_t type)
{
	switch (type) {
#define X(name, value) \
	case value:    \
		return #name;
		WIRE_MESSAGES(X)
#undef X
	default:
		return "unknown message";
	}
}
