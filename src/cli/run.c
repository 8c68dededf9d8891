/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/run.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"
#include "cli/view.h"
#include "wire/messages.h"

static const int forwarded[] = { SIGINT,  SIGTERM, SIGHUP,   SIGQUIT, SIGUSR1,
				 SIGUSR2, SIGCONT, SIGWINCH, SIGTSTP };

#define RETRIES 2 /* of a start that failed before anything ran */
#define AGAIN 256

struct session {
	const struct run_options *o;
	int sock, signals;
	struct terminal *terminal;
	int tries;
	struct view *view;
	bool stopping; /* the caller pressed Ctrl-Z */
	uint64_t began_us;
};

static int read_hello(int sock, struct run_hello *out, struct err *err)
{
	auto_msg struct wire_msg m;
	auto_free char *mode = NULL;
	int rc = wire_recv(sock, &m, err);

	if (rc < 0)
		return -1;
	if (rc == 0 || m.type != WIRE_HELLO)
		return err_set(err, ERR_CORRUPT, "what listens there is not Pipsqueak's daemon");
	mode = wire_get_str(&m, WIRE_T_MODE);
	out->root = mode && strcmp(mode, "root") == 0;
	out->host_id = (unsigned int)wire_get_u64(&m, WIRE_T_HOST_ID, 0);
	return 0;
}

