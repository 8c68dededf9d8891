/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes: made (a root is started, a node is born from another), listened to, measured, dropped.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "zygote/zygote_priv.h"

/* A root or node being made: from the asking to ASLEEP. */
struct growing {
	struct zygotes *z;
	struct zygote_node *node, *parent;
	struct zygote_child *child; /* node: the process, until it sleeps */
	zygote_node_fn done;
	void *arg;
	char *python, *env_path;
	char **modules, **cold;
	uint64_t memory_bytes;
	struct zygote_profile profile;
	bool watch, told, has_profile, over;
	uv_timer_t timer;
	int holds; /* its timer, and an answer of the maker's that is still to come */
};

static void abandon(struct growing *g, const struct err *why);

static void give_block(struct zygote_node *node)
{
	if (!node->size)
		return;
	if (node->ids_from)
		id_give_block(&node->ids_from->ids, node->first, node->size);
	else
		jail_give_ids(node->z->jail, node->first, node->size);
}

void node_unref(struct zygote_node *node)
{
	if (--node->refs)
		return;
	/* A root's cell is the pid namespace of its whole tree: it ends with the last of them (S5).
	 */
	jail_free_cell(node->cell);
	give_block(node);
	if (node->ids_from)
		node_unref(node->ids_from);
	if (node->root != node)
		node_unref(node->root);
	id_block_done(&node->ids);
	id_pool_done(&node->instances);
	fd_close(&node->pidfd);
	free(node->prefix);
	free(node);
}

struct zygote_node *node_new(struct zygotes *z, struct zygote_node *parent)
{
	struct zygote_node *node = mem_new(struct zygote_node);

	node->z = z;
	node->parent = parent;
	node->root = parent ? parent->root : node;
	node->depth = parent ? parent->depth + 1 : 0;
	node->control = node->pidfd = node->slot = -1;
	node->refs = 1;
	if (parent)
		node->root->refs++;
	node->next = z->nodes;
	z->nodes = node;
	return node;
}

/* ---- its end ---- */

static void on_poll_closed(uv_handle_t *handle)
{
	node_unref(handle->data);
}

static void forget(struct zygote_node *node)
{
	for (struct zygote_node **n = &node->z->nodes; *n; n = &(*n)->next)
		if (*n == node) {
			*n = node->next;
			break;
		}
}

static void kill_below(struct zygote_node *node)
{
	for (struct zygote_node *n = node->z->nodes; n; n = n->next)
		if (n->parent == node && n->pidfd >= 0)
			syscall(SYS_pidfd_send_signal, n->pidfd, SIGKILL, NULL, 0);
}

void node_dead(struct zygote_node *node, const struct err *why)
{
	if (node->gone)
		return;
	node->gone = true;
	node->asleep = false;
	if (node->grower)
		abandon(node->grower, why);
	while (node->waiting)
		child_fail(node->waiting, why);
	ahead_drop(node);
	pool_empty(node);
	/* What grew below it shared its memory and its ids: it goes too, and instances stay (S5).
	 */
	kill_below(node);
	if (node->cell && node->root != node && node->root->cell)
		sweep_node(node->z, node->root->cell->ino[NS_PID], node->cell->ino[NS_USER]);
	if (node->z->on_gone && node->data)
		node->z->on_gone(node->z->on_gone_ctx, node);
	node->data = NULL;
	says_close(node);
	if (node->listening)
		uv_close((uv_handle_t *)&node->poll, on_poll_closed);
	fd_close(&node->control);
	if (node->root != node)
		jail_free_cell(steal(node->cell));
	if (node->slot >= 0)
		jail_slot_give(node->z->jail, node->slot, NULL, NULL);
	node->slot = -1;
	forget(node);
	for (struct zygote_node *n = node->z->nodes; n; n = n->next)
		if (n->parent == node)
			n->parent = NULL;
	if (node->parent)
		node->parent->children--;
	node_unref(node);
}

