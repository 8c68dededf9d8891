/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/priv.h"
#include "base/fd.h"

static const char *header(struct MHD_Connection *c, const char *name)
{
	return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

static bool is_loopback_name(const char *host, size_t len)
{
	static const char *const names[] = { "localhost", "127.0.0.1", "[::1]" };

	for (size_t i = 0; i < array_len(names); i++)
		if (strlen(names[i]) == len && strncasecmp(names[i], host, len) == 0)
			return true;
	return false;
}

/* Length of the host in "host:port" or "[v6]:port". */
static size_t host_len(const char *authority)
{
	const char *end = authority[0] == '[' ? strchr(authority, ']') : NULL;

	return end ? (size_t)(end - authority) + 1 : strcspn(authority, ":");
}

/* Takes the same time wherever the two differ. */
static bool same_secret(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);
	volatile unsigned char differ = la != lb;

	for (size_t i = 0; i < la && lb; i++)
		differ |= (unsigned char)(a[i] ^ b[i % lb]);
	return !differ;
}

static int check_token(struct api *api, struct MHD_Connection *c, struct err *err)
{
	const char *given = header(c, MHD_HTTP_HEADER_AUTHORIZATION);

	if (given && strncasecmp(given, "Bearer ", 7) == 0 && same_secret(api->token, given + 7))
		return 0;
	return err_set(err, ERR_DENIED,
		       "this port needs the header 'Authorization: Bearer TOKEN' with the daemon's "
		       "PIPSQUEAK_TOKEN");
}

static bool is_our_name(const struct api *api, const char *host)
{
	size_t len = host ? host_len(host) : 0;

	return host && (is_loopback_name(host, len) ||
			(strlen(api->host) == len && strncasecmp(api->host, host, len) == 0));
}

static bool same_origin(const char *origin, const char *host)
{
	const char *authority = strstr(origin, "://");

	return authority && host && strcasecmp(authority + 3, host) == 0;
}

/* A web page that a person visits can make their browser POST here (and, by a name that resolves to
 * 127.0.0.1, read the answer): so Host must be one of ours, and Origin, if there is one, the same.
 */
int gate_check(struct api *api, struct MHD_Connection *c, const struct route *route,
	       struct err *err)
{
	const char *host = header(c, MHD_HTTP_HEADER_HOST);
	const char *origin = header(c, MHD_HTTP_HEADER_ORIGIN);

	if (!route->tcp)
		return err_set(err, ERR_DENIED,
			       "this port takes calls only; use the daemon's own socket");
	if (api->token && route->max_body && check_token(api, c, err) < 0)
		return -1;
	if (!api->token && !is_our_name(api, host))
		return err_set(
			err, ERR_DENIED,
			"the Host header names another host than this daemon; use localhost");
	if (origin && !same_origin(origin, host))
		return err_set(err, ERR_DENIED, "requests of pages of other origins are refused");
	return 0;
}

static int parse_listen(struct api *api, char **out_port, struct err *err)
{
	const char *colon = strrchr(api->listen, ':');

	if (!colon || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return err_set(err, ERR_USAGE,
			       "--listen must be HOST:PORT, such as 127.0.0.1:8080, not '%.80s'",
			       api->listen);
	api->host = mem_strndup(api->listen, (size_t)(colon - api->listen));
	if (!*api->host) {
		free(api->host);
		api->host = mem_strdup("localhost");
	}
	*out_port = mem_strdup(colon + 1);
	return 0;
}

static bool is_loopback(const struct sockaddr *a)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;

	if (a->sa_family == AF_INET)
		return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
	return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static int listen_on(struct api *api, const struct addrinfo *a, struct err *err)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} bound = { .v6 = { 0 } };
	socklen_t len = sizeof(bound);
	auto_close int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
				   IPPROTO_TCP);
	int on = 1;

	if (fd < 0)
		return err_sys(err, errno, "making a socket");
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 1024) < 0 ||
	    getsockname(fd, &bound.any, &len) < 0)
		return err_sys(err, errno, "listening on %.80s", api->listen);
	api->port = ntohs(bound.any.sa_family == AF_INET6 ? bound.v6.sin6_port : bound.v4.sin_port);
	return fd_steal(&fd);
}

int gate_listen(struct api *api, int *out_fd, struct err *err)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *found;
	auto_free char *port = NULL, *host = NULL;
	int rc;

	if (parse_listen(api, &port, err) < 0)
		return -1;
	host = api->host[0] == '[' ? mem_strndup(api->host + 1, strcspn(api->host + 1, "]"))
				   : mem_strdup(api->host);
	rc = getaddrinfo(host, port, &hints, &found); /* at the start, before anything is served */
	if (rc != 0)
		return err_set(err, ERR_USAGE, "--listen %.80s: %s", api->listen, gai_strerror(rc));
	if (!is_loopback(found->ai_addr) && !api->token)
		rc = err_set(err, ERR_USAGE,
			     "--listen %.80s is reachable by others: set PIPSQUEAK_TOKEN to a "
			     "secret, or listen on 127.0.0.1",
			     api->listen);
	else
		rc = listen_on(api, found, err);
	freeaddrinfo(found);
	if (rc < 0)
		return -1;
	*out_fd = rc;
	return 0;
}
