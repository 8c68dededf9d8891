/* SPDX-License-Identifier: Apache-2.0
 *
 * Linked into pipsqueak-install by sanitizer builds only: looking for leaks needs ptrace, which its
 * sandbox refuses. What it does is replayed without a sandbox, leaks and all, by tests/fault and
 * tests/fuzz.
 */
const char *__asan_default_options(void);

const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}
