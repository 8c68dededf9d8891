/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "zygote/zygote_priv.h"

int zygotes_open(uv_loop_t *loop, struct jail *jail, struct zygotes **out, struct err *err)
{
	struct zygotes *z = mem_new(struct zygotes);

	z->loop = loop;
	z->jail = jail;
	ahead_open(z);
	*out = z;
	return 0;
}

uint64_t zygotes_violations(const struct zygotes *z)
{
	return z->violations;
}

void zygotes_on_gone(struct zygotes *z, void (*gone)(void *ctx, struct zygote_node *node),
		     void *ctx)
{
	z->on_gone = gone;
	z->on_gone_ctx = ctx;
}

void zygotes_close(struct zygotes *z)
{
	struct err err;

	if (!z)
		return;
	z->closing = true;
	z->on_gone = NULL;
	err_set(&err, ERR_START, "shutting down");
	while (z->nodes) {
		struct zygote_node *node = z->nodes;

		if (node->pid)
			jail_unwatch(z->jail, node->pid);
		if (node->pidfd >= 0)
			syscall(SYS_pidfd_send_signal, node->pidfd, SIGKILL, NULL, 0);
		node_dead(node, &err);
	}
	child_forget_all(z);
	ahead_close(z);
}
