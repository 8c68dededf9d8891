/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon (written on the loop, then read by any thread). Private to the room.
 *
 * Where packages come from: what python/pipconf.py printed, read. Credentials that stood in URLs
 * are taken out of them here and given to requests of the same origin only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct settings_auth {
	char *origin; /* "https://host:port" */
	char *path;   /* below which it was given; several of one host are told apart by it */
	char *user, *password;
};

struct settings {
	int refs;
	char **indexes; /* the index, then the extra ones; no credentials, no trailing slash */
	size_t nindexes;
	char **first; /* asked before those: the first that knows a name has all of it */
	size_t nfirst;
	char **links; /* directories (absolute paths) or URLs of pages of links */
	size_t nlinks;
	char **trusted; /* hosts whose certificates are not checked */
	size_t ntrusted;
	struct settings_auth *auths;
	size_t nauths;
	char *cert, *client_cert;   /* pip's; NULL: the system's */
	char *cert_file, *cert_dir; /* OpenSSL's variables; NULL: not set */
	char *proxy;		    /* pip's, for everything; NULL: those of the environment: */
	char *http_proxy, *https_proxy, *no_proxy;
	long timeout_s; /* without a byte */
	bool offline;	/* nothing is asked of any network */
	bool refresh;	/* what is kept is asked for again */
};

/* json is pipconf.py's; index_url (NULL: none) replaces the first index. */
warn_unused int settings_parse(const char *json, const char *index_url, struct settings **out,
			       struct err *err);
struct settings *settings_ref(struct settings *s); /* NULL stays NULL */
void settings_unref(struct settings *s);
struct settings *settings_copy(const struct settings *s);
/* A requirements file may name indexes too. first: it replaces the configured one. */
warn_unused int settings_add_index(struct settings *s, const char *url, bool first,
				   struct err *err);
/* --find-links: a directory's absolute path or the URL of a page */
warn_unused int settings_add_link(struct settings *s, const char *link, struct err *err);
void settings_drop_indexes(struct settings *s); /* --no-index */
/* A copy of text without the credentials of the URLs in it; they are remembered in s. */
char *settings_take_auths(struct settings *s, const char *text);
/* Of those of its origin, the one with whose path the URL's goes along for longest. */
const struct settings_auth *settings_find_auth(const struct settings *s, const char *url);
bool settings_is_trusted(const struct settings *s, const char *url);

/* "https://host:port" of an absolute URL: a copy; NULL when it is none. */
char *url_origin(const char *url);
/* relative to base, fragment dropped: a copy; NULL when it is no http, https or file URL. */
char *url_join(const char *base, const char *relative);
