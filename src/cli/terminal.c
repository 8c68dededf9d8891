/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"

#define PTS_MAJOR 136
#define BLOCK_BYTES 4096
#define BLOCKS_A_TURN 16 /* then signals and the daemon are looked at again */
/* No event says that a job came to the foreground; asked only while a script in the background
 * holds its terminal. */
#define FOREGROUND_MS 200

/* After a line is passed on its answer is awaited awake. A script that leaves its terminal then
 * (getpass writes a last newline) and goes on to standard output does not wait for us, and what it
 * writes there would come first; being asleep, we would always be late. */
#define AWAKE_US 1000

/* What the guard puts back, and only if nobody changed it since. */
struct guarded {
	bool armed;
	struct termios before, ours;
};

struct terminal {
	int real;
	int master, opens;	     /* -1: /dev/tty is the real one. opens: inotify, on its name */
	int guard;		     /* see start_guard(); -1: not needed yet */
	char path[32];		     /* of what is to be /dev/tty */
	struct termios first;	     /* the real one's mode at the start */
	struct termios before, ours; /* and before it was taken, and while it is (`taken`) */
	struct termios given;	     /* what the pseudo terminal was last given */
	bool held;		     /* by the script */
	bool hung;		     /* the master would say so for ever: it is not waited for */
	bool taken, lost, changed;   /* lost: the real terminal is gone */
	bool flushed; /* by us: when the master tells, what was typed since is not dropped */
	bool cr;      /* a carriage return that may be the pseudo terminal's */
	char typed[BLOCK_BYTES]; /* not taken by the script yet */
	size_t ntyped;
};

static bool same_mode(const struct termios *a, const struct termios *b)
{
	return a->c_iflag == b->c_iflag && a->c_oflag == b->c_oflag && a->c_cflag == b->c_cflag &&
	       a->c_lflag == b->c_lflag && memcmp(a->c_cc, b->c_cc, sizeof(a->c_cc)) == 0;
}

static bool in_foreground(const struct terminal *t)
{
	return !t->lost && tcgetpgrp(t->real) == getpgrp();
}

static void copy_size(const struct terminal *t)
{
	struct winsize size;

	if (ioctl(t->real, TIOCGWINSZ, &size) == 0)
		ioctl(t->master, TIOCSWINSZ, &size);
}

static void packets_on(const struct terminal *t)
{
	int on = 1;

	ioctl(t->master, TIOCPKT, &on);
}

static int make_pty(struct terminal *t)
{
	int unlocked = 0;
	unsigned int number;

	t->master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (t->master < 0 || ioctl(t->master, TIOCSPTLCK, &unlocked) < 0 ||
	    ioctl(t->master, TIOCGPTN, &number) < 0)
		return -1;
	snprintf(t->path, sizeof(t->path), "/dev/pts/%u", number);
	t->given = t->first;
	if (!in_foreground(t)) { /* the mode is that of the shell's line editor */
		t->given.c_iflag |= ICRNL | IXON;
		t->given.c_oflag |= OPOST | ONLCR;
		t->given.c_lflag |= ICANON | ECHO | ISIG | IEXTEN;
	}
	/* On a master this sets the mode of the other side. */
	if (tcsetattr(t->master, TCSANOW, &t->given) < 0)
		return -1;
	copy_size(t);
	packets_on(t);
	t->opens = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	return t->opens < 0 ? -1 : inotify_add_watch(t->opens, t->path, IN_OPEN);
}

static void release(struct terminal *t)
{
	fd_close(&t->real);
	fd_close(&t->master);
	fd_close(&t->opens);
	free(t);
}

