/* SPDX-License-Identifier: Apache-2.0 */
#include <curl/curl.h>
#include <stdlib.h>

#include "base/mem.h"
#include "index/fetch_priv.h"

#define MAX_CONNECTIONS 16L

/* One curl socket and its watcher. */
struct watch {
	uv_poll_t poll;
	curl_socket_t fd;
	struct fetcher *fetcher;
};

static void reap(struct fetcher *fetcher)
{
	CURLMsg *m;
	int left;

	while (!fetcher->closing && (m = curl_multi_info_read(fetcher->multi, &left))) {
		CURLcode code = m->data.result;
		char *f = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &f);
		fetch_attempt_over((struct fetch *)(void *)f, code);
	}
}

static void on_socket(uv_poll_t *p, int status, int events)
{
	struct watch *w = p->data;
	struct fetcher *fetcher = w->fetcher;
	int flags = 0, running;

	if (status < 0)
		flags = CURL_CSELECT_ERR;
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	curl_multi_socket_action(fetcher->multi, w->fd, flags, &running);
	reap(fetcher);
}

static void free_watch(uv_handle_t *h)
{
	free(h->data);
}

static int on_watch(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct fetcher *fetcher = arg;
	struct watch *w = known;
	int events = 0;

	if (what == CURL_POLL_REMOVE) {
		if (w) {
			uv_poll_stop(&w->poll);
			uv_close((uv_handle_t *)&w->poll, free_watch);
			curl_multi_assign(fetcher->multi, fd, NULL);
		}
		return 0;
	}
	if (!w) {
		w = mem_new(struct watch);
		w->fd = fd;
		w->fetcher = fetcher;
		if (uv_poll_init_socket(fetcher->loop, &w->poll, fd) < 0) {
			free(w);
			return -1;
		}
		w->poll.data = w;
		curl_multi_assign(fetcher->multi, fd, w);
	}
	if (what != CURL_POLL_OUT)
		events |= UV_READABLE;
	if (what != CURL_POLL_IN)
		events |= UV_WRITABLE;
	uv_poll_start(&w->poll, events, on_socket);
	return 0;
}

static void on_timer(uv_timer_t *t)
{
	struct fetcher *fetcher = t->data;
	int running;

	curl_multi_socket_action(fetcher->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	reap(fetcher);
}

static int on_timeout(CURLM *multi, long ms, void *arg)
{
	struct fetcher *fetcher = arg;

	if (ms < 0)
		uv_timer_stop(fetcher->timer);
	else
		uv_timer_start(fetcher->timer, on_timer, (uint64_t)ms, 0);
	return 0;
}

void fetch_loop_init(struct fetcher *fetcher)
{
	fetcher->multi = curl_multi_init();
	must(fetcher->multi);
	fetcher->timer = mem_new(uv_timer_t);
	uv_timer_init(fetcher->loop, fetcher->timer);
	fetcher->timer->data = fetcher;
	curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETFUNCTION, on_watch);
	curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETDATA, fetcher);
	curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
	curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERDATA, fetcher);
	curl_multi_setopt(fetcher->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_MULTIPLEX);
	curl_multi_setopt(fetcher->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, MAX_CONNECTIONS);
}