static void on_node_exit(void *arg, int status)
{
	struct zygote_node *node = arg;
	struct err err;

	if (!node->gone && !node->z->closing && node->asleep)
		log_warn("zygote", "a node (pid %d) ended with status %d", node->pid, status);
	err_set(&err, ERR_START, "the interpreter to fork from ended (status %d)", status);
	node->pid = 0;
	node_dead(node, &err);
}

/* ---- its control socket ---- */

static struct zygote_child *waiting(struct zygote_node *node, uint32_t id)
{
	for (struct zygote_child *c = node->waiting; c; c = c->next)
		if (c->id == id && c->step == CHILD_FORKING && !c->forked)
			return c;
	return NULL;
}

static void distrust(struct zygote_node *node, const char *what)
{
	log_warn("zygote", "node (pid %d) sent %s: killed", node->pid, what);
	node->z->violations++;
	uv_poll_stop(&node->poll);
	if (node->pidfd >= 0)
		syscall(SYS_pidfd_send_signal, node->pidfd, SIGKILL, NULL, 0);
}

static void on_control_message(struct zygote_node *node, struct wire_msg *m)
{
	struct zygote_child *c = waiting(node, m->id);
	enum wire_phase phase = node->asleep
					? (c ? WIRE_FROM_ZYGOTE_FORKING : WIRE_FROM_ZYGOTE_ASLEEP)
					: node->phase;
	struct err err = ERR_INIT;

	if (!wire_may(phase, m->type)) {
		distrust(node, wire_type_name(m->type));
		return;
	}
	if (m->type == WIRE_ASLEEP) {
		node->phase = WIRE_FROM_ZYGOTE_ASLEEP;
		node->asleep = true;
		return;
	}
	if (m->type == WIRE_FORKED) {
		child_on_forked(c, m);
		return;
	}
	if (wire_get_err(m, &err) == 0)
		err_set(&err, ERR_START, "it gave no reason");
	err_wrap(&err, "forking");
	child_fail(c, &err);
}

static void on_control(uv_poll_t *poll, int status, int events)
{
	struct zygote_node *node = poll->data;

	(void)events;
	(void)status;
	while (!node->gone && uv_is_active((uv_handle_t *)poll)) {
		auto_msg struct wire_msg m;
		struct err err = ERR_INIT;
		int rc = wire_recv(node->control, &m, &err);

		if (rc < 0 && err.sys == EAGAIN)
			return;
		if (rc < 0)
			distrust(node, err.text);
		else if (rc == 0)
			uv_poll_stop(poll); /* its end is told by its exit */
		else
			on_control_message(node, &m);
	}
}

static void listen_to(struct zygote_node *node)
{
	must(uv_poll_init(node->z->loop, &node->poll, node->control) == 0);
	node->poll.data = node;
	node->listening = true;
	node->refs++;
	must(uv_poll_start(&node->poll, UV_READABLE, on_control) == 0);
}

void node_alive(struct zygote_node *node, int pidfd, pid_t pid)
{
	node->pidfd = pidfd;
	node->pid = pid;
	jail_watch(node->z->jail, pid, on_node_exit, node);
}

/* ---- growing ---- */

static char **copy_words(const char *const *words)
{
	size_t n = 0;
	char **out;

	while (words && words[n])
		n++;
	out = mem_zero(n + 1, sizeof(char *));
	for (size_t i = 0; i < n; i++)
		out[i] = mem_strdup(words[i]);
	return out;
}

static void free_words(char **words)
{
	for (char **w = words; w && *w; w++)
		free(*w);
	free(words);
}

static void free_growing(struct growing *g)
{
	free_words(g->modules);
	free_words(g->cold);
	free(g->python);
	free(g->env_path);
	zygote_profile_done(&g->profile);
	free(g);
}

static void let_go(struct growing *g)
{
	if (--g->holds)
		return;
	node_unref(g->node);
	free_growing(g);
}

static void on_timer_closed(uv_handle_t *handle)
{
	let_go(handle->data);
}

