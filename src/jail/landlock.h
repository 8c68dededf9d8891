/* SPDX-License-Identifier: Apache-2.0
 * Runs in: a child inside its cell (see jail/enter.h).
 *
 * Landlock as a second fence: writing only below the places that are meant to be written, and no
 * signals or abstract sockets to processes outside (kernels with the scopes, 6.12 and later). A
 * zygote gets the scopes only: a domain with path rules may not mount, and its children must.
 */
#pragma once

#include "base/err.h"

struct enter_spec;

warn_unused int landlock_enter(const struct enter_spec *spec, struct err *err);
