/* SPDX-License-Identifier: Apache-2.0
 *
 * What is asked of a child that lives: signals, its end, its CPU time.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "zygote/zygote_priv.h"

/* Has it its own way with this signal? */
static bool handles(const struct zygote_child *c, int signo)
{
	static const char *const keys[] = { "\nSigBlk:", "\nSigIgn:", "\nSigCgt:" };
	auto_buf struct buf status = BUF_MAX(16 * KIB);
	struct err err;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", c->pid);
	if (buf_read_file(&status, AT_FDCWD, path, &err) < 0)
		return false;
	for (size_t i = 0; i < array_len(keys); i++) {
		const char *p = strstr(status.data, keys[i]);

		if (p && strtoull(p + strlen(keys[i]), NULL, 16) >> (signo - 1) & 1)
			return true;
	}
	return false;
}

void zygote_child_signal(struct zygote_child *c, int signo)
{
	if (signo == SIGTSTP && !c->exited && c->pid > 0 && !handles(c, signo))
		signo = SIGSTOP;
	/* It made a session of its own: its group is its own. Not reaped yet, so the pid is its. */
	if (!c->exited && c->pid > 0)
		kill(-c->pid, signo);
}

void zygote_child_kill(struct zygote_child *c)
{
	if (c->pidfd >= 0 && !c->exited)
		syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
	if (c->cell && c->cell->init >= 0)
		syscall(SYS_pidfd_send_signal, c->cell->init, SIGKILL, NULL, 0);
}

int zygote_child_pid(const struct zygote_child *c)
{
	return c->pid;
}

void zygote_child_cpu(struct zygote_child *c, zygote_cpu_fn done, void *arg)
{
	struct err err;

	if (c->slot >= 0) {
		jail_slot_time(c->z->jail, c->slot, done, arg);
		return;
	}
	err_set(&err, ERR_NOT_FOUND, "it is in no cgroup");
	done(arg, 0, &err);
}

void zygote_child_cpu_limit(struct zygote_child *c, uint64_t us)
{
	auto_buf struct buf text = BUF_MAX(16 * KIB);
	unsigned long user, system;
	char path[64];
	const char *end;
	struct err err;
	rlim_t s;

	snprintf(path, sizeof(path), "/proc/%d/stat", c->pid);
	if (c->pid <= 0 || buf_read_file(&text, AT_FDCWD, path, &err) < 0)
		return;
	end = strrchr(text.data, ')');
	if (!end || sscanf(end, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
			   &system) != 2)
		return;
	s = (user + system) / (unsigned long)sysconf(_SC_CLK_TCK) + us / 1000000 + 1;
	if (prlimit(c->pid, RLIMIT_CPU, &(struct rlimit){ s, s + 1 }, NULL) < 0)
		log_warn("zygote", "limiting CPU time: %s", strerror(errno));
}
