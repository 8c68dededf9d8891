/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "jail/jail_priv.h"
#include "wire/messages.h"

/* ---- links to the maker and the keeper ---- */

static struct pending *take_pending(struct link *link, uint32_t id)
{
	for (struct pending **p = &link->pending; *p; p = &(*p)->next)
		if ((*p)->id == id) {
			struct pending *found = *p;

			*p = found->next;
			return found;
		}
	return NULL;
}

static void settle(struct link *link, uint32_t id, struct wire_msg *m, const struct err *err)
{
	struct pending *p = take_pending(link, id);

	if (!p) {
		log_debug("jail", "%s answered %u, which nobody waits for", link->name, id);
		return;
	}
	p->done(p->arg, err ? NULL : m, err);
	free(p);
}

static void link_broke(struct link *link, const struct err *err)
{
	uv_poll_stop(&link->poll);
	log_error("jail", "the %s is gone: %s", link->name, err->text);
	while (link->pending)
		settle(link, link->pending->id, NULL, err);
}

static void on_link(uv_poll_t *poll, int status, int events)
{
	struct link *link = poll->data;

	(void)events;
	for (;;) {
		auto_msg struct wire_msg m;
		struct err err = ERR_INIT, told = ERR_INIT;
		int rc = wire_recv(link->sock, &m, &err);

		if (rc < 0 && err.sys == EAGAIN)
			return;
		if (rc <= 0 || status < 0) {
			if (rc == 0)
				err_set(&err, ERR_SYSTEM, "it ended");
			link_broke(link, &err);
			return;
		}
		if (!wire_may(link->phase, m.type)) {
			log_error("jail", "%s sent %s", link->name, wire_type_name(m.type));
			continue;
		}
		if (wire_get_err(&m, &told) < 0)
			settle(link, m.id, NULL, &told);
		else
			settle(link, m.id, &m, NULL);
	}
}

static int link_send(struct link *link, struct wire_msg *m, struct err *err)
{
	struct pollfd wait = { .fd = link->sock, .events = POLLOUT };

	if (link->sock < 0)
		return err_set(err, ERR_SYSTEM, "there is no %s", link->name);
	while (wire_send(link->sock, m, err) < 0) {
		/* The peer does nothing but read: a full socket empties at once. */
		if (err->sys != EAGAIN || poll(&wait, 1, 1000) <= 0)
			return -1;
	}
	return 0;
}

void link_ask(struct link *link, struct wire_msg *m,
	      void (*done)(void *arg, struct wire_msg *m, const struct err *err), void *arg)
{
	struct pending *p = mem_new(struct pending);
	struct err err;

	if (++link->next_id == 0)
		++link->next_id;
	p->id = m->id = link->next_id;
	p->deadline_us = clock_us() + LIMIT_CELL_MS * 1000;
	p->done = done;
	p->arg = arg;
	p->next = link->pending;
	link->pending = p;
	if (link_send(link, m, &err) < 0) {
		log_error("jail", "%s", err.text);
		p->deadline_us = 0; /* the timer tells: done is never called from inside */
	}
	if (!uv_is_active((uv_handle_t *)&link->jail->timer))
		must(uv_timer_again(&link->jail->timer) == 0);
}

void link_tell(struct link *link, struct wire_msg *m)
{
	struct err err;

	m->id = 0;
	if (link_send(link, m, &err) < 0)
		log_error("jail", "%s", err.text);
}

static bool expire(struct link *link, uint64_t now)
{
	struct err err;
	bool again = true;

	err_set(&err, ERR_TIMEOUT, "the %s did not answer within %d s", link->name,
		LIMIT_CELL_MS / 1000);
	while (again) {
		again = false;
		for (struct pending *p = link->pending; p; p = p->next)
			if (p->deadline_us <= now) {
				settle(link, p->id, NULL, &err);
				again = true;
				break;
			}
	}
	return link->pending != NULL;
}

static void on_timer(uv_timer_t *timer)
{
	struct jail *jail = timer->data;
	uint64_t now = clock_us();
	bool maker = expire(&jail->maker, now), keeper = expire(&jail->keeper, now);
	bool net = expire(&jail->net, now);

	if (!maker && !keeper && !net)
		uv_timer_stop(timer);
}

static int link_open(struct jail *jail, struct link *link, const char *name, int sock,
		     struct err *err)
{
	link->jail = jail;
	link->name = name;
	link->sock = sock;
	if (sock < 0)
		return 0;
	if (fd_nonblock(sock, err) < 0)
		return -1;
	must(uv_poll_init(jail->loop, &link->poll, sock) == 0);
	link->poll.data = link;
	must(uv_poll_start(&link->poll, UV_READABLE, on_link) == 0);
	return 0;
}

