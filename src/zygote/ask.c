/* SPDX-License-Identifier: Apache-2.0
 *
 * Asking for a child: of a node, which forks it into a cell; or one that was forked ahead
 * (ahead.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "zygote/zygote_priv.h"

static const char *const role_names[] = {
	[ZYGOTE_INSTANCE] = "instance", [ZYGOTE_RUN] = "run", [ZYGOTE_RESOLVER] = "resolver"
};

static void take_spec(struct zygote_child *c, const struct zygote_fork *spec)
{
	c->spec = *spec;
	c->env_path = mem_strdup(spec->env_path);
	c->asked_us = clock_us();
	for (size_t i = 0; i < spec->nmounts; i++) {
		c->spec.mounts[i].from = c->mount_from[i] = mem_strdup(spec->mounts[i].from);
		c->spec.mounts[i].to = c->mount_to[i] = mem_strdup(spec->mounts[i].to);
		if (spec->mounts[i].tree >= 0)
			c->spec.mounts[i].tree = fcntl(spec->mounts[i].tree, F_DUPFD_CLOEXEC, 3);
	}
	for (int i = 0; i < 3; i++)
		c->spec.stdio[i] = spec->stdio[i] < 0 ? -1
						      : fcntl(spec->stdio[i], F_DUPFD_CLOEXEC, 3);
}

static void wait_at(struct zygote_child *c, struct zygote_node *node)
{
	c->node = node;
	c->next = node->waiting;
	node->waiting = c;
	node->forking++;
	node->refs++;
	child_expect(c);
}

struct zygote_child *child_new(struct zygote_node *node, const struct zygote_fork *spec)
{
	struct zygote_child *c = mem_new(struct zygote_child);

	c->z = node->z;
	c->slot = c->stream = c->pidfd = c->node_control = -1;
	c->in.max = LIMIT_FRAME_BYTES + CHILD_READ_BYTES + 64;
	c->out.max = 2 * LIMIT_FRAME_BYTES;
	c->phase = WIRE_FROM_CHILD_BORN;
	c->id = ++node->z->next_id;
	c->expect_pid_ns = node->root->cell->ino[NS_PID];
	c->expect_net_ns = jail_dead_net(node->z->jail);
	take_spec(c, spec);
	must(uv_timer_init(c->z->loop, &c->timer) == 0);
	c->timer.data = c;
	c->open_handles = 1;
	c->link = &c->z->children;
	c->sibling = *c->link;
	if (c->sibling)
		c->sibling->link = &c->sibling;
	*c->link = c;
	wait_at(c, node);
	return c;
}

static void name_fd(struct wire_msg *m, struct buf *names, const char *name, int fd)
{
	wire_list_add(names, name);
	wire_put_fd(m, fd);
}

static int put_dup(struct wire_msg *m, struct buf *names, const char *name, int fd, struct err *err)
{
	int copy = fd < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (copy < 0)
		return err_sys(err, errno, "duplicating a descriptor");
	name_fd(m, names, name, copy);
	return 0;
}

static int put_mount(struct wire_msg *m, struct buf *names, struct zygote_mount *mount,
		     struct err *err)
{
	char name[4200];
	int tree = fd_steal(&mount->tree);

	if (tree < 0 && jail_detach(mount->from, mount->writable, &tree, err) < 0)
		return -1;
	snprintf(name, sizeof(name), "%s:%s", mount->writable ? "mountrw" : "mount", mount->to);
	name_fd(m, names, name, tree);
	return 0;
}

static int put_stdio(struct zygote_child *c, struct wire_msg *m, struct buf *names, struct err *err)
{
	static const char *const std[] = { "stdin", "stdout", "stderr" };

	for (int i = 0; i < 3; i++)
		if (put_dup(m, names, std[i], c->spec.stdio[i], err) < 0)
			return -1;
	return 0;
}

static int put_descriptors(struct zygote_child *c, struct wire_msg *m, int stream, struct err *err)
{
	auto_buf struct buf names = { 0 };
	struct zygote_mount env = { -1, c->env_path, JAIL_ENV, false };
	char name[16];

	name_fd(m, &names, "stream", stream);
	for (int i = 0; i < NS_COUNT; i++) {
		snprintf(name, sizeof(name), "ns-%s", enter_ns_name((enum enter_ns)i));
		if (c->cell->ns[i] >= 0 && put_dup(m, &names, name, c->cell->ns[i], err) < 0)
			return -1;
	}
	if (c->is_node && put_dup(m, &names, "control", c->node_control, err) < 0)
		return -1;
	if (put_stdio(c, m, &names, err) < 0)
		return -1;
	if (c->env_path && put_mount(m, &names, &env, err) < 0)
		return -1;
	for (size_t i = 0; i < c->spec.nmounts; i++)
		if (put_mount(m, &names, &c->spec.mounts[i], err) < 0)
			return -1;
	wire_put(m, WIRE_T_FDS, names.data, names.len);
	return 0;
}

static void put_limits(struct zygote_child *c, struct wire_msg *m)
{
	const struct zygote_limits *l = &c->spec.limits;

	/* Without a cgroup, rlimits: of address space and of processes per id. */
	if (c->slot < 0 && !c->is_node) { /* a node's children would inherit them */
		wire_put_u64(m, WIRE_T_MEMORY, l->memory_bytes ? l->memory_bytes + 4 * GIB : 0);
		wire_put_u64(m, WIRE_T_PIDS, l->pids);
	}
	wire_put_u64(m, WIRE_T_TMP_BYTES, l->tmp_bytes);
	wire_put_u64(m, WIRE_T_STATUS, l->open_files);
}

