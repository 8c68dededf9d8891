/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/landlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "jail/enter.h"
#include "jail/job.h"

/* The kernel's ABI (Documentation/userspace-api/landlock.rst); Debian 12's headers end at ABI 2. */
#define FS_EXECUTE (1ULL << 0)
#define FS_WRITE_FILE (1ULL << 1)
#define FS_READ_FILE (1ULL << 2)
#define FS_READ_DIR (1ULL << 3)
#define FS_REFER (1ULL << 13)
#define FS_TRUNCATE (1ULL << 14)
#define FS_ALL_ABI1 ((1ULL << 13) - 1)
#define SCOPE_ABSTRACT_UNIX_SOCKET (1ULL << 0)
#define SCOPE_SIGNAL (1ULL << 1)
#define CREATE_VERSION (1U << 0)
#define RULE_PATH_BENEATH 1

#define FS_READ (FS_EXECUTE | FS_READ_FILE | FS_READ_DIR)
#define FS_OF_FILES (FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE)

struct ruleset_attr {
	uint64_t fs, net, scoped;
};

struct path_beneath {
	uint64_t allowed;
	int32_t fd;
} __attribute__((packed));

int enter_landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_VERSION);

	return abi > 0 ? (int)abi : 0;
}

static int allow(int ruleset, const char *path, uint64_t what, struct err *err)
{
	auto_close int fd = open(path, O_PATH | O_CLOEXEC);
	struct path_beneath rule = { what, fd };
	struct stat st;

	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(err, errno, "Landlock: open '%s'", path);
	if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode))
		rule.allowed &= FS_OF_FILES;
	if (syscall(SYS_landlock_add_rule, ruleset, RULE_PATH_BENEATH, &rule, 0) < 0)
		return err_sys(err, errno, "Landlock: rule for '%s'", path);
	return 0;
}

static int add_rules(int ruleset, uint64_t handled, const struct enter_spec *s, struct err *err)
{
	static const char *const writable[] = { "/tmp", "/dev", "/proc", JAIL_HOME };

	if (allow(ruleset, "/", FS_READ & handled, err) < 0)
		return -1;
	for (size_t i = 0; i < array_len(writable); i++)
		if (allow(ruleset, writable[i], handled, err) < 0)
			return -1;
	for (size_t i = 0; i < s->nmounts; i++)
		if (s->mounts[i].writable && allow(ruleset, s->mounts[i].target, handled, err) < 0)
			return -1;
	return 0;
}

int landlock_enter(const struct enter_spec *s, struct err *err)
{
	int abi = enter_landlock_abi();
	struct ruleset_attr attr = { 0 };
	/* The attribute grew with the ABI: a kernel refuses a larger one with bytes it does not
	 * know. */
	size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
	auto_close int ruleset = -1;

	if (abi == 0 || (s->zygote && abi < 6))
		return 0; /* said in `pipsqueak status` */
	if (!s->zygote) {
		attr.fs = FS_ALL_ABI1 | (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0);
	}
	if (abi >= 6)
		attr.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	if (ruleset < 0)
		return err_sys(err, errno, "Landlock: making a ruleset");
	if (!s->zygote && add_rules(ruleset, attr.fs, s, err) < 0)
		return -1;
	if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		return err_sys(err, errno, "Landlock: restricting");
	return 0;
}
