/* SPDX-License-Identifier: Apache-2.0
 *
 * top: a look at the daemon every second. On a terminal it has the screen for itself and gives it
 * back as it was, however it ends; elsewhere a picture follows the other.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <termios.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/show.h"
#include "cli/top.h"
#include "cli/workload.h"

#define PATIENCE_S 2 /* with a daemon that does not answer: keys and signals wait so long */

struct top {
	const struct dirs *dirs;
	double delay_s;
	long count; /* pictures to come; -1: without end */
	bool screen, color;
	int signals; /* -1: they do what they always do */
	struct termios before;
	bool has_keys;
	struct look now, last;
	const char *note;
	int killed_by; /* 0: it ended by itself */
	bool over;
};

/* ---- looking ---- */

static int get(const struct top *t, const char *path, json_t **out, struct err *err)
{
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	struct http_ask ask = { .method = "GET", .path = path };
	struct http_reply reply = { 0 };
	auto_close int fd = -1;
	int ret;

	if (connect_daemon(t->dirs, "api.sock", !t->now.status, &fd, err) < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	ret = http_request(fd, &ask, &reply, err);
	if (ret == 0 && reply.status >= 400)
		ret = http_error(&reply, err);
	if (ret == 0 && !(*out = json_loadb(reply.body.data, reply.body.len, 0, NULL)))
		ret = err_set(err, ERR_CORRUPT, "the daemon's answer is no JSON");
	http_reply_done(&reply);
	if (ret == 0)
		show_visible_json(*out);
	return ret;
}

static void look_done(struct look *l)
{
	json_decref(l->status);
	json_decref(l->tree);
	*l = (struct look){ 0 };
}

static int look(struct top *t, struct err *err)
{
	struct look next = { .at_us = clock_us() };

	if (get(t, "/status", &next.status, err) < 0 || get(t, "/tree", &next.tree, err) < 0) {
		bool slow = err->sys == EAGAIN || err->sys == EWOULDBLOCK;

		look_done(&next);
		t->note = "the daemon does not answer";
		return slow && t->now.status ? 0 : -1;
	}
	t->note = NULL;
	look_done(&t->last);
	t->last = t->now;
	t->now = next;
	return 0;
}

/* ---- the terminal ---- */

static void enter_screen(struct top *t)
{
	struct termios mode;

	t->has_keys = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &t->before) == 0;
	if (t->has_keys) {
		mode = t->before;
		mode.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
		mode.c_cc[VMIN] = 1;
		mode.c_cc[VTIME] = 0;
		tcsetattr(STDIN_FILENO, TCSADRAIN, &mode);
	}
	printf("\033[?1049h\033[?25l\033[?7l");
}

static void leave_screen(struct top *t)
{
	printf("\033[?7h\033[?25h\033[?1049l");
	fflush(stdout);
	if (t->has_keys)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &t->before);
}

