/* SPDX-License-Identifier: Apache-2.0
 *
 * One child from the asking to its end. The fork, the child's own entering of its sandbox and the
 * attaching to a cgroup overlap; when all three are done the child is checked, and only then born.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "zygote/zygote_priv.h"

#define READS 8 /* in one turn of the loop: a flood does not keep it */

void child_free(struct zygote_child *c)
{
	if (c->open_handles)
		return;
	*c->link = c->sibling;
	if (c->sibling)
		c->sibling->link = c->link;
	for (size_t i = 0; i < c->spec.nmounts; i++) {
		free(c->mount_from[i]);
		free(c->mount_to[i]);
		fd_close(&c->spec.mounts[i].tree);
	}
	for (int i = 0; i < 3; i++)
		fd_close(&c->spec.stdio[i]);
	free(c->env_path);
	fd_close(&c->pidfd);
	fd_close(&c->node_control);
	buf_done(&c->in);
	buf_done(&c->out);
	free(c);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct zygote_child *c = handle->data;

	c->open_handles--;
	child_free(c);
}

static void stop_stream(struct zygote_child *c)
{
	if (c->polling) {
		c->polling = false;
		uv_close((uv_handle_t *)&c->poll, on_handle_closed);
	}
	fd_close(&c->stream);
}

/* Everything but the memory; which goes when libuv lets the handles go. */
static void dispose(struct zygote_child *c)
{
	stop_stream(c);
	uv_close((uv_handle_t *)&c->timer, on_handle_closed);
}

static void leave_node(struct zygote_child *c)
{
	struct zygote_node *node = c->node;

	if (!node)
		return;
	c->node = NULL;
	for (struct zygote_child **p = &node->waiting; *p; p = &(*p)->next)
		if (*p == c) {
			*p = c->next;
			break;
		}
	node->forking--;
	node_unref(node);
}

/* ---- the end ---- */

struct ending {
	struct zygote_child *c;
	struct zygote_end end;
};

static void tell_end(struct ending *e)
{
	struct zygote_child *c = e->c;

	if (c->events)
		c->events->ended(c->ctx, c, &e->end);
	free(e);
	dispose(c);
}

static void on_usage(void *arg, const struct slot_usage *usage)
{
	struct ending *e = arg;

	e->end.memory_peak_bytes = usage->memory_peak_bytes;
	e->end.oom = usage->oom_kills > 0;
	tell_end(e);
}

/* Every process of an instance's cell ends with its init; a node's has none. */
static void drop_cell(struct zygote_child *c)
{
	if (c->cell && c->is_node)
		sweep_node(c->z, c->expect_pid_ns, c->cell->ino[NS_USER]);
	jail_free_cell(steal(c->cell));
}

static void finish(struct zygote_child *c)
{
	struct ending *e = mem_new(struct ending);
	int slot = c->slot;

	e->c = c;
	e->end.status = c->status;
	drop_cell(c);
	c->slot = -1;
	stop_stream(c);
	/* Was it the kernel, for lack of memory, that killed it? Else nobody waits for the
	 * counters, nor for the killing of what it left behind. */
	if (slot >= 0 && WIFSIGNALED(c->status) && WTERMSIG(c->status) == SIGKILL) {
		jail_slot_give(c->z->jail, slot, on_usage, e);
		return;
	}
	if (slot >= 0)
		jail_slot_give(c->z->jail, slot, NULL, NULL);
	tell_end(e);
}

static void give_slot(struct zygote_child *c)
{
	if (c->slot >= 0)
		jail_slot_give(c->z->jail, c->slot, NULL, NULL);
	c->slot = -1;
}

