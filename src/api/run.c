/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/priv.h"
#include "base/fd.h"
#include "base/log.h"
#include "jail/jail.h"
#include "wire/messages.h"
#include "wire/wire.h"

/* One connection to run.sock: HELLO, RUN, then progress and its end (see wire/messages.h). */
struct client {
	struct api *api;
	int fd;
	uv_poll_t poll;
	struct run *run; /* NULL: not yet, or over */
	enum wire_phase phase;
	bool closing;
	int opens; /* the client's inotify, see close_later(); -1: none */
	struct client *next, **link;
};

/* The fields of RUN, taken out of the message; freed together after functions_run(). */
struct run_fields {
	struct run_request r;
	char *strings[16];
	size_t nstrings;
	char **lists[8];
	size_t nlists;
};

static void free_client(uv_handle_t *handle)
{
	free(handle->data);
}

struct closing {
	uv_work_t work;
	int fd;
};

static void close_it(uv_work_t *work)
{
	struct closing *c = work->data;

	close(c->fd);
}

static void closed_it(uv_work_t *work, int status)
{
	(void)status;
	free(work->data);
}

/* The last close of an inotify waits for the kernel (an SRCU grace period, up to 10 ms): not the
 * client, whose end the shell waits for, and not this loop. */
static void close_later(struct api *api, int fd)
{
	struct closing *c;

	if (fd < 0)
		return;
	c = mem_new(struct closing);
	c->fd = fd;
	c->work.data = c;
	must(uv_queue_work(api->config.loop, &c->work, close_it, closed_it) == 0);
}

static void client_close(struct client *c)
{
	struct run *run = c->run;

	if (c->closing)
		return;
	c->closing = true;
	c->run = NULL;
	if (run)
		run_cancel(run);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	c->api->nclients--;
	uv_close((uv_handle_t *)&c->poll, free_client);
	fd_close(&c->fd);
	close_later(c->api, c->opens);
}

/* A client that does not read is not waited for. */
static void client_send(struct client *c, struct wire_msg *m)
{
	struct err err;

	if (!c->closing && wire_send(c->fd, m, &err) < 0) {
		log_debug("api", "a run client: %s", err.text);
		client_close(c);
	}
}

static void on_progress(void *arg, const char *line)
{
	struct client *c = arg;
	auto_msg struct wire_msg m;
	int waiting = 0;

	/* It is for the eye: one that does not read (stopped by Ctrl-Z, say) misses some. */
	if (ioctl(c->fd, SIOCOUTQ, &waiting) == 0 && waiting > LIMIT_PROGRESS_BYTES)
		return;
	wire_init(&m, WIRE_PROGRESS, 0);
	wire_put_str(&m, WIRE_T_TEXT, line);
	client_send(c, &m);
}

static void add_stage(struct buf *list, const char *name, uint64_t us)
{
	char text[64];

	if (us == UINT64_MAX)
		return;
	snprintf(text, sizeof(text), "%s=%llu", name, (unsigned long long)us);
	wire_list_add(list, text);
}

static void put_timing(struct wire_msg *m, const struct run_result *res)
{
	auto_buf struct buf list = { 0 };

	add_stage(&list, "resolve", res->resolve_us);
	add_stage(&list, "install", res->install_us);
	add_stage(&list, "queue", res->timing.queue_us);
	add_stage(&list, "fork", res->timing.fork_us);
	add_stage(&list, "sandbox", res->timing.sandbox_us);
	add_stage(&list, "import", res->timing.import_us);
	add_stage(&list, "total", res->timing.total_us);
	wire_put(m, WIRE_T_TIMING, list.data, list.len);
}

static void on_started(void *arg, const struct run_result *so_far)
{
	struct client *c = arg;
	auto_msg struct wire_msg m;

	wire_init(&m, WIRE_STARTED, 0);
	put_timing(&m, so_far);
	client_send(c, &m);
}