static void settle(struct growing *g, const struct err *err)
{
	struct zygote_node *node = g->node;

	if (g->over)
		return;
	g->over = true;
	node->grower = NULL;
	if (g->parent) {
		g->parent->growing--;
		node_unref(g->parent);
	}
	g->done(g->arg, err ? NULL : node, g->has_profile ? &g->profile : NULL, err);
	if (err) {
		if (node->pidfd >= 0) {
			jail_unwatch(node->z->jail, node->pid);
			syscall(SYS_pidfd_send_signal, node->pidfd, SIGKILL, NULL, 0);
		}
		node_dead(node, err);
	}
	uv_close((uv_handle_t *)&g->timer, on_timer_closed);
}

/* The node is going (the daemon stops) while it is still being made. */
static void abandon(struct growing *g, const struct err *why)
{
	if (g->child)
		child_abandon(steal(g->child));
	settle(g, why);
}

static void on_slow(uv_timer_t *timer)
{
	struct growing *g = timer->data;
	struct err err;

	err_set(&err, ERR_TIMEOUT, "importing took more than %d s", LIMIT_GROW_MS / 1000);
	if (g->child)
		zygote_child_kill(g->child);
	else
		settle(g, &err);
}

static struct growing *growing_new(struct zygotes *z, struct zygote_node *parent,
				   const char *env_path, zygote_node_fn done, void *arg)
{
	struct growing *g = mem_new(struct growing);

	g->z = z;
	g->parent = parent;
	g->node = node_new(z, parent);
	g->node->grower = g;
	g->node->refs++;
	g->done = done;
	g->arg = arg;
	g->env_path = mem_strdup(env_path);
	must(uv_timer_init(z->loop, &g->timer) == 0);
	g->timer.data = g;
	g->holds = 1;
	must(uv_timer_start(&g->timer, on_slow, LIMIT_GROW_MS, 0) == 0);
	return g;
}

static bool one_id(const struct zygote_node *node)
{
	return jail_mode(node->z->jail) == JAIL_ONE_ID;
}

/* Nodes never share an id where there is more than one: they see each other's processes. */
static void on_no_ids(uv_timer_t *timer)
{
	struct growing *g = timer->data;
	struct err err;

	err_set(&err, ERR_BUSY, "no ids are left for another interpreter");
	settle(g, &err);
}

static void fail_for_ids(struct growing *g)
{
	must(uv_timer_start(&g->timer, on_no_ids, 0, 0) == 0);
}

static void put_extents(struct cell_spec *spec, struct maker_extent nodes,
			struct maker_extent instances, uint32_t own)
{
	spec->extents[spec->nextents++] = nodes;
	if (instances.count)
		spec->extents[spec->nextents++] = instances;
	spec->extents[spec->nextents++] = (struct maker_extent){ OWN_INSIDE, own, 1 };
}

/* The block of a root: nodes' ids first, then those of instances. */
static bool root_ids(struct zygote_node *node, struct cell_spec *spec)
{
	uint32_t first, size, instances, nodes;

	if (one_id(node)) {
		spec->extents[spec->nextents++] = (struct maker_extent){ 0, 0, 1 };
		return true;
	}
	if (!jail_take_ids(node->z->jail, &first, &size))
		return false;
	if (size < 4) {
		jail_give_ids(node->z->jail, first, size);
		return false;
	}
	instances = size / 4 < INSTANCES ? size / 4 : INSTANCES;
	nodes = size - instances;
	node->first = node->host_base = first;
	node->size = size;
	node->instances_base = first + nodes;
	id_block_init(&node->ids, nodes, 1, true);
	id_pool_init(&node->instances, instances);
	put_extents(spec, (struct maker_extent){ 0, first, nodes },
		    (struct maker_extent){ INSTANCES_INSIDE, first + nodes, instances },
		    jail_own_id(node->z->jail));
	return true;
}

