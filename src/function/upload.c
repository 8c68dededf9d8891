/* SPDX-License-Identifier: Apache-2.0 */
#include "function/upload.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

#include "base/fd.h"
#include "base/mem.h"
#include "jail/jail.h"

struct unpack {
	zip_t *zip;
	int dirfd;
	uint64_t bytes;
};

static bool bad_segment(const char *p, size_t n)
{
	return (n == 0 && *p) || n > 255 || (n == 1 && p[0] == '.') ||
	       (n == 2 && p[0] == '.' && p[1] == '.');
}

static bool is_good_path(const char *name)
{
	size_t len = strlen(name);

	if (!len || len > LIMIT_APP_PATH_BYTES || name[0] == '/' || strchr(name, '\\'))
		return false;
	for (const char *p = name; *p;) {
		size_t n = strcspn(p, "/");

		if (bad_segment(p, n))
			return false;
		p += n + (p[n] == '/');
	}
	for (const char *p = name; *p; p++)
		if (iscntrl((unsigned char)*p))
			return false;
	return true;
}

static int check_path(const char *name, struct err *err)
{
	return is_good_path(name)
		       ? 0
		       : err_set(err, ERR_USAGE,
				 "the zip file has a member with a bad path '%.80s'", name);
}

/* Where there is but one id, it is everybody's. */
static bool is_id_trouble(int sys)
{
	return sys != EINVAL && sys != EPERM;
}

/* Directories belong to the id of the job that will put bytecode into them. */
static int make_parents(struct unpack *u, const char *name, struct err *err)
{
	auto_free char *copy = mem_strdup(name);

	for (char *p = copy; (p = strchr(p, '/')); p++) {
		*p = '\0';
		if (mkdirat(u->dirfd, copy, 0755) < 0) {
			if (errno != EEXIST)
				return err_sys(err, errno, "making directory '%s'", copy);
		} else if (fchownat(u->dirfd, copy, JAIL_ID_STORE, JAIL_ID_STORE, 0) < 0 &&
			   is_id_trouble(errno)) {
			return err_sys(err, errno, "chown '%s'", copy);
		}
		*p = '/';
	}
	return 0;
}

static void close_member(zip_file_t **file)
{
	if (*file)
		zip_fclose(*file);
}

static int write_member(struct unpack *u, zip_uint64_t index, const char *name, mode_t mode,
			struct err *err)
{
	__attribute__((cleanup(close_member))) zip_file_t *in = zip_fopen_index(u->zip, index, 0);
	auto_close int out = -1;
	char block[16384];
	zip_int64_t n;