void child_fail(struct zygote_child *c, const struct err *err)
{
	struct err own = *err;

	if (c->step == CHILD_ENDING)
		return;
	if (c->step == CHILD_ALIVE) { /* broke a rule: its cell is destroyed, `ended` follows */
		zygote_child_kill(c);
		return;
	}
	c->step = CHILD_ENDING;
	leave_node(c);
	if (c->pidfd >= 0)
		syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
	if (c->pid > 0 && !c->exited)
		jail_unwatch(c->z->jail, c->pid);
	drop_cell(c);
	give_slot(c);
	own.kind = own.kind == ERR_LIMIT || own.kind == ERR_USAGE ? own.kind : ERR_START;
	c->born(c->born_arg, NULL, NULL, &own);
	dispose(c);
}

void child_abandon(struct zygote_child *c)
{
	if (c->step == CHILD_ENDING)
		return;
	c->step = CHILD_ENDING;
	zygote_child_kill(c);
	if (c->pid > 0 && !c->exited)
		jail_unwatch(c->z->jail, c->pid);
	drop_cell(c);
	give_slot(c);
	dispose(c);
}

void child_forget_all(struct zygotes *z)
{
	for (struct zygote_child *c = z->children; c; c = c->sibling) {
		c->events = NULL;
		child_abandon(c); /* one that nobody waits for would keep the loop */
	}
}

/* ---- birth ---- */

static int check(struct zygote_child *c, struct err *err)
{
	struct check_expected want = { .pid = c->pid,
				       .host_id = c->cell->host_id,
				       .is_node = c->is_node };

	for (int i = 0; i < NS_COUNT; i++)
		want.ns[i] = c->cell->ino[i];
	if (!want.ns[NS_PID])
		want.ns[NS_PID] = c->expect_pid_ns;
	if (!want.ns[NS_NET])
		want.ns[NS_NET] = c->expect_net_ns;
	if (check_child(&want, err) < 0)
		return err_wrap(err, "the new process is not what was asked for");
	return 0;
}

void child_maybe_born(struct zygote_child *c)
{
	struct zygote_timing timing;
	struct err err;

	if (!c->forked || !c->ready || !c->attached || c->step != CHILD_FORKING)
		return;
	if ((c->adopted ? child_tell_adopted(c, &err) : check(c, &err)) < 0) {
		log_error("zygote", "%s", err.text);
		child_fail(c, &err);
		return;
	}
	c->step = CHILD_ALIVE;
	uv_timer_stop(&c->timer);
	if (c->node)
		c->node->forks++;
	leave_node(c);
	timing.fork_us = c->adopted ? UINT64_MAX : c->forked_us - c->asked_us;
	timing.sandbox_us = clock_us() - c->forked_us;
	c->born(c->born_arg, c, &timing, NULL);
}

static void on_exit_of(void *arg, int status);
static void on_stop_of(void *arg, int status);

static void on_attached(void *arg, const struct err *err)
{
	struct zygote_child *c = arg;

	if (c->step == CHILD_ENDING) { /* it failed meanwhile and waited for this answer */
		c->open_handles--;
		child_free(c);
		return;
	}
	c->open_handles--;
	c->attached = true;
	if (err) {
		struct err own = *err;

		err_wrap(&own, "setting limits");
		child_fail(c, &own);
		return;
	}
	child_maybe_born(c);
}

/* The process that a zygote calls its child, if it is one of ours and in no other cell than this: a
 * poisoned zygote may send the pidfd of any process that it can name, even the daemon's own (of a
 * socket's peer), and nothing may be done to those. -1: it is not, or has ended. */