static void send_exit(struct client *c, const struct run_result *res)
{
	auto_msg struct wire_msg m;

	wire_init(&m, WIRE_EXIT, 0);
	if (res->err)
		wire_put_err(&m, res->err);
	else
		wire_put_u64(&m, WIRE_T_STATUS, (uint64_t)(uint32_t)res->status);
	if (res->oom || res->again)
		wire_put_str(&m, WIRE_T_KIND, res->oom ? "oom" : "again");
	put_timing(&m, res);
	client_send(c, &m);
}

static void on_ended(void *arg, const struct run_result *res)
{
	struct client *c = arg;

	c->run = NULL; /* it is over: not to be cancelled */
	send_exit(c, res);
	/* What was sent is there to be read. A client that shares its inotify closes that first,
	 * then its end of this; were we earlier, the slow close would be its own. */
	if (c->opens < 0)
		client_close(c);
}

static void on_stopped(void *arg)
{
	struct client *c = arg;
	auto_msg struct wire_msg m;

	wire_init(&m, WIRE_STOPPED, 0);
	client_send(c, &m);
}

static const struct run_events client_events = { on_progress, on_started, on_stopped, on_ended };

static const char *take_str(struct run_fields *x, const struct wire_msg *m, uint8_t tag)
{
	char *s = wire_get_str(m, tag);

	must(x->nstrings < array_len(x->strings));
	x->strings[x->nstrings++] = s;
	return s;
}

/* Points into the message, which outlives the request. */
static const char *const *take_list(struct run_fields *x, const struct wire_msg *m, uint8_t tag)
{
	struct wire_field f;
	const char *s;
	size_t pos = 0, n = 0;
	char **list;

	if (!wire_get(m, tag, &f))
		f = (struct wire_field){ 0 };
	while (wire_list_next(&f, &pos))
		n++;
	list = mem_zero(n + 1, sizeof(*list));
	pos = n = 0;
	while ((s = wire_list_next(&f, &pos)))
		list[n++] = (char *)s;
	must(x->nlists < array_len(x->lists));
	x->lists[x->nlists++] = list;
	return (const char *const *)list;
}

static void fields_done(struct run_fields *x)
{
	for (size_t i = 0; i < x->nstrings; i++)
		free(x->strings[i]);
	for (size_t i = 0; i < x->nlists; i++)
		free(x->lists[i]);
}

static void take_fields(struct run_fields *x, const struct wire_msg *m)
{
	x->r = (struct run_request){
		.kind = take_str(x, m, WIRE_T_KIND),
		.code = take_str(x, m, WIRE_T_CODE),
		.cwd = take_str(x, m, WIRE_T_CWD),
		.python = take_str(x, m, WIRE_T_PYTHON),
		.prefix = take_str(x, m, WIRE_T_NAME),
		.requirements = take_str(x, m, WIRE_T_REQUIREMENTS),
		.pep723 = take_str(x, m, WIRE_T_PEP723),
		.index_url = take_str(x, m, WIRE_T_INDEX_URL),
		.pip_settings = take_str(x, m, WIRE_T_INFO),
		.argv = take_list(x, m, WIRE_T_ARGV),
		.orig_argv = take_list(x, m, WIRE_T_TEXT),
		.env = take_list(x, m, WIRE_T_ENV),
		.with = take_list(x, m, WIRE_T_WITH),
		.flags = take_list(x, m, WIRE_T_FLAGS),
		.stdio = { -1, -1, -1 },
		.tty = -1,
		.result = -1,
	};
}

static int add_mount(struct run_request *r, int tree, const char *path, bool writable,
		     struct err *err)
{
	if (r->nmounts == array_len(r->mounts))
		return err_set(err, ERR_LIMIT, "more than %zu granted directories; grant fewer",
			       array_len(r->mounts));
	r->mounts[r->nmounts++] = (struct run_mount){ tree, path, writable };
	return 0;
}

/* A pseudo terminal of the client's: from root the detached mount itself, from a user a descriptor
 * (O_PATH) to know the terminal by, of which we make the mount. Without one a script still runs. */