static int open_signals(struct top *t, struct err *err)
{
	static const int wanted[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH };
	struct sigaction now;
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < array_len(wanted); i++)
		if (sigaction(wanted[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
			sigaddset(&set, wanted[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	t->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return t->signals < 0 ? err_sys(err, errno, "signalfd") : 0;
}

/* As it would without us: by the default action. */
static void take_signal(int signo)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	signal(signo, SIG_DFL);
	raise(signo);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	sigprocmask(SIG_BLOCK, &set, NULL); /* after a stop we are here */
}

static int draw(struct top *t, struct err *err)
{
	auto_buf struct buf text = { 0 };
	struct picture p = { .color = t->color, .note = t->note };
	struct winsize w;

	if (t->screen && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col && w.ws_row) {
		p.width = w.ws_col;
		p.height = w.ws_row;
	}
	top_draw(&t->now, &t->last, &p, &text);
	if (t->screen)
		printf("\033[H");
	for (char *line = text.data; *line;) {
		size_t n = strcspn(line, "\n");

		printf("%.*s%s%s", (int)n, line, t->screen ? "\033[K" : "", line[n] ? "\n" : "");
		line += n + (line[n] == '\n');
	}
	printf("%s", t->screen ? "\033[J" : "\n");
	if (fflush(stdout) == 0)
		return 0;
	if (errno != EPIPE)
		return err_sys(err, errno, "writing");
	t->killed_by = SIGPIPE; /* main() ignores it */
	t->over = true;
	return 0;
}

/* ---- the loop ---- */

static int on_signal(struct top *t, int signo, struct err *err)
{
	if (signo == SIGWINCH)
		return draw(t, err);
	if (signo == SIGTSTP) {
		leave_screen(t);
		take_signal(SIGTSTP);
		enter_screen(t);
		return draw(t, err);
	}
	t->killed_by = signo;
	t->over = true;
	return 0;
}

static void on_key(struct top *t)
{
	char keys[64];
	ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));

	if (n <= 0) {
		t->has_keys = n < 0 && (errno == EINTR || errno == EAGAIN);
		t->over = !t->has_keys; /* the terminal is gone */
	}
	for (ssize_t i = 0; i < n; i++)
		t->over = t->over || keys[i] == 'q' || keys[i] == 'Q';
}

/* Until the next look is due, or it is over. */
static int wait_for(struct top *t, uint64_t until_us, struct err *err)
{
	struct signalfd_siginfo info;

	for (uint64_t now = clock_us(); now < until_us && !t->over; now = clock_us()) {
		struct pollfd fds[] = { { t->signals, POLLIN, 0 },
					{ t->has_keys && t->screen ? STDIN_FILENO : -1, POLLIN,
					  0 } };

		if (poll(fds, 2, (int)((until_us - now + 999) / 1000)) < 0 && errno != EINTR)
			return err_sys(err, errno, "poll");
		while (fds[0].revents && !t->over &&
		       read(t->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
			if (on_signal(t, (int)info.ssi_signo, err) < 0)
				return -1;
		if (fds[1].revents && !t->over)
			on_key(t);
	}
	return 0;
}

static int watch(struct top *t, struct err *err)
{
	while (!t->over) {
		uint64_t next_us = clock_us() + (uint64_t)(t->delay_s * 1e6);

		if (draw(t, err) < 0)
			return -1;
		if (t->count > 0 && --t->count == 0)
			return 0;
		if (wait_for(t, next_us, err) < 0 || (!t->over && look(t, err) < 0))
			return -1;
	}
	return 0;
}

static int parse(int argc, char **argv, struct top *t)
{
	for (int i = 1; i < argc; i++) {
		const char *flag = argv[i], *value = argv[i + 1];
		double x = 1;

		if (strcmp(flag, "--once") == 0) {
			t->count = 1;
		} else if (strcmp(flag, "-n") == 0) {
			i++;
			if (!value || !workload_number(value, 1, 1e9, &x) || x != (double)(long)x)
				return usage_error("top", "-n takes a number of pictures, from 1");
			t->count = (long)x;
		} else if (strcmp(flag, "-d") == 0) {
			i++;
			if (!value || !workload_number(value, 0.1, 3600, &t->delay_s))
				return usage_error("top", "-d takes seconds, 0.1 to 3600");
		} else {
			return usage_error("top", "top takes no '%s'", flag);
		}
	}
	return 0;
}

static bool has_screen(void)
{
	const char *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

static int show(struct top *t, struct err *err)
{
	const char *plain = getenv("NO_COLOR");
	int ret;

	if (t->count == 1 || !has_screen())
		return watch(t, err);
	if (open_signals(t, err) < 0)
		return -1;
	t->screen = true;
	t->color = !(plain && *plain);
	enter_screen(t);
	ret = watch(t, err);
	leave_screen(t);
	fd_close(&t->signals);
	return ret;
}

int verb_top(const struct dirs *d, int argc, char **argv)
{
	struct top t = { .dirs = d, .delay_s = 1, .count = -1, .signals = -1 };
	struct err err = ERR_INIT;
	int ret = parse(argc, argv, &t);

	if (ret)
		return ret;
	/* The first look may start a daemon, which is to inherit no blocked signal. */
	ret = look(&t, &err);
	if (ret == 0)
		ret = show(&t, &err);
	look_done(&t.now);
	look_done(&t.last);
	if (t.killed_by)
		take_signal(t.killed_by);
	return ret < 0 ? complain(&err) : 0;
}