	if (!in)
		return err_set(err, ERR_USAGE, "the zip file's member '%.80s' cannot be read: %s",
			       name, zip_strerror(u->zip));
	out = openat(u->dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (out < 0 && (errno == EEXIST || errno == ENOTDIR || errno == EISDIR))
		return err_set(err, ERR_USAGE, "the zip file has '%.80s' twice", name);
	if (out < 0)
		return err_sys(err, errno, "creating '%.80s'", name);
	while ((n = zip_fread(in, block, sizeof(block))) > 0) {
		u->bytes += (uint64_t)n; /* what really comes out, not what the header says */
		if (u->bytes > LIMIT_APP_BYTES)
			return err_set(err, ERR_TOO_BIG,
				       "the function is bigger than %lu MiB unpacked",
				       LIMIT_APP_BYTES / MIB);
		if (fd_write_all(out, block, (size_t)n, err) < 0)
			return -1;
	}
	if (n < 0)
		return err_set(err, ERR_USAGE, "the zip file's member '%.80s' is damaged: %s", name,
			       zip_file_strerror(in));
	if (fchmod(out, mode) < 0) /* whatever the umask is: other ids must read it */
		return err_sys(err, errno, "chmod '%.80s'", name);
	return 0;
}

static int unpack_member(struct unpack *u, zip_uint64_t index, struct err *err)
{
	const char *name = zip_get_name(u->zip, index, ZIP_FL_ENC_GUESS);
	zip_uint8_t system = 0;
	zip_uint32_t attributes = 0;
	mode_t mode = 0;

	if (!name)
		return err_set(err, ERR_USAGE, "the zip file has a member without a name");
	if (check_path(name, err) < 0)
		return -1;
	if (zip_file_get_external_attributes(u->zip, index, 0, &system, &attributes) == 0 &&
	    system == ZIP_OPSYS_UNIX)
		mode = attributes >> 16;
	if ((mode & S_IFMT) && !S_ISREG(mode) && !S_ISDIR(mode))
		return err_set(err, ERR_USAGE,
			       "the zip file's member '%.80s' is not a plain file (symbolic links "
			       "are not allowed: put the file itself there)",
			       name);
	if (make_parents(u, name, err) < 0)
		return -1;
	if (name[strlen(name) - 1] == '/')
		return 0;
	return write_member(u, index, name, mode & 0111 ? 0755 : 0644, err);
}

static int unpack_all(struct unpack *u, struct err *err)
{
	zip_int64_t n = zip_get_num_entries(u->zip, 0);

	if (n <= 0)
		return err_set(err, ERR_USAGE, "the zip file is empty");
	if (n > LIMIT_APP_FILES)
		return err_set(err, ERR_TOO_BIG, "the zip file has more than %d members",
			       LIMIT_APP_FILES);
	for (zip_int64_t i = 0; i < n; i++)
		if (unpack_member(u, (zip_uint64_t)i, err) < 0)
			return -1;
	if (syncfs(u->dirfd) < 0)
		return err_sys(err, errno, "syncing");
	return 0;
}

int upload_unpack(const void *zip, size_t len, const char *dir, struct err *err)
{
	struct unpack u = { .dirfd = -1 };
	zip_error_t ze;
	zip_source_t *source;
	int ret = -1;

	zip_error_init(&ze);
	source = zip_source_buffer_create(zip, len, 0, &ze);
	u.zip = source ? zip_open_from_source(source, ZIP_RDONLY | ZIP_CHECKCONS, &ze) : NULL;
	if (!u.zip) {
		err_set(err, ERR_USAGE, "the upload is not a zip file: %s",
			zip_error_strerror(&ze));
		zip_source_free(source);
		zip_error_fini(&ze);
		return -1;
	}
	zip_error_fini(&ze);
	if (mkdir(dir, 0755) < 0 || (u.dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		err_sys(err, errno, "making the function's directory");
	else if (fchmod(u.dirfd, 0755) < 0 ||
		 (fchown(u.dirfd, JAIL_ID_STORE, JAIL_ID_STORE) < 0 && is_id_trouble(errno)))
		err_sys(err, errno, "preparing the function's directory");
	else
		ret = unpack_all(&u, err);
	fd_close(&u.dirfd);
	zip_discard(u.zip);
	return ret;
}

/* The name of the only .py file of the directory, or NULL. */
char *upload_only_script(int dirfd)
{
	int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	char *found = NULL;
	struct dirent *e;
	int n = 0;

	while (dir && (e = readdir(dir))) {
		size_t len = strlen(e->d_name);

		if (len <= 3 || strcmp(e->d_name + len - 3, ".py") != 0 || e->d_type == DT_DIR)
			continue;
		if (n++ == 0)
			found = mem_strdup(e->d_name);
	}
	if (dir)
		closedir(dir);
	if (n != 1) {
		free(found);
		return NULL;
	}
	return found;
}

/* "pkg.mod.attr" -> pkg/mod.py or pkg/mod/__init__.py; "file.py:attr" -> file.py. */
static bool entry_exists(int dirfd, const char *entry)
{
	const char *colon = strchr(entry, ':');
	const char *dot = strrchr(entry, '.');
	auto_free char *path = NULL, *init = NULL;

	if (colon) {
		path = mem_strndup(entry, (size_t)(colon - entry));
		return faccessat(dirfd, path, R_OK, 0) == 0;
	}
	path = mem_printf("%.*s.py", (int)(dot - entry), entry);
	for (char *p = path; p < path + (dot - entry); p++)
		if (*p == '.')
			*p = '/';
	init = mem_printf("%.*s/__init__.py", (int)(dot - entry), path);
	return faccessat(dirfd, path, R_OK, 0) == 0 || faccessat(dirfd, init, R_OK, 0) == 0;
}

static int check_entry(int dirfd, struct function_settings *s, struct err *err)
{
	for (size_t i = 0; s->entry[i]; i++)
		if (entry_exists(dirfd, s->entry[i]))
			return 0;
	return err_set(err, ERR_USAGE,
		       "the entry '%s' of pipsqueak.toml is not there: the function has no such "
		       "file",
		       s->entry[0]);
}

int upload_find_entry(const char *dir, struct function_settings *s, struct err *err)
{
	static const char *const usual[] = { "lambda_function.lambda_handler", "handler.handler",
					     "main.handler", "f.f" };
	auto_close int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	auto_free char *script = NULL;
	size_t n = 0;

	if (dirfd < 0)
		return err_sys(err, errno, "opening the function's directory");
	if (s->entry[0])
		return check_entry(dirfd, s, err);
	for (size_t i = 0; i < array_len(usual); i++)
		if (entry_exists(dirfd, usual[i]))
			s->entry[n++] = mem_strdup(usual[i]);
	script = upload_only_script(dirfd);
	if (script)
		s->entry[n++] = mem_printf("%s:handler", script);
	if (!n)
		return err_set(err, ERR_USAGE,
			       "no handler found: name it lambda_function.lambda_handler, "
			       "handler.handler, main.handler or f.f, or set entry = "
			       "\"module.function\" in pipsqueak.toml");
	return 0;
}

static bool is_identifier(const char *s, size_t len)
{
	if (!len || len > 200 || isdigit((unsigned char)s[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)s[i]) && s[i] != '_' && (unsigned char)s[i] < 0x80)
			return false;
	return true;
}

static bool is_module_suffix(const char *dot)
{
	size_t len = strlen(dot);

	return strcmp(dot, ".py") == 0 || strcmp(dot, ".pyc") == 0 ||
	       (len >= 3 && strcmp(dot + len - 3, ".so") == 0);
}

/* What `import` would call this directory entry; false: nothing. */
static bool import_name(int dirfd, struct dirent *e, char *name, size_t size)
{
	const char *dot = strchr(e->d_name, '.');
	size_t len = dot ? (size_t)(dot - e->d_name) : strlen(e->d_name);
	char init[300];

	if (!is_identifier(e->d_name, len) || (dot && !is_module_suffix(dot)))
		return false;
	snprintf(name, size, "%.*s", (int)len, e->d_name);
	if (dot)
		return true;
	if (e->d_type == DT_REG)
		return false;
	snprintf(init, sizeof(init), "%s/__init__.py", name);
	if (faccessat(dirfd, init, F_OK, 0) < 0)
		snprintf(name, size, "~%.*s", (int)len, e->d_name);
	return true;
}

char **upload_own_names(int dirfd)
{
	int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	char **names = mem_zero(1, sizeof(*names)), name[256];
	size_t n = 0, cap = 1;
	struct dirent *e;

	for (size_t seen = 0; dir && seen < LIMIT_OWN_NAMES && (e = readdir(dir)); seen++) {
		if (!import_name(copy, e, name, sizeof(name)))
			continue;
		if (n + 1 == cap) {
			cap = cap * 2 + 6;
			names = mem_resize(names, cap * sizeof(*names));
		}
		names[n++] = mem_strdup(name);
		names[n] = NULL;
	}
	if (dir)
		closedir(dir);
	return names;
}

void upload_names_free(char **names)
{
	for (size_t i = 0; names && names[i]; i++)
		free(names[i]);
	free(names);
}
