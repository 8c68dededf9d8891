/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon. Private to the room's daemon side.
 */
#pragma once

#include <uv.h>

#include "base/buf.h"
#include "jail/cell.h"
#include "jail/ids.h"
#include "jail/start_priv.h"
#include "wire/messages.h"
#include "wire/wire.h"

/* A request under way at the maker or the keeper. */
struct pending {
	struct pending *next;
	uint32_t id;
	uint64_t deadline_us;
	void (*done)(void *arg, struct wire_msg *m, const struct err *err); /* m NULL: err */
	void *arg;
};

struct link {
	struct jail *jail;
	const char *name;
	int sock;
	uint32_t next_id;
	struct pending *pending;
	uv_poll_t poll;
	enum wire_phase phase;
};

struct reaper;
struct slots;

struct jail {
	uv_loop_t *loop;
	struct jail_start *start;
	struct link maker, keeper, net;
	uv_timer_t timer; /* requests that are not answered */
	struct reaper *reaper;
	struct slots *slots;
	struct buf filters[2];
	struct id_block ids;
	uint64_t dead_net;
	int open_handles;
};

/* Send; done is called later, exactly once. */
void link_ask(struct link *link, struct wire_msg *m,
	      void (*done)(void *arg, struct wire_msg *m, const struct err *err), void *arg);
/* Send without wanting an answer (id 0). */
void link_tell(struct link *link, struct wire_msg *m);

warn_unused int reaper_open(struct jail *jail, struct err *err);
void reaper_close(struct jail *jail);
void cell_on_init_exit(void *arg, int status); /* arg: the cell */
void slots_open(struct jail *jail);
bool slots_any(const struct jail *jail);
