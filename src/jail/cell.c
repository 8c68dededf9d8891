/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/cell.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "jail/jail_priv.h"
#include "wire/messages.h"

struct making {
	struct jail *jail;
	cell_fn done;
	void *arg;
	struct cell *cell;
	uint64_t mode;
};

/* "Pid:" of /proc/self/fdinfo/N: the process behind a pidfd as this process's pid namespace
 * numbers it; -1 when it has ended. */
static pid_t pid_of(int pidfd)
{
	auto_buf struct buf text = BUF_MAX(4096);
	char path[64];
	struct err err;
	const char *p;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	if (buf_read_file(&text, AT_FDCWD, path, &err) < 0)
		return -1;
	p = strstr(text.data, "\nPid:");
	return p && sscanf(p, "\nPid: %d", &pid) == 1 ? pid : -1;
}

/* Freed by its owner and its last process reaped: in either order. */
static void retire(struct cell *cell)
{
	if (!cell->freed || !cell->ended)
		return;
	if (cell->gone)
		cell->gone(cell->gone_arg, cell->gone_id);
	free(cell);
}

void cell_on_init_exit(void *arg, int status)
{
	struct cell *cell = arg;

	(void)status;
	cell->ended = true;
	retire(cell);
}

static int take_cell(struct making *making, struct wire_msg *m, struct err *err)
{
	struct cell *cell = making->cell;
	int next = 0;

	for (int i = 0; i < NS_COUNT; i++) {
		struct stat st;

		if ((i == NS_PID && !(making->mode & MAKER_NEW_PID)) ||
		    (i == NS_NET && !(making->mode & MAKER_NEW_NET)))
			continue;
		cell->ns[i] = wire_take_fd(m, next++);
		if (cell->ns[i] < 0 || fstat(cell->ns[i], &st) < 0)
			return err_set(err, ERR_SYSTEM,
				       "the cell maker's answer lacks a namespace");
		cell->ino[i] = st.st_ino;
	}
	if (!(making->mode & MAKER_NEW_PID))
		return 0;
	cell->init = wire_take_fd(m, next);
	cell->init_pid = cell->init < 0 ? -1 : pid_of(cell->init);
	if (cell->init_pid <= 0)
		return err_set(err, ERR_SYSTEM, "the cell's init is gone");
	cell->ended = false;
	jail_watch(making->jail, cell->init_pid, cell_on_init_exit, cell);
	return 0;
}

static void on_made(void *arg, struct wire_msg *m, const struct err *err)
{
	struct making *making = arg;
	struct err own = ERR_INIT;

	if (!err && take_cell(making, m, &own) < 0)
		err = &own;
	if (err) {
		own = *err;
		err_wrap(&own, "making a cell");
		jail_free_cell(making->cell);
		making->done(making->arg, NULL, &own);
	} else {
		making->done(making->arg, making->cell, NULL);
	}
	free(making);
}

static int dup_into(struct wire_msg *m, int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	must(copy >= 0 || errno == EMFILE);
	if (copy >= 0)
		wire_put_fd(m, copy);
	return copy;
}

void jail_make_cell(struct jail *jail, const struct cell_spec *spec, cell_fn done, void *arg)
{
	struct making *making = mem_new(struct making);
	auto_msg struct wire_msg m;

	making->jail = jail;
	making->done = done;
	making->arg = arg;
	making->mode = spec->mode;
	making->cell = mem_new(struct cell);
	making->cell->jail = jail;
	making->cell->init = making->cell->network = -1;
	making->cell->ended = true; /* no init yet */
	for (int i = 0; i < NS_COUNT; i++)
		making->cell->ns[i] = -1;
	making->cell->uid = spec->uid;
	making->cell->gid = spec->gid;
	making->cell->host_id = spec->host_id;
	wire_init(&m, WIRE_MAKE_CELL, 0);
	wire_put_u64(&m, WIRE_T_MODE, spec->mode);
	wire_put(&m, WIRE_T_BODY, spec->extents, spec->nextents * sizeof(spec->extents[0]));
	wire_put_u64(&m, WIRE_T_UID, spec->uid);
	wire_put_u64(&m, WIRE_T_GID, spec->gid);
	wire_put_u64(&m, WIRE_T_TMP_BYTES, spec->tmp_bytes);
	wire_put_str(&m, WIRE_T_PATH, spec->prefix);
	if (spec->mode & MAKER_IN_USER)
		dup_into(&m, spec->in_user);
	if (spec->mode & MAKER_IN_PID)
		dup_into(&m, spec->in_pid);
	if (spec->mode & MAKER_COPY_MNT)
		dup_into(&m, spec->copy_mnt);
	link_ask(&jail->maker, &m, on_made, making);
}

