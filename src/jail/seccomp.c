/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"

/* Lists of names; those that this architecture does not have are skipped.
 *
 * Nobody in a sandbox needs these, zygotes included. */
static const char never[] =
	"bpf perf_event_open add_key request_key keyctl io_uring_setup io_uring_enter "
	"io_uring_register userfaultfd init_module finit_module delete_module kexec_load "
	"kexec_file_load ptrace process_vm_readv process_vm_writev kcmp open_by_handle_at "
	"name_to_handle_at lookup_dcookie quotactl quotactl_fd swapon swapoff reboot acct "
	"syslog iopl ioperm settimeofday clock_settime clock_adjtime adjtimex vhangup "
	"nfsservctl uselib _sysctl sysfs ustat modify_ldt vm86 vm86old pciconfig_read "
	"pciconfig_write move_pages migrate_pages fanotify_init fanotify_mark personality "
	"process_madvise pidfd_getfd set_mempolicy_home_node get_kernel_syms query_module "
	"create_module ";

/* A zygote's children mount, join namespaces and take ids; user code never does. */
static const char not_code[] =
	"setns unshare mount umount umount2 pivot_root chroot open_tree move_mount fsopen "
	"fsconfig fsmount fspick mount_setattr sethostname setdomainname ";

/* All that user code may call. What stands in no list, and what is younger than this libseccomp,
 * does not exist for it (ENOSYS): libraries take that for an older kernel and do without. */
static const char code[] =
	/* files by path */
	"access chdir chown faccessat faccessat2 fchdir fchown fchownat futimesat getcwd "
	"getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch lchown "
	"lgetxattr link linkat listxattr llistxattr lremovexattr lsetxattr lstat lstat64 mkdir "
	"mkdirat newfstatat fstatat64 readlink readlinkat removexattr rename renameat renameat2 "
	"rmdir setxattr stat stat64 statfs statfs64 statx symlink symlinkat truncate truncate64 "
	"umask unlink unlinkat utime utimensat utimes "
	/* descriptors */
	"close close_range copy_file_range dup dup2 dup3 epoll_create epoll_create1 epoll_ctl "
	"epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 fadvise64 fallocate fcntl fcntl64 "
	"fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatfs "
	"fstatfs64 fsync ftruncate ftruncate64 getdents getdents64 io_cancel io_destroy "
	"io_getevents io_pgetevents io_setup io_submit lseek memfd_create pipe pipe2 poll ppoll "
	"pread64 preadv preadv2 pselect6 pwrite64 pwritev pwritev2 read readahead readv select "
	"sendfile signalfd signalfd4 splice sync syncfs sync_file_range tee timerfd_create "
	"timerfd_gettime timerfd_settime vmsplice write writev "
	/* memory */
	"brk cachestat get_mempolicy map_shadow_stack madvise mbind membarrier mincore mlock "
	"mlock2 mlockall mmap mprotect "
	"mremap msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect "
	"remap_file_pages set_mempolicy shmat shmctl shmdt shmget "
	/* processes */
	"arch_prctl capget capset execve execveat exit exit_group fork getcpu getegid geteuid "
	"getgid getgroups getpgid getpgrp getpid getppid getpriority getresgid getresuid "
	"getrlimit getrusage getsid gettid getuid get_robust_list ioprio_get ioprio_set kill "
	"landlock_add_rule landlock_create_ruleset landlock_restrict_self pidfd_open "
	"pidfd_send_signal prctl prlimit64 rseq sched_getaffinity sched_getattr sched_getparam "
	"sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval "
	"sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp "
	"setfsgid setfsuid setgid setgroups setpgid setpriority setregid setresgid setresuid "
	"setreuid setrlimit setsid setuid set_robust_list set_tid_address sysinfo times tgkill "
	"tkill uname vfork wait4 waitid waitpid "
	/* signals and time */
	"alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep "
	"pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo "
	"rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo setitimer sigaltstack "
	"time timer_create timer_delete timer_getoverrun timer_gettime timer_settime "
	/* among processes and threads */
	"futex futex_waitv futex_wait futex_wake futex_requeue getrandom mq_getsetattr mq_notify "
	"mq_open mq_timedreceive "
	"mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop "
	/* network */
	"socket socketpair accept accept4 bind connect getpeername getsockname getsockopt listen "
	"recvfrom "
	"recvmmsg recvmsg sendmmsg sendmsg sendto setsockopt shutdown "
	/* whose arguments are looked at, too */
	"open openat creat chmod fchmod fchmodat mknod mknodat clone ioctl ";

