/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiled without _FORTIFY_SOURCE: its longjmp refuses to leave the helper's stack, which is just
 * what the child does here.
 */
#include "fork.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "jail/enter.h"
#include "jail/job.h"
#include "preload.h"
#include "wire/messages.h"

#define HELPER_STACK (64 * KIB)
#define MAX_TARGETS ENTER_MOUNTS

struct request {
	const struct fork_hooks *hooks;
	const struct fork_kept *kept;
	struct fork_result *out;
	struct enter_spec enter;
	char *targets[MAX_TARGETS];
	int ns[NS_COUNT];
	int stdio[3];
	int control; /* the zygote's own */
	uint32_t id;
	void *tid_address; /* where glibc keeps this thread's id */
	void *robust;
	size_t robust_len;
	struct err err; /* filled by the helper, whose memory is ours */
	jmp_buf resume;
};

/* ---- libc's handlers ---- */

static struct preload_state *preloaded(void)
{
	preload_get get = (preload_get)dlsym(RTLD_DEFAULT, "pipsqueak_preload");

	return get ? get() : NULL;
}

/* A library that was unloaded took its handlers along; the list cannot see that happen. */
static void call(void (*handler)(void))
{
	Dl_info info;

	if (handler && dladdr((void *)handler, &info))
		handler();
}

static void run_prepare(void)
{
	struct preload_state *p = preloaded();

	for (size_t i = p ? p->nhandlers : 0; i > 0; i--)
		call(p->handlers[i - 1].prepare);
}

static void run_after(int in_child)
{
	struct preload_state *p = preloaded();

	for (size_t i = 0; p && i < p->nhandlers; i++)
		call(in_child ? p->handlers[i].child : p->handlers[i].parent);
}

void fork_cycle(void)
{
	run_prepare();
	run_after(0);
}

/* ---- reading the request ---- */

static int *place_of(struct request *r, const char *what)
{
	static const char *const names[] = { "stdin", "stdout", "stderr" };

	for (int i = 0; i < 3; i++)
		if (strcmp(what, names[i]) == 0)
			return &r->stdio[i];
	if (strcmp(what, "stream") == 0)
		return &r->out->stream;
	if (strcmp(what, "control") == 0)
		return &r->out->control;
	if (strncmp(what, "ns-", 3) == 0)
		for (int i = 0; i < NS_COUNT; i++)
			if (strcmp(what + 3, enter_ns_name((enum enter_ns)i)) == 0)
				return &r->ns[i];
	return NULL;
}

static int add_mount(struct request *r, const char *target, bool writable, int fd)
{
	size_t n = r->enter.nmounts;

	if (n == MAX_TARGETS || n == ENTER_MOUNTS)
		return err_set(&r->err, ERR_LIMIT, "more than %d mounts", ENTER_MOUNTS);
	r->targets[n] = mem_strdup(target);
	r->enter.mounts[n] = (struct enter_mount){ fd, r->targets[n], writable };
	r->enter.nmounts++;
	if (strcmp(target, JAIL_ENV) == 0)
		r->out->has_env = 1;
	if (strcmp(target, JAIL_APP) == 0)
		r->out->has_app = 1;
	return 0;
}

static int read_descriptors(struct request *r, struct wire_msg *m)
{
	struct wire_field names;
	const char *what;
	size_t pos = 0;
	int rc = 0;

	if (!wire_get(m, WIRE_T_FDS, &names))
		return err_set(&r->err, ERR_CORRUPT, "no descriptors named");
	for (int i = 0; rc == 0 && (what = wire_list_next(&names, &pos)); i++) {
		int fd = wire_take_fd(m, i), *place;

		if (fd < 0)
			return err_set(&r->err, ERR_CORRUPT, "descriptor '%s' is missing", what);
		if (strncmp(what, "mount:", 6) == 0)
			rc = add_mount(r, what + 6, false, fd);
		else if (strncmp(what, "mountrw:", 8) == 0)
			rc = add_mount(r, what + 8, true, fd);
		else if ((place = place_of(r, what)))
			*place = fd;
		else
			rc = err_set(&r->err, ERR_CORRUPT, "unknown descriptor '%s'", what);
	}
	return rc;
}

