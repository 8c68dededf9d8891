/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (building), once at start.
 *
 * seccomp filters, built by libseccomp and exported as BPF programs, which are then sent to whoever
 * installs them (jail/enter.h). Two: what a zygote and everything below it may never do, and what
 * user code may not do on top of that.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

enum seccomp_profile { SECCOMP_ZYGOTE, SECCOMP_CODE };

warn_unused int seccomp_build(enum seccomp_profile profile, struct buf *out, struct err *err);
