/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 */
#pragma once

/* Tell the service manager that started us (sd_notify(3)): "READY=1", "STOPPING=1". Nothing happens
 * without one, and a failure is only logged. */
void notify(const char *state);
