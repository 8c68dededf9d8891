/* SPDX-License-Identifier: Apache-2.0
 * Runs in: zygotes and their children.
 *
 * A zygote's heap in huge pages: a fork then copies one entry for two MiB instead of 512.
 */
#pragma once

/* In a zygote, before it sleeps: its heap in huge pages, so that a fork has fewer entries to copy.
 * Kernels before 6.1 and heaps without a whole huge page stay as they are. */
void pages_collapse(void);
