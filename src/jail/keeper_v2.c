/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/keeper_v2.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/log.h"
#include "wire/messages.h"

static int put(int dir, unsigned int slot, const char *file, const char *text, struct err *err)
{
	char path[64];

	snprintf(path, sizeof(path), "%u/%s", slot, file);
	return fd_write_file(dir, path, text, err);
}

/* 0 is "no limit". */
static int put_number(int dir, unsigned int slot, const char *file, uint64_t n, struct err *err)
{
	char text[32];

	snprintf(text, sizeof(text), n ? "%llu" : "max", (unsigned long long)n);
	return put(dir, slot, file, text, err);
}

int v2_make(int dir, unsigned int slot, struct err *err)
{
	char name[16];

	snprintf(name, sizeof(name), "%u", slot);
	if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
		return err_sys(err, errno, "making cgroup %s", name);
	return 0;
}

int v2_limit(int dir, unsigned int slot, const struct wire_msg *m, struct err *err)
{
	uint64_t memory = wire_get_u64(m, WIRE_T_MEMORY, 0);
	uint64_t cpu = wire_get_u64(m, WIRE_T_CPU, 0);
	struct err lost = ERR_INIT;
	char text[64];

	if (put_number(dir, slot, "memory.max", memory, err) < 0)
		return -1;
	/* Absent where the kernel counts no swap. */
	if (put(dir, slot, "memory.swap.max", memory ? "0" : "max", &lost) < 0 &&
	    lost.sys != ENOENT) {
		*err = lost;
		return -1;
	}
	/* All of a sandbox dies of it: half a program would only fail in stranger ways. */
	if (put(dir, slot, "memory.oom.group", "1", &lost) < 0)
		log_debug("keeper", "%s", lost.text);
	if (put_number(dir, slot, "pids.max", wire_get_u64(m, WIRE_T_PIDS, 0), err) < 0)
		return -1;
	snprintf(text, sizeof(text), cpu ? "%llu 100000" : "max 100000",
		 (unsigned long long)cpu * 100);
	if ((put(dir, slot, "cpu.max", text, &lost) < 0 ||
	     put(dir, slot, "cpu.weight", wire_get_u64(m, WIRE_T_MODE, 0) ? "12" : "100", &lost) <
		     0) &&
	    lost.sys != ENOENT) {
		*err = lost;
		return -1;
	}
	return 0;
}

/* No check of whose process it is: the kernel lets this process, which is not host root, move only
 * what is below a directory whose cgroup.procs it may write, and those are the daemon's own. */
int v2_attach(int dir, unsigned int slot, pid_t pid, struct err *err)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	return put(dir, slot, "cgroup.procs", text, err);
}
