/* SPDX-License-Identifier: Apache-2.0 */
#include "function_doubles.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <uv.h>

#include "base/err.h"
#include "base/mem.h"
#include "index/index.h"
#include "jail/jail.h"
#include "jail/job.h"
#include "policy/policy.h"
#include "store/store.h"
#include "zygote/zygote.h"

struct doubles doubles;

static uv_loop_t *loop;
static void (*gone_fn)(void *ctx, struct zygote_node *node);
static void *gone_ctx;

/* Call fn(arg) from the loop. */
struct later {
	uv_timer_t timer;
	void (*fn)(void *arg);
	void *arg;
};

static void free_later(uv_handle_t *handle)
{
	free(handle);
}

static void on_later(uv_timer_t *timer)
{
	struct later *l = (struct later *)timer;

	l->fn(l->arg);
	uv_close((uv_handle_t *)timer, free_later);
}

static void later(void (*fn)(void *arg), void *arg)
{
	struct later *l = mem_new(struct later);

	l->fn = fn;
	l->arg = arg;
	uv_timer_init(loop, &l->timer);
	uv_timer_start(&l->timer, on_later, 0, 0);
}

/* ---- zygote ---- */

struct zygote_node {
	struct zygote_node *parent;
	void *data;
	uint32_t children;
	struct zygote_node *next;
};

static struct zygote_node *all_nodes;
static struct zygote_child *all_children;

struct zygote_child {
	const struct zygote_events *events;
	void *ctx;
	zygote_born_fn born;
	void *born_arg;
	bool fails, dead;
	struct zygote_end end;
	bool profiled, ended, forks, timed, from_node;
	int pending; /* answers on their way */
	struct zygote_child *next;
};

static struct zygote_node *new_node(void)
{
	struct zygote_node *n = mem_new(struct zygote_node);

	n->next = all_nodes;
	all_nodes = n;
	return n;
}

static void free_node(struct zygote_node *n)
{
	struct zygote_node **p = &all_nodes;

	while (*p != n)
		p = &(*p)->next;
	*p = n->next;
	free(n);
}

static void free_child(struct zygote_child *c)
{
	struct zygote_child **p = &all_children;

	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	free(c);
}

struct rooting {
	zygote_node_fn done;
	void *arg;
	struct zygote_node *node;
	struct wire_msg profile;
};

int zygotes_open(uv_loop_t *l, struct jail *jail, struct zygotes **out, struct err *err)
{
	loop = l;
	*out = (struct zygotes *)&doubles;
	return 0;
}

void zygotes_close(struct zygotes *z)
{
	gone_fn = NULL;
	while (all_children)
		free_child(all_children);
	while (all_nodes)
		free_node(all_nodes);
}

void zygotes_relax(struct zygotes *z)
{
}

uint64_t zygotes_violations(const struct zygotes *z)
{
	return 0;
}

void zygotes_on_gone(struct zygotes *z, void (*gone)(void *ctx, struct zygote_node *node),
		     void *ctx)
{
	gone_fn = gone;
	gone_ctx = ctx;
}

static void put_words(struct wire_msg *m, uint8_t tag, const char *words)
{
	auto_buf struct buf list = { 0 };
	auto_free char *copy = mem_strdup(words), *save = NULL;

	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		wire_list_add(&list, w);
	save = NULL;
	wire_put(m, tag, list.data, list.len);
}

static void on_grown(void *arg)
{
	struct rooting *g = arg;
	struct zygote_profile profile;
	struct err err;

	must(zygote_profile_parse(&g->profile, &profile, &err) == 0);
	g->done(g->arg, g->node, &profile, NULL);
	zygote_profile_done(&profile);
	wire_done(&g->profile);
	free(g);
}

static void on_rooted(void *arg)
{
	struct rooting *g = arg;

	g->done(g->arg, g->node, NULL, NULL);
	free(g);
}

static void on_no_ids(void *arg)
{
	struct rooting *g = arg;
	struct err err;

	err_set(&err, ERR_BUSY, "no ids are left");
	g->done(g->arg, NULL, NULL, &err);
	free(g);
}

void zygote_root(struct zygotes *z, const struct zygote_python *python, const char *env_path,
		 zygote_node_fn done, void *arg)
{
	struct rooting *g = mem_new(struct rooting);

	*g = (struct rooting){ .done = done, .arg = arg, .node = new_node() };
	later(on_rooted, g);
}

