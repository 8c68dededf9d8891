/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (libuv loop). Private to fetch.c (transfers and their attempts), fetch_easy.c
 * (one attempt: what curl is told and what the server says) and fetch_loop.c (curl on the loop).
 */
#pragma once

#include <curl/curl.h>
#include <stdbool.h>

#include "index/fetch.h"

struct fetcher {
	uv_loop_t *loop;
	CURLM *multi;
	uv_timer_t *timer;
	struct fetch *all;
	bool closing;
};

struct fetch {
	struct fetcher *fetcher;
	struct fetch *next, **self; /* in fetcher->all */
	struct fetch_spec spec;	    /* its strings are ours */
	fetch_done_fn done;
	void *arg;
	CURL *easy; /* NULL while pausing between attempts */
	struct curl_slist *headers;
	uv_timer_t *pause;
	int attempt;
	uint64_t got;	       /* bytes that data() has, of all attempts */
	uint64_t got_before;   /* when this attempt began */
	uint64_t waste;	       /* bytes of answers that nobody reads */
	uint64_t header_bytes; /* of this attempt, redirects included */
	long age_s;
	bool length_told;
	bool settled;	/* the status line and the headers were looked at */
	bool enough;	/* we ended it ourselves, content with what is there */
	bool no_resume; /* it was tried and the server cannot */
	bool misplaced; /* it sent another part than was asked for */
	bool stopped;	/* err holds why data() or a ceiling ended it */
	struct fetch_reply reply;
	struct err err;
};

/* fetch_easy.c: f->easy is ready to be added. */
void fetch_easy_prepare(struct fetch *f);

/* fetch_loop.c */
void fetch_loop_init(struct fetcher *fetcher);
/* One attempt is over; fetch.c's. */
void fetch_attempt_over(struct fetch *f, CURLcode code);

/* Where an attempt begins again: behind what is there, or at 0. */
static inline bool fetch_resumes(const struct fetch *f)
{
	return f->spec.resume && f->got && !f->no_resume;
}
