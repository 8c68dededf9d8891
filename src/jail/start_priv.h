/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the starter; read by jail.c afterwards. Private to the room.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "jail/jail.h"
#include "jail/start.h"

#define START_PREFIXES 16

struct start_prefix {
	char *prefix; /* as given */
	char *path;   /* where the daemon sees it */
};

struct jail_start {
	enum jail_mode mode;
	uint32_t host_first, ids; /* the daemon's range on the host; ids 1: one id only */
	uint32_t own_id;	  /* inside the daemon: the id that scripts of `run` carry */
	uint32_t user, group;	  /* who started the daemon */
	int maker, keeper, net;	  /* sockets; -1: none */
	pid_t maker_pid, keeper_pid, net_pid;
	int tun;	       /* until it is in its place */
	int controllers;       /* v1 hierarchies the keeper serves */
	int cgroup;	       /* v2: the delegated directory, until the keeper has it; -1: none */
	bool delegated;	       /* cgroup v2 is ours */
	struct err no_cgroups; /* why there are none */
	struct jail_paths paths;
	struct start_prefix prefixes[START_PREFIXES];
	int nprefixes;
};
