/* SPDX-License-Identifier: Apache-2.0
 *
 * All processes of all sandboxes are direct children of the daemon (CLONE_PARENT), so one place
 * reaps them. A process can end before the message that names it is read: what ended unclaimed is
 * remembered for a while.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/mem.h"
#include "jail/jail_priv.h"

#define BUCKETS 256
#define UNCLAIMED 1024

struct watch {
	struct watch *next;
	pid_t pid;
	exit_fn done, stopped;
	void *arg;
};

struct reaper {
	uv_signal_t signal;
	struct watch *table[BUCKETS];
	struct {
		pid_t pid;
		int status;
	} unclaimed[UNCLAIMED]; /* a ring */
	unsigned int next;
};

static struct watch **find(struct reaper *r, pid_t pid)
{
	struct watch **w = &r->table[pid % BUCKETS];

	while (*w && (*w)->pid != pid)
		w = &(*w)->next;
	return w;
}

static struct watch *take(struct reaper *r, pid_t pid)
{
	struct watch **w = find(r, pid), *found = *w;

	if (found)
		*w = found->next;
	return found;
}

static void tell_stopped(struct reaper *r, pid_t pid, int status)
{
	struct watch *w = *find(r, pid);

	if (w && w->stopped)
		w->stopped(w->arg, status);
}

static void on_sigchld(uv_signal_t *signal, int signum)
{
	struct jail *jail = signal->data;
	struct reaper *r = jail->reaper;
	int status;
	pid_t pid;

	(void)signum;
	while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED | __WALL)) > 0) {
		struct watch *w;

		if (WIFSTOPPED(status)) {
			tell_stopped(r, pid, status);
			continue;
		}
		w = take(r, pid);
		if (!w) {
			r->unclaimed[r->next].pid = pid;
			r->unclaimed[r->next].status = status;
			r->next = (r->next + 1) % UNCLAIMED;
			continue;
		}
		if (w->done)
			w->done(w->arg, status);
		free(w);
	}
}

static bool is_child(pid_t pid)
{
	siginfo_t info;

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) == 0;
}

void jail_watch(struct jail *jail, pid_t pid, exit_fn done, void *arg)
{
	struct reaper *r = jail->reaper;
	struct watch *w;

	for (int i = 0; i < UNCLAIMED; i++)
		if (r->unclaimed[i].pid == pid) {
			r->unclaimed[i].pid = 0;
			/* Pids come round: a child of that pid that is there now is another one. */
			if (is_child(pid))
				continue;
			if (done)
				done(arg, r->unclaimed[i].status);
			return;
		}
	w = mem_new(struct watch);
	w->pid = pid;
	w->done = done;
	w->arg = arg;
	w->next = r->table[pid % BUCKETS];
	r->table[pid % BUCKETS] = w;
}

void jail_unwatch(struct jail *jail, pid_t pid)
{
	free(take(jail->reaper, pid));
}

void jail_watch_stops(struct jail *jail, pid_t pid, exit_fn stopped)
{
	struct watch *w = *find(jail->reaper, pid);

	if (w)
		w->stopped = stopped;
}

bool jail_is_watched(struct jail *jail, pid_t pid)
{
	return *find(jail->reaper, pid) != NULL;
}

int reaper_open(struct jail *jail, struct err *err)
{
	struct reaper *r = mem_new(struct reaper);

	(void)err;
	jail->reaper = r;
	must(uv_signal_init(jail->loop, &r->signal) == 0);
	r->signal.data = jail;
	must(uv_signal_start(&r->signal, on_sigchld, SIGCHLD) == 0);
	return 0;
}

void reaper_close(struct jail *jail)
{
	uv_signal_stop(&jail->reaper->signal);
	for (int i = 0; i < BUCKETS; i++)
		while (jail->reaper->table[i]) {
			struct watch *w = take(jail->reaper, jail->reaper->table[i]->pid);

			/* Nobody will tell any more, and who has it frees it now or later. */
			if (w->done == cell_on_init_exit)
				w->done(w->arg, 0);
			free(w);
		}
}