static int read_request(struct request *r, struct wire_msg *m)
{
	auto_free char *role = wire_get_str(m, WIRE_T_ROLE);
	struct wire_field f;

	if (!role || strlen(role) >= sizeof(r->out->role))
		return err_set(&r->err, ERR_CORRUPT, "no role");
	strcpy(r->out->role, role);
	r->enter.zygote = strcmp(role, "node") == 0;
	r->enter.uid = (uint32_t)wire_get_u64(m, WIRE_T_UID, 0);
	r->enter.gid = (uint32_t)wire_get_u64(m, WIRE_T_GID, 0);
	r->enter.tmp_bytes = wire_get_u64(m, WIRE_T_TMP_BYTES, 0);
	r->enter.memory_bytes = wire_get_u64(m, WIRE_T_MEMORY, 0);
	r->enter.pids = wire_get_u64(m, WIRE_T_PIDS, 0);
	r->enter.open_files = wire_get_u64(m, WIRE_T_STATUS, 0);
	if (wire_get(m, WIRE_T_BODY, &f)) {
		void *copy = mem_zero(1, f.len); /* aligned, as a filter must be */

		memcpy(copy, f.data, f.len);
		r->enter.filter = copy;
		r->enter.filter_bytes = f.len;
	}
	return read_descriptors(r, m);
}

/* In the zygote, and in the child when it is done: everything that came for this fork goes. */
static void free_request(struct request *r, bool in_child)
{
	for (int i = 0; i < NS_COUNT; i++)
		fd_close(&r->ns[i]);
	for (int i = 0; i < 3; i++)
		if (!in_child || r->stdio[i] > 2)
			fd_close(&r->stdio[i]);
	for (size_t i = 0; i < r->enter.nmounts; i++) {
		if (!in_child) /* there they are consumed */
			fd_close(&r->enter.mounts[i].tree);
		free(r->targets[i]);
	}
	free((void *)r->enter.filter);
	if (!in_child) {
		fd_close(&r->out->stream);
		fd_close(&r->out->control);
	}
}

/* ---- the fork ---- */

static int say_forked(struct request *r, int pidfd)
{
	auto_msg struct wire_msg m;

	wire_init(&m, WIRE_FORKED, r->id);
	wire_put_fd(&m, pidfd);
	return wire_send(r->control, &m, &r->err);
}

/* Shares the zygote's memory while the zygote waits (CLONE_VM|CLONE_VFORK), but has ids,
 * descriptors and namespaces of its own: it joins the cell, which the zygote's id owns, and clones
 * there. Why it is safe: the rights it gains are over the cell alone. */
static int helper(void *arg)
{
	struct request *r = arg;
	const unsigned long flags = CLONE_PARENT | CLONE_PIDFD | CLONE_CHILD_SETTID |
				    CLONE_CHILD_CLEARTID;
	int pidfd = -1;
	long pid;

	if (enter_namespaces(r->ns, &r->err) < 0)
		syscall(SYS_exit_group, 1);
		/* Not clone3, behind whose pointer a zygote's filter cannot look. */
#ifdef __x86_64__
	pid = syscall(SYS_clone, flags, NULL, &pidfd, r->tid_address, 0);
#else
	pid = syscall(SYS_clone, flags, NULL, &pidfd, 0, r->tid_address);
#endif
	if (pid == 0)
		longjmp(r->resume, 1); /* the child has the zygote's stack as it was */
	if (pid < 0)
		err_sys(&r->err, errno, "cloning into the cell");
	else if (say_forked(r, pidfd) == 0)
		r->err.kind = ERR_NONE;
	syscall(SYS_exit_group, 0);
	return 0;
}

static void say_failed(int control, uint32_t id, const struct err *err)
{
	auto_msg struct wire_msg m;
	struct err lost;

	wire_init(&m, WIRE_FAILED, id);
	wire_put_err(&m, err);
	if (wire_send(control, &m, &lost) < 0)
		_exit(1); /* the daemon is gone */
}

static void place_stdio(struct request *r)
{
	int high[3];

	for (int i = 0; i < 3; i++)
		high[i] = r->stdio[i] >= 0 ? fcntl(r->stdio[i], F_DUPFD_CLOEXEC, 3) : -1;
	for (int i = 0; i < 3; i++)
		if (high[i] >= 0) {
			dup2(high[i], i);
			close(high[i]);
		}
}

/* glibc's per-task registrations with the kernel, which a raw clone does not carry over. */
static void restore_registrations(const struct request *r)
{
#ifdef SYS_rseq
	ptrdiff_t *offset = (ptrdiff_t *)dlsym(RTLD_DEFAULT, "__rseq_offset");
	unsigned int *size = (unsigned int *)dlsym(RTLD_DEFAULT, "__rseq_size");

	/* Registered already (EBUSY, EINVAL) or not supported: both fine. */
	if (offset && size && *size)
		syscall(SYS_rseq, (char *)__builtin_thread_pointer() + *offset, 32, 0, 0x53053053);
#endif
	if (r->robust)
		syscall(SYS_set_robust_list, r->robust, r->robust_len);
}