#define SITE JAIL_ENV "/lib/python3.11/site-packages/"

/* What importing this takes, and where it lies. */
static void put_import(const char *name, struct buf *us, struct buf *origins)
{
	bool is_numpy = strncmp(name, "numpy", 5) == 0;
	int first = !is_numpy ? 3000 : name[5] ? 9000 : 50000;
	auto_free char *text = mem_printf("%d", first + first / 100 * doubles.slower);

	wire_list_add(us, text);
	wire_list_add(origins, is_numpy ? SITE "numpy/__init__.py" : "/usr/lib/python3.11/x.py");
}

void zygote_grow(struct zygotes *z, struct zygote_node *parent, const struct zygote_grow *spec,
		 zygote_node_fn done, void *arg)
{
	struct rooting *g = mem_new(struct rooting);
	auto_buf struct buf us = { 0 }, origins = { 0 };

	doubles.grown++;
	if (doubles.busy_grows > 0) {
		doubles.busy_grows--;
		*g = (struct rooting){ .done = done, .arg = arg };
		later(on_no_ids, g);
		return;
	}
	*g = (struct rooting){ .done = done, .arg = arg, .node = new_node() };
	g->node->parent = parent;
	parent->children++;
	doubles.modules[0] = '\0';
	wire_init(&g->profile, WIRE_PROFILE, 0);
	for (size_t i = 0; spec->modules[i]; i++) {
		snprintf(doubles.modules + strlen(doubles.modules),
			 sizeof(doubles.modules) - strlen(doubles.modules), "%s%s", i ? " " : "",
			 spec->modules[i]);
		put_import(spec->modules[i], &us, &origins);
	}
	put_words(&g->profile, WIRE_T_MODULES, doubles.modules);
	wire_put(&g->profile, WIRE_T_SELF_US, us.data, us.len);
	wire_put(&g->profile, WIRE_T_ORIGIN, origins.data, origins.len);
	put_words(&g->profile, WIRE_T_ABSENT, doubles.absent ? doubles.absent : "");
	put_words(&g->profile, WIRE_T_LEFT, doubles.left ? doubles.left : "");
	later(on_grown, g);
}

static void on_fork(void *arg)
{
	struct zygote_child *c = arg;
	struct zygote_timing timing = { 200, 50 };
	struct err err;

	if (c->fails) {
		err_set(&err, ERR_START, "no cell");
		c->born(c->born_arg, NULL, NULL, &err);
		free_child(c);
		return;
	}
	doubles.alive++;
	c->born(c->born_arg, c, &timing, NULL);
}

void zygote_fork(struct zygotes *z, struct zygote_node *node, const struct zygote_fork *spec,
		 const struct zygote_events *events, void *ctx, zygote_born_fn born, void *arg)
{
	struct zygote_child *c = mem_new(struct zygote_child);

	*c = (struct zygote_child){
		.events = events, .ctx = ctx, .born = born, .born_arg = arg, .next = all_children
	};
	all_children = c;
	c->fails = doubles.fail_forks > 0 || (node->parent && doubles.fail_node_forks > 0);
	c->from_node = node->parent != NULL;
	doubles.fail_forks -= doubles.fail_forks > 0;
	doubles.fail_node_forks -= node->parent && doubles.fail_node_forks > 0;
	doubles.forks++;
	doubles.forks_from_nodes += node->parent != NULL;
	later(on_fork, c);
}

static void on_end(void *arg)
{
	struct zygote_child *c = arg;

	doubles.alive--;
	c->ended = true;
	c->events->ended(c->ctx, c, &c->end);
	if (!c->pending)
		free_child(c);
}

static void settled(struct zygote_child *c)
{
	if (!--c->pending && c->ended)
		free_child(c);
}

static void end(struct zygote_child *c, int status, bool oom)
{
	if (c->dead)
		return;
	c->dead = true;
	c->end.status = status;
	c->end.oom = oom;
	later(on_end, c);
}

void zygote_child_kill(struct zygote_child *c)
{
	doubles.kills++;
	end(c, SIGKILL, false);
}

void zygote_child_signal(struct zygote_child *c, int signo)
{
	end(c, signo, false);
}

void zygote_child_phase(struct zygote_child *c, enum wire_phase phase)
{
}

int zygote_child_take_stream(struct zygote_child *c)
{
	return -1;
}