struct connecting {
	struct cell *cell;
	cell_fn done;
	void *arg;
};

static void on_connected(void *arg, struct wire_msg *m, const struct err *err)
{
	struct connecting *c = arg;
	struct err own = ERR_INIT;

	if (!err) {
		c->cell->network = wire_take_fd(m, 0);
		if (c->cell->network < 0)
			err_set(&own, ERR_SYSTEM, "the net helper's answer lacks a descriptor");
	} else {
		own = *err;
	}
	c->done(c->arg, c->cell, own.kind ? &own : NULL);
	free(c);
}

void jail_connect_cell(struct cell *cell, cell_fn done, void *arg)
{
	struct connecting *c = mem_new(struct connecting);
	auto_msg struct wire_msg m;

	*c = (struct connecting){ cell, done, arg };
	wire_init(&m, WIRE_ATTACH, 0);
	dup_into(&m, cell->ns[NS_NET]);
	link_ask(&cell->jail->net, &m, on_connected, c);
}

struct mounting {
	mounted_fn done;
	void *arg;
};

static void on_mounted(void *arg, struct wire_msg *m, const struct err *err)
{
	struct mounting *mounting = arg;

	(void)m;
	mounting->done(mounting->arg, err);
	free(mounting);
}

void jail_mount(struct cell *cell, const struct cell_mounts *mounts, mounted_fn done, void *arg)
{
	struct mounting *mounting = mem_new(struct mounting);
	auto_buf struct buf targets = { 0 };
	auto_msg struct wire_msg m;

	*mounting = (struct mounting){ done, arg };
	wire_init(&m, WIRE_MOUNT, 0);
	dup_into(&m, cell->ns[NS_USER]);
	dup_into(&m, cell->ns[NS_MNT]);
	for (size_t i = 0; i < mounts->n; i++) {
		wire_list_add(&targets, mounts->targets[i]);
		wire_put_fd(&m, mounts->trees[i]);
	}
	if (targets.len)
		wire_put(&m, WIRE_T_RDONLY, targets.data, targets.len);
	wire_put_u64(&m, WIRE_T_TMP_BYTES, mounts->tmp_bytes);
	link_ask(&cell->jail->maker, &m, on_mounted, mounting);
}

void jail_free_cell(struct cell *cell)
{
	if (!cell)
		return;
	if (cell->init >= 0)
		syscall(SYS_pidfd_send_signal, cell->init, SIGKILL, NULL, 0);
	fd_close(&cell->init);
	fd_close(&cell->network);
	for (int i = 0; i < NS_COUNT; i++)
		fd_close(&cell->ns[i]);
	cell->freed = true;
	retire(cell);
}

int jail_detach(const char *path, bool writable, int *out, struct err *err)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
					       (writable ? 0 : MOUNT_ATTR_RDONLY) };
	auto_close int fd = (int)syscall(SYS_open_tree, AT_FDCWD, path,
					 OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

	if (fd < 0)
		return err_sys(err, errno, "opening '%s'", path);
	if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) <
	    0)
		return err_sys(err, errno, "preparing '%s'", path);
	*out = fd_steal(&fd);
	return 0;
}

int jail_detach_terminal(const char *path, int same, int *out, struct err *err)
{
	/* Not NODEV: it is a device that is wanted here. */
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC |
					       MOUNT_ATTR_RDONLY };
	auto_close int fd = (int)syscall(SYS_open_tree, AT_FDCWD, path,
					 OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
	struct stat here, there;

	if (fd < 0)
		return err_sys(err, errno, "opening '%s'", path);
	if (fstat(fd, &here) < 0 || fstat(same, &there) < 0)
		return err_sys(err, errno, "looking at '%s'", path);
	if (!S_ISCHR(here.st_mode) || here.st_dev != there.st_dev || here.st_ino != there.st_ino)
		return err_set(err, ERR_DENIED, "'%s' is not the caller's terminal here", path);
	if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return err_sys(err, errno, "preparing '%s'", path);
	*out = fd_steal(&fd);
	return 0;
}

struct spawning {
	spawn_fn done;
	void *arg;
};

