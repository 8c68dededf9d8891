/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the cell maker (template) and its children (a cell's root).
 *
 * What a sandbox sees. The template is built once in the maker's own mount namespace; a cell's
 * root is a small tmpfs of its own with read-only binds of the template, and private /tmp,
 * /dev/shm, HOME and /proc. An interpreter's prefix shows, but its site-packages, dist-packages
 * and ensurepip bundles are covered by empty directories (S2).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* Replace this mount namespace's tree by the template. Descriptors opened before stay valid. */
warn_unused int rootfs_template(const char *lib_dir, struct err *err);
/* Show an interpreter prefix in cells made from now on; takes tree, a detached mount. */
warn_unused int rootfs_add_prefix(const char *prefix, int tree, struct err *err);

struct rootfs_cell {
	const char *prefix; /* NULL or "/usr": nothing more than /usr */
	uint64_t tmp_bytes;
	bool own_pid;	  /* mount a /proc of its own; else the inherited one is shown */
	bool hide_pids;	  /* in that, only who may trace a process sees it */
	const char *user; /* name for id uid in /etc/passwd: informative only */
};

/* Build a cell's root in this (new) mount namespace and pivot into it. */
warn_unused int rootfs_enter_cell(const struct rootfs_cell *cell, struct err *err);

/* Where the maker keeps the host's /proc for writing id maps. */
#define ROOTFS_PROC "/proc"
