/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cli/run.h"
#include "wire/messages.h"

extern char **environ;

/* The message under construction. */
struct build {
	const struct dirs *d;
	const struct run_options *o;
	const struct run_hello *hello;
	struct wire_msg *m;
	struct mounts mounts;
	struct buf fds, rdonly, rdwr, flags;
	char *cwd, *script;  /* absolute */
	const char *project; /* the script is a directory */
	struct inputs inputs;
};

static void done(struct build *b)
{
	fd_close(&b->mounts.userns);
	buf_done(&b->fds);
	buf_done(&b->rdonly);
	buf_done(&b->rdwr);
	buf_done(&b->flags);
	free(b->cwd);
	free(b->script);
	inputs_done(&b->inputs);
}

static int add_stdio(struct build *b, struct err *err)
{
	static const char *const names[] = { "stdin", "stdout", "stderr" };

	for (int i = 0; i < 3; i++) {
		int fd = fcntl(i, F_DUPFD_CLOEXEC, 3);

		if (fd < 0)
			fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (fd < 0)
			return err_sys(err, errno, "opening /dev/null");
		if (fd_is_dir(fd)) {
			close(fd);
			return err_set(err, ERR_USAGE,
				       "%s is a directory, through which a script could leave its "
				       "sandbox; give a file, a pipe or a terminal",
				       names[i]);
		}
		wire_list_add(&b->fds, names[i]);
		wire_put_fd(b->m, fd);
	}
	return 0;
}

/* Without a terminal of its own a script still runs. */
static void add_terminal(struct build *b)
{
	const struct run_hello *h = b->hello;
	int fd = h->terminal ? terminal_share(h->terminal, h->root, h->host_id) : -1;
	auto_free char *word = NULL;

	if (fd < 0)
		return;
	word = mem_printf("tty:%s", h->root ? "" : terminal_path(h->terminal));
	wire_list_add(&b->fds, word);
	wire_put_fd(b->m, fd);
	fd = terminal_opens(h->terminal);
	if (fd < 0)
		return;
	wire_list_add(&b->fds, "opens");
	wire_put_fd(b->m, fd);
}

static bool same_word(const struct buf *list, const char *word)
{
	struct wire_field f = { .data = list->data, .len = list->len };
	const char *s;
	size_t pos = 0;

	while (f.len && (s = wire_list_next(&f, &pos)))
		if (strcmp(s, word) == 0)
			return true;
	return false;
}

/* Show a path: as root as a detached mount that we make, else by name. */
static int grant(struct build *b, const char *path, bool writable, struct err *err)
{
	auto_free char *word = mem_printf("%s:%s", writable ? "mountrw" : "mount", path);
	int tree;

	if (!b->hello->root) {
		struct buf *list = writable ? &b->rdwr : &b->rdonly;

		if (!same_word(list, path))
			wire_list_add(list, path);
		return 0;
	}
	if (same_word(&b->fds, word))
		return 0;
	if (b->m->nfds == LIMIT_PACKET_FDS)
		return err_set(err, ERR_LIMIT, "too many paths are granted");
	if (b->mounts.userns < 0 && mounts_open(&b->mounts, b->hello->host_id, err) < 0)
		return -1;
	if (mounts_detach(&b->mounts, path, writable, &tree, err) < 0)
		return -1;
	wire_list_add(&b->fds, word);
	wire_put_fd(b->m, tree);
	return 0;
}

static int grant_named(struct build *b, const char *path, bool writable, struct err *err)
{
	auto_free char *real = realpath(path, NULL);
	auto_free char *flag = NULL;

	if (!real)
		return err_sys(err, errno, "'%s' cannot be granted", path);
	flag = mem_printf("%s=%s", writable ? "write" : "read", real);
	wire_list_add(&b->flags, flag);
	return grant(b, real, writable, err);
}

/* HOME, / and the like are not shown just because a command was typed there. */
static bool is_wide(const char *path)
{
	static const char *const wide[] = { "/",    "/tmp", "/home", "/root", "/usr",
					    "/etc", "/var", "/proc", "/sys",  "/dev",
					    "/run", "/opt", "/mnt" };
	const char *home = getenv("HOME");
	auto_free char *real_home = home ? realpath(home, NULL) : NULL;

	for (size_t i = 0; i < array_len(wide); i++)
		if (strcmp(path, wide[i]) == 0)
			return true;
	return real_home && strcmp(path, real_home) == 0;
}

