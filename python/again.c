/* SPDX-License-Identifier: Apache-2.0 */
#include "again.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "jail/job.h"
#include "wire/messages.h"

/* What a call can leave in a cell when its processes are gone. */
struct traces {
	uint64_t blocks_free, inodes_free; /* of the one file system that is writable */
	mode_t mode[3];			   /* of its directories */
	int ipc;			   /* System V objects */
};

/* Shared by a spare and its children: what one of them wrote. `known` is what the spare believes of
 * it.
 */
static struct pages *written;
static struct pages known;

static const char *const writable[3] = { "/tmp", "/dev/shm", JAIL_HOME };

static void look(struct traces *t)
{
	struct shm_info shm = { 0 };
	struct seminfo sem = { 0 };
	struct msginfo msg = { 0 };
	struct statfs fs;
	struct stat st;

	memset(t, 0, sizeof(*t));
	if (statfs("/tmp", &fs) == 0) {
		t->blocks_free = fs.f_bfree;
		t->inodes_free = fs.f_ffree;
	}
	for (size_t i = 0; i < array_len(writable); i++)
		if (stat(writable[i], &st) == 0)
			t->mode[i] = st.st_mode;
	if (shmctl(0, SHM_INFO, (struct shmid_ds *)&shm) >= 0)
		t->ipc += shm.used_ids;
	if (semctl(0, 0, SEM_INFO, &sem) >= 0)
		t->ipc += sem.semusz;
	if (msgctl(0, MSG_INFO, (struct msqid_ds *)&msg) >= 0)
		t->ipc += msg.msgpool;
}

/* Orphans of the child's come to us, and are reaped as they end: they count towards the cell's
 * limit of processes. */
static int wait_for(pid_t pid)
{
	int status;
	pid_t ended;

	do
		ended = waitpid(-1, &status, __WALL);
	while (ended != pid && (ended >= 0 || errno == EINTR));
	return ended == pid ? status : 0;
}

/* Whatever a call has started is our child by now, or below one. The kernel lets nobody fork out of
 * this: who has a SIGKILL pending cannot. It looks at every process of the host, though. */
static void sweep(void)
{
	if (waitpid(-1, NULL, __WALL | WNOHANG) < 0 && errno == ECHILD)
		return;
	kill(-1, SIGKILL);
	while (waitpid(-1, NULL, __WALL) >= 0 || errno == EINTR)
		continue;
}

/* The daemon is to see of us what it would have seen of the child. */
static void __attribute__((noreturn)) end_as(int status)
{
	sigset_t set;

	if (WIFSIGNALED(status)) {
		signal(WTERMSIG(status), SIG_DFL);
		sigemptyset(&set);
		sigaddset(&set, WTERMSIG(status));
		sigprocmask(SIG_UNBLOCK, &set, NULL);
		kill(getpid(), WTERMSIG(status));
	}
	_exit(WEXITSTATUS(status));
}

static void say_again(int stream, enum wire_again cell)
{
	auto_msg struct wire_msg m;
	struct err lost;

	wire_init(&m, WIRE_AGAIN, 0);
	wire_put_u64(&m, WIRE_T_STATUS, cell);
	if (wire_frame_send(stream, &m, &lost) < 0)
		_exit(0); /* the daemon is gone */
}

void again_serve(int stream, const struct fork_hooks *hooks)
{
	const struct rlimit none = { 0, 0 };
	struct traces before, now;
	pid_t pid = 0;

	/* A POSIX message queue would outlive its call, and be seen by nothing here. */
	setrlimit(RLIMIT_MSGQUEUE, &none);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	look(&before);
	written = mmap(NULL, sizeof(*written), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (written == MAP_FAILED)
		written = NULL;
	for (;;) {
		int status;

		hooks->before();
		pid = fork();
		if (pid == 0) {
			hooks->after_child();
			setsid(); /* as a child that has the cell to itself */
			pages_copy(&known);
			return;
		}
		hooks->after_parent();
		if (pid < 0) {
			dprintf(STDERR_FILENO, "pipsqueak: no process for a call: %m\n");
			_exit(1);
		}
		status = wait_for(pid);
		if (status != 0)
			end_as(status);
		sweep();
		if (written && !known.n)
			pages_ours(written, &known);
		look(&now);
		/* No process of a cell may ever have a zygote's pid. */
		say_again(stream, memcmp(&before, &now, sizeof(now)) != 0 ? WIRE_AGAIN_UNTIDY
				  : pid > JAIL_FIRST_PID / 2		  ? WIRE_AGAIN_WORN
									  : WIRE_AGAIN_CLEAN);
	}
}

void again_leave(void)
{
	if (written && !known.n)
		pages_learn(written);
	_exit(0);
}