/* ---- open, close, describe ---- */

static uint64_t inode_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_ino : 0;
}

static int show_prefixes(struct jail *jail, struct err *err)
{
	for (int i = 0; i < jail->start->nprefixes; i++) {
		auto_msg struct wire_msg m = { 0 };
		int tree;

		if (jail_detach(jail->start->prefixes[i].path, false, &tree, err) < 0)
			return -1;
		wire_init(&m, WIRE_ADD_PREFIX, 0);
		wire_put_str(&m, WIRE_T_PATH, jail->start->prefixes[i].prefix);
		wire_put_fd(&m, tree);
		if (link_send(&jail->maker, &m, err) < 0)
			return -1;
	}
	return 0;
}

static int await_maker(int sock, struct err *err)
{
	auto_msg struct wire_msg m;
	int rc = wire_recv(sock, &m, err);

	if (rc == 0)
		err_set(err, ERR_SYSTEM, "it ended at once");
	if (rc <= 0 || wire_get_err(&m, err) < 0)
		return err_wrap(err, "starting the cell maker");
	return 0;
}

int jail_open(uv_loop_t *loop, struct jail_start *start, struct jail **out, struct err *err)
{
	struct jail *jail = mem_new(struct jail);
	char path[64];

	jail->loop = loop;
	jail->start = start;
	jail->maker.phase = WIRE_FROM_MAKER;
	jail->keeper.phase = WIRE_FROM_KEEPER;
	jail->net.phase = WIRE_FROM_MAKER; /* it answers as the maker does */
	must(uv_timer_init(loop, &jail->timer) == 0);
	jail->timer.data = jail;
	must(uv_timer_start(&jail->timer, on_timer, 500, 500) == 0);
	if (await_maker(start->maker, err) < 0)
		return -1;
	if (link_open(jail, &jail->maker, "cell maker", start->maker, err) < 0 ||
	    link_open(jail, &jail->keeper, "keeper", start->keeper, err) < 0 ||
	    link_open(jail, &jail->net, "pasta (package passt)", start->net, err) < 0)
		return -1;
	id_block_init(&jail->ids, start->ids, JAIL_OWN_IDS, false);
	for (int i = 0; i < 2; i++)
		if (seccomp_build((enum seccomp_profile)i, &jail->filters[i], err) < 0)
			return -1;
	slots_open(jail);
	if (reaper_open(jail, err) < 0 || show_prefixes(jail, err) < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/ns/net", start->maker_pid);
	jail->dead_net = inode_of(path);
	jail_watch(jail, start->maker_pid, NULL, NULL);
	if (start->keeper_pid > 0)
		jail_watch(jail, start->keeper_pid, NULL, NULL);
	if (start->net_pid > 0)
		jail_watch(jail, start->net_pid, NULL, NULL);
	*out = jail;
	return 0;
}

void jail_close(struct jail *jail)
{
	struct err err;

	if (!jail)
		return;
	err_set(&err, ERR_SYSTEM, "shutting down");
	while (jail->maker.pending)
		settle(&jail->maker, jail->maker.pending->id, NULL, &err);
	while (jail->keeper.pending)
		settle(&jail->keeper, jail->keeper.pending->id, NULL, &err);
	while (jail->net.pending)
		settle(&jail->net, jail->net.pending->id, NULL, &err);
	uv_timer_stop(&jail->timer);
	uv_poll_stop(&jail->maker.poll);
	if (jail->net.sock >= 0)
		uv_poll_stop(&jail->net.poll);
	if (jail->keeper.sock >= 0)
		uv_poll_stop(&jail->keeper.poll);
	reaper_close(jail);
	fd_close(&jail->maker.sock); /* the maker ends; the keeper removes its cgroups and ends */
	fd_close(&jail->keeper.sock);
	fd_close(&jail->net.sock);
	id_block_done(&jail->ids);
	buf_done(&jail->filters[0]);
	buf_done(&jail->filters[1]);
	/* The structure itself holds libuv handles: it lives until the process ends. */
}

enum jail_mode jail_mode(const struct jail *jail)
{
	return jail->start->mode;
}

uint32_t jail_own_id(const struct jail *jail)
{
	return jail->start->own_id;
}

uint32_t jail_user(const struct jail *jail, uint32_t *out_gid)
{
	*out_gid = jail->start->group;
	return jail->start->user;
}

uint32_t jail_run_host_id(const struct jail *jail)
{
	return jail->start->host_first + jail->start->own_id;
}

uint64_t jail_dead_net(const struct jail *jail)
{
	return jail->dead_net;
}

uv_loop_t *jail_loop(const struct jail *jail)
{
	return jail->loop;
}

const struct buf *jail_filter(const struct jail *jail, enum seccomp_profile profile)
{
	return &jail->filters[profile];
}

bool jail_take_ids(struct jail *jail, uint32_t *out_first, uint32_t *out_size)
{
	return id_take_block(&jail->ids, out_first, out_size);
}

void jail_give_ids(struct jail *jail, uint32_t first, uint32_t size)
{
	id_give_block(&jail->ids, first, size);
}

#define WEAKER 4

/* What this host does not give: sentences, NULL-terminated. */
static void find_weaker(const struct jail *jail, char *out[WEAKER + 1])
{
	size_t n = 0;

	if (enter_landlock_abi() < 6)
		out[n++] = mem_strdup("no Landlock scopes: signals and abstract sockets are fenced "
				      "by namespaces only");
	if (!slots_any(jail))
		out[n++] = mem_printf("no cgroups, so limits are rlimits only: %s",
				      jail->start->no_cgroups.text);
	if (jail->start->ids == 1)
		out[n++] = mem_strdup("one id: nodes and instances are kept apart by namespaces, "
				      "not by ids");
	if (jail->start->net < 0)
		out[n++] = mem_strdup(
			"no pasta (package passt): no sandbox can be given a network");
	out[n] = NULL;
}

static void forget_weaker(char **weaker)
{
	for (; *weaker; weaker++)
		free(*weaker);
}

int jail_require_all(const struct jail *jail, struct err *err)
{
	auto_buf struct buf text = { 0 };
	char *weaker[WEAKER + 1];
	int rc = 0;

	find_weaker(jail, weaker);
	for (char **w = weaker; *w && rc == 0; w++)
		rc = buf_putf(&text, err, "%s%s", w == weaker ? "" : "; ", *w);
	if (rc == 0 && weaker[0])
		rc = err_set(err, ERR_START, "--strict: this host does not give all protection: %s",
			     text.data);
	forget_weaker(weaker);
	return rc;
}

int jail_describe(const struct jail *jail, struct buf *out, struct err *err)
{
	static const char *const modes[] = { "root", "subids", "one-id" };
	struct utsname un;
	json_t *weaker = json_array(), *o;
	char *found[WEAKER + 1];
	char *text;
	int rc;

	uname(&un);
	find_weaker(jail, found);
	for (char **w = found; *w; w++)
		json_array_append_new(weaker, json_string(*w));
	forget_weaker(found);
	o = json_pack("{s:s, s:s, s:i, s:I, s:I, s:b, s:i, s:i, s:b, s:o}", "mode",
		      modes[jail->start->mode], "kernel", un.release, "landlock_abi",
		      enter_landlock_abi(), "first_host_id", (json_int_t)jail->start->host_first,
		      "ids", (json_int_t)jail->start->ids, "cgroups", slots_any(jail),
		      "cgroup_version", slots_any(jail) ? 1 + jail->start->delegated : 0,
		      "cgroup_v1_controllers", jail->start->controllers, "network",
		      jail->start->net >= 0, "weaker", weaker);
	text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	rc = buf_puts(out, text, err);
	free(text);
	return rc;
}

bool jail_has_network(const struct jail *jail)
{
	return jail->start->net >= 0;
}

bool jail_has_prefix(struct jail *jail, const char *prefix)
{
	if (strcmp(prefix, "/usr") == 0)
		return true;
	for (int i = 0; i < jail->start->nprefixes; i++)
		if (strcmp(jail->start->prefixes[i].prefix, prefix) == 0)
			return true;
	return false;
}

int jail_add_prefix(struct jail *jail, const char *prefix, int tree, struct err *err)
{
	auto_close int own = tree;
	auto_msg struct wire_msg m = { 0 };
	struct jail_start *s = jail->start;

	if (jail_has_prefix(jail, prefix))
		return 0;
	if (prefix[0] != '/' || strstr(prefix, "/../") || strchr(prefix, '%') || !prefix[1])
		return err_set(err, ERR_USAGE, "'%s' cannot be an interpreter's prefix", prefix);
	if (s->nprefixes == START_PREFIXES)
		return err_set(err, ERR_LIMIT, "more than %d interpreters", START_PREFIXES);
	if (own < 0 && jail_detach(prefix, false, &own, err) < 0)
		return -1;
	wire_init(&m, WIRE_ADD_PREFIX, 0);
	wire_put_str(&m, WIRE_T_PATH, prefix);
	wire_put_fd(&m, fd_steal(&own));
	if (link_send(&jail->maker, &m, err) < 0)
		return -1;
	s->prefixes[s->nprefixes].prefix = mem_strdup(prefix);
	s->prefixes[s->nprefixes++].path = mem_strdup(prefix);
	return 0;
}