static bool node_ids(struct zygote_node *node, struct cell_spec *spec)
{
	struct zygote_node *parent = node->parent;

	node->host_base = parent->host_base;
	if (one_id(node)) {
		spec->extents[spec->nextents++] = (struct maker_extent){ 0, 0, 1 };
		return true;
	}
	if (!id_take_block(&parent->ids, &node->first, &node->size))
		return false;
	node->ids_from = parent;
	parent->refs++;
	node->host_base += node->first;
	id_block_init(&node->ids, node->size, 1, false);
	put_extents(spec, (struct maker_extent){ 0, node->first, node->size },
		    (struct maker_extent){ INSTANCES_INSIDE, INSTANCES_INSIDE,
					   node->root->instances.size },
		    OWN_INSIDE);
	return true;
}

/* -- a root: a program started in a cell with a pid namespace for its whole tree -- */

static void on_root_spawned(void *arg, int pidfd, pid_t pid, const struct err *err)
{
	struct growing *g = arg;

	if (g->over) {
		fd_close(&pidfd); /* its cell is being destroyed */
	} else if (err) {
		settle(g, err);
	} else {
		node_alive(g->node, pidfd, pid);
	}
	let_go(g);
}

static void on_root_control(uv_poll_t *poll, int status, int events);

static void spawn_root(struct growing *g, int theirs, int says)
{
	static const char *const env[] = { "PATH=/usr/bin:/bin",
					   "HOME=" JAIL_HOME,
					   "LANG=C.UTF-8",
					   "LD_PRELOAD=" JAIL_LIB "/preload.so",
					   "OPENBLAS_NUM_THREADS=1",
					   "OMP_NUM_THREADS=1",
					   "MKL_NUM_THREADS=1",
					   "BLIS_NUM_THREADS=1",
					   "NUMEXPR_NUM_THREADS=1",
					   "BLOSC_NTHREADS=1",
					   "POLARS_MAX_THREADS=1",
					   "ORT_DISABLE_TELEMETRY=1",
					   NULL };
	const char *argv[] = { g->python, JAIL_LIB "/bootstrap.py", "3", NULL };
	int fds[] = { -1, says, says, theirs };
	struct spawn_spec spec = { .cell = g->node->cell,
				   .argv = argv,
				   .env = env,
				   .fds = fds,
				   .nfds = 4,
				   .zygote = true };

	if (g->env_path) {
		spec.mounts[0] = (struct jail_mount){ g->env_path, JAIL_ENV, false };
		spec.nmounts = 1;
	}
	g->holds++;
	jail_spawn(g->z->jail, &spec, on_root_spawned, g);
}

/* What we hear of it by: our ends are the node's, theirs the caller's to close. */
static int open_ends(struct zygote_node *node, int *out_control, int *out_says, struct err *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return err_sys(err, errno, "socketpair");
	node->control = pair[0];
	*out_control = pair[1];
	if (fd_nonblock(pair[0], err) < 0)
		return -1;
	*out_says = says_open(node, err);
	return *out_says < 0 ? -1 : 0;
}

static void on_root_cell(void *arg, struct cell *cell, const struct err *err)
{
	struct growing *g = arg;
	struct zygote_node *node = g->node;
	struct err own;
	auto_close int theirs = -1, says = -1;

	if (err || g->over) {
		jail_free_cell(cell);
		if (err)
			settle(g, err);
		let_go(g);
		return;
	}
	g->holds--; /* its timer still holds it */
	node->cell = cell;
	if (open_ends(node, &theirs, &says, &own) < 0) {
		settle(g, &own);
		return;
	}
	node->phase = WIRE_FROM_ROOT_STARTING;
	must(uv_poll_init(g->z->loop, &node->poll, node->control) == 0);
	node->poll.data = node;
	node->listening = true;
	node->refs++;
	must(uv_poll_start(&node->poll, UV_READABLE, on_root_control) == 0);
	spawn_root(g, theirs, says);
}

static void on_root_control(uv_poll_t *poll, int status, int events)
{
	struct zygote_node *node = poll->data;
	struct growing *g = node->grower;
	struct err err;

	on_control(poll, status, events);
	if (node->asleep) {
		must(uv_poll_start(poll, UV_READABLE, on_control) == 0);
		settle(g, NULL);
	} else {
		err_set(&err, ERR_START, "%s could not start as a zygote (see the daemon's log)",
			g->python);
		settle(g, &err);
	}
}

