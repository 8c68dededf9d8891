/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/limits.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "wire/messages.h"

extern char **environ;

/* Run a program and take what it prints. */
static int output_of(const char *const *argv, struct buf *out, struct err *err)
{
	int pipefd[2], status;
	pid_t pid;

	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return err_sys(err, errno, "pipe");
	pid = fork();
	if (pid < 0)
		return err_sys(err, errno, "fork");
	if (pid == 0) {
		if (dup2(pipefd[1], 1) >= 0)
			execv(argv[0], (char *const *)argv);
		_exit(127);
	}
	close(pipefd[1]);
	if (buf_read_fd(out, pipefd[0], err) < 0)
		return -1;
	close(pipefd[0]);
	if (waitpid(pid, &status, 0) < 0 || status != 0)
		return err_set(err, ERR_SYSTEM, "'%s' failed", argv[0]);
	while (out->len && out->data[out->len - 1] == '\n')
		out->data[--out->len] = '\0';
	return 0;
}

static char *search_path(const char *name)
{
	const char *path = getenv("PATH");
	auto_free char *copy = mem_strdup(path ? path : "/usr/bin:/bin");
	char *save = NULL;

	for (char *dir = strtok_r(copy, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
		char *whole = mem_printf("%s/%s", dir, name);

		if (access(whole, X_OK) == 0)
			return whole;
		free(whole);
	}
	return NULL;
}

/* "3.12": pythonX.Y on PATH that is a program, else what pyenv or uv keep below HOME. */
static char *by_version(const char *version)
{
	static const char *const places[] = {
		"%s/.pyenv/versions/%s*/bin/python%s",
		"%s/.local/share/uv/python/cpython-%s*/bin/python%s",
	};
	auto_free char *name = mem_printf("python%s", version);
	char *found = search_path(name);
	const char *home = getenv("HOME");
	char magic[2] = "";

	if (found) {
		int fd = open(found, O_RDONLY | O_CLOEXEC);

		if (fd >= 0 && read(fd, magic, 2) == 2 && memcmp(magic, "#!", 2) != 0) {
			close(fd);
			return found;
		}
		fd_close(&fd);
		free(steal(found)); /* a shim that may stand for another version */
	}
	for (size_t i = 0; home && i < array_len(places) && !found; i++) {
		auto_free char *pattern = NULL;
		glob_t matches;

		if (asprintf(&pattern, places[i], home, version, version) < 0)
			return NULL;
		if (glob(pattern, 0, NULL, &matches) == 0) {
			found = mem_strdup(matches.gl_pathv[matches.gl_pathc - 1]);
			globfree(&matches);
		}
	}
	return found;
}

static bool is_script(const char *path)
{
	auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	char magic[2];

	return fd >= 0 && read(fd, magic, 2) == 2 && memcmp(magic, "#!", 2) == 0;
}

int interpreter_find(const char *asked, char **out_path, char **out_prefix, struct err *err)
{
	static const char ask[] = "import os, sys; print(os.path.realpath(sys.executable))";
	auto_free char *found = NULL, *real = NULL;
	char *slash;

	if (strspn(asked, "0123456789.") == strlen(asked))
		found = by_version(asked);
	else
		found = strchr(asked, '/') ? mem_strdup(asked) : search_path(asked);
	if (!found || access(found, X_OK) < 0)
		return err_set(err, ERR_NOT_FOUND, "no interpreter '%s': give its path", asked);
	if (is_script(found)) { /* pyenv's shim, say */
		const char *argv[] = { found, "-c", ask, NULL };
		auto_buf struct buf text = BUF_MAX(64 * KIB);

		if (output_of(argv, &text, err) < 0)
			return err_wrap(err, "asking '%s' where it is", found);
		real = realpath(text.data, NULL);
	} else {
		real = realpath(found, NULL);
	}
	if (!real)
		return err_sys(err, errno, "'%s'", found);
	*out_prefix = mem_strdup(real);
	for (int i = 0; i < 2; i++) {
		slash = strrchr(*out_prefix, '/');
		if (slash && slash != *out_prefix)
			*slash = '\0';
	}
	*out_path = steal(real);
	return 0;
}

/* ---- pip's settings ---- */

static void hash_text(uint64_t *h, const char *text)
{
	for (; *text; text++)
		*h = (*h ^ (unsigned char)*text) * 1099511628211ULL;
	*h = (*h ^ 0xff) * 1099511628211ULL;
}

static void hash_file(uint64_t *h, const char *path)
{
	struct stat st;
	char text[128];

	if (stat(path, &st) < 0)
		return;
	snprintf(text, sizeof(text), "%lld.%ld.%lld", (long long)st.st_mtim.tv_sec,
		 st.st_mtim.tv_nsec, (long long)st.st_size);
	hash_text(h, path);
	hash_text(h, text);
}

/* Everything that pip's configuration comes from. */
static uint64_t settings_key(const struct dirs *d)
{
	static const char *const others[] = {
		"NETRC",	"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",	 "SSL_CERT_FILE",
		"SSL_CERT_DIR", "http_proxy",	      "HTTP_PROXY",	 "https_proxy",
		"HTTPS_PROXY",	"all_proxy",	      "ALL_PROXY",	 "no_proxy",
		"NO_PROXY",	"XDG_CONFIG_HOME",    "XDG_CONFIG_DIRS", "HOME"
	};
	static const char *const files[] = { ".pip/pip.conf", ".config/pip/pip.conf", ".netrc" };
	const char *home = getenv("HOME"), *config = getenv("XDG_CONFIG_HOME");
	const char *named = getenv("PIP_CONFIG_FILE");
	auto_free char *script = mem_printf("%s/pipconf.py", d->lib ? d->lib : "");
	uint64_t h = 14695981039346656037ULL;

	for (char **e = environ; *e; e++)
		if (strncmp(*e, "PIP_", 4) == 0)
			hash_text(&h, *e);
	for (size_t i = 0; i < array_len(others); i++) {
		const char *value = getenv(others[i]);

		hash_text(&h, value ? value : "");
	}
	hash_file(&h, "/etc/pip.conf");
	hash_file(&h, "/etc/xdg/pip/pip.conf");
	hash_file(&h, script);
	if (named)
		hash_file(&h, named);
	for (size_t i = 0; home && i < array_len(files); i++) {
		auto_free char *path = mem_printf("%s/%s", home, files[i]);

		hash_file(&h, path);
	}
	if (config) {
		auto_free char *path = mem_printf("%s/pip/pip.conf", config);

		hash_file(&h, path);
	}
	return h;
}

static int keep(const char *path, const struct buf *text, struct err *err)
{
	auto_free char *tmp = mem_printf("%s.%d", path, getpid());
	auto_close int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || fd_write_all(fd, text->data, text->len, err) < 0 || rename(tmp, path) < 0)
		return err_sys(err, errno, "keeping pip's settings");
	return 0;
}

