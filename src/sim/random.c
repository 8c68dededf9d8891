/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/random.h"

#define N 624
#define M 397

static void seed_one(struct sim_random *r, uint32_t seed)
{
	r->state[0] = seed;
	for (uint32_t i = 1; i < N; i++)
		r->state[i] = 1812433253u * (r->state[i - 1] ^ r->state[i - 1] >> 30) + i;
	r->at = N;
}

void sim_random_seed(struct sim_random *r, uint64_t seed)
{
	const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
	uint32_t words = key[1] ? 2 : 1, i = 1, j = 0;
	uint32_t *s = r->state;

	seed_one(r, 19650218);
	for (int k = 0; k < N; k++) {
		s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1664525u) + key[j] + j;
		j = (j + 1) % words;
		if (++i == N) {
			s[0] = s[N - 1];
			i = 1;
		}
	}
	for (int k = 0; k < N - 1; k++) {
		s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1566083941u) - i;
		if (++i == N) {
			s[0] = s[N - 1];
			i = 1;
		}
	}
	s[0] = 0x80000000u;
}

static uint32_t next(struct sim_random *r)
{
	uint32_t *s = r->state, y;

	if (r->at == N) {
		for (int i = 0; i < N; i++) {
			y = (s[i] & 0x80000000u) | (s[(i + 1) % N] & 0x7fffffffu);
			s[i] = s[(i + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
		}
		r->at = 0;
	}
	y = s[r->at++];
	y ^= y >> 11;
	y ^= y << 7 & 0x9d2c5680u;
	y ^= y << 15 & 0xefc60000u;
	return y ^ y >> 18;
}

uint32_t sim_random_below(struct sim_random *r, uint32_t n)
{
	int bits = 32 - __builtin_clz(n);
	uint32_t x;

	do
		x = next(r) >> (32 - bits);
	while (x >= n);
	return x;
}

double sim_random_unit(struct sim_random *r)
{
	uint32_t a = next(r) >> 5, b = next(r) >> 6;

	return (a * 67108864.0 + b) / 9007199254740992.0;
}

void sim_random_shuffle(struct sim_random *r, uint32_t *v, uint32_t n)
{
	for (uint32_t i = n; i-- > 1;) {
		uint32_t j = sim_random_below(r, i + 1), x = v[i];

		v[i] = v[j];
		v[j] = x;
	}
}