static void take_tty(struct run_request *r, struct wire_msg *m, int at, const char *path)
{
	struct err err;
	struct stat st;
	int tree;

	if (*path) {
		if (jail_detach_terminal(path, m->fds[at], &tree, &err) < 0) {
			log_debug("api", "a script goes without a terminal: %s", err.text);
			return;
		}
		close(m->fds[at]);
		m->fds[at] = tree; /* the message closes it */
	}
	if (fstat(m->fds[at], &st) == 0 && S_ISCHR(st.st_mode))
		r->tty = m->fds[at];
}

static int add_wheel(struct run_request *r, int fd, const char *path, struct err *err)
{
	if (r->nwheels == array_len(r->wheels))
		return err_set(err, ERR_LIMIT,
			       "more than %zu wheels by path; put them into a directory and name "
			       "it with --find-links",
			       array_len(r->wheels));
	r->wheels[r->nwheels++] = (struct run_wheel){ path, fd };
	return 0;
}

/* Reading or writing anything else could stop the loop. */
static int check_memfd(int fd, struct err *err)
{
	if (fcntl(fd, F_GET_SEALS) < 0)
		return err_set(err, ERR_CORRUPT, "a descriptor is not a memfd");
	return 0;
}

/* What is required, too long for a packet. */
static int take_inputs(struct run_fields *x, int fd, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_INPUTS_BYTES);

	if (check_memfd(fd, err) < 0 || lseek(fd, 0, SEEK_SET) < 0 ||
	    buf_read_fd(&text, fd, err) < 0)
		return err_wrap(err, "reading the requirements");
	if (!x->r.inputs) {
		must(x->nstrings < array_len(x->strings));
		x->r.inputs = x->strings[x->nstrings++] = buf_steal(&text);
	}
	return 0;
}

/* What one descriptor of the packet is, by its word in FDS. */
static int take_fd(struct client *c, struct run_request *r, struct wire_msg *m, int at,
		   const char *word, struct err *err)
{
	static const char *const stdio[] = { "stdin", "stdout", "stderr" };

	if (at >= m->nfds || m->fds[at] < 0)
		return err_set(err, ERR_CORRUPT, "the descriptor for '%.80s' is missing", word);
	for (int i = 0; i < 3; i++)
		if (strcmp(word, stdio[i]) == 0) {
			r->stdio[i] = m->fds[at];
			return 0;
		}
	if (strncmp(word, "mount:", 6) == 0)
		return add_mount(r, m->fds[at], word + 6, false, err);
	if (strncmp(word, "mountrw:", 8) == 0)
		return add_mount(r, m->fds[at], word + 8, true, err);
	if (strcmp(word, "opens") == 0 && c->opens < 0) {
		c->opens = wire_take_fd(m, at);
		return 0;
	}
	if (strncmp(word, "tty:", 4) == 0) {
		take_tty(r, m, at, word + 4);
		return 0;
	}
	if (strncmp(word, "wheel:", 6) == 0)
		return add_wheel(r, m->fds[at], word + 6, err);
	if (strcmp(word, "result") == 0) {
		r->result = m->fds[at];
		return check_memfd(r->result, err);
	}
	if (strncmp(word, "prefix:", 7) == 0)
		return jail_add_prefix(c->api->config.jail, word + 7, wire_take_fd(m, at), err);
	return err_set(err, ERR_CORRUPT, "unknown descriptor '%.80s'", word);
}

static int take_fds(struct client *c, struct run_fields *x, struct wire_msg *m, struct err *err)
{
	const char *const *words = take_list(x, m, WIRE_T_FDS);
	const char *const *readable = take_list(x, m, WIRE_T_RDONLY);
	const char *const *writable = take_list(x, m, WIRE_T_RDWR);

	for (int i = 0; words[i]; i++)
		if (strcmp(words[i], "inputs") == 0 && i < m->nfds
			    ? take_inputs(x, m->fds[i], err) < 0
			    : take_fd(c, &x->r, m, i, words[i], err) < 0)
			return -1;
	for (; *readable; readable++)
		if (add_mount(&x->r, -1, *readable, false, err) < 0)
			return -1;
	for (; *writable; writable++)
		if (add_mount(&x->r, -1, *writable, true, err) < 0)
			return -1;
	return 0;
}

