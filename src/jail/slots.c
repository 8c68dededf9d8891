/* SPDX-License-Identifier: Apache-2.0
 *
 * cgroup slots. Making and removing a cgroup costs more than using one, so slots are kept and used
 * again. The keeper writes.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "jail/jail_priv.h"
#include "wire/messages.h"

#define MAX_SLOTS 4096

struct slot {
	bool made, taken;
	struct slot_limits limits; /* as they stand in the files */
	uint64_t oom_kills;	   /* at the end of the use before */
};

struct slots {
	struct slot slot[MAX_SLOTS];
};

struct asking {
	struct jail *jail;
	int slot;
	slot_fn done;
	usage_fn usage;
	cpu_fn time;
	void *arg;
};

bool slots_any(const struct jail *jail)
{
	return jail->keeper.sock >= 0;
}

void slots_open(struct jail *jail)
{
	jail->slots = mem_new(struct slots);
}

static void request(uint16_t type, int slot, struct wire_msg *m)
{
	wire_init(m, type, 0);
	wire_put_u64(m, WIRE_T_STATUS, (uint64_t)slot);
}

static void make_slot(struct jail *jail, int slot)
{
	auto_msg struct wire_msg m;

	request(WIRE_CG_MAKE, slot, &m);
	link_tell(&jail->keeper, &m);
	jail->slots->slot[slot].made = true;
}

static void request_limits(int slot, const struct slot_limits *limits, struct wire_msg *m)
{
	request(WIRE_CG_LIMIT, slot, m);
	wire_put_u64(m, WIRE_T_MEMORY, limits->memory_bytes);
	wire_put_u64(m, WIRE_T_PIDS, limits->pids);
	wire_put_u64(m, WIRE_T_CPU, limits->cpu_milli);
	wire_put_u64(m, WIRE_T_CPU_TIME, limits->count_cpu);
	wire_put_u64(m, WIRE_T_MODE, limits->background);
}

static void set_limits(struct jail *jail, int slot, const struct slot_limits *limits)
{
	auto_msg struct wire_msg m;

	request_limits(slot, limits, &m);
	link_tell(&jail->keeper, &m);
	jail->slots->slot[slot].limits = *limits;
}

/* A slot whose files already say these limits is best: then nothing is written. */
static int find_free(const struct slots *s, const struct slot_limits *limits)
{
	int best = -1;

	for (int i = 0; i < MAX_SLOTS; i++) {
		if (s->slot[i].taken)
			continue;
		if (s->slot[i].made && memcmp(&s->slot[i].limits, limits, sizeof(*limits)) == 0)
			return i;
		if (best < 0)
			best = i;
		if (!s->slot[i].made)
			break;
	}
	return best;
}

int jail_slot_take(struct jail *jail, const struct slot_limits *limits)
{
	static const struct slot_limits none = { 0 };
	struct slots *s = jail->slots;
	int best = -1;

	if (slots_any(jail) && memcmp(limits, &none, sizeof(none)) != 0)
		best = find_free(s, limits);
	if (best < 0)
		return -1;
	if (!s->slot[best].made)
		make_slot(jail, best);
	s->slot[best].taken = true;
	if (memcmp(&s->slot[best].limits, limits, sizeof(*limits)) != 0)
		set_limits(jail, best, limits);
	return best;
}

static void on_done(void *arg, struct wire_msg *m, const struct err *err)
{
	struct asking *a = arg;

	(void)m;
	a->done(a->arg, err);
	free(a);
}

static void on_limited(void *arg, struct wire_msg *m, const struct err *err)
{
	struct asking *a = arg;

	if (err) /* nobody knows what they are: they are written anew by whoever takes it next */
		memset(&a->jail->slots->slot[a->slot].limits, 0xff, sizeof(struct slot_limits));
	on_done(arg, m, err);
}

bool jail_slot_limit(struct jail *jail, int slot, const struct slot_limits *limits, slot_fn done,
		     void *arg)
{
	auto_msg struct wire_msg m = { 0 };
	struct asking *a;

	if (memcmp(&jail->slots->slot[slot].limits, limits, sizeof(*limits)) == 0)
		return true;
	a = mem_new(struct asking);
	*a = (struct asking){ jail, slot, .done = done, .arg = arg };
	request_limits(slot, limits, &m);
	jail->slots->slot[slot].limits = *limits;
	link_ask(&jail->keeper, &m, on_limited, a);
	return false;
}

void jail_slot_attach(struct jail *jail, int slot, int pidfd, slot_fn done, void *arg)
{
	auto_msg struct wire_msg m;
	struct asking *a = mem_new(struct asking);
	int copy = fcntl(pidfd, F_DUPFD_CLOEXEC, 0);

	a->done = done;
	a->arg = arg;
	request(WIRE_CG_ATTACH, slot, &m);
	if (copy >= 0)
		wire_put_fd(&m, copy);
	link_ask(&jail->keeper, &m, on_done, a);
}

static void on_time(void *arg, struct wire_msg *m, const struct err *err)
{
	struct asking *a = arg;

	a->time(a->arg, m ? wire_get_u64(m, WIRE_T_CPU_TIME, 0) : 0, err);
	free(a);
}

/* asking is copied. */
static void ask(uint16_t type, const struct asking *asking,
		void (*done)(void *arg, struct wire_msg *m, const struct err *err))
{
	auto_msg struct wire_msg m;
	struct asking *a = mem_new(struct asking);

	*a = *asking;
	request(type, a->slot, &m);
	link_ask(&a->jail->keeper, &m, done, a);
}

void jail_slot_time(struct jail *jail, int slot, cpu_fn done, void *arg)
{
	ask(WIRE_CG_TIME, &(struct asking){ jail, slot, .time = done, .arg = arg }, on_time);
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
	ask(WIRE_CG_READ, &(struct asking){ jail, slot, .usage = done, .arg = arg }, on_usage);
}