static int open_anew(int fd, struct err *err)
{
	off_t at = lseek(fd, 0, SEEK_CUR);
	int flags = fcntl(fd, F_GETFL), cloexec = fcntl(fd, F_GETFD) & FD_CLOEXEC;
	auto_close int own = -1;
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (at >= 0 && flags >= 0)
		own = open(path, (flags & ~O_CREAT) | O_CLOEXEC);
	if (own < 0 || lseek(own, at, SEEK_SET) < 0 || dup3(own, fd, cloexec ? O_CLOEXEC : 0) < 0)
		return err_sys(err, errno, "opening descriptor %d anew", fd);
	return 0;
}

/* Before the sandbox is closed: Landlock knows no path to a file of the zygote's. */
static int open_kept(const struct request *r, struct err *err)
{
	for (size_t i = 0; i < r->kept->n; i++)
		if (open_anew(r->kept->fds[i], err) < 0)
			return -1;
	return 0;
}

static void child_enters(struct request *r)
{
	auto_msg struct wire_msg m;
	struct err lost;

	restore_registrations(r);
	wire_init(&m, WIRE_READY, r->id);
	if (open_kept(r, &r->err) < 0 || enter_sandbox(&r->enter, &r->err) < 0) {
		m.type = WIRE_FAILED;
		wire_put_err(&m, &r->err);
		if (wire_frame_send(r->out->stream, &m, &lost) < 0)
			_exit(125);
		_exit(126);
	}
	place_stdio(r);
	if (wire_frame_send(r->out->stream, &m, &lost) < 0)
		_exit(125);
	close(r->control);
}

static bool clone_helper(struct request *r)
{
	char *stack = mem_zero(1, HELPER_STACK);
	sigset_t all, old;
	pid_t pid;

	prctl(PR_GET_TID_ADDRESS, &r->tid_address);
	syscall(SYS_get_robust_list, 0, &r->robust, &r->robust_len);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &old);
	err_set(&r->err, ERR_SYSTEM, "the fork helper died");
	if (_setjmp(r->resume) == 0) {
		pid = clone(helper, stack + HELPER_STACK, CLONE_VM | CLONE_VFORK | CLONE_PARENT, r);
		if (pid < 0)
			err_sys(&r->err, errno, "cloning the fork helper");
		sigprocmask(SIG_SETMASK, &old, NULL);
		free(stack);
		return false;
	}
	child_enters(r);
	sigprocmask(SIG_SETMASK, &old, NULL);
	free(stack);
	return true;
}

int fork_serve(int control, struct wire_msg *m, const struct fork_hooks *hooks,
	       const struct fork_kept *kept, struct fork_result *out)
{
	struct request r = {
		.hooks = hooks, .kept = kept, .out = out, .control = control, .id = m->id
	};
	bool child;

	*out = (struct fork_result){ .stream = -1, .control = -1 };
	for (int i = 0; i < NS_COUNT; i++)
		r.ns[i] = -1;
	r.stdio[0] = r.stdio[1] = r.stdio[2] = -1;
	if (read_request(&r, m) < 0) {
		say_failed(control, r.id, &r.err);
		free_request(&r, false);
		return 0;
	}
	hooks->before();
	run_prepare();
	child = clone_helper(&r);
	run_after(child);
	if (child) {
		free_request(&r, true);
		hooks->after_child();
		return 1;
	}
	hooks->after_parent();
	if (r.err.kind != ERR_NONE)
		say_failed(control, r.id, &r.err);
	free_request(&r, false);
	return 0;
}

int fork_adopt(int stream, struct fork_result *out, struct err *err)
{
	struct request r = { .out = out };
	auto_msg struct wire_msg m;
	int rc = wire_frame_recv(stream, &m, err);

	if (rc == 0)
		_exit(0); /* nobody wanted it */
	if (rc < 0)
		return -1;
	*out = (struct fork_result){ .stream = stream, .control = -1 };
	for (int i = 0; i < NS_COUNT; i++)
		r.ns[i] = -1;
	r.stdio[0] = r.stdio[1] = r.stdio[2] = -1;
	if (m.type != WIRE_ADOPT || read_request(&r, &m) < 0) {
		free_request(&r, true);
		return err_set(err, ERR_CORRUPT, "not told what to be");
	}
	out->has_env = wire_get_u64(&m, WIRE_T_MODE, 0) != 0;
	place_stdio(&r);
	free_request(&r, true);
	return 0;
}