static void client_run(struct client *c, struct wire_msg *m)
{
	struct run_result failed = { 0 };
	struct run_fields x = { 0 };
	struct err err = ERR_INIT;
	struct run *run;

	c->phase = WIRE_FROM_CLIENT_RUNNING;
	take_fields(&x, m);
	if (take_fds(c, &x, m, &err) < 0) {
		failed.err = &err;
		failed.timing.total_us = 0;
		on_ended(c, &failed);
	} else {
		/* It may end before this returns, and then closes the client. */
		run = functions_run(c->api->config.functions, &x.r, &client_events, c);
		if (!c->closing)
			c->run = run;
	}
	fields_done(&x);
}

static void client_message(struct client *c, struct wire_msg *m)
{
	uint64_t signo;

	if (!wire_may(c->phase, m->type)) {
		log_warn("api", "a %s sent %s; its link is closed", wire_phase_name(c->phase),
			 wire_type_name(m->type));
		client_close(c);
	} else if (m->type == WIRE_RUN) {
		client_run(c, m);
	} else {
		signo = wire_get_u64(m, WIRE_T_SIGNO, 0);
		if (signo > 0 && signo < 65 && c->run)
			run_signal(c->run, (int)signo);
	}
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct client *c = poll->data;

	while (!c->closing) {
		auto_msg struct wire_msg m;
		struct err err = ERR_INIT;
		int got = wire_recv(c->fd, &m, &err);

		if (got < 0 && err.sys == EAGAIN)
			return;
		if (got < 0)
			log_warn("api", "a run client: %s", err.text);
		if (got <= 0)
			client_close(c);
		else
			client_message(c, &m);
	}
}

static void say_hello(struct client *c)
{
	static const char *const modes[] = {
		[JAIL_ROOT] = "root", [JAIL_SUBIDS] = "subids", [JAIL_ONE_ID] = "one-id"
	};
	auto_msg struct wire_msg m;

	wire_init(&m, WIRE_HELLO, 0);
	wire_put_str(&m, WIRE_T_MODE, modes[jail_mode(c->api->config.jail)]);
	wire_put_u64(&m, WIRE_T_HOST_ID, jail_run_host_id(c->api->config.jail));
	wire_put_str(&m, WIRE_T_TEXT, c->api->version);
	client_send(c, &m);
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
	struct api *api = poll->data;
	struct client *c;
	int fd;

	while ((fd = accept4(api->run_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		if (api->nclients >= LIMIT_RUN_CLIENTS) {
			close(fd);
			continue;
		}
		c = mem_new(struct client);
		c->api = api;
		c->fd = fd;
		c->phase = WIRE_FROM_CLIENT_NEW;
		c->opens = -1;
		must(uv_poll_init(api->config.loop, &c->poll, fd) == 0);
		c->poll.data = c;
		c->link = &api->clients;
		c->next = api->clients;
		if (c->next)
			c->next->link = &c->next;
		api->clients = c;
		api->nclients++;
		uv_poll_start(&c->poll, UV_READABLE | UV_DISCONNECT, on_readable);
		say_hello(c);
	}
}

int run_open(struct api *api, struct err *err)
{
	api->run_fd = unix_listen(api, "run.sock", SOCK_SEQPACKET, err);
	if (api->run_fd < 0)
		return -1;
	must(uv_poll_init(api->config.loop, &api->run_poll, api->run_fd) == 0);
	api->run_poll.data = api;
	uv_poll_start(&api->run_poll, UV_READABLE, on_connection);
	api->run_open = true;
	return 0;
}

void run_quiesce(struct api *api)
{
	if (api->run_open)
		uv_poll_stop(&api->run_poll);
}

static void on_run_closed(uv_handle_t *handle)
{
	api_handle_closed(handle->data);
}

void run_close(struct api *api)
{
	while (api->clients)
		client_close(api->clients);
	if (!api->run_open)
		return;
	api->run_open = false;
	api->handles++;
	uv_close((uv_handle_t *)&api->run_poll, on_run_closed);
	fd_close(&api->run_fd);
}