#define X32_CALLS 0x40000000U /* numbers of another architecture begin here */
#define LOW 0xffffffffUL      /* the kernel reads an int: what stands above it counts for nothing */

static int rule(scmp_filter_ctx ctx, int error, int nr, unsigned int n,
		const struct scmp_arg_cmp *args, struct err *err)
{
	int rc;

	if (nr == __NR_SCMP_ERROR)
		return 0;
	rc = seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO((uint32_t)error), nr, n, args);
	return rc < 0 ? err_sys(err, -rc, "seccomp rule for system call %d", nr) : 0;
}

static int refuse_all(scmp_filter_ctx ctx, const char *names, struct err *err)
{
	auto_free char *text = mem_strdup(names);
	char *rest;

	for (char *name = strtok_r(text, " ", &rest); name; name = strtok_r(NULL, " ", &rest))
		if (rule(ctx, EPERM, seccomp_syscall_resolve_name(name), 0, NULL, err) < 0)
			return -1;
	return 0;
}

static bool stands_in(const char *names, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = names; (at = strstr(at, name)); at += len)
		if ((at == names || at[-1] == ' ') && at[len] == ' ')
			return true;
	return false;
}

/* The lists as their complement, which is a filter of half the size: installing one costs every
 * sandbox 0.3 us per instruction. */
static int refuse_unlisted(scmp_filter_ctx ctx, struct err *err)
{
	for (int nr = 0; nr < 2048; nr++) {
		char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);
		bool listed = name && (stands_in(code, name) || stands_in(never, name) ||
				       stands_in(not_code, name));

		free(name);
		if (name && !listed && rule(ctx, ENOSYS, nr, 0, NULL, err) < 0)
			return -1;
	}
	return 0;
}

static int refuse(scmp_filter_ctx ctx, int nr, struct scmp_arg_cmp is, struct err *err)
{
	return rule(ctx, EPERM, nr, 1, &is, err);
}

/* No set-id files, also not below a writable grant. openat2 hides its mode behind a pointer: it
 * does not exist. */
static int mode_rules(scmp_filter_ctx ctx, unsigned long id, struct err *err)
{
	static const struct {
		const char *name;
		unsigned int arg;
	} modes[] = { { "chmod", 1 }, { "fchmod", 1 }, { "fchmodat", 2 },
		      { "creat", 1 }, { "mknod", 1 },  { "mknodat", 2 } };
	static const unsigned long makes[] = { O_CREAT, O_TMPFILE & ~O_DIRECTORY };

	for (size_t i = 0; i < array_len(modes); i++)
		if (refuse(ctx, seccomp_syscall_resolve_name(modes[i].name),
			   SCMP_CMP(modes[i].arg, SCMP_CMP_MASKED_EQ, id, id), err) < 0)
			return -1;
	/* Here the mode counts only when a file is made. */
	for (size_t i = 0; i < array_len(makes); i++) {
		struct scmp_arg_cmp open[] = { SCMP_A1(SCMP_CMP_MASKED_EQ, makes[i], makes[i]),
					       SCMP_A2(SCMP_CMP_MASKED_EQ, id, id) };
		struct scmp_arg_cmp openat[] = { SCMP_A2(SCMP_CMP_MASKED_EQ, makes[i], makes[i]),
						 SCMP_A3(SCMP_CMP_MASKED_EQ, id, id) };

		if (rule(ctx, EPERM, SCMP_SYS(open), 2, open, err) < 0 ||
		    rule(ctx, EPERM, SCMP_SYS(openat), 2, openat, err) < 0)
			return -1;
	}
	return 0;
}

/* A filter cannot look behind clone3's pointer: it does not exist, and libc uses clone. */
static int no_spaces(scmp_filter_ctx ctx, struct err *err)
{
	static const unsigned long spaces[] = { CLONE_NEWUSER,	CLONE_NEWNS,  CLONE_NEWPID,
						CLONE_NEWIPC,	CLONE_NEWUTS, CLONE_NEWNET,
						CLONE_NEWCGROUP };

	for (size_t i = 0; i < array_len(spaces); i++)
		if (refuse(ctx, SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, spaces[i], spaces[i]),
			   err) < 0)
			return -1;
	return 0;
}