static void put_profile(struct wire_msg *m, int slower)
{
	auto_free char *us = mem_printf("%d %d %d 10 10", 3000 + 30 * slower, 50000 + 500 * slower,
					9000 + 90 * slower);

	wire_init(m, WIRE_PROFILE, 0);
	put_words(m, WIRE_T_MODULES, "json numpy numpy.linalg handler __main__");
	put_words(m, WIRE_T_SELF_US, us);
	put_words(m, WIRE_T_ORIGIN,
		  "/usr/lib/python3.11/json/__init__.py " SITE "numpy/__init__.py " SITE
		  "numpy/linalg.py /app/handler.py /app/x.py");
}

/* What follows an answer. */
static void on_afterwards(void *arg)
{
	struct zygote_child *c = arg;
	auto_msg struct wire_msg m;

	if (c->timed && !c->dead) {
		put_profile(&m, doubles.slower);
		c->events->message(c->ctx, c, &m);
		wire_done(&m);
	}
	if (c->forks) {
		wire_init(&m, WIRE_AGAIN, 0);
		wire_put_u64(&m, WIRE_T_STATUS, doubles.cell);
	} else {
		put_profile(&m, c->from_node ? doubles.slower : 0);
	}
	if (!c->dead && (c->forks || !c->profiled))
		c->events->message(c->ctx, c, &m);
	c->profiled = true;
	settled(c);
}

struct answer {
	struct zygote_child *c;
	struct wire_msg m;
};

static void on_answer(void *arg)
{
	struct answer *a = arg;

	if (!a->c->dead) {
		a->c->events->message(a->c->ctx, a->c, &a->m);
		a->c->pending++;
		later(on_afterwards, a->c);
	}
	settled(a->c);
	wire_done(&a->m);
	free(a);
}

static void answer(struct zygote_child *c, const struct wire_msg *call)
{
	struct answer *a = mem_new(struct answer);
	struct wire_field body;

	a->c = c;
	must(wire_get(call, WIRE_T_BODY, &body));
	wire_init(&a->m, WIRE_REPLY, call->id);
	if (memmem(body.data, body.len, "raise", 5) || memmem(body.data, body.len, "start", 5)) {
		bool start = memmem(body.data, body.len, "start", 5);

		wire_put_str(&a->m, WIRE_T_ERR_KIND, start ? "start" : "handler");
		wire_put_str(&a->m, WIRE_T_ERR_TEXT, "ValueError: no");
		wire_put_str(&a->m, WIRE_T_BODY, "Traceback ...");
	} else {
		wire_put(&a->m, WIRE_T_BODY, body.data, body.len);
		put_words(&a->m, WIRE_T_TIMING, "import=11 handler=22");
	}
	c->pending++;
	later(on_answer, a);
}

int zygote_child_send(struct zygote_child *c, const struct wire_msg *m, struct err *err)
{
	struct wire_field body;

	if (m->type == WIRE_GO && wire_get(m, WIRE_T_FLAGS, &body))
		c->forks = memmem(body.data, body.len, "again", 5) != NULL;
	if (m->type != WIRE_CALL)
		return 0;
	c->timed = wire_get(m, WIRE_T_FLAGS, &body);
	must(wire_get(m, WIRE_T_BODY, &body));
	if (memmem(body.data, body.len, "die", 3))
		end(c, SIGSEGV, false);
	else if (memmem(body.data, body.len, "oom", 3))
		end(c, SIGKILL, true);
	else if (!memmem(body.data, body.len, "hang", 4))
		answer(c, m);
	return 0;
}

void zygote_node_info(struct zygote_node *node, struct zygote_node_info *out)
{
	*out = (struct zygote_node_info){ .parent = node->parent,
					  .children = node->children,
					  .asleep = true,
					  .unique_bytes = 1000000 };
}

void zygote_node_peek(struct zygote_node *node, struct zygote_node_info *out)
{
	zygote_node_info(node, out);
}

void zygote_node_set_data(struct zygote_node *node, void *data)
{
	node->data = data;
}

void *zygote_node_data(const struct zygote_node *node)
{
	return node->data;
}

void zygote_child_cpu(struct zygote_child *c, zygote_cpu_fn done, void *arg)
{
	(void)c;
	done(arg, 0, NULL);
}

void zygote_child_cpu_limit(struct zygote_child *c, uint64_t us)
{
	(void)c;
	(void)us;
}

