/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/pasta.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mem.h"
#include "jail/enter.h"
#include "jail/job.h"
#include "wire/messages.h"
#include "wire/wire.h"

#define PROGRAM "/usr/bin/pasta"
#define PATIENCE_MS 8000 /* until it is between the two; less than the daemon waits */

/* Descriptors of the process that becomes pasta. */
#define NETNS 3

bool pasta_is_installed(void)
{
	return access(PROGRAM, X_OK) == 0;
}

static void fail(int sock, uint32_t id, const struct err *err)
{
	auto_msg struct wire_msg m;
	struct err lost;

	wire_init(&m, WIRE_MAKE_FAILED, id);
	wire_put_err(&m, err);
	if (wire_send(sock, &m, &lost) < 0 && lost.sys != EPIPE)
		log_error("net", "%s (for: %s)", lost.text, err->text);
}

/* Nothing of the host is mapped into the cell and no port of the cell's onto the host: there is the
 * way out, and names. Without a terminal on its descriptors it goes to the background once it is
 * ready, and its first process ends. */
static void __attribute__((noreturn)) become_pasta(int netns, int said)
{
	static const char *const argv[] = { "pasta",
					    "--config-net",
					    "--quiet",
					    "-4",
					    "-t",
					    "none",
					    "-u",
					    "none",
					    "-T",
					    "none",
					    "-U",
					    "none",
					    "--no-map-gw",
					    "--no-netns-quit",
					    "--dns-forward",
					    JAIL_RESOLVER,
					    "--netns-only",
					    "--netns",
					    "/proc/self/fd/3",
					    NULL };
	static const char *const env[] = { "PATH=/usr/bin:/bin", NULL };
	sigset_t none;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	/* It takes a signal that was ignored before for a failure. */
	for (int signo = 1; signo < NSIG; signo++)
		signal(signo, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(said, 2) < 0 || dup2(netns, NETNS) < 0 ||
	    fcntl(NETNS, F_SETFD, 0) < 0)
		_exit(126);
	syscall(SYS_close_range, NETNS + 1, ~0U, 0);
	execve(PROGRAM, (char *const *)argv, (char *const *)env);
	_exit(127);
}

/* What it said last, on its standard error. */
static int explain(int said, int status, struct err *err)
{
	char text[512], *line;
	ssize_t n = pread(said, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	while ((line = strrchr(text, '\n')) && !line[1])
		*line = '\0';
	line = strrchr(text, '\n');
	return err_set(err, ERR_START,
		       "no network can be had here: %s (pasta ended with status %d)",
		       line    ? line + 1
		       : *text ? text
			       : "it said nothing",
		       WEXITSTATUS(status));
}

/* 0: it is between the two. */
static int await_pasta(pid_t first, int signals, int said, struct err *err)
{
	struct pollfd wait = { .fd = signals, .events = POLLIN };
	int status;

	for (;;) {
		pid_t ended = waitpid(first, &status, WNOHANG);

		if (ended < 0)
			return err_sys(err, errno, "waiting for pasta");
		if (ended == first)
			break;
		if (poll(&wait, 1, PATIENCE_MS) <= 0)
			return err_set(err, ERR_TIMEOUT, "pasta was not ready within %d s",
				       PATIENCE_MS / 1000);
		while (read(signals, (char[128]){ 0 }, 128) > 0)
			continue;
	}
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : explain(said, status, err);
}

static int start_pasta(int netns, int signals, struct err *err)
{
	auto_close int said = memfd_create("said", MFD_CLOEXEC);
	pid_t first;

	if (said < 0)
		return err_sys(err, errno, "memfd_create");
	first = fork();
	if (first == 0)
		become_pasta(netns, said);
	return first < 0 ? err_sys(err, errno, "fork") : await_pasta(first, signals, said, err);
}

/* As init of a pid namespace: what pasta leaves in the background is ours, and ends with us. */
static void __attribute__((noreturn)) attend(int sock, uint32_t id, int netns)
{
	auto_msg struct wire_msg m;
	struct pollfd fds[2] = { 0 };
	struct err err;
	sigset_t set;
	int link[2];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fds[0].fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (fds[0].fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, link) < 0) {
		err_sys(&err, errno, "preparing a network");
		fail(sock, id, &err);
		_exit(1);
	}
	if (start_pasta(netns, fds[0].fd, &err) < 0) {
		fail(sock, id, &err);
		_exit(1);
	}
	close(netns);
	wire_init(&m, WIRE_MADE, id);
	wire_put_fd(&m, link[1]);
	if (wire_send(sock, &m, &err) < 0)
		_exit(1);
	wire_done(&m);
	close(sock);
	if (enter_drop_capabilities(&err) < 0)
		_exit(1);
	fds[0].events = POLLIN;
	fds[1] = (struct pollfd){ .fd = link[0], .events = POLLIN };
	while (!fds[1].revents) {
		while (read(fds[0].fd, (char[128]){ 0 }, 128) > 0)
			continue;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			continue;
		if (waitpid(-1, NULL, WNOHANG) < 0)
			break; /* pasta is gone: there is nothing to attend to */
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			break;
	}
	_exit(0);
}

static void serve(int sock, struct wire_msg *m)
{
	struct clone_args args = { .flags = CLONE_NEWPID, .exit_signal = SIGCHLD };
	int netns = wire_take_fd(m, 0);
	struct err err;
	long pid;

	if (m->type != WIRE_ATTACH || netns < 0) {
		err_set(&err, ERR_CORRUPT, "message %s is not for the net helper",
			wire_type_name(m->type));
		fail(sock, m->id, &err);
		return;
	}
	pid = syscall(SYS_clone3, &args, sizeof(args));
	if (pid == 0)
		attend(sock, m->id, netns);
	if (pid < 0) {
		err_sys(&err, errno, "cloning the net helper");
		fail(sock, m->id, &err);
	}
	close(netns);
}

void pasta_main(int sock)
{
	struct err err;

	prctl(PR_SET_NAME, "pipsqueak-net");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGCHLD, SIG_IGN); /* children reap themselves */
	for (;;) {
		auto_msg struct wire_msg m;

		if (wire_recv(sock, &m, &err) <= 0)
			_exit(0);
		serve(sock, &m);
	}
}