/* The real one, if we could open it by its name. */
static bool is_ours(struct terminal *t)
{
	unsigned int dev;
	struct stat st;
	int fd;

	/* The number as the kernel encodes it for user space: a pts' name is its minor number. */
	if (ioctl(t->real, TIOCGDEV, &dev) < 0 || (dev >> 8 & 0xfff) != PTS_MAJOR)
		return false;
	snprintf(t->path, sizeof(t->path), "/dev/pts/%u", (dev & 0xff) | (dev >> 12 & 0xfff00));
	fd = open(t->path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return false;
	dev = fstat(fd, &st) == 0 && major(st.st_rdev) == PTS_MAJOR && st.st_uid == geteuid();
	close(fd);
	return dev;
}

struct terminal *terminal_open(bool root)
{
	int real = open("/dev/tty", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	struct terminal *t;

	if (real < 0)
		return NULL;
	t = mem_new(struct terminal);
	t->real = real;
	t->master = t->opens = t->guard = -1;
	if (tcgetattr(real, &t->first) < 0) {
		release(t);
		return NULL;
	}
	if ((root || !in_foreground(t) || !is_ours(t)) && make_pty(t) < 0) {
		release(t);
		return NULL;
	}
	return t;
}

int terminal_opens(const struct terminal *t)
{
	return t->opens < 0 ? -1 : fcntl(t->opens, F_DUPFD_CLOEXEC, 3);
}

const char *terminal_path(const struct terminal *t)
{
	return t->path;
}

int terminal_share(const struct terminal *t, bool root, unsigned int host_id)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
					       MOUNT_ATTR_NOEXEC };
	auto_close int fd = -1;

	if (!root)
		return open(t->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	/* devpts knows no mapped ids, so the one file is given away: it is our own, and new. */
	fd = (int)syscall(SYS_open_tree, AT_FDCWD, t->path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (fd < 0 || chmod(t->path, 0600) < 0 || chown(t->path, host_id, (gid_t)-1) < 0 ||
	    syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
		return -1;
	return fd_steal(&fd);
}

/* ---- the real terminal's mode ---- */

/* Until the client is gone; then it puts the mode back, if the client could not. */
static _Noreturn void guard(int real, int from)
{
	struct guarded last = { .armed = false }, next;
	struct termios now;
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setpgid(0, 0); /* what is sent to the client's group is not for us */
	if (dup2(real, 0) < 0 || dup2(from, 1) < 0)
		_exit(1);
	syscall(SYS_close_range, 2U, ~0U, 0U);
	while (read(1, &next, sizeof(next)) == (ssize_t)sizeof(next))
		last = next;
	if (last.armed && tcgetattr(0, &now) == 0 && same_mode(&now, &last.ours))
		tcsetattr(0, TCSANOW, &last.before);
	_exit(0);
}

static void start_guard(struct terminal *t)
{
	int ends[2];
	pid_t pid;

	if (t->guard >= 0 || pipe2(ends, O_CLOEXEC) < 0)
		return;
	pid = fork();
	if (pid == 0) {
		/* Not 0 or 1, which the guard uses. */
		int real = fcntl(t->real, F_DUPFD_CLOEXEC, 3),
		    from = fcntl(ends[0], F_DUPFD_CLOEXEC, 3);

		guard(real, from);
	}
	close(ends[0]);
	if (pid > 0)
		t->guard = ends[1];
	else
		close(ends[1]);
}

static void set_mode(struct terminal *t, const struct termios *mode)
{
	struct guarded g;

	memset(&g, 0, sizeof(g));
	g.armed = mode == &t->ours;
	g.before = t->before;
	g.ours = t->ours;
	/* Told before, so that there is no moment in which nobody would put it back. */
	if (t->guard >= 0 && write(t->guard, &g, sizeof(g)) < 0)
		fd_close(&t->guard);
	tcsetattr(t->real, TCSANOW, mode);
}

/* Every byte passes on, but signals, flow control and output are as the script's terminal has it:
 * what the script writes to its standard output goes through the real one only. */
static void follow(struct terminal *t)
{
	struct termios theirs, mode = t->before;

	if (!t->taken || tcgetattr(t->master, &theirs) < 0)
		return;
	mode.c_iflag &= ~(tcflag_t)(BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	mode.c_iflag |= theirs.c_iflag & IXON;
	mode.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ECHONL | IEXTEN | ISIG);
	mode.c_lflag |= theirs.c_lflag & (ISIG | NOFLSH);
	mode.c_oflag = theirs.c_oflag;
	memcpy(mode.c_cc, theirs.c_cc, sizeof(mode.c_cc));
	mode.c_cc[VMIN] = 1;
	mode.c_cc[VTIME] = 0;
	if (same_mode(&mode, &t->ours))
		return;
	t->ours = mode;
	set_mode(t, &t->ours);
}

static void take(struct terminal *t)
{
	if (t->taken || !t->held || !in_foreground(t) || tcgetattr(t->real, &t->before) < 0)
		return;
	/* From here on a change of who is in front must not stop the client. */
	signal(SIGTTOU, SIG_IGN);
	signal(SIGTTIN, SIG_IGN);
	start_guard(t);
	t->taken = true;
	memset(&t->ours, 0, sizeof(t->ours));
	follow(t);
}

static void give_back(struct terminal *t)
{
	if (!t->taken)
		return;
	t->taken = false;
	if (in_foreground(t))
		set_mode(t, &t->before);
}

/* The script has closed it. A mode that it left is the terminal's mode, until the script ends. */
static void hang_up(struct terminal *t)
{
	struct termios theirs;

	t->held = false;
	t->hung = true;
	t->ntyped = 0;
	packets_on(t);
	if (!t->taken || tcgetattr(t->master, &theirs) < 0)
		return;
	if (!same_mode(&theirs, &t->given)) {
		t->before = t->given = theirs;
		t->changed = true;
	} else if (!same_mode(&theirs, &t->before)) {
		t->given = t->before;
		tcsetattr(t->master, TCSANOW, &t->given);
	}
	give_back(t);
}

/* ---- bytes ---- */

static void show(struct terminal *t, const char *data, size_t n)
{
	while (n && !t->lost) {
		ssize_t done = write(t->real, data, n);

		if (done < 0 && errno == EAGAIN) {
			struct pollfd p = { .fd = t->real, .events = POLLOUT };

			if (poll(&p, 1, -1) > 0 && !(p.revents & (POLLERR | POLLHUP)))
				continue;
		}
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0) {
			t->lost = true;
			return;
		}
		data += done;
		n -= (size_t)done;
	}
}

/* Both terminals make "\r\n" of "\n": the first one's work is undone. */
static void show_cooked(struct terminal *t, const char *data, size_t n)
{
	char out[2 * BLOCK_BYTES];
	struct termios theirs;
	size_t len = 0;
	bool undo = tcgetattr(t->master, &theirs) == 0 && theirs.c_oflag & OPOST &&
		    theirs.c_oflag & ONLCR;

	for (size_t i = 0; i < n; i++) {
		if (t->cr && (!undo || data[i] != '\n'))
			out[len++] = '\r';
		t->cr = undo && data[i] == '\r';
		if (!t->cr)
			out[len++] = data[i];
	}
	show(t, out, len);
}

static void show_rest(struct terminal *t)
{
	if (t->cr)
		show(t, "\r", 1);
	t->cr = false;
}

/* What the script wrote, each block led by a byte that says whether something else happened. */
static void read_master(struct terminal *t)
{
	char block[BLOCK_BYTES];

	for (int i = 0; i < BLOCKS_A_TURN; i++) {
		ssize_t n = read(t->master, block, sizeof(block));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			show_rest(t);
			return;
		}
		if (n <= 0) { /* EIO: nobody has it open any more, and all was read */
			show_rest(t);
			hang_up(t);
			return;
		}
		if (block[0] == TIOCPKT_DATA)
			show_cooked(t, block + 1, (size_t)n - 1);
		else
			follow(t);
		if (block[0] & TIOCPKT_FLUSHREAD && !t->flushed) {
			t->ntyped = 0; /* what was typed before is not for it */
			if (t->taken)
				tcflush(t->real, TCIFLUSH);
		}
		if (block[0] & TIOCPKT_FLUSHREAD)
			t->flushed = false;
	}
}

static void write_master(struct terminal *t)
{
	ssize_t n = t->ntyped ? write(t->master, t->typed, t->ntyped) : 0;

	if (n > 0) {
		t->ntyped -= (size_t)n;
		memmove(t->typed, t->typed + n, t->ntyped);
	}
}

static void stay_awake(struct terminal *t)
{
	uint64_t end = clock_us() + AWAKE_US;

	while (t->held && clock_us() < end)
		read_master(t);
}

static void read_real(struct terminal *t)
{
	ssize_t n = read(t->real, t->typed, sizeof(t->typed));

	if (n > 0) {
		bool line = memchr(t->typed, '\n', (size_t)n) || memchr(t->typed, '\r', (size_t)n);

		t->ntyped = (size_t)n;
		write_master(t);
		if (line)
			stay_awake(t);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		/* EIO also means that another job is in front now. */
		if (n < 0 && errno == EIO && tcgetpgrp(t->real) > 0)
			t->taken = false;
		else
			t->lost = true;
	}
}

/* ---- the loop ---- */

static bool is_proxy(const struct terminal *t)
{
	return t && t->master >= 0;
}

int terminal_poll(const struct terminal *t, struct pollfd *fds)
{
	for (int i = 0; i < TERMINAL_POLLS; i++)
		fds[i] = (struct pollfd){ .fd = -1 };
	if (!is_proxy(t))
		return -1;
	fds[0] = (struct pollfd){ .fd = t->opens, .events = POLLIN };
	if (!t->hung)
		fds[1] = (struct pollfd){ .fd = t->master,
					  .events = (short)(POLLIN | (t->ntyped ? POLLOUT : 0)) };
	if (t->taken && !t->ntyped && !t->lost)
		fds[2] = (struct pollfd){ .fd = t->real, .events = POLLIN };
	return t->held && !t->taken && !t->lost ? FOREGROUND_MS : -1;
}

static void see_opens(struct terminal *t)
{
	char events[BLOCK_BYTES] __attribute__((aligned(__alignof__(struct inotify_event))));

	while (read(t->opens, events, sizeof(events)) > 0) {
		t->held = true;
		t->hung = false;
	}
}

void terminal_react(struct terminal *t, const struct pollfd *fds)
{
	if (!is_proxy(t))
		return;
	if (fds[0].revents & POLLIN)
		see_opens(t);
	if (t->taken && !in_foreground(t))
		t->taken = false; /* its mode is another's business now */
	take(t);
	if (fds[1].revents & POLLOUT)
		write_master(t);
	if (!t->hung && fds[1].revents & (POLLIN | POLLHUP | POLLERR))
		read_master(t);
	follow(t);
	if (t->taken && fds[2].revents)
		read_real(t);
}

/* As the terminal would: the key is shown and what was typed before it is dropped. */
static void echo_key(struct terminal *t, int key, const struct termios *theirs)
{
	char shown[2] = { '^', (char)(theirs->c_cc[key] ^ 0x40) };
	int peer;

	if (theirs->c_lflag & ECHO && theirs->c_lflag & ECHOCTL && theirs->c_cc[key] < 32)
		show(t, shown, sizeof(shown));
	if (theirs->c_lflag & NOFLSH)
		return;
	peer = ioctl(t->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (peer >= 0) {
		t->ntyped = 0;
		t->flushed = tcflush(peer, TCIFLUSH) == 0;
		close(peer);
	}
}

bool terminal_signal(struct terminal *t, const struct signalfd_siginfo *info)
{
	struct termios theirs;
	int signo = (int)info->ssi_signo;

	if (!is_proxy(t))
		return false;
	if (signo == SIGWINCH) {
		see_opens(t); /* it may have opened it a moment ago: it is told once, not twice */
		copy_size(t);
		/* If it is the script's controlling terminal, that was a signal to the script. */
		return t->held && tcgetpgrp(t->master) > 0;
	}
	if (!t->taken || info->ssi_code != SI_KERNEL || tcgetattr(t->master, &theirs) < 0)
		return false;
	if (signo == SIGINT)
		echo_key(t, VINTR, &theirs);
	else if (signo == SIGQUIT)
		echo_key(t, VQUIT, &theirs);
	else if (signo == SIGTSTP)
		echo_key(t, VSUSP, &theirs);
	return false;
}

void terminal_pause(struct terminal *t)
{
	if (t)
		give_back(t);
}

void terminal_close(struct terminal *t, bool died)
{
	struct termios now;

	if (!t)
		return;
	if (is_proxy(t) && !t->hung)
		read_master(t);
	show_rest(t);
	give_back(t);
	if ((t->changed || died) && in_foreground(t) && tcgetattr(t->real, &now) == 0 &&
	    !same_mode(&now, &t->first))
		tcsetattr(t->real, TCSANOW, &t->first);
	if (t->guard >= 0) {
		fd_close(&t->guard);
		wait(NULL);
	}
	release(t);
}