static struct slot_limits slot_limits_of(const struct zygote_limits *l)
{
	return (struct slot_limits){ l->memory_bytes, l->pids, l->cpu_milli, l->count_cpu,
				     l->background };
}

static const char *role_of(const struct zygote_child *c)
{
	return c->is_node ? "node" : c->is_ahead ? "ahead" : role_names[c->spec.role];
}

void child_start(struct zygote_child *c)
{
	struct slot_limits limits = slot_limits_of(&c->spec.limits);
	const struct buf *filter = jail_filter(c->z->jail, SECCOMP_CODE);
	auto_msg struct wire_msg m;
	struct err err;
	int pair[2];

	wire_init(&m, WIRE_FORK, c->id);
	c->step = CHILD_FORKING;
	/* The kernel counts RLIMIT_NPROC within the cell's own user namespace: when processes are
	 * all that is limited (`run`), it does, and nobody waits for a cgroup (DESIGN 3.1). */
	if (limits.memory_bytes || limits.cpu_milli || limits.count_cpu || limits.background)
		c->slot = jail_slot_take(c->z->jail, &limits);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
		err_sys(&err, errno, "socketpair");
		child_fail(c, &err);
		return;
	}
	c->stream = pair[0];
	wire_put_str(&m, WIRE_T_ROLE, role_of(c));
	wire_put_u64(&m, WIRE_T_UID, c->cell->uid);
	wire_put_u64(&m, WIRE_T_GID, c->cell->gid);
	if (!c->is_node)
		wire_put(&m, WIRE_T_BODY, filter->data, filter->len);
	put_limits(c, &m);
	if (put_descriptors(c, &m, pair[1], &err) < 0 || fd_nonblock(c->stream, &err) < 0 ||
	    wire_send(c->node->control, &m, &err) < 0) {
		child_fail(c, &err);
		return;
	}
	fd_close(&c->node_control);
	child_listen(c);
}

static void on_cell(void *arg, struct cell *cell, const struct err *err)
{
	struct zygote_child *c = arg;

	c->open_handles--;
	if (c->step == CHILD_ENDING) { /* its deadline passed */
		jail_free_cell(cell);
		child_free(c);
		return;
	}
	if (err) {
		child_fail(c, err);
		return;
	}
	c->cell = cell;
	child_start(c);
}

void child_fork(struct zygote_child *c, const struct zygote_events *events, void *ctx,
		zygote_born_fn born, void *arg)
{
	struct zygote_node *node = c->node;
	int kind = pool_kind(&c->spec);

	c->events = events;
	c->ctx = ctx;
	c->born = born;
	c->born_arg = arg;
	c->open_handles++; /* until on_cell */
	pool_get(node, kind, on_cell, c);
	pool_refill(node, kind);
}

static void on_foreground(void *arg, const struct err *err)
{
	(void)arg;
	if (err)
		log_debug("zygote", "a node keeps its priority: %s", err->text);
}

