/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the net helper, a child of the daemon that stays in the network of whoever started it.
 *
 * It gives a cell a network: for each request it makes a child with a pid namespace of its own,
 * which starts pasta (package passt) between the cell's network namespace and ours and waits. The
 * cell's packets become ordinary sockets of an unprivileged process: no bridge, no rule on the
 * host. When the descriptor that came with the answer is closed, the child ends, and pasta with it.
 *
 * Requests: ATTACH {descriptor: network namespace}. Answers, by the children: MADE {descriptor} or
 * MAKE_FAILED.
 */
#pragma once

#include <stdbool.h>

bool pasta_is_installed(void);
/* Never returns: exits when the socket ends. */
__attribute__((noreturn)) void pasta_main(int sock);
