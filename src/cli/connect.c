/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli.h"

#define IDLE_SECONDS "600"

/* Where the client keeps the daemon's log and the lock of its start. */
static const char *own_place(const struct dirs *d)
{
	return d->base ? d->base : d->user_cache;
}

static int try_connect(const char *path, int type, int *out)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	auto_close int fd = -1;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -1;
	*out = fd_steal(&fd);
	return 0;
}

static void exec_daemon(const struct dirs *d, int ready, int log)
{
	const char *argv[] = {
		d->daemon, "--idle", IDLE_SECONDS, "--lib", d->lib, NULL, NULL, NULL
	};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (d->base) {
		argv[5] = "--dir";
		argv[6] = d->base;
	}
	setsid();
	if (dup2(null, 0) < 0 || dup2(ready, 1) < 0 || dup2(log, 2) < 0 || chdir("/") < 0)
		_exit(126);
	signal(SIGPIPE, SIG_DFL);
	execv(d->daemon, (char *const *)argv);
	_exit(127);
}

/* Why it did not start: what it wrote last. */
static int start_failed(const char *log_path, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(16 * MIB);
	char *line = NULL, *save = NULL;

	if (buf_read_file(&text, AT_FDCWD, log_path, err) == 0)
		for (char *l = strtok_r(text.data, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
			if (*l)
				line = l;
	return err_set(err, ERR_START, "the daemon did not start: %s (see %s)",
		       line ? line : "it said nothing", log_path);
}

static int start_daemon(const struct dirs *d, struct err *err)
{
	auto_free char *log_path = mem_printf("%s/daemon.log", own_place(d));
	auto_close int log = -1;
	char byte;
	int ready[2];
	ssize_t n;
	pid_t pid;

	if (!d->daemon || !d->lib)
		return err_set(err, ERR_NOT_FOUND,
			       "no daemon runs, and pipsqueakd was not found beside this program");
	if (fd_mkdirs(own_place(d), 0755, err) < 0)
		return -1;
	log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (log < 0 || pipe2(ready, O_CLOEXEC) < 0)
		return err_sys(err, errno, "preparing to start the daemon");
	/* Twice, so that it is nobody's child here and no terminal's. */
	pid = fork();
	if (pid == 0) {
		if (fork() == 0)
			exec_daemon(d, ready[1], log);
		_exit(0);
	}
	if (pid < 0)
		return err_sys(err, errno, "fork");
	close(ready[1]);
	do
		n = read(ready[0], &byte, 1); /* its "ready" line, or its end */
	while (n < 0 && errno == EINTR);
	close(ready[0]);
	return n == 1 ? 0 : start_failed(log_path, err);
}

/* One client starts; others that come meanwhile wait for it and connect. */
static int start_once(const struct dirs *d, const char *path, int type, int *out, struct err *err)
{
	auto_free char *lock_path = mem_printf("%s/start.lock", own_place(d));
	auto_close int lock = -1;

	if (fd_mkdirs(own_place(d), 0755, err) < 0)
		return -1;
	lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return err_sys(err, errno, "locking '%s'", lock_path);
	if (try_connect(path, type, out) == 0)
		return 0;
	if (start_daemon(d, err) < 0)
		return -1;
	if (try_connect(path, type, out) < 0)
		return err_sys(err, errno, "connecting to the daemon at '%s'", path);
	return 0;
}

int connect_daemon(const struct dirs *d, const char *socket_name, bool start, int *out,
		   struct err *err)
{
	auto_free char *path = mem_printf("%s/%s", d->run, socket_name);
	int type = strcmp(socket_name, "run.sock") == 0 ? SOCK_SEQPACKET : SOCK_STREAM;

	if (try_connect(path, type, out) == 0)
		return 0;
	if (errno != ENOENT && errno != ECONNREFUSED && errno != EACCES)
		return err_sys(err, errno, "connecting to the daemon at '%s'", path);
	if (errno == EACCES)
		return err_set(err, ERR_DENIED,
			       "the daemon at '%s' is another user's; use your own (PIPSQUEAK_DIR)",
			       path);
	if (!start)
		return err_set(err, ERR_NOT_FOUND, "no daemon runs (looked at '%s')", path);
	return start_once(d, path, type, out, err);
}