static char *settings_path(const struct dirs *d)
{
	return mem_printf("%s/pip-%016llx.json", d->user_cache,
			  (unsigned long long)settings_key(d));
}

pid_t pip_settings_ahead(const struct dirs *d)
{
	auto_free char *path = settings_path(d), *ignored = NULL;
	struct err err;
	pid_t pid;

	if (access(path, R_OK) == 0)
		return 0;
	pid = fork();
	if (pid == 0)
		_exit(pip_settings(d, &ignored, &err) < 0);
	return pid < 0 ? 0 : pid;
}

int pip_settings(const struct dirs *d, char **out, struct err *err)
{
	auto_free char *script = mem_printf("%s/pipconf.py", d->lib ? d->lib : "");
	auto_free char *path = settings_path(d);
	const char *argv[] = { "/usr/bin/python3", script, NULL };
	auto_buf struct buf text = BUF_MAX(MIB);
	struct err ignored;

	if (!d->lib)
		return err_set(err, ERR_NOT_FOUND, "Pipsqueak's own files were not found");
	if (buf_read_file(&text, AT_FDCWD, path, &ignored) == 0 && text.len) {
		*out = buf_steal(&text);
		return 0;
	}
	buf_reset(&text);
	if (output_of(argv, &text, err) < 0)
		return err_wrap(err, "reading pip's configuration");
	/* One line: it also travels as an HTTP header. */
	for (size_t i = 0; i < text.len; i++)
		if (text.data[i] == '\n')
			text.data[i] = ' ';
	if (fd_mkdirs(d->user_cache, 0700, &ignored) == 0 && keep(path, &text, &ignored) < 0)
		unlink(path); /* then it is asked again next time */
	*out = buf_steal(&text);
	return 0;
}

static bool needs_no_escape(const char *text)
{
	for (; *text; text++)
		if (*text <= ' ' || *text > '~' || *text == '"' || *text == '\\')
			return false;
	return true;
}

int pip_settings_adjust(char **settings, bool offline, const char *const *indexes, int n,
			struct err *err)
{
	auto_buf struct buf text = { 0 };
	char *open = strchr(*settings, '{');

	if (!open || (!offline && !n))
		return 0;
	must(buf_puts(&text, offline ? WIRE_OFFLINE : "{", NULL) == 0);
	for (int i = 0; i < n; i++) {
		if (!needs_no_escape(indexes[i]))
			return err_set(err, ERR_USAGE, "--index: '%.200s' is not a URL",
				       indexes[i]);
		must(buf_putf(&text, NULL, "%s\"%s\"", i ? ", " : "\"first_indexes\": [",
			      indexes[i]) == 0);
	}
	if (n)
		must(buf_puts(&text, "], ", NULL) == 0);
	must(buf_puts(&text, open + 1, NULL) == 0);
	free(*settings);
	*settings = buf_steal(&text);
	return 0;
}
