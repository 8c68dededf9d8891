/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/resolver.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "zygote/zygote.h"

#define SYSTEM_PYTHON "/usr/bin/python3"
#define DIST_PACKAGES "/usr/lib/python3/dist-packages"
#define TOOL_FILE_BYTES (4 * MIB)
#define RESOLVER_MEMORY (1 * GIB)
#define RESOLVER_SLACK_MS (10 * 1000)

static const char *const resolver_modules[] = { "tomllib",
						"datetime",
						"json",
						"shlex",
						"urllib.parse",
						"packaging.markers",
						"packaging.requirements",
						"packaging.specifiers",
						"packaging.tags",
						"packaging.version",
						"resolver",
						NULL };

/* One resolver process, from the request on. */
struct resolver {
	struct resolvers *all;
	index_resolver_ready_fn ready;
	void *arg;
	struct zygote_child *child;
	uint64_t patience_ms;
	uv_timer_t patience;   /* one that never ends (it reads what indexes say) is killed */
	struct resolver *next; /* while waiting for the node */
};

struct resolvers {
	uv_loop_t *loop;
	struct zygotes *zygotes;
	char *env_dir;
	struct err env_err; /* why there is none: told to whoever resolves */
	struct zygote_node *root, *node;
	bool making;
	struct resolver *waiting;
};

static int copy_file(int from, int to, const char *name, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(TOOL_FILE_BYTES);
	auto_close int out = -1;

	if (buf_read_file(&text, from, name, err) < 0)
		return -1;
	out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (out < 0 || fchmod(out, 0644) < 0)
		return err_sys(err, errno, "creating '%s'", name);
	return fd_write_all(out, text.data, text.len, err);
}

