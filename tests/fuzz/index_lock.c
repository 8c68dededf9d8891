/* SPDX-License-Identifier: Apache-2.0
 *
 * Locks: what is taken is written and taken again, with the same hash.
 */
#include <string.h>

#include "base/mem.h"
#include "fuzz.h"
#include "index/lock.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	auto_buf struct buf text = { 0 };
	struct lock *lock, *again, *copy;
	struct err err;

	if (lock_parse((const char *)data, size, &lock, &err) < 0)
		return 0;
	must(lock_print(lock, &text, &err) == 0);
	must(lock_parse(text.data, text.len, &again, &err) == 0);
	must(strcmp(lock->hash, again->hash) == 0 && lock->ndists == again->ndists);
	copy = lock_copy(lock);
	for (size_t i = 0; i < lock->ndists; i++)
		must(lock_find(copy, lock->dists[i].name));
	lock_free(copy);
	lock_free(again);
	lock_free(lock);
	return 0;
}