void child_to_foreground(struct zygote_child *c)
{
	struct slot_limits limits;

	c->spec.limits.background = false;
	limits = slot_limits_of(&c->spec.limits);
	if (c->slot >= 0)
		(void)jail_slot_limit(c->z->jail, c->slot, &limits, on_foreground, NULL);
}

/* ---- one that was forked ahead ---- */

/* Returns false when it failed meanwhile, and is not to be touched. */
static bool answered(struct zygote_child *c, const struct err *err)
{
	struct err own = ERR_INIT;

	c->open_handles--;
	if (c->step == CHILD_ENDING) {
		child_free(c);
		return false;
	}
	if (!err)
		return true;
	own = *err;
	err_wrap(&own, "preparing a child that was forked ahead");
	child_fail(c, &own);
	return false;
}

static void on_prepared(void *arg, const struct err *err)
{
	struct zygote_child *c = arg;

	if (!answered(c, err))
		return;
	c->ready = true;
	child_maybe_born(c);
}

static void on_limited(void *arg, const struct err *err)
{
	struct zygote_child *c = arg;

	if (!answered(c, err))
		return;
	c->attached = true;
	child_maybe_born(c);
}

static int detach_all(struct zygote_child *c, struct cell_mounts *mounts, struct err *err)
{
	mounts->tmp_bytes = c->spec.limits.tmp_bytes;
	if (c->env_path) {
		if (jail_detach(c->env_path, false, &mounts->trees[0], err) < 0)
			return -1;
		mounts->targets[mounts->n++] = JAIL_ENV;
	}
	for (size_t i = 0; i < c->spec.nmounts; i++) {
		struct zygote_mount *mount = &c->spec.mounts[i];
		int tree = fd_steal(&mount->tree);

		if (tree < 0 && jail_detach(mount->from, false, &tree, err) < 0)
			return -1;
		mounts->targets[mounts->n] = mount->to;
		mounts->trees[mounts->n++] = tree;
	}
	return 0;
}

void child_adopt(struct zygote_child *c, struct zygote_node *node, const struct zygote_fork *spec)
{
	struct slot_limits limits = slot_limits_of(&spec->limits);
	struct cell_mounts mounts = { 0 };
	struct err err;

	take_spec(c, spec);
	wait_at(c, node);
	c->step = CHILD_FORKING;
	c->adopted = true;
	c->ready = false;
	c->forked_us = c->asked_us;
	c->open_handles++; /* until on_prepared */
	if (detach_all(c, &mounts, &err) < 0) {
		for (size_t i = 0; i < mounts.n; i++)
			close(mounts.trees[i]);
		c->open_handles--;
		child_fail(c, &err);
		return;
	}
	c->open_handles++; /* until on_limited */
	c->attached = jail_slot_limit(c->z->jail, c->slot, &limits, on_limited, c);
	if (c->attached)
		c->open_handles--;
	jail_mount(c->cell, &mounts, on_prepared, c);
}

/* It is what it was checked to be; it has had no reason to change since. */
int child_tell_adopted(struct zygote_child *c, struct err *err)
{
	auto_buf struct buf names = { 0 };
	auto_msg struct wire_msg m;

	wire_init(&m, WIRE_ADOPT, c->id);
	wire_put_str(&m, WIRE_T_ROLE, role_names[c->spec.role]);
	wire_put_u64(&m, WIRE_T_MODE, c->env_path != NULL);
	if (put_stdio(c, &m, &names, err) < 0)
		return -1;
	wire_put(&m, WIRE_T_FDS, names.data, names.len);
	c->phase = WIRE_FROM_CHILD_BORN;
	return wire_send(c->stream, &m, err);
}

void zygote_fork(struct zygotes *z, struct zygote_node *node, const struct zygote_fork *spec,
		 const struct zygote_events *events, void *ctx, zygote_born_fn born, void *arg)
{
	struct zygote_child *c = ahead_take(node, spec);

	(void)z;
	if (c) {
		c->events = events;
		c->ctx = ctx;
		c->born = born;
		c->born_arg = arg;
		child_adopt(c, node, spec);
	} else {
		child_fork(child_new(node, spec), events, ctx, born, arg);
	}
	ahead_note(node, spec);
}