static int open_signals(struct err *err)
{
	struct sigaction now;
	sigset_t set;
	int fd;

	sigemptyset(&set);
	/* What we were told to ignore (by nohup, say) a script would ignore: it hears nothing. A
	 * signal that is blocked would come all the same. */
	for (size_t i = 0; i < array_len(forwarded); i++)
		if (sigaction(forwarded[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
			sigaddset(&set, forwarded[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return err_sys(err, errno, "signalfd");
	return fd;
}

static void unblock_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void send_signal(struct session *s, int signo)
{
	auto_msg struct wire_msg m;
	struct err err;

	wire_init(&m, WIRE_SIGNAL, 0);
	wire_put_u64(&m, WIRE_T_SIGNO, (uint64_t)signo);
	if (wire_send(s->sock, &m, &err) < 0)
		return; /* its end is read next */
}

static void forward(struct session *s)
{
	struct signalfd_siginfo info;

	while (read(s->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (terminal_signal(s->terminal, &info))
			continue;
		s->stopping = info.ssi_signo == SIGTSTP;
		send_signal(s, (int)info.ssi_signo);
	}
}

/* The script stands still, and so do we, for the shell to see. After Ctrl-Z by the same signal as
 * any program: where there is no shell to wake us, the kernel ignores it, and the script goes on.
 */
static void stop(struct session *s)
{
	int signo = s->stopping ? SIGTSTP : SIGSTOP;
	sigset_t set;

	s->stopping = false;
	terminal_pause(s->terminal);
	sigemptyset(&set);
	sigaddset(&set, SIGTSTP);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(signo);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (sigpending(&set) == 0 && !sigismember(&set, SIGCONT))
		send_signal(s, SIGCONT); /* nobody stopped us; else it is forwarded */
}

static void progress(struct session *s, const struct wire_msg *m)
{
	auto_free char *line = wire_get_str(m, WIRE_T_TEXT);

	if (line)
		view_take(s->view, line);
}

/* Before anything that ends us, or is shown after the script. */
static void close_terminal(struct session *s, bool died)
{
	terminal_close(steal(s->terminal), died);
}

static void show_stages(struct session *s, const struct wire_msg *m)
{
	uint64_t whole = clock_us() - s->began_us;
	struct wire_field list;
	const char *word;
	size_t pos = 0;

	if (!s->o->timing)
		return;
	if (wire_get(m, WIRE_T_TIMING, &list))
		while ((word = wire_list_next(&list, &pos))) {
			const char *eq = strchr(word, '=');

			if (eq)
				fprintf(stderr, "%10.*s %10.3f ms\n", (int)(eq - word), word,
					strtod(eq + 1, NULL) / 1e3);
		}
	fprintf(stderr, "%10s %10.3f ms\n", "command", (double)whole / 1e3);
}

/* Die as the script died, so that the shell sees it. */
static int die_by(int signo)
{
	struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
	unblock_signals();
	signal(signo, SIG_DFL);
	raise(signo);
	return 128 + signo;
}

/* The exit code, or AGAIN. */
static int finish(struct session *s, const struct wire_msg *m)
{
	struct err err = ERR_INIT;
	auto_free char *kind = wire_get_str(m, WIRE_T_KIND);
	int status = (int)wire_get_u64(m, WIRE_T_STATUS, 0);

	view_clear(s->view);
	close_terminal(s, WIFSIGNALED(status));
	if (kind && strcmp(kind, "again") == 0 && s->tries++ < RETRIES)
		return AGAIN;
	show_stages(s, m);
	if (wire_get_err(m, &err) < 0)
		return view_complain(s->view, &err);
	if (kind && strcmp(kind, "oom") == 0)
		fprintf(stderr, "pipsqueak: the script was ended: it ran out of memory\n");
	if (WIFSIGNALED(status))
		return die_by(WTERMSIG(status));
	return WEXITSTATUS(status);
}

/* -1: not over yet; else the exit code. */
static int receive(struct session *s)
{
	auto_msg struct wire_msg m;
	struct err err;
	int rc = wire_recv(s->sock, &m, &err);

	if (rc == 0)
		err_set(&err, ERR_DIED, "the daemon ended while the script ran");
	if (rc <= 0) {
		view_clear(s->view);
		close_terminal(s, true);
		return view_complain(s->view, &err);
	}
	if (m.type == WIRE_PROGRESS)
		progress(s, &m);
	else if (m.type == WIRE_STARTED)
		view_clear(s->view);
	else if (m.type == WIRE_STOPPED)
		stop(s);
	else if (m.type == WIRE_EXIT)
		return finish(s, &m);
	return -1;
}

/* Of two waits, of which -1 is for ever. */
static int sooner(int a_ms, int b_ms)
{
	if (a_ms < 0 || b_ms < 0)
		return a_ms < 0 ? b_ms : a_ms;
	return a_ms < b_ms ? a_ms : b_ms;
}

static int attend(struct session *s)
{
	struct pollfd fds[2 + TERMINAL_POLLS] = { { .fd = s->sock, .events = POLLIN },
						  { .fd = s->signals, .events = POLLIN } };
	int code = -1;

	while (code < 0) {
		int wait_ms = sooner(terminal_poll(s->terminal, fds + 2), view_wait_ms(s->view));

		if (poll(fds, array_len(fds), wait_ms) < 0 && errno != EINTR)
			return 11;
		view_draw(s->view);
		if (fds[1].revents & POLLIN)
			forward(s);
		terminal_react(s->terminal, fds + 2);
		if (fds[0].revents & (POLLIN | POLLHUP | POLLERR))
			code = receive(s);
	}
	return code;
}

static int start(const struct dirs *d, struct session *s, struct err *err)
{
	auto_msg struct wire_msg m;
	struct run_hello hello = { 0 };
	const struct required *r = &s->o->required;
	bool packages = r->with.n || r->requirements_file || s->o->project;
	pid_t ahead = packages ? pip_settings_ahead(d) : 0;
	int rc = connect_daemon(d, "run.sock", true, &s->sock, err);

	wire_init(&m, WIRE_RUN, 1);
	if (ahead)
		waitpid(ahead, NULL, 0);
	if (rc < 0 || read_hello(s->sock, &hello, err) < 0)
		return -1;
	hello.terminal = s->terminal = terminal_open(hello.root);
	if (run_build(d, s->o, &hello, &m, err) < 0)
		return -1;
	s->signals = open_signals(err);
	if (s->signals < 0)
		return -1;
	return wire_send(s->sock, &m, err);
}

int run_session(const struct dirs *d, const struct run_options *o)
{
	struct session s = { .o = o, .sock = -1, .signals = -1, .began_us = clock_us() };
	struct err err;
	int code;

	s.view = view_new(o->quiet ? VIEW_QUIET : o->json ? VIEW_JSON : VIEW_AUTO);
	do {
		code = start(d, &s, &err) < 0 ? view_complain(s.view, &err) : attend(&s);
		close_terminal(&s, false);
		fd_close(&s.sock);
		fd_close(&s.signals);
	} while (code == AGAIN);
	view_free(s.view);
	return code;
}

int verb_run(const struct dirs *d, int argc, char **argv)
{
	struct run_options o;
	int code = run_parse(argc, argv, &o);

	return code ? code : run_session(d, &o);
}
