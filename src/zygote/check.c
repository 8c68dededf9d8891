/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "zygote/zygote_priv.h"

static const char *find(const char *status, const char *key)
{
	const char *p = strstr(status, key);

	return p ? p + strlen(key) : NULL;
}

static int check_number(const char *status, const char *key, int base, unsigned long long want,
			struct err *err)
{
	const char *p = find(status, key);
	unsigned long long have;

	if (!p)
		return err_set(err, ERR_CORRUPT, "no%s in its status", key);
	have = strtoull(p, NULL, base);
	if (have != want)
		return err_set(err, ERR_DENIED, "its%s is %llx, not %llx", key + 1, have, want);
	return 0;
}

static int check_ids(const char *status, const char *key, uint32_t want, struct err *err)
{
	const char *p = find(status, key);
	unsigned int id[4];

	if (!p || sscanf(p, "%u %u %u %u", &id[0], &id[1], &id[2], &id[3]) != 4)
		return err_set(err, ERR_CORRUPT, "no%s in its status", key);
	for (int i = 0; i < 4; i++)
		if (id[i] != want)
			return err_set(err, ERR_DENIED, "its id is %u, not %u", id[i], want);
	return 0;
}

static int check_namespaces(const struct check_expected *want, struct err *err)
{
	for (int i = 0; i < NS_COUNT; i++) {
		const char *name = enter_ns_name((enum enter_ns)i);
		char path[64];
		struct stat st;

		if (!want->ns[i])
			continue;
		snprintf(path, sizeof(path), "/proc/%d/ns/%s", want->pid, name);
		if (stat(path, &st) < 0)
			return err_sys(err, errno, "looking at its %s namespace", name);
		if (st.st_ino != want->ns[i])
			return err_set(err, ERR_DENIED, "it is not in its cell's %s namespace",
				       name);
	}
	return 0;
}

int check_child(const struct check_expected *want, struct err *err)
{
	static const char *const caps[] = { "\nCapInh:", "\nCapPrm:", "\nCapEff:", "\nCapBnd:",
					    "\nCapAmb:" };
	auto_buf struct buf status = BUF_MAX(64 * KIB);
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", want->pid);
	if (buf_read_file(&status, AT_FDCWD, path, err) < 0)
		return -1;
	if (check_number(status.data, "\nPPid:", 10, (unsigned long long)getpid(), err) < 0 ||
	    check_number(status.data, "\nTracerPid:", 10, 0, err) < 0 ||
	    check_number(status.data, "\nThreads:", 10, 1, err) < 0 ||
	    check_number(status.data, "\nNoNewPrivs:", 10, 1, err) < 0 ||
	    check_number(status.data, "\nSeccomp:", 10, 2, err) < 0)
		return -1;
	for (size_t i = 0; i < array_len(caps); i++)
		if (check_number(status.data, caps[i], 16, 0, err) < 0)
			return -1;
	if (check_ids(status.data, "\nUid:", want->host_id, err) < 0)
		return -1;
	return check_namespaces(want, err);
}
