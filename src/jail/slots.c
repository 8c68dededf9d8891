/* SPDX-License-Identifier: Apache-2.0
 *
 * cgroup slots. Making and removing a cgroup costs more than using one, so slots are kept and used
 * again. Two backends: v2, where the daemon owns a delegated subtree and writes itself, and v1,
 * where the keeper writes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "jail/jail_priv.h"
#include "wire/messages.h"

#define MAX_SLOTS 1024

struct slot {
	bool made, taken;
	struct slot_limits limits; /* as they stand in the files */
	uint64_t oom_kills;	   /* at the end of the use before */
};

struct slots {
	struct slot slot[MAX_SLOTS];
	int v2; /* our delegated directory; -1: v1 or none */
};

struct asking {
	struct jail *jail;
	int slot;
	slot_fn done;
	usage_fn usage;
	void *arg;
};

bool slots_any(const struct jail *jail)
{
	return jail->slots->v2 >= 0 || jail->keeper.sock >= 0;
}

/* ---- v2 ---- */

static int v2_write(struct slots *s, int slot, const char *file, const char *text, struct err *err)
{
	char path[64];

	snprintf(path, sizeof(path), "%d/%s", slot, file);
	return fd_write_file(s->v2, path, text, err);
}

static int v2_limit(struct slots *s, int slot, const struct slot_limits *l, struct err *err)
{
	char text[64];

	snprintf(text, sizeof(text), l->memory_bytes ? "%llu" : "max",
		 (unsigned long long)l->memory_bytes);
	if (v2_write(s, slot, "memory.max", text, err) < 0 ||
	    (l->memory_bytes && v2_write(s, slot, "memory.swap.max", "0", NULL) < 0 &&
	     errno != ENOENT))
		return -1;
	/* The whole cell dies of it: half a program would only fail in stranger ways. */
	if (v2_write(s, slot, "memory.oom.group", "1", NULL) < 0)
		log_debug("jail", "no memory.oom.group here");
	snprintf(text, sizeof(text), l->pids ? "%llu" : "max", (unsigned long long)l->pids);
	if (v2_write(s, slot, "pids.max", text, err) < 0)
		return -1;
	if (l->cpu_milli)
		snprintf(text, sizeof(text), "%llu 100000", (unsigned long long)l->cpu_milli * 100);
	else
		snprintf(text, sizeof(text), "max 100000");
	return v2_write(s, slot, "cpu.max", text, err);
}

static uint64_t v2_read(struct slots *s, int slot, const char *file, const char *key)
{
	auto_buf struct buf text = BUF_MAX(16 * KIB);
	char path[64];
	const char *p;

	snprintf(path, sizeof(path), "%d/%s", slot, file);
	if (buf_read_file(&text, s->v2, path, NULL) < 0)
		return 0;
	p = key ? strstr(text.data, key) : text.data;
	return p ? strtoull(p + (key ? strlen(key) : 0), NULL, 10) : 0;
}

/* Our own cgroup, if it is v2, ours to write, and offers the three controllers to children. The
 * daemon moves itself to a leaf first: v2 forbids processes beside controlled children. */
static int v2_open(struct err *err)
{
	auto_buf struct buf text = BUF_MAX(16 * KIB);
	char path[4096], *p;
	struct err lost = ERR_INIT;
	int fd;

	if (buf_read_file(&text, AT_FDCWD, "/proc/self/cgroup", err) < 0)
		return -1;
	p = strstr(text.data, "0::");
	if (!p || (p != text.data && p[-1] != '\n'))
		return -1;
	p[strcspn(p, "\n")] = '\0';
	snprintf(path, sizeof(path), "/sys/fs/cgroup%s", p + 3);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	buf_reset(&text);
	if (buf_read_file(&text, fd, "cgroup.controllers", &lost) < 0 ||
	    !strstr(text.data, "memory") || !strstr(text.data, "pids") ||
	    (mkdirat(fd, "daemon", 0755) < 0 && errno != EEXIST) ||
	    fd_write_file(fd, "daemon/cgroup.procs", "0", &lost) < 0 ||
	    fd_write_file(fd, "cgroup.subtree_control", "+memory +pids +cpu", &lost) < 0) {
		log_info("jail", "cgroup v2 is not delegated to us: %s", lost.text);
		close(fd);
		return -1;
	}
	return fd;
}

/* ---- common ---- */

int slots_open(struct jail *jail, struct err *err)
{
	struct slots *s = mem_new(struct slots);

	jail->slots = s;
	s->v2 = jail->keeper.sock >= 0 ? -1 : v2_open(err);
	return 0;
}

void slots_close(struct jail *jail)
{
	struct slots *s = jail->slots;
	char name[16];

	for (int i = 0; s->v2 >= 0 && i < MAX_SLOTS; i++) {
		snprintf(name, sizeof(name), "%d", i);
		if (s->slot[i].made && unlinkat(s->v2, name, AT_REMOVEDIR) < 0)
			log_debug("jail", "cgroup %s is still in use", name);
	}
	fd_close(&s->v2);
}

static void request(struct jail *jail, uint16_t type, int slot, struct wire_msg *m)
{
	wire_init(m, type, 0);
	wire_put_u64(m, WIRE_T_STATUS, (uint64_t)slot);
	(void)jail;
}

