/* SPDX-License-Identifier: Apache-2.0 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include <Python.h>

#include "holes.h"

#include <stdint.h>
#include <stdlib.h>

#define PAGE 4096UL
#define STEP 16UL /* of sizes, in both allocators */
#define PYTHON_MOST 512UL
#define MALLOC_MOST 1032UL
#define MALLOC_OVER 8UL	       /* bytes of a block that are malloc's own */
#define MOST (1 << 20)	       /* blocks of one size */
#define RUN_MOST (PAGE / STEP) /* blocks in a run */

struct heap {
	void *(*take)(size_t size);
	void (*give)(void *block);
};

/* Blocks side by side over a whole page are no holes: there the allocator has come to memory that
 * is free altogether. Those are given back, the first of them last, for it is the next to be used.
 */
static void fill_size(const struct heap *heap, size_t size, size_t apart)
{
	void *run[RUN_MOST];
	size_t n = 0, wanted = PAGE / apart < 4 ? 4 : PAGE / apart;

	for (int i = 0; i < MOST && n < wanted; i++) {
		void *block = heap->take(size);

		if (!block)
			break;
		if (n && (uintptr_t)block != (uintptr_t)run[n - 1] + apart)
			n = 0;
		run[n++] = block;
	}
	while (n)
		heap->give(run[--n]);
}

void holes_fill(void)
{
	static const struct heap python = { PyObject_Malloc, PyObject_Free },
				 libc = { malloc, free };

	for (size_t size = PYTHON_MOST; size >= STEP; size -= STEP)
		fill_size(&python, size, size);
	/* The largest first: what it leaves of a hole is a hole for the next. */
	for (size_t size = MALLOC_MOST; size > MALLOC_OVER; size -= STEP)
		fill_size(&libc, size, size + MALLOC_OVER);
}
