/* SPDX-License-Identifier: Apache-2.0
 * Runs in: zygotes.
 *
 * Free blocks between those in use, which every import leaves. A forked child would fill them one
 * by one, and the page around each of them would be copied for it.
 */
#pragma once

/* Take them for good, in CPython's small-object allocator and in malloc's small bins: what a child
 * makes then lies side by side. The pages that they are in are in use anyway. */
void holes_fill(void);