static bool in_system(const char *path)
{
	static const char *const parts[] = { "/usr/", "/proc/", "/sys/", "/dev/", "/etc/" };

	for (size_t i = 0; i < array_len(parts); i++)
		if (strncmp(path, parts[i], strlen(parts[i])) == 0)
			return true;
	return false;
}

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return path && strncmp(path, dir, n) == 0 && (!path[n] || path[n] == '/');
}

/* Everything a plain python3 could reach, but what the sandbox has of its own. For root also
 * without directories whose file system cannot map ids (tmpfs before Linux 6.3: /run), unless the
 * script is or works there. */
static int grant_all(struct build *b, struct err *err)
{
	static const char *const own[] = { "proc",	"sys", "dev",	"usr",	     "bin",
					   "sbin",	"lib", "lib32", "lib64",     "libx32",
					   "pipsqueak", "app", "boot",	"lost+found" };
	DIR *dir = opendir("/");
	struct dirent *e;
	int rc = 0;

	wire_list_add(&b->flags, "allow-all");
	while (dir && rc == 0 && (e = readdir(dir))) {
		auto_free char *path = mem_printf("/%s", e->d_name);
		bool skip = e->d_name[0] == '.';
		struct stat st;

		for (size_t i = 0; i < array_len(own); i++)
			skip |= strcmp(e->d_name, own[i]) == 0;
		if (!skip && lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
			rc = grant(b, path, true, err);
		if (rc < 0 && err->kind == ERR_DENIED && !is_below(b->cwd, path) &&
		    !is_below(b->script, path))
			rc = 0;
	}
	if (dir)
		closedir(dir);
	return rc;
}

static int grant_script(struct build *b, struct err *err)
{
	auto_free char *dir = NULL;
	struct stat st;

	if (!b->script || stat(b->script, &st) < 0)
		return 0;
	if (S_ISDIR(st.st_mode))
		return in_system(b->script) ? 0 : grant(b, b->script, false, err);
	dir = mem_strndup(b->script, (size_t)(strrchr(b->script, '/') - b->script));
	if (in_system(b->script))
		return 0; /* shown as it is */
	if (!*dir || is_wide(dir))
		return grant(b, b->script, false, err);
	return grant(b, dir, false, err);
}

static int add_grants(struct build *b, struct err *err)
{
	const struct run_options *o = b->o;

	if (o->net)
		wire_list_add(&b->flags, "allow-net");
	if (o->allow_all)
		return grant_all(b, err);
	if (o->write_cwd && grant_named(b, b->cwd, true, err) < 0)
		return -1;
	for (int i = 0; i < o->writes.n; i++)
		if (grant_named(b, o->writes.v[i], true, err) < 0)
			return -1;
	for (int i = 0; i < o->reads.n; i++)
		if (grant_named(b, o->reads.v[i], false, err) < 0)
			return -1;
	if (!o->write_cwd && !is_wide(b->cwd) && !in_system(b->cwd) &&
	    grant(b, b->cwd, false, err) < 0)
		return -1;
	return grant_script(b, err);
}

/* ---- environment ---- */

static bool passes(const struct run_options *o, const char *pair)
{
	static const char *const always[] = { "LANG",  "TZ",	   "TERM",	  "COLUMNS",
					      "LINES", "NO_COLOR", "FORCE_COLOR", "LANGUAGE" };
	size_t n = strcspn(pair, "=");

	if (o->env_all || strncmp(pair, "LC_", 3) == 0)
		return strncmp(pair, "LD_PRELOAD=", 11) != 0;
	for (size_t i = 0; i < array_len(always); i++)
		if (strlen(always[i]) == n && strncmp(pair, always[i], n) == 0)
			return true;
	for (int i = 0; i < o->envs.n; i++)
		if (strlen(o->envs.v[i]) == n && strncmp(pair, o->envs.v[i], n) == 0)
			return true;
	return false;
}

static void put_list(struct wire_msg *m, uint8_t tag, const struct buf *list)
{
	if (list->len)
		wire_put(m, tag, list->data, list->len);
}

static void add_env(struct build *b)
{
	auto_buf struct buf list = BUF_MAX(LIMIT_PACKET_BYTES);

	for (char **e = environ; *e; e++)
		if (passes(b->o, *e) && list.len + strlen(*e) + 1 < LIMIT_PACKET_BYTES)
			wire_list_add(&list, *e);
	put_list(b->m, WIRE_T_ENV, &list);
	for (int i = 0; i < b->o->envs.n; i++) {
		auto_free char *flag = mem_printf("env=%s", b->o->envs.v[i]);

		wire_list_add(&b->flags, flag);
	}
}

/* ---- what to run ---- */

static int read_script(struct build *b, struct err *err)
{
	auto_buf struct buf text = BUF_MAX(16 * MIB);
	auto_free char *block = NULL;
	struct stat st;

	if (stat(b->o->code, &st) < 0) {
		err_sys(err, errno, "can't open file '%s'", b->o->code);
		err->kind = ERR_USAGE;
		return -1;
	}
	b->script = realpath(b->o->code, NULL);
	if (S_ISDIR(st.st_mode))
		b->project = b->o->code;
	if (S_ISDIR(st.st_mode) || !b->script)
		return 0;
	if (buf_read_file(&text, AT_FDCWD, b->o->code, err) < 0) {
		err->kind = ERR_USAGE; /* as python3: exit code 2 */
		return -1;
	}
	if (pep723_extract(text.data, text.len, &block, err) < 0)
		return -1;
	wire_put_str(b->m, WIRE_T_PEP723, block);
	return 0;
}

static int add_memfd(struct build *b, const char *word, const char *text, struct err *err)
{
	auto_close int fd = memfd_create(word, MFD_CLOEXEC);

	if (fd < 0)
		return err_sys(err, errno, "memfd_create");
	if (fd_write_all(fd, text, strlen(text), err) < 0)
		return -1;
	wire_list_add(&b->fds, word);
	wire_put_fd(b->m, fd_steal(&fd));
	return 0;
}

static int add_inputs(struct build *b, struct err *err)
{
	struct inputs *in = &b->inputs;

	if (in->json && add_memfd(b, "inputs", in->json, err) < 0)
		return -1;
	for (int i = 0; i < in->nwheels; i++) {
		auto_free char *word = mem_printf("wheel:%s", in->wheels[i].path);

		wire_list_add(&b->fds, word);
		wire_put_fd(b->m, fd_steal(&in->wheels[i].fd));
	}
	return 0;
}

static int add_requirements(struct build *b, struct err *err)
{
	const struct required *r = &b->o->required;
	auto_buf struct buf with = { 0 };
	auto_free char *settings = NULL, *pep723 = wire_get_str(b->m, WIRE_T_PEP723);
	struct inputs_from from = { .required = r,
				    .dir = b->o->project ? b->o->project : b->project,
				    .script = b->o->code,
				    .pep723 = pep723,
				    .no_locks = strcmp(b->o->kind, "lock") == 0 };

	if (inputs_gather(&from, &b->inputs, err) < 0 || add_inputs(b, err) < 0)
		return -1;
	for (int i = 0; i < r->with.n; i++)
		wire_list_add(&with, r->with.v[i]);
	put_list(b->m, WIRE_T_WITH, &with);
	wire_put_str(b->m, WIRE_T_INDEX_URL, r->index_url);
	if (r->upgrade)
		wire_list_add(&b->flags, "upgrade");
	if (r->offline)
		wire_list_add(&b->flags, "offline");
	if (!b->inputs.any)
		return 0;
	if (pip_settings(b->d, &settings, err) < 0 ||
	    pip_settings_adjust(&settings, false, r->indexes.v, r->indexes.n, err) < 0)
		return -1;
	wire_put_str(b->m, WIRE_T_INFO, settings);
	return 0;
}

static int add_python(struct build *b, struct err *err)
{
	auto_free char *path = NULL, *prefix = NULL, *word = NULL;
	int tree;

	if (!b->o->required.python)
		return 0;
	if (interpreter_find(b->o->required.python, &path, &prefix, err) < 0)
		return -1;
	wire_put_str(b->m, WIRE_T_PYTHON, path);
	wire_put_str(b->m, WIRE_T_NAME, prefix);
	if (!b->hello->root || strcmp(prefix, "/usr") == 0)
		return 0;
	if (mounts_detach_plain(prefix, &tree, err) < 0)
		return -1;
	word = mem_printf("prefix:%s", prefix);
	wire_list_add(&b->fds, word);
	wire_put_fd(b->m, tree);
	return 0;
}

/* sys.argv: its first word as python3 sets it, then the arguments. */
static void add_argv(struct build *b)
{
	auto_buf struct buf list = BUF_MAX(LIMIT_PACKET_BYTES * 4),
			    orig = BUF_MAX(LIMIT_PACKET_BYTES * 4);
	const struct run_options *o = b->o;
	const char *first = "";

	if (strcmp(o->kind, "file") == 0 || strcmp(o->kind, "command") == 0)
		first = o->code;
	else if (strcmp(o->kind, "code") == 0)
		first = "-c";
	else if (strcmp(o->kind, "module") == 0)
		first = "-m";
	else if (o->nscript_argv)
		first = "-";
	wire_list_add(&list, first);
	for (int i = 0; i < o->nargs; i++)
		wire_list_add(&list, o->args[i]);
	for (int i = 0; i < o->nscript_argv; i++)
		wire_list_add(&orig, o->script_argv[i]);
	put_list(b->m, WIRE_T_ARGV, &list);
	put_list(b->m, WIRE_T_TEXT, &orig);
}

static size_t argv_bytes(const struct run_options *o)
{
	size_t n = o->code ? strlen(o->code) : 0;

	for (int i = 0; i < o->nscript_argv; i++)
		n += 2 * strlen(o->script_argv[i]) + 2;
	return n;
}

/* Nothing runs: the lock is all that is wanted. */
static int build_lock(struct build *b, struct err *err)
{
	if (b->o->code && read_script(b, err) < 0)
		return -1;
	if (add_requirements(b, err) < 0 || add_python(b, err) < 0)
		return -1;
	wire_list_add(&b->fds, "result");
	wire_put_fd(b->m, fcntl(b->o->result, F_DUPFD_CLOEXEC, 3));
	put_list(b->m, WIRE_T_FDS, &b->fds);
	put_list(b->m, WIRE_T_FLAGS, &b->flags);
	return 0;
}

int run_build(const struct dirs *d, const struct run_options *o, const struct run_hello *hello,
	      struct wire_msg *m, struct err *err)
{
	__attribute__((cleanup(done))) struct build b = {
		.d = d, .o = o, .hello = hello, .m = m, .mounts = { .userns = -1 }
	};

	b.cwd = getcwd(NULL, 0);
	if (!b.cwd)
		return err_sys(err, errno, "the working directory");
	if (argv_bytes(o) > LIMIT_PACKET_BYTES - 16 * KIB)
		return err_set(err, ERR_LIMIT, "the command line is too long (more than %lu KiB)",
			       (LIMIT_PACKET_BYTES - 16 * KIB) / KIB);
	wire_put_str(m, WIRE_T_KIND, o->kind);
	wire_put_str(m, WIRE_T_CODE, o->code);
	wire_put_str(m, WIRE_T_CWD, b.cwd);
	if (strcmp(o->kind, "lock") == 0)
		return build_lock(&b, err);
	if (strcmp(o->kind, "file") == 0 && read_script(&b, err) < 0)
		return -1;
	add_argv(&b);
	add_env(&b);
	if (add_requirements(&b, err) < 0 || add_stdio(&b, err) < 0 || add_python(&b, err) < 0)
		return -1;
	add_terminal(&b);
	if (add_grants(&b, err) < 0)
		return -1;
	put_list(m, WIRE_T_FDS, &b.fds);
	put_list(m, WIRE_T_RDONLY, &b.rdonly);
	put_list(m, WIRE_T_RDWR, &b.rdwr);
	put_list(m, WIRE_T_FLAGS, &b.flags);
	return 0;
}
