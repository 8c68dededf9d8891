/* SPDX-License-Identifier: Apache-2.0
 *
 * Who needs what. A daemon marks what it needs by an empty file of that name in tmp/DAEMON/uses:
 * it counts as long as the daemon lives, which holds the lock of tmp/DAEMON. Marks are made under
 * a shared lock of DIR/lock and asked for under an exclusive one, so that nothing is marked between
 * the question and the removal. DIR/keep/OWNER lists environments of deployed functions: these
 * count while no daemon runs, too.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "store/store_priv.h"

struct use {
	struct use *next;
	char *name;
	size_t count;
};

void use_hold(struct store *s, const char *name)
{
	auto_free char *path = mem_printf("%s/%s", s->uses, name);
	auto_close int fd = -1;
	struct use *u = s->held;

	while (u && strcmp(u->name, name) != 0)
		u = u->next;
	if (u) {
		u->count++;
		return;
	}
	u = mem_new(struct use);
	*u = (struct use){ s->held, mem_strdup(name), 1 };
	s->held = u;
	if (s->closing) /* what is still under way ends with the process, and the marks are gone */
		return;
	/* Whoever has it exclusively does one rename with it. */
	if (flock(s->lock, LOCK_SH) < 0)
		log_warn("store", "locking the store: %m");
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		log_error("store", "marking the use of '%s': %m", name);
	flock(s->lock, LOCK_UN);
}

void use_drop(struct store *s, const char *name)
{
	auto_free char *path = mem_printf("%s/%s", s->uses, name);
	struct use **link = &s->held, *u;

	while (*link && strcmp((*link)->name, name) != 0)
		link = &(*link)->next;
	u = *link;
	if (!u || --u->count)
		return;
	*link = u->next;
	free(u->name);
	free(u);
	if (unlink(path) < 0 && errno != ENOENT && !s->closing)
		log_warn("store", "removing '%s': %m", path);
}

void use_free(struct store *s)
{
	while (s->held) {
		struct use *u = s->held;

		s->held = u->next;
		free(u->name);
		free(u);
	}
}

/* A daemon's directory below tmp: does it live, and has it marked this? What cannot be asked may.
 */
static bool daemon_needs(int tmp, const char *daemon, const char *name)
{
	auto_free char *mark = mem_printf("%s/uses/%s", daemon, name);
	auto_close int fd = -1;

	if (faccessat(tmp, mark, F_OK, 0) < 0)
		return errno != ENOENT && errno != ENOTDIR;
	fd = openat(tmp, daemon, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno != ENOENT;
	return flock(fd, LOCK_EX | LOCK_NB) < 0;
}

/* Any thread, under the exclusive lock. */
bool use_is_needed(const char *store_dir, const char *name)
{
	auto_free char *all = mem_printf("%s/tmp", store_dir);
	DIR *dir = opendir(all);
	struct dirent *e;
	bool needed = !dir;
	int more = 0;

	while (dir && !needed && (more = fd_next_entry(dir, &e, &(struct err){ 0 })) > 0)
		needed = e->d_name[0] != '.' && daemon_needs(dirfd(dir), e->d_name, name);
	if (dir)
		closedir(dir);
	return needed || more < 0;
}

/* A list of what deployed functions need; one that cannot be read keeps everything. */
static bool list_keeps(int keep, const char *owner, const char *env_hash)
{
	auto_buf struct buf text = BUF_MAX(LIMIT_FUNCTIONS * 80);

	return buf_read_file(&text, keep, owner, &(struct err){ 0 }) < 0 ||
	       (text.data && strstr(text.data, env_hash));
}

bool use_is_kept(const char *store_dir, const char *env_hash)
{
	auto_free char *all = mem_printf("%s/keep", store_dir);
	DIR *dir = opendir(all);
	struct dirent *e;
	bool kept = !dir;
	int more = 0;

	while (dir && !kept && (more = fd_next_entry(dir, &e, &(struct err){ 0 })) > 0)
		kept = e->d_name[0] != '.' && list_keeps(dirfd(dir), e->d_name, env_hash);
	if (dir)
		closedir(dir);
	return kept || more < 0;
}

int store_keep(struct store *s, const char *owner, const char *const *hashes, struct err *err)
{
	auto_free char *path = mem_printf("%s/keep/%s", s->dir, owner);
	auto_free char *temp = mem_printf("%s/keep/.%s", s->dir, owner);
	auto_buf struct buf text = BUF_MAX(LIMIT_FUNCTIONS * 80);
	auto_close int fd = -1;

	for (; *hashes; hashes++)
		if (buf_putf(&text, err, "%s\n", *hashes) < 0)
			return -1;
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(err, errno, "creating '%s'", temp);
	if (fd_write_all(fd, text.data ? text.data : "", text.len, err) < 0)
		return -1;
	if (fdatasync(fd) < 0 || rename(temp, path) < 0)
		return err_sys(err, errno, "writing '%s'", path);
	return 0;
}
