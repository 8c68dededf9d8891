/* SPDX-License-Identifier: Apache-2.0
 * Runs in: every process.
 *
 * Small internal allocations abort on failure; sizes that come from outside are checked against
 * base/limits.h before they get here. must() is for our own bugs only, never for outside data.
 */
#pragma once

#include <stddef.h>
#include <stdlib.h>

void *mem_zero(size_t count, size_t size);
void *mem_resize(void *p, size_t size);
char *mem_strdup(const char *s); /* NULL stays NULL */
char *mem_strndup(const char *s, size_t len);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define mem_new(type) ((type *)mem_zero(1, sizeof(type)))

__attribute__((noreturn)) void must_fail(const char *what, const char *file, int line);
#define must(x) ((x) ? (void)0 : must_fail(#x, __FILE__, __LINE__))

static inline void mem_auto_free(void *p)
{
	free(*(void **)p);
}
#define auto_free __attribute__((cleanup(mem_auto_free)))

/* Hand over a pointer that is under auto_free (or any pointer variable). */
#define steal(p)                                \
	({                                      \
		__typeof__(p) steal_tmp_ = (p); \
		(p) = NULL;                     \
		steal_tmp_;                     \
	})

#define array_len(a) (sizeof(a) / sizeof((a)[0]))