bool zygote_node_full(const struct zygote_node *node)
{
	(void)node;
	return false;
}

int zygote_drop(struct zygote_node *node, struct err *err)
{
	if (node->children)
		return err_set(err, ERR_BUSY, "it has children");
	doubles.dropped++;
	if (node->parent)
		node->parent->children--;
	if (gone_fn)
		gone_fn(gone_ctx, node);
	free_node(node);
	return 0;
}

/* ---- store, index ---- */

static const struct store_env the_env = { "/nowhere/env", "lib/python3.11/site-packages" };
static bool env_made;

const struct store_env *store_find_env(struct store *store, const struct lock *lock)
{
	return env_made ? &the_env : NULL;
}

void store_make_env(struct store *store, const struct lock *lock, const struct store_python *python,
		    index_progress_fn progress, store_env_fn done, void *arg)
{
	doubles.envs++;
	env_made = true;
	done(arg, &the_env, NULL);
}

void store_hold(struct store *store, const struct lock *lock, bool hold)
{
}

void store_names(struct store *store, const struct lock *lock, size_t dist, const char *list,
		 void (*each)(void *ctx, const char *name), void *ctx)
{
}

int store_keep(struct store *store, const char *owner, const char *const *hashes, struct err *err)
{
	return 0;
}

int store_owner(struct store *store, const struct lock *lock, const char *path)
{
	return strncmp(path, "lib/python3.11/site-packages/numpy/", 35) == 0 &&
			       !strstr(path, "missing")
		       ? 0
		       : -1;
}

bool store_provides_module(struct store *store, const struct lock *lock, const char *top_level)
{
	return doubles.provided && strcmp(doubles.provided, top_level) == 0;
}

bool store_provides_group(struct store *store, const struct lock *lock, const char *group)
{
	return false;
}

void index_use(struct index *index, const struct index_request *request, const struct lock *lock)
{
}

void index_take(struct index *index, const char *path, int fd, index_local_fn done, void *arg)
{
	struct index_local local = { .path = (char *)path, .size_bytes = 1 };

	done(arg, &local, NULL);
}

bool index_has_built(const struct index *index, const struct lock *lock)
{
	return true;
}

void index_request_key(const struct index_request *request, char *out)
{
	snprintf(out, 65, "key-%s", request->requirements ? request->requirements : "");
}

void index_resolve(struct index *index, const struct index_request *request,
		   index_progress_fn progress, index_lock_fn done, void *arg)
{
	struct lock_dist d = { .name = "numpy",
			       .version = "2.0",
			       .filename = "numpy-2.0-py3-none-any.whl",
			       .url = "https://index.invalid/numpy-2.0-py3-none-any.whl" };
	struct lock *lock;
	struct err err;

	doubles.resolves++;
	if (doubles.resolve_error) {
		err_set(&err, ERR_NOT_FOUND, "%s", doubles.resolve_error);
		done(arg, NULL, &err);
		return;
	}
	memset(d.sha256, 'a', 64);
	lock = lock_new("cpython-311");
	lock_add(lock, &d);
	lock_seal(lock);
	done(arg, lock, NULL);
}

/* ---- jail ---- */

struct job {
	jail_job_fn done;
	void *arg;
};

static void on_job(void *arg)
{
	struct job *j = arg;

	j->done(j->arg, 0, NULL);
	free(j);
}

int jail_job_start(struct jail *jail, const struct jail_job_spec *spec, jail_job_fn done, void *arg,
		   struct err *err)
{
	static const char info[] = "{\"version\": \"3.11.2\", \"cache_tag\": \"cpython-311\", "
				   "\"base_prefix\": \"/usr\", \"soabi\": \"cpython-311\"}";
	struct job *j = mem_new(struct job);
	const char *text = spec->nmounts ? doubles.job_output : info;

	if (spec->nfds)
		must(write(spec->fds[1], text, strlen(text)) == (ssize_t)strlen(text));
	*j = (struct job){ done, arg };
	later(on_job, j);
	return 0;
}

int jail_describe(const struct jail *jail, struct buf *out, struct err *err)
{
	return buf_puts(out, "{}", err);
}

bool jail_has_network(const struct jail *jail)
{
	(void)jail;
	return false;
}

enum jail_mode jail_mode(const struct jail *jail)
{
	return JAIL_ONE_ID;
}
