/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"

/* Nobody in a sandbox needs these, zygotes included. Names that this architecture or this
 * libseccomp does not know are skipped: an unknown system call cannot be made by that name. */
static const char *const never[] = {
	"bpf",
	"perf_event_open",
	"add_key",
	"request_key",
	"keyctl",
	"io_uring_setup",
	"io_uring_enter",
	"io_uring_register",
	"userfaultfd",
	"init_module",
	"finit_module",
	"delete_module",
	"kexec_load",
	"kexec_file_load",
	"ptrace",
	"process_vm_readv",
	"process_vm_writev",
	"kcmp",
	"open_by_handle_at",
	"name_to_handle_at",
	"lookup_dcookie",
	"quotactl",
	"quotactl_fd",
	"swapon",
	"swapoff",
	"reboot",
	"acct",
	"syslog",
	"iopl",
	"ioperm",
	"settimeofday",
	"clock_settime",
	"clock_adjtime",
	"adjtimex",
	"vhangup",
	"nfsservctl",
	"uselib",
	"_sysctl",
	"sysfs",
	"ustat",
	"modify_ldt",
	"vm86",
	"vm86old",
	"pciconfig_read",
	"pciconfig_write",
	"move_pages",
	"migrate_pages",
	"fanotify_init",
	"fanotify_mark",
	"personality",
	"process_madvise",
	"pidfd_getfd",
	"set_mempolicy_home_node",
	"get_kernel_syms",
	"query_module",
	"create_module",
};

/* A zygote's children mount, join namespaces and take ids; user code never does. */
static const char *const not_code[] = {
	"setns",  "unshare",	   "mount",	  "umount",	   "umount2",  "pivot_root",
	"chroot", "open_tree",	   "move_mount",  "fsopen",	   "fsconfig", "fsmount",
	"fspick", "mount_setattr", "sethostname", "setdomainname",
};

static int deny(scmp_filter_ctx ctx, const char *const *names, size_t n, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		int nr = seccomp_syscall_resolve_name(names[i]);
		int rc;

		if (nr == __NR_SCMP_ERROR)
			continue;
		rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), nr, 0);
		if (rc < 0)
			return err_sys(err, -rc, "seccomp rule for %s", names[i]);
	}
	return 0;
}

static int deny_bits(scmp_filter_ctx ctx, const char *name, unsigned int arg, unsigned long bit,
		     struct err *err)
{
	int nr = seccomp_syscall_resolve_name(name);
	int rc;

	if (nr == __NR_SCMP_ERROR)
		return 0;
	rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), nr, 1,
			      SCMP_CMP(arg, SCMP_CMP_MASKED_EQ, bit, bit));
	return rc < 0 ? err_sys(err, -rc, "seccomp rule for %s", name) : 0;
}

static const struct {
	const char *name;
	unsigned int mode_arg;
} modes[] = {
	{ "chmod", 1 }, { "fchmod", 1 }, { "fchmodat", 2 }, { "fchmodat2", 2 },
	{ "creat", 1 }, { "mknod", 1 },	 { "mknodat", 2 },
};

/* Here the mode counts only with O_CREAT. */
static int deny_creating(scmp_filter_ctx ctx, int nr, unsigned int flags_arg, struct err *err)
{
	static const unsigned long bits[] = { S_ISUID, S_ISGID };

	for (size_t i = 0; i < array_len(bits); i++) {
		int rc = seccomp_rule_add(
			ctx, SCMP_ACT_ERRNO(EPERM), nr, 2,
			SCMP_CMP(flags_arg, SCMP_CMP_MASKED_EQ, O_CREAT, O_CREAT),
			SCMP_CMP(flags_arg + 1, SCMP_CMP_MASKED_EQ, bits[i], bits[i]));

		if (rc < 0)
			return err_sys(err, -rc, "seccomp rule for open");
	}
	return 0;
}

static int deny_code(scmp_filter_ctx ctx, struct err *err)
{
	static const unsigned long flags[] = { CLONE_NEWUSER,  CLONE_NEWNS,  CLONE_NEWPID,
					       CLONE_NEWIPC,   CLONE_NEWUTS, CLONE_NEWNET,
					       CLONE_NEWCGROUP };
	int rc;

	if (deny(ctx, not_code, array_len(not_code), err) < 0)
		return -1;
	for (size_t i = 0; i < array_len(flags); i++)
		if (deny_bits(ctx, "clone", 0, flags[i], err) < 0)
			return -1;
	/* A filter cannot look behind clone3's pointer; ENOSYS makes libc use clone. */
	rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	if (rc < 0)
		return err_sys(err, -rc, "seccomp rule for clone3");
	/* No set-id files, also not below a writable grant; openat2 hides its mode behind a
	 * pointer, so libc is told that it does not exist. */
	for (size_t i = 0; i < array_len(modes); i++)
		if (deny_bits(ctx, modes[i].name, modes[i].mode_arg, S_ISUID, err) < 0 ||
		    deny_bits(ctx, modes[i].name, modes[i].mode_arg, S_ISGID, err) < 0)
			return -1;
	if (deny_creating(ctx, SCMP_SYS(open), 1, err) < 0 ||
	    deny_creating(ctx, SCMP_SYS(openat), 2, err) < 0)
		return -1;
	rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(openat2), 0);
	if (rc < 0)
		return err_sys(err, -rc, "seccomp rule for openat2");
	/* Pushing characters into a terminal that the caller shares with us. */
	rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1,
			      SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffUL, 0x5412 /* TIOCSTI */));
	if (rc == 0)
		rc = seccomp_rule_add(
			ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), 1,
			SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffUL, 0x541c /* TIOCLINUX */));
	return rc < 0 ? err_sys(err, -rc, "seccomp rule for ioctl") : 0;
}

static void release(scmp_filter_ctx *ctx)
{
	if (*ctx)
		seccomp_release(*ctx);
}

int seccomp_build(enum seccomp_profile profile, struct buf *out, struct err *err)
{
	__attribute__((cleanup(release))) scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	auto_close int fd = memfd_create("filter", MFD_CLOEXEC);
	int rc;

	if (!ctx || fd < 0)
		return err_sys(err, errno, "preparing a seccomp filter");
	/* Other architectures' calls (i386, x32) would slip past the numbers above. */
	seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (deny(ctx, never, array_len(never), err) < 0)
		return -1;
	if (profile == SECCOMP_CODE && deny_code(ctx, err) < 0)
		return -1;
	rc = seccomp_export_bpf(ctx, fd);
	if (rc < 0)
		return err_sys(err, -rc, "exporting the seccomp filter");
	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_sys(err, errno, "reading the seccomp filter");
	return buf_read_fd(out, fd, err);
}