static void on_spawned(void *arg, struct wire_msg *m, const struct err *err)
{
	struct spawning *s = arg;
	struct err own = ERR_INIT;
	int pidfd = -1;
	pid_t pid = 0;

	if (!err) {
		pidfd = wire_take_fd(m, 0);
		pid = pidfd < 0 ? -1 : pid_of(pidfd);
		/* A program that has already ended is told by its pid all the same. */
		if (pid < 0)
			pid = (pid_t)wire_get_u64(m, WIRE_T_PID, 0);
		if (pidfd < 0) {
			err_set(&own, ERR_SYSTEM, "the cell maker's answer lacks a process");
			err = &own;
		}
	}
	s->done(s->arg, pidfd, pid, err);
	free(s);
}

static int put_spawn_mounts(struct wire_msg *m, const struct spawn_spec *spec, bool writable,
			    struct err *err)
{
	auto_buf struct buf targets = { 0 };

	for (size_t i = 0; i < spec->nmounts; i++) {
		int tree = -1;

		if (spec->mounts[i].writable != writable)
			continue;
		if (jail_detach(spec->mounts[i].from, writable, &tree, err) < 0)
			return -1;
		wire_put_fd(m, tree);
		wire_list_add(&targets, spec->mounts[i].to);
	}
	if (targets.len)
		wire_put(m, writable ? WIRE_T_RDWR : WIRE_T_RDONLY, targets.data, targets.len);
	return 0;
}

static void put_words(struct wire_msg *m, uint8_t tag, const char *const *words)
{
	auto_buf struct buf list = { 0 };

	for (; words && *words; words++)
		wire_list_add(&list, *words);
	if (list.len)
		wire_put(m, tag, list.data, list.len);
}

static int fill_spawn(const struct spawn_spec *spec, struct wire_msg *m, struct err *err)
{
	uint64_t joined = 0;

	for (int i = 0; i < NS_COUNT; i++)
		if (spec->cell->ns[i] >= 0) {
			dup_into(m, spec->cell->ns[i]);
			joined |= 1ULL << i;
		}
	wire_put_u64(m, WIRE_T_NET, joined);
	if (put_spawn_mounts(m, spec, true, err) < 0 || put_spawn_mounts(m, spec, false, err) < 0)
		return -1;
	for (size_t i = 0; i < spec->nfds; i++) {
		if (spec->fds[i] >= 0)
			dup_into(m, spec->fds[i]);
		else
			wire_put_fd(m, open("/dev/null", O_RDWR | O_CLOEXEC));
	}
	return 0;
}

struct failed_spawn {
	struct spawning *s;
	struct err err;
	uv_timer_t timer;
};

static void free_failed(uv_handle_t *handle)
{
	free(handle->data);
}

static void tell_failed(uv_timer_t *timer)
{
	struct failed_spawn *f = timer->data;

	on_spawned(f->s, NULL, &f->err);
	uv_close((uv_handle_t *)timer, free_failed);
}

static void fail_later(struct jail *jail, struct spawning *s, const struct err *err)
{
	struct failed_spawn *f = mem_new(struct failed_spawn);

	f->s = s;
	f->err = *err;
	must(uv_timer_init(jail->loop, &f->timer) == 0);
	f->timer.data = f;
	must(uv_timer_start(&f->timer, tell_failed, 0, 0) == 0);
}

void jail_spawn(struct jail *jail, const struct spawn_spec *spec, spawn_fn done, void *arg)
{
	struct spawning *s = mem_new(struct spawning);
	const struct buf *filter = jail_filter(jail, spec->zygote ? SECCOMP_ZYGOTE : SECCOMP_CODE);
	auto_msg struct wire_msg m;
	struct err err = ERR_INIT;

	s->done = done;
	s->arg = arg;
	wire_init(&m, WIRE_SPAWN, 0);
	put_words(&m, WIRE_T_ARGV, spec->argv);
	put_words(&m, WIRE_T_ENV, spec->env);
	wire_put_u64(&m, WIRE_T_UID, spec->cell->uid);
	wire_put_u64(&m, WIRE_T_GID, spec->cell->gid);
	wire_put_u64(&m, WIRE_T_MEMORY, spec->memory_bytes);
	wire_put_u64(&m, WIRE_T_PIDS, spec->pids);
	wire_put_u64(&m, WIRE_T_MODE, spec->zygote);
	wire_put(&m, WIRE_T_BODY, filter->data, filter->len);
	if (fill_spawn(spec, &m, &err) < 0) {
		fail_later(jail, s, &err);
		return;
	}
	link_ask(&jail->maker, &m, on_spawned, s);
}
