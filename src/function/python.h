/* SPDX-License-Identifier: Apache-2.0
 * Runs in: daemon.
 *
 * Interpreters: what each one is (asked once per path and mtime, in a job), and its root zygote.
 */
#pragma once

#include "base/err.h"
#include "store/store.h"

struct functions;
struct node;

struct interp {
	char *path, *prefix;
	char *tenant;	 /* whose root this is alone; NULL: everybody's */
	char *info;	 /* JSON of pyinfo.py, handed to the resolver */
	char *cache_tag; /* "cpython-311" */
	char *version;	 /* "3.11" */
	char *stdlib;	 /* "/usr/lib/python3.11/" */
	char *soabi;	 /* "cpython-311-x86_64-linux-gnu" */
	uint32_t id;
	struct node *root;	/* NULL: not there (yet, or not any more) */
	struct node *next_root; /* it takes the other's place when its tree has grown (renew.c) */
	bool asking, rooting, renewing;
	bool kept; /* a function's: stays, though it may not be there today */
	struct python_wait *waiting;
	struct interp *next;
};

/* interp has its info and a root that sleeps; or NULL and err. */
typedef void (*python_fn)(void *arg, struct interp *interp, const struct err *err);

/* path NULL: the default; prefix NULL: two levels above path; tenant NULL: the root is everybody's.
 */
struct python_name {
	const char *path, *prefix, *tenant;
};

/* done is called once, at once when all is there. */
void python_get(struct functions *f, const struct python_name *name, python_fn done, void *arg);
/* The record alone, nothing asked or started; NULL when there is no prefix to be had, or a tenant
 * too many (LIMIT_TENANT_ROOTS). */
struct interp *python_record(struct functions *f, const struct python_name *name);
/* Drop what tenants without functions leave: true while there is any. */
bool python_tidy(struct functions *f);
void python_close(struct functions *f);
void python_store_view(const struct interp *interp, struct store_python *out);