void zygote_root(struct zygotes *z, const struct zygote_python *python, const char *env_path,
		 zygote_node_fn done, void *arg)
{
	struct growing *g = growing_new(z, NULL, env_path, done, arg);
	struct cell_spec spec = { .mode = MAKER_NEW_PID, .prefix = python->prefix };

	g->python = mem_strdup(python->path);
	g->node->prefix = mem_strdup(python->prefix);
	if (!root_ids(g->node, &spec)) {
		fail_for_ids(g);
		return;
	}
	spec.host_id = g->node->host_base;
	g->holds++;
	jail_make_cell(z->jail, &spec, on_root_cell, g);
}

/* -- a node: a child that stays -- */

static void on_node_message(void *ctx, struct zygote_child *c, struct wire_msg *m)
{
	struct growing *g = ctx;
	struct zygote_node *node = g->node;
	struct err err;

	if (m->type == WIRE_PROFILE) {
		if (g->told) {
			log_warn("zygote", "a new node told its profile again: killed");
			zygote_child_kill(c);
			return;
		}
		g->told = true;
		g->has_profile = zygote_profile_parse(m, &g->profile, &err) == 0;
		if (!g->has_profile)
			log_warn("zygote", "%s", err.text);
		return;
	}
	if (m->type == WIRE_FAILED) {
		if (wire_get_err(m, &err) == 0)
			err_set(&err, ERR_START, "it gave no reason");
		log_warn("zygote", "a new node failed: %s", err.text);
		zygote_child_kill(c);
		return;
	}
	child_becomes_node(c, node);
	g->child = NULL;
	node->asleep = true;
	node->phase = WIRE_FROM_ZYGOTE_ASLEEP;
	listen_to(node);
	node_alive(node, node->pidfd, node->pid);
	if (!node->gone)
		settle(g, NULL);
}

static void on_node_ended(void *ctx, struct zygote_child *c, const struct zygote_end *end)
{
	struct growing *g = ctx;
	struct err err;

	(void)c;
	g->child = NULL;
	err_set(&err, ERR_START, "importing ended with status %d", end->status);
	settle(g, &err);
}

static void on_node_born(void *arg, struct zygote_child *c, const struct zygote_timing *timing,
			 const struct err *err)
{
	struct growing *g = arg;
	auto_msg struct wire_msg m;
	auto_buf struct buf modules = BUF_MAX(LIMIT_PROFILE_BYTES);
	auto_buf struct buf flags = BUF_MAX(LIMIT_PROFILE_BYTES);
	struct err own;

	(void)timing;
	wire_init(&m, WIRE_GO, 0);
	if (err) {
		settle(g, err);
		return;
	}
	g->child = c;
	zygote_child_phase(c, WIRE_FROM_NODE_IMPORTING);
	for (char **name = g->modules; name && *name; name++)
		wire_list_add(&modules, *name);
	wire_put(&m, WIRE_T_MODULES, modules.data, modules.len);
	if (g->watch)
		wire_list_add(&flags, "watch");
	for (char **name = g->cold; name && *name; name++) {
		auto_free char *word = mem_printf("cold=%s", *name);

		wire_list_add(&flags, word);
	}
	wire_put(&m, WIRE_T_FLAGS, flags.data, flags.len);
	if (zygote_child_send(c, &m, &own) < 0)
		zygote_child_kill(c);
}

static void on_node_cell(void *arg, struct cell *cell, const struct err *err)
{
	static const struct zygote_events events = { on_node_message, on_node_ended };
	struct growing *g = arg;
	struct zygote_fork spec = { .env_path = g->env_path,
				    .stdio = { -1, -1, -1 },
				    .limits = { .memory_bytes = g->memory_bytes,
						.pids = LIMIT_NODE_PIDS,
						.background = true } };
	auto_close int control = -1, says = -1;
	struct zygote_child *c;
	struct err own;

	if (err || g->over) {
		jail_free_cell(cell);
		if (err)
			settle(g, err);
		let_go(g);
		return;
	}
	g->holds--; /* its timer still holds it */
	err_set(&own, ERR_START, "the node to grow from is gone");
	if (g->parent->gone || open_ends(g->node, &control, &says, &own) < 0) {
		jail_free_cell(cell);
		settle(g, &own);
		return;
	}
	spec.stdio[1] = spec.stdio[2] = says;
	c = child_new(g->parent, &spec);
	c->is_node = true;
	c->node_control = fd_steal(&control);
	c->cell = cell;
	c->events = &events;
	c->ctx = g;
	c->born = on_node_born;
	c->born_arg = g;
	child_start(c);
}

