/* SPDX-License-Identifier: Apache-2.0
 *
 * Stand-ins for the rooms that room function stands on (zygote, store, index's resolver, jail's
 * jobs), so that one call's life can be tested without a sandbox. A "child" does what the
 * event's text asks for:
 *   "raise" "start" (a handler that cannot be imported) "die" "oom" "hang"   anything else: echo
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct doubles {
	int forks, forks_from_nodes, grown, dropped, kills, alive;
	int busy_grows;	     /* so many of the next nodes find no ids */
	int fail_forks;	     /* so many of the next forks fail */
	int fail_node_forks; /* so many of the next forks from nodes that are not roots */
	int resolves, envs;
	int cell;   /* enum wire_again: what calls make of the cells of spares that fork */
	int slower; /* nodes' and timed imports: so many per cent more */
	const char *resolve_error; /* NULL: one dist, numpy 2.0 */
	const char *left;	   /* what an import in a node leaves behind */
	const char *absent;	   /* what an import in a node asked for */
	const char *provided;	   /* top-level name that the lock provides */
	const char *job_output;	   /* what the TOML job prints */
	char modules[1024];	   /* what the last node was asked to import, space-separated */
};
extern struct doubles doubles;
