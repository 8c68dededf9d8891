/* SPDX-License-Identifier: Apache-2.0
 * Runs in: the command line.
 *
 * Python's random.Random, so that a split or a generated workload can be made anew by anyone:
 * MT19937 (Matsumoto and Nishimura, ACM TOMACS 1998) seeded as Python seeds it with an integer.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct sim_random {
	uint32_t state[624];
	unsigned int at;
};

void sim_random_seed(struct sim_random *r, uint64_t seed);
uint32_t sim_random_below(struct sim_random *r, uint32_t n); /* n > 0; as randrange(n) */
double sim_random_unit(struct sim_random *r);		     /* as random(): [0, 1) */
void sim_random_shuffle(struct sim_random *r, uint32_t *v, uint32_t n);