void zygote_grow(struct zygotes *z, struct zygote_node *parent, const struct zygote_grow *grow,
		 zygote_node_fn done, void *arg)
{
	struct growing *g = growing_new(z, parent, grow->env_path, done, arg);
	struct cell_spec spec = { .mode = MAKER_IN_USER | MAKER_COPY_MNT,
				  .in_user = parent->cell->ns[NS_USER],
				  .copy_mnt = parent->root->cell->ns[NS_MNT] };

	g->memory_bytes = grow->memory_bytes;
	g->watch = grow->watch;
	g->modules = copy_words(grow->modules);
	g->cold = copy_words(grow->cold);
	parent->growing++;
	parent->children++;
	parent->refs++;
	if (!node_ids(g->node, &spec)) {
		fail_for_ids(g);
		return;
	}
	spec.host_id = g->node->host_base;
	g->holds++;
	jail_make_cell(z->jail, &spec, on_node_cell, g);
}

/* ---- as data ---- */

pid_t node_pid(const struct zygote_node *node)
{
	return !node->pid && node->grower && node->grower->child ? node->grower->child->pid
								 : node->pid;
}

static void measure(struct zygote_node *node)
{
	auto_buf struct buf text = BUF_MAX(64 * KIB);
	char path[64];
	uint64_t now = clock_us(), clean = 0, dirty = 0;
	const char *p;

	if (!node->pid || (node->measured_us && now - node->measured_us < 1000000))
		return;
	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", node->pid);
	if (buf_read_file(&text, AT_FDCWD, path, NULL) < 0)
		return;
	if ((p = strstr(text.data, "Private_Clean:")))
		clean = strtoull(p + 14, NULL, 10) * KIB;
	if ((p = strstr(text.data, "Private_Dirty:")))
		dirty = strtoull(p + 14, NULL, 10) * KIB;
	if ((p = strstr(text.data, "Rss:")))
		node->rss_bytes = strtoull(p + 4, NULL, 10) * KIB;
	node->unique_bytes = clean + dirty;
	node->measured_us = now;
}

void zygote_node_info(struct zygote_node *node, struct zygote_node_info *out)
{
	measure(node);
	zygote_node_peek(node, out);
}

void zygote_node_peek(struct zygote_node *node, struct zygote_node_info *out)
{
	*out = (struct zygote_node_info){
		.pid = node->pid,
		.depth = node->depth,
		.parent = node->parent,
		.unique_bytes = node->unique_bytes,
		.rss_bytes = node->rss_bytes,
		.busy = node->forking + node->growing,
		.children = node->children,
		.ahead = ahead_count(node),
		.forks = node->forks,
		.asleep = node->asleep,
		.gone = node->gone,
	};
}

bool zygote_node_full(const struct zygote_node *node)
{
	return !one_id(node) && !node->ids.nfree;
}

void zygote_node_set_data(struct zygote_node *node, void *data)
{
	node->data = data;
}

void *zygote_node_data(const struct zygote_node *node)
{
	return node->data;
}

int zygote_drop(struct zygote_node *node, struct err *err)
{
	struct err why;

	if (!node->asleep || node->gone || node->forking || node->growing || node->children)
		return err_set(err, ERR_BUSY, "the node is in use");
	err_set(&why, ERR_START, "the node was dropped");
	syscall(SYS_pidfd_send_signal, node->pidfd, SIGKILL, NULL, 0);
	jail_unwatch(node->z->jail, node->pid);
	node_dead(node, &why);
	return 0;
}