static int make_slot(struct jail *jail, int slot)
{
	struct slots *s = jail->slots;
	char name[16];

	if (s->v2 >= 0) {
		snprintf(name, sizeof(name), "%d", slot);
		if (mkdirat(s->v2, name, 0755) < 0 && errno != EEXIST)
			return -1;
	} else {
		auto_msg struct wire_msg m;

		request(jail, WIRE_CG_MAKE, slot, &m);
		link_tell(&jail->keeper, &m);
	}
	s->slot[slot].made = true;
	return 0;
}

static void set_limits(struct jail *jail, int slot, const struct slot_limits *limits)
{
	struct slots *s = jail->slots;
	struct err err;

	if (s->v2 >= 0) {
		if (v2_limit(s, slot, limits, &err) < 0)
			log_error("jail", "limiting cgroup %d: %s", slot, err.text);
	} else {
		auto_msg struct wire_msg m;

		request(jail, WIRE_CG_LIMIT, slot, &m);
		wire_put_u64(&m, WIRE_T_MEMORY, limits->memory_bytes);
		wire_put_u64(&m, WIRE_T_PIDS, limits->pids);
		wire_put_u64(&m, WIRE_T_CPU, limits->cpu_milli);
		link_tell(&jail->keeper, &m);
	}
	s->slot[slot].limits = *limits;
}

int jail_slot_take(struct jail *jail, const struct slot_limits *limits)
{
	struct slots *s = jail->slots;
	int best = -1;

	if (!slots_any(jail) || (!limits->memory_bytes && !limits->pids && !limits->cpu_milli))
		return -1;
	/* A slot whose files already say these limits is best: then nothing is written. */
	for (int i = 0; i < MAX_SLOTS; i++) {
		if (s->slot[i].taken)
			continue;
		if (s->slot[i].made && memcmp(&s->slot[i].limits, limits, sizeof(*limits)) == 0) {
			best = i;
			break;
		}
		if (best < 0)
			best = i;
		if (!s->slot[i].made)
			break;
	}
	if (best < 0 || (!s->slot[best].made && make_slot(jail, best) < 0))
		return -1;
	s->slot[best].taken = true;
	if (memcmp(&s->slot[best].limits, limits, sizeof(*limits)) != 0)
		set_limits(jail, best, limits);
	return best;
}

static void on_attached(void *arg, struct wire_msg *m, const struct err *err)
{
	struct asking *a = arg;

	(void)m;
	a->done(a->arg, err);
	free(a);
}

void jail_slot_attach(struct jail *jail, int slot, int pidfd, slot_fn done, void *arg)
{
	struct slots *s = jail->slots;
	auto_msg struct wire_msg m;
	struct asking *a;

	if (s->v2 >= 0) {
		char path[64], text[4096];
		struct err err = ERR_INIT;
		auto_buf struct buf info = BUF_MAX(4096);
		const char *p = NULL;
		int pid = 0;

		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
		if (buf_read_file(&info, AT_FDCWD, path, &err) == 0)
			p = strstr(info.data, "\nPid:");
		if (!p || sscanf(p, "\nPid: %d", &pid) != 1 || pid <= 0) {
			err_set(&err, ERR_DIED, "it ended before its limits held");
			done(arg, &err);
			return;
		}
		snprintf(text, sizeof(text), "%d", pid);
		done(arg, v2_write(s, slot, "cgroup.procs", text, &err) < 0 ? &err : NULL);
		return;
	}
	a = mem_new(struct asking);
	a->done = done;
	a->arg = arg;
	request(jail, WIRE_CG_ATTACH, slot, &m);
	int copy = fcntl(pidfd, F_DUPFD_CLOEXEC, 0);
	if (copy >= 0)
		wire_put_fd(&m, copy);
	link_ask(&jail->keeper, &m, on_attached, a);
}

static void give(struct jail *jail, int slot, uint64_t peak, uint64_t kills, usage_fn done,
		 void *arg)
{
	struct slot *s = &jail->slots->slot[slot];
	struct slot_usage usage = { .memory_peak_bytes = peak };

	usage.oom_kills = kills >= s->oom_kills ? kills - s->oom_kills : 0;
	s->oom_kills = kills;
	s->taken = false;
	if (done)
		done(arg, &usage);
}

static void on_usage(void *arg, struct wire_msg *m, const struct err *err)
{
	struct asking *a = arg;

	if (err)
		log_warn("jail", "reading cgroup %d: %s", a->slot, err->text);
	give(a->jail, a->slot, m ? wire_get_u64(m, WIRE_T_MEMORY_PEAK, 0) : 0,
	     m ? wire_get_u64(m, WIRE_T_STATUS, 0) : 0, a->usage, a->arg);
	free(a);
}

void jail_slot_give(struct jail *jail, int slot, usage_fn done, void *arg)
{
	struct slots *s = jail->slots;
	auto_msg struct wire_msg m = { 0 };
	struct asking *a;

	if (s->v2 >= 0) {
		give(jail, slot, v2_read(s, slot, "memory.peak", NULL),
		     v2_read(s, slot, "memory.events", "oom_kill "), done, arg);
		return;
	}
	a = mem_new(struct asking);
	a->jail = jail;
	a->slot = slot;
	a->usage = done;
	a->arg = arg;
	request(jail, WIRE_CG_READ, slot, &m);
	link_ask(&jail->keeper, &m, on_usage, a);
}