static pid_t claimed(const struct zygote_child *c)
{
	auto_buf struct buf info = BUF_MAX(4096);
	siginfo_t ended = { 0 };
	char path[64];
	const char *p = NULL;
	struct err err;
	struct stat st;
	int pid = 0;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", c->pidfd);
	if (c->pidfd >= 0 && buf_read_file(&info, AT_FDCWD, path, &err) == 0)
		p = strstr(info.data, "\nPid:");
	if (!p || sscanf(p, "\nPid: %d", &pid) != 1 || pid <= 0 || pid == c->cell->init_pid)
		return -1;
	if (waitid(P_PIDFD, (id_t)c->pidfd, &ended, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 ||
	    ended.si_pid)
		return -1;
	/* Every cell has a user namespace of its own, and it is in it from the first moment. */
	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	if (stat(path, &st) < 0 || st.st_ino != c->cell->ino[NS_USER])
		return -1;
	return jail_is_watched(c->z->jail, pid) ? -1 : pid;
}

void child_on_forked(struct zygote_child *c, struct wire_msg *m)
{
	struct err err;
	pid_t pid;

	c->pidfd = wire_take_fd(m, 0);
	c->forked_us = clock_us();
	pid = claimed(c);
	if (pid < 0) {
		fd_close(&c->pidfd); /* whose it is, nobody knows: it is not to be killed by it */
		err_set(&err, ERR_START, "the new process ended at once, or is another's");
		child_fail(c, &err);
		return;
	}
	c->pid = pid;
	c->forked = true;
	jail_watch(c->z->jail, pid, on_exit_of, c);
	if (c->exited)
		return;
	jail_watch_stops(c->z->jail, pid, on_stop_of);
	if (c->slot >= 0) {
		c->open_handles++;
		jail_slot_attach(c->z->jail, c->slot, c->pidfd, on_attached, c);
		return;
	}
	c->attached = true;
	child_maybe_born(c);
}

/* ---- the stream ---- */

static void on_message(struct zygote_child *c, struct wire_msg *m)
{
	struct err err = ERR_INIT;

	if (!wire_may(c->phase, m->type)) {
		err_set(&err, ERR_CORRUPT, "%s sent %s", wire_phase_name(c->phase),
			wire_type_name(m->type));
		log_warn("zygote", "%s: killed", err.text);
		c->z->violations++;
		child_fail(c, &err);
		return;
	}
	if (c->step == CHILD_ALIVE) {
		if (c->events)
			c->events->message(c->ctx, c, m);
		return;
	}
	if (m->type == WIRE_FAILED) {
		if (wire_get_err(m, &err) == 0)
			err_set(&err, ERR_START, "the new process gave no reason");
		child_fail(c, &err);
		return;
	}
	c->ready = true;
	child_maybe_born(c);
}

/* Returns false when the child is no longer to be touched. */
static bool take_messages(struct zygote_child *c)
{
	while (c->stream >= 0 && c->step != CHILD_ENDING) {
		auto_msg struct wire_msg m;
		struct err err;
		int rc;

		wire_init(&m, 0, 0);
		rc = wire_frame_get(&c->in, &m, &err);
		if (rc == 0)
			return true;
		if (rc < 0) {
			log_warn("zygote", "%s: %s: killed", wire_phase_name(c->phase), err.text);
			c->z->violations++;
			child_fail(c, &err);
			return false;
		}
		on_message(c, &m);
	}
	return false;
}

/* 1: read something, 0: nothing there now, -1: the end. */
static int read_some(struct zygote_child *c)
{
	struct err err;
	char *to = buf_room(&c->in, CHILD_READ_BYTES, &err);
	ssize_t n;

	if (!to)
		return -1;
	n = read(c->stream, to, CHILD_READ_BYTES);
	if (n > 0) {
		buf_grew(&c->in, (size_t)n);
		return 1;
	}
	return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static void on_half(uv_timer_t *timer)
{
	struct zygote_child *c = timer->data;
	struct err err;

	err_set(&err, ERR_CORRUPT, "%s sent part of a message and then nothing for %d s",
		wire_phase_name(c->phase), LIMIT_FRAME_MS / 1000);
	log_warn("zygote", "%s: killed", err.text);
	child_fail(c, &err);
}

/* Whoever begins a message goes on with it: a part of one would be waited for, for ever. */
static void expect_rest(struct zygote_child *c)
{
	if (c->step != CHILD_ALIVE)
		return;
	if (c->in.len)
		must(uv_timer_start(&c->timer, on_half, LIMIT_FRAME_MS, 0) == 0);
	else
		uv_timer_stop(&c->timer);
}

static void write_some(struct zygote_child *c);

static void on_stream(uv_poll_t *poll, int status, int events)
{
	struct zygote_child *c = poll->data;
	int rc = 1;

	if (status == 0 && events & UV_WRITABLE)
		write_some(c);
	if (status == 0 && !(events & UV_READABLE))
		return;
	for (int i = 0; i < READS && c->polling && rc == 1; i++) {
		rc = read_some(c);
		if (rc == 1 && !take_messages(c))
			return;
	}
	expect_rest(c);
	if (rc < 0 && c->polling) {
		/* The end of the stream: its exit status tells what happened, and it comes. */
		uv_poll_stop(&c->poll);
		if (c->step == CHILD_FORKING && c->forked && c->exited)
			on_exit_of(c, c->status);
	}
}

static void poll_for(struct zygote_child *c)
{
	int events = UV_READABLE | (c->out.len ? UV_WRITABLE : 0);

	if (c->polling)
		must(uv_poll_start(&c->poll, events, on_stream) == 0);
}

static void write_some(struct zygote_child *c)
{
	while (c->out.len) {
		ssize_t n = send(c->stream, c->out.data, c->out.len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			buf_reset(&c->out); /* it is gone: its exit follows */
		if (n < 0)
			break;
		buf_consume(&c->out, (size_t)n);
	}
}

int zygote_child_send(struct zygote_child *c, const struct wire_msg *m, struct err *err)
{
	bool waiting = c->out.len > 0;

	if (c->stream < 0)
		return err_set(err, ERR_DIED, "it has ended");
	if (wire_frame_put(&c->out, m, err) < 0)
		return -1;
	if (!waiting)
		write_some(c);
	if (c->out.len || waiting)
		poll_for(c);
	return 0;
}

static void on_exit_of(void *arg, int status)
{
	struct zygote_child *c = arg;
	struct err err;

	c->exited = true;
	c->status = status;
	/* What it said last is still in the socket. */
	while (c->polling && c->step != CHILD_ENDING && read_some(c) == 1)
		if (!take_messages(c))
			break;
	if (c->step == CHILD_ENDING)
		return;
	if (c->step != CHILD_ALIVE) {
		err_set(&err, ERR_START, "the new process ended with status %d before it was ready",
			status);
		child_fail(c, &err);
		return;
	}
	c->step = CHILD_ENDING;
	finish(c);
}

static void on_stop_of(void *arg, int status)
{
	struct zygote_child *c = arg;

	(void)status;
	if (c->step == CHILD_ALIVE && c->events && c->events->stopped)
		c->events->stopped(c->ctx);
}

static void on_late(uv_timer_t *timer)
{
	struct err err;

	err_set(&err, ERR_START, "the new process was not ready within %d s", LIMIT_FORK_MS / 1000);
	child_fail(timer->data, &err);
}

void child_expect(struct zygote_child *c)
{
	must(uv_timer_start(&c->timer, on_late, LIMIT_FORK_MS, 0) == 0);
}

void child_listen(struct zygote_child *c)
{
	must(uv_poll_init(c->z->loop, &c->poll, c->stream) == 0);
	c->poll.data = c;
	c->polling = true;
	c->open_handles++;
	poll_for(c);
}

void child_becomes_node(struct zygote_child *c, struct zygote_node *node)
{
	node->pidfd = fd_steal(&c->pidfd);
	node->pid = c->pid;
	node->cell = steal(c->cell);
	child_to_foreground(c);
	node->slot = c->slot;
	c->slot = -1;
	jail_unwatch(c->z->jail, c->pid);
	c->step = CHILD_ENDING;
	dispose(c);
}

/* ---- small things ---- */

void zygote_child_phase(struct zygote_child *c, enum wire_phase phase)
{
	c->phase = phase;
}

int zygote_child_take_stream(struct zygote_child *c)
{
	int fd = fcntl(c->stream, F_DUPFD_CLOEXEC, 3);

	stop_stream(c);
	return fd;
}
