/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/maker_spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "jail/enter.h"
#include "jail/job.h"
#include "wire/messages.h"

#define MAX_WORDS 256

struct spawn {
	struct enter_spec enter;
	int ns[NS_COUNT];
	int fds[LIMIT_PACKET_FDS];
	int nfds;
	char *argv[MAX_WORDS], *envp[MAX_WORDS];
};

static int read_words(const struct wire_msg *m, uint8_t tag, char **out, struct err *err)
{
	struct wire_field f;
	const char *s;
	size_t pos = 0, n = 0;

	if (wire_get(m, tag, &f))
		while ((s = wire_list_next(&f, &pos))) {
			if (n + 1 == MAX_WORDS)
				return err_set(err, ERR_LIMIT, "more than %d words", MAX_WORDS);
			out[n++] = (char *)s;
		}
	out[n] = NULL;
	return (int)n;
}

static int read_mounts(struct wire_msg *m, uint8_t tag, bool writable, struct enter_spec *enter,
		       int next)
{
	struct wire_field f;
	const char *target;
	size_t pos = 0;

	if (!wire_get(m, tag, &f))
		return next;
	while ((target = wire_list_next(&f, &pos)) && enter->nmounts < ENTER_MOUNTS)
		enter->mounts[enter->nmounts++] = (struct enter_mount){
			.tree = wire_take_fd(m, next++), .target = target, .writable = writable
		};
	return next;
}

static int read_spawn(struct wire_msg *m, struct spawn *s, struct err *err)
{
	uint64_t joined = wire_get_u64(m, WIRE_T_NET, 0);
	struct wire_field f;
	int next = 0;

	memset(s, 0, sizeof(*s));
	if (read_words(m, WIRE_T_ARGV, s->argv, err) < 0 ||
	    read_words(m, WIRE_T_ENV, s->envp, err) < 0)
		return -1;
	if (!s->argv[0])
		return err_set(err, ERR_CORRUPT, "nothing to start");
	for (int i = 0; i < NS_COUNT; i++)
		s->ns[i] = joined >> i & 1 ? wire_take_fd(m, next++) : -1;
	next = read_mounts(m, WIRE_T_RDWR, true, &s->enter, next);
	next = read_mounts(m, WIRE_T_RDONLY, false, &s->enter, next);
	while (next < m->nfds)
		s->fds[s->nfds++] = wire_take_fd(m, next++);
	s->enter.uid = (uint32_t)wire_get_u64(m, WIRE_T_UID, 0);
	s->enter.gid = (uint32_t)wire_get_u64(m, WIRE_T_GID, 0);
	s->enter.memory_bytes = wire_get_u64(m, WIRE_T_MEMORY, 0);
	s->enter.pids = wire_get_u64(m, WIRE_T_PIDS, 0);
	s->enter.zygote = wire_get_u64(m, WIRE_T_MODE, 0) != 0;
	if (wire_get(m, WIRE_T_BODY, &f)) {
		/* seccomp wants the filter aligned; a field in the message is not */
		void *copy = mem_zero(1, f.len);

		memcpy(copy, f.data, f.len);
		s->enter.filter = copy;
		s->enter.filter_bytes = f.len;
	}
	return 0;
}

/* Descriptors 0, 1, 2 ... as asked, the report pipe behind them, nothing else. */
static int place_descriptors(struct spawn *s, int report)
{
	int high[LIMIT_PACKET_FDS];

	for (int i = 0; i < s->nfds; i++)
		high[i] = fcntl(s->fds[i], F_DUPFD_CLOEXEC, 200);
	report = fcntl(report, F_DUPFD_CLOEXEC, 200);
	for (int i = 0; i < s->nfds; i++)
		if (dup2(high[i], i) < 0)
			_exit(126);
	dup3(report, s->nfds, O_CLOEXEC);
	syscall(SYS_close_range, s->nfds + 1, ~0U, 0);
	return s->nfds;
}

static void __attribute__((noreturn)) spawned(struct spawn *s, int report)
{
	struct err err = ERR_INIT;
	sigset_t none;

	/* The maker and the inits are kept from the OOM killer where the starter could; programs
	 * are not. Absent /proc or permission: nothing was raised. */
	if (fd_write_file(AT_FDCWD, "/proc/self/oom_score_adj", "0", &err) < 0)
		err = ERR_INIT;
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (enter_sandbox(&s->enter, &err) == 0) {
		report = place_descriptors(s, report);
		must(s->argv[0]); /* read_spawn() saw to it */
		execve(s->argv[0], s->argv, s->envp);
		err_sys(&err, errno, "starting '%s'", s->argv[0]);
	}
	if (write(report, &err, sizeof(err)) < 0)
		_exit(126);
	_exit(127);
}

int maker_spawn(int sock, struct wire_msg *m, struct err *err)
{
	auto_msg struct wire_msg reply;
	struct spawn s;
	struct err told;
	int report[2], pidfd = -1;
	pid_t pid;
	ssize_t n;

	wire_init(&reply, WIRE_MADE, m->id);
	if (read_spawn(m, &s, err) < 0 || enter_namespaces(s.ns, err) < 0)
		return -1;
	if (pipe2(report, O_CLOEXEC) < 0)
		return err_sys(err, errno, "pipe");
	pid = maker_clone(CLONE_PARENT, &pidfd, JAIL_FIRST_PID);
	if (pid == 0) {
		close(report[0]);
		spawned(&s, report[1]);
	}
	if (pid < 0)
		return err_sys(err, errno, "cloning");
	close(report[1]);
	do
		n = read(report[0], &told, sizeof(told)); /* end: exec closed it */
	while (n < 0 && errno == EINTR);
	if (n == (ssize_t)sizeof(told)) {
		*err = told;
		return -1;
	}
	wire_put_u64(&reply, WIRE_T_PID, (uint64_t)pid);
	wire_put_fd(&reply, pidfd);
	return wire_send(sock, &reply, err);
}

int maker_mount(int sock, struct wire_msg *m, struct err *err)
{
	struct enter_spec enter = { .tmp_bytes = wire_get_u64(m, WIRE_T_TMP_BYTES, 0) };
	int ns[NS_COUNT] = { [NS_USER] = wire_take_fd(m, 0), [NS_MNT] = wire_take_fd(m, 1) };
	auto_msg struct wire_msg reply;

	for (int i = NS_MNT + 1; i < NS_COUNT; i++)
		ns[i] = -1;
	wire_init(&reply, WIRE_MADE, m->id);
	read_mounts(m, WIRE_T_RDONLY, false, &enter, 2);
	if (ns[NS_USER] < 0 || ns[NS_MNT] < 0)
		return err_set(err, ERR_CORRUPT, "no cell to mount in");
	if (enter_namespaces(ns, err) < 0 || enter_mounts(&enter, err) < 0)
		return -1;
	return wire_send(sock, &reply, err);
}
