/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * How long imports take, corrected by what comes after the first profiles, which may have been
 * taken while the machine was slow or its files were on disk: nodes say how long their own imports
 * took, for all who load the same, and now and then a first call says what it imported after the
 * fork. Shorter counts at once, or by half; longer by a quarter: much makes an import slow, little
 * fast. What has changed too little is not told to the optimiser (optimise.c, DRIFT).
 */
#pragma once

#include "function/priv.h"

/* Is this first call of an instance, which is to be sent, one to be timed? At most one in
 * LIMIT_TIMED_STARTS of a version's cold starts and in LIMIT_TIMED_US, and only where imports are
 * left to do after the fork. */
bool times_due(struct version *v);
/* What it imported after its fork, as it says. */
void times_of_call(struct subject *s, const struct zygote_profile *p);
/* A node for this subject fell asleep; n->items are settled. */
void times_of_node(struct functions *f, const struct node *n, struct subject *s,
		   const struct zygote_profile *p);
/* subject_learn(), and of what was known before the least time. Of items that nobody else has the
 * time is then its own. */
void times_learn(struct subject *s, const struct zygote_profile *p);