static int code_rules(scmp_filter_ctx ctx, struct err *err)
{
	/* Pushing characters into a terminal that the caller shares with us: TIOCSTI, TIOCLINUX. */
	static const unsigned long pushes[] = { 0x5412, 0x541c };

	if (refuse_unlisted(ctx, err) < 0 || refuse_all(ctx, not_code, err) < 0 ||
	    mode_rules(ctx, S_ISUID, err) < 0 || mode_rules(ctx, S_ISGID, err) < 0 ||
	    no_spaces(ctx, err) < 0)
		return -1;
	for (size_t i = 0; i < array_len(pushes); i++)
		if (refuse(ctx, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_MASKED_EQ, LOW, pushes[i]), err) <
		    0)
			return -1;
	return 0;
}

/* A zygote's children attach trees that are read-only and not locked. Whoever makes the store
 * writable by such a mount, with the rights that a node has over its children's cells, needs one of
 * these; where there is one id, the files are its own. Nor does anything here make namespaces (the
 * cell maker does), in which it would have such rights. */
static int zygote_rules(scmp_filter_ctx ctx, struct err *err)
{
	const struct scmp_arg_cmp opens[] = { SCMP_A3(
		SCMP_CMP_MASKED_EQ, MS_REMOUNT | MS_BIND | MS_RDONLY, MS_REMOUNT | MS_BIND) };

	if (rule(ctx, EPERM, SCMP_SYS(mount), 1, opens, err) < 0)
		return -1;
	return refuse_all(ctx, "mount_setattr unshare ", err) < 0 || no_spaces(ctx, err) < 0 ? -1
											     : 0;
}

/* What libseccomp has no rules for, "all but these", stands before its program and only ever
 * refuses: kinds of sockets other than four. The rest reach the machine below (vsock) or old
 * corners of the kernel. Of netlink there is what tells of interfaces (protocol 0): by others one
 * sandbox reaches the next where they share a network that is none. */
static int put_socket_rules(struct buf *out, struct err *err)
{
	const uint32_t low = offsetof(struct seccomp_data, args) +
			     (__BYTE_ORDER == __BIG_ENDIAN ? 4 : 0);
	const uint32_t protocol = low + 2 * sizeof(uint64_t);
	const struct sock_filter prefix[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socketpair, 0, 8),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 6, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 4, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 2),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, protocol),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NETLINK_ROUTE, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAFNOSUPPORT),
	};

	return buf_put(out, prefix, sizeof(prefix), err);
}

/* The first number that libseccomp does not know. */
static uint32_t first_unknown(void)
{
	uint32_t known = 0;

	for (int nr = 0; nr < 2048; nr++) {
		char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);

		if (name)
			known = (uint32_t)nr + 1;
		free(name);
	}
	return known;
}

/* Of what is younger than the lists above nobody has asked whether it opens what they close. Before
 * libseccomp's program, too, which has no rule for "all from here on". */
static int refuse_young(struct buf *out, struct err *err)
{
	const struct sock_filter prefix[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_CALLS, 2, 0), /* libseccomp's: killed */
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, first_unknown(), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
	};

	return buf_put(out, prefix, sizeof(prefix), err);
}

static void release(scmp_filter_ctx *ctx)
{
	if (*ctx)
		seccomp_release(*ctx);
}

/* Zygotes: all but a few. Code, mostly on top of it: only what is named. A refusal's reason is that
 * of the filter installed last, so both name the few. */
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
	if (refuse_all(ctx, never, err) < 0)
		return -1;
	if (refuse_young(out, err) < 0)
		return -1;
	if (profile == SECCOMP_ZYGOTE &&
	    (rule(ctx, ENOSYS, SCMP_SYS(clone3), 0, NULL, err) < 0 || zygote_rules(ctx, err) < 0))
		return -1;
	if (profile == SECCOMP_CODE && (code_rules(ctx, err) < 0 || put_socket_rules(out, err) < 0))
		return -1;
	rc = seccomp_export_bpf(ctx, fd);
	if (rc < 0)
		return err_sys(err, -rc, "exporting the seccomp filter");
	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_sys(err, errno, "reading the seccomp filter");
	return buf_read_fd(out, fd, err);
}