/* Python files of one package, one level of sub-packages at a time. */
static int copy_package(int from, int to, const char *name, int depth, struct err *err)
{
	int in = openat(from, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_close int out = -1;
	struct dirent *e;
	DIR *dir;
	int ret = 0;

	if (in < 0)
		return err_sys(err, errno, "opening '%s'", name);
	dir = fdopendir(in);
	if (mkdirat(to, name, 0755) < 0 ||
	    (out = openat(to, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
	    fchmod(out, 0755) < 0)
		ret = err_sys(err, errno, "making '%s'", name);
	while (ret == 0 && (e = readdir(dir))) {
		size_t len = strlen(e->d_name);

		if (e->d_name[0] == '.' || strcmp(e->d_name, "__pycache__") == 0)
			continue;
		if (e->d_type == DT_DIR && depth < 4)
			ret = copy_package(in, out, e->d_name, depth + 1, err);
		else if (len > 3 && strcmp(e->d_name + len - 3, ".py") == 0)
			ret = copy_file(in, out, e->d_name, err);
	}
	closedir(dir);
	return ret;
}

/* /usr/bin/python3 -> python3.11: which lib/pythonX.Y the tree needs. */
static char *system_python_name(struct err *err)
{
	char target[256];
	ssize_t n = readlink(SYSTEM_PYTHON, target, sizeof(target) - 1);
	char *name;

	if (n <= 0) {
		err_set(err, ERR_NOT_FOUND, SYSTEM_PYTHON " is not there; install python3");
		return NULL;
	}
	target[n] = '\0';
	name = strrchr(target, '/');
	return mem_strdup(name ? name + 1 : target);
}

static int write_text(int dirfd, const char *name, const char *text, struct err *err)
{
	auto_close int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0)
		return err_sys(err, errno, "creating '%s'", name);
	return fd_write_all(fd, text, strlen(text), err);
}

static int make_env(const char *dir, struct err *err)
{
	auto_free char *python = system_python_name(err), *site = NULL, *bin = NULL;
	auto_close int from = open(DIST_PACKAGES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_close int to = -1, top = -1;

	if (!python || fd_remove_tree(AT_FDCWD, dir, err) < 0)
		return -1;
	site = mem_printf("%s/lib/%s/site-packages", dir, python);
	bin = mem_printf("%s/bin", dir);
	if (fd_mkdirs(site, 0755, err) < 0 || fd_mkdirs(bin, 0755, err) < 0)
		return -1;
	to = open(site, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	top = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (to < 0 || top < 0)
		return err_sys(err, errno, "opening '%s'", site);
	if (symlinkat(SYSTEM_PYTHON, top, "bin/python") < 0)
		return err_sys(err, errno, "making bin/python");
	if (write_text(top, "pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n",
		       err) < 0)
		return -1;
	if (from < 0 || faccessat(from, "packaging", R_OK, 0) < 0)
		return err_set(err, ERR_NOT_FOUND,
			       "the resolver needs Debian's python3-packaging; install it");
	return copy_package(from, to, "packaging", 0, err);
}

int resolvers_open(uv_loop_t *loop, const char *cache_dir, struct resolvers **out, struct err *err)
{
	struct resolvers *all = mem_new(struct resolvers);

	all->loop = loop;
	all->env_dir = mem_printf("%s/resolver", cache_dir);
	if (make_env(all->env_dir, &all->env_err) < 0) {
		err_wrap(&all->env_err, "preparing the resolver");
		log_error("daemon", "%s", all->env_err.text);
	}
	*out = all;
	return 0;
}

void resolvers_attach(struct resolvers *all, struct zygotes *zygotes)
{
	all->zygotes = zygotes;
}

static void free_resolver(uv_handle_t *handle)
{
	free(handle->data);
}

static void on_patience(uv_timer_t *timer)
{
	struct resolver *r = timer->data;

	log_warn("daemon", "a resolver did not end by itself");
	if (r->child)
		zygote_child_kill(r->child);
}

static void on_message(void *ctx, struct zygote_child *child, struct wire_msg *m)
{
	zygote_child_kill(child); /* its stream is the index's: nothing should come here */
}

static void on_ended(void *ctx, struct zygote_child *child, const struct zygote_end *end)
{
	struct resolver *r = ctx;

	r->child = NULL;
	uv_close((uv_handle_t *)&r->patience, free_resolver);
}

static const struct zygote_events resolver_events = { on_message, on_ended };

static void fail(struct resolver *r, const struct err *why)
{
	struct err err = *why;

	err_wrap(&err, "starting the resolver");
	r->ready(r->arg, -1, &err);
	uv_close((uv_handle_t *)&r->patience, free_resolver);
}

static void on_born(void *arg, struct zygote_child *child, const struct zygote_timing *timing,
		    const struct err *err)
{
	struct resolver *r = arg;
	struct err failed = ERR_INIT;
	auto_msg struct wire_msg go;

	wire_init(&go, WIRE_GO, 0);
	if (!child) {
		fail(r, err);
		return;
	}
	r->child = child;
	uv_timer_start(&r->patience, on_patience, r->patience_ms + RESOLVER_SLACK_MS, 0);
	if (zygote_child_send(child, &go, &failed) < 0) {
		zygote_child_kill(child);
		err_wrap(&failed, "starting the resolver");
		r->ready(r->arg, -1, &failed);
		return;
	}
	zygote_child_phase(child, WIRE_FROM_RESOLVER);
	r->ready(r->arg, zygote_child_take_stream(child), NULL);
}

static void fork_one(struct resolver *r)
{
	struct resolvers *all = r->all;
	struct zygote_fork spec = {
		.role = ZYGOTE_RESOLVER,
		.net = ZYGOTE_NET_NONE,
		.env_path = all->env_dir,
		.stdio = { -1, -1, -1 },
		.limits = { .memory_bytes = RESOLVER_MEMORY, .pids = 16 },
	};

	zygote_fork(all->zygotes, all->node ? all->node : all->root, &spec, &resolver_events, r,
		    on_born, r);
}

static void serve(struct resolvers *all, const struct err *err)
{
	struct resolver *r = all->waiting, *next;

	all->waiting = NULL;
	for (; r; r = next) {
		next = r->next;
		if (err)
			fail(r, err);
		else
			fork_one(r);
	}
}

static void on_node(void *arg, struct zygote_node *node, const struct zygote_profile *profile,
		    const struct err *err)
{
	struct resolvers *all = arg;

	all->making = false;
	all->node = node;
	if (node)
		zygote_node_set_data(node, all); /* or its end would not be told */
	else
		log_warn("daemon", "the resolver starts slowly: %s", err->text);
	serve(all, all->root ? NULL : err);
}

static void on_root(void *arg, struct zygote_node *root, const struct zygote_profile *profile,
		    const struct err *err)
{
	struct resolvers *all = arg;
	struct zygote_grow spec = { .env_path = all->env_dir, .modules = resolver_modules };

	all->root = root;
	if (root) {
		zygote_node_set_data(root, all);
		zygote_grow(all->zygotes, root, &spec, on_node, all);
		return;
	}
	all->making = false;
	serve(all, err);
}

static void make_node(struct resolvers *all)
{
	struct zygote_python python = { SYSTEM_PYTHON, "/usr" };

	if (all->making)
		return;
	all->making = true;
	zygote_root(all->zygotes, &python, all->env_dir, on_root, all);
}

static void start(void *ctx, uint64_t patience_ms, index_resolver_ready_fn ready, void *arg)
{
	struct resolvers *all = ctx;
	struct resolver *r;

	if (all->env_err.kind != ERR_NONE) {
		ready(arg, -1, &all->env_err);
		return;
	}
	r = mem_new(struct resolver);
	r->all = all;
	r->ready = ready;
	r->patience_ms = patience_ms;
	r->arg = arg;
	uv_timer_init(all->loop, &r->patience);
	r->patience.data = r;
	if (all->root && !all->making) {
		fork_one(r);
		return;
	}
	r->next = all->waiting;
	all->waiting = r;
	make_node(all);
}

void resolvers_node_gone(void *ctx, struct zygote_node *node)
{
	struct resolvers *all = ctx;

	if (node == all->node)
		all->node = NULL;
	if (node == all->root)
		all->root = NULL;
}

struct index_resolver_source resolvers_source(struct resolvers *all)
{
	return (struct index_resolver_source){ start, all };
}

void resolvers_close(struct resolvers *all)
{
	if (!all)
		return;
	while (all->waiting) {
		struct resolver *r = all->waiting;

		all->waiting = r->next;
		uv_close((uv_handle_t *)&r->patience, free_resolver);
	}
	free(all->env_dir);
	free(all);
}
