/* SPDX-License-Identifier: Apache-2.0 */
#include "function/state.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"

#define SCHEMA_VERSION 1
#define FACT_DAYS 180 /* a profile or lock that nobody wrote again for so long is forgotten */

/* So much is written before there is another look for what to forget. */
#define FORGET_EACH 256
#define FORGET_EACH_BYTES (4 * MIB)

enum { PUT_FUNCTION, REMOVE_FUNCTION, EACH_FUNCTION, GET, GET_NEAR, PUT, FORGET, STATEMENTS };

static const char *const texts[STATEMENTS] = {
	[PUT_FUNCTION] = "INSERT OR REPLACE INTO functions"
			 "(name, version, python, prefix, lock, settings, deployed)"
			 " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
	[REMOVE_FUNCTION] = "DELETE FROM functions WHERE name = ?1",
	[EACH_FUNCTION] = "SELECT name, version, python, prefix, lock, settings, deployed"
			  " FROM functions ORDER BY name",
	[GET] = "SELECT json FROM facts WHERE kind = ?1 AND key = ?2 AND stamp = ?3",
	[GET_NEAR] = "SELECT json FROM facts WHERE kind = ?1 AND key > ?2 AND key < ?3"
		     " ORDER BY updated DESC LIMIT 1",
	[PUT] = "INSERT OR REPLACE INTO facts(kind, key, stamp, json, updated)"
		" VALUES(?1, ?2, ?3, ?4, ?5)",
	[FORGET] = "DELETE FROM facts WHERE updated < ?1 OR updated <"
		   " (SELECT updated FROM facts ORDER BY updated DESC LIMIT 1 OFFSET ?2)"
		   " OR updated <= (SELECT max(updated) FROM (SELECT updated,"
		   " sum(length(CAST(json AS BLOB))) OVER (ORDER BY updated DESC) AS bytes"
		   " FROM facts) WHERE bytes > ?3)",
};

static const char schema[] =
	"CREATE TABLE functions(name TEXT PRIMARY KEY, version INTEGER NOT NULL,"
	" python TEXT NOT NULL, prefix TEXT NOT NULL, lock TEXT NOT NULL, settings TEXT NOT NULL,"
	" deployed REAL NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE facts(kind TEXT NOT NULL, key TEXT NOT NULL, stamp INTEGER NOT NULL,"
	" json TEXT NOT NULL, updated REAL NOT NULL, PRIMARY KEY(kind, key)) WITHOUT ROWID;"
	"PRAGMA user_version = 1;";
static const char facts_index[] = "CREATE INDEX IF NOT EXISTS facts_updated ON facts(updated)";

struct state {
	sqlite3 *db;
	sqlite3_stmt *st[STATEMENTS];
	uint32_t written; /* facts, since some were forgotten */
	uint64_t written_bytes;
};

static int fail(struct state *s, struct err *err, const char *what)
{
	return err_set(err, ERR_SYSTEM, "state database: %s: %s", what,
		       s->db ? sqlite3_errmsg(s->db) : "out of memory");
}

static int run_sql(struct state *s, const char *sql, struct err *err)
{
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(s, err, sql);
}

static int schema_version(struct state *s, struct err *err)
{
	sqlite3_stmt *st;
	int version = -1;

	if (sqlite3_prepare_v2(s->db, "PRAGMA user_version", -1, &st, NULL) != SQLITE_OK)
		return fail(s, err, "reading the schema's version");
	if (sqlite3_step(st) == SQLITE_ROW)
		version = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	return version < 0 ? fail(s, err, "reading the schema's version") : version;
}

static int make_schema(struct state *s, struct err *err)
{
	int version = schema_version(s, err);

	if (version < 0)
		return -1;
	if (version > SCHEMA_VERSION)
		return err_set(err, ERR_CONFLICT,
			       "the state database is of a newer version (%d); update pipsqueak or "
			       "use another directory",
			       version);
	if (version == SCHEMA_VERSION)
		return 0;
	if (run_sql(s, "BEGIN IMMEDIATE", err) < 0)
		return -1;
	if (run_sql(s, schema, err) < 0 || run_sql(s, "COMMIT", err) < 0) {
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
		return -1;
	}
	return 0;
}

static int forget_old(struct state *s, struct err *err)
{
	sqlite3_stmt *st = s->st[FORGET];
	int rc;

	s->written = 0;
	s->written_bytes = 0;
	sqlite3_bind_double(st, 1, clock_wall_s() - FACT_DAYS * 86400.0);
	sqlite3_bind_int64(st, 2, LIMIT_FACTS - FORGET_EACH - 1);
	sqlite3_bind_int64(st, 3, LIMIT_FACTS_BYTES - FORGET_EACH_BYTES);
	rc = sqlite3_step(st);
	sqlite3_reset(st);
	return rc == SQLITE_DONE ? 0 : fail(s, err, "forgetting old facts");
}

static int prepare(struct state *s, const char *path, struct err *err)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;

	if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK)
		return fail(s, err, "opening");
	sqlite3_busy_timeout(s->db, 2000);
	if (run_sql(s, "PRAGMA journal_mode = WAL", err) < 0 ||
	    run_sql(s, "PRAGMA synchronous = NORMAL", err) < 0 || make_schema(s, err) < 0 ||
	    run_sql(s, facts_index, err) < 0)
		return -1;
	for (int i = 0; i < STATEMENTS; i++)
		if (sqlite3_prepare_v3(s->db, texts[i], -1, SQLITE_PREPARE_PERSISTENT, &s->st[i],
				       NULL) != SQLITE_OK)
			return fail(s, err, texts[i]);
	return forget_old(s, err);
}

int state_open(const char *path, struct state **out, struct err *err)
{
	struct state *s = mem_new(struct state);

	if (prepare(s, path, err) < 0) {
		state_close(s);
		return -1;
	}
	*out = s;
	return 0;
}

void state_close(struct state *s)
{
	if (!s)
		return;
	for (int i = 0; i < STATEMENTS; i++)
		sqlite3_finalize(s->st[i]);
	sqlite3_close(s->db);
	free(s);
}

static void bind_text(sqlite3_stmt *st, int at, const char *text)
{
	sqlite3_bind_text(st, at, text, -1, SQLITE_STATIC);
}

static int step(struct state *s, sqlite3_stmt *st, const char *what, struct err *err)
{
	int rc = sqlite3_step(st);
	int ret = rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : fail(s, err, what);

	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	return ret;
}

int state_put_function(struct state *s, const struct state_function *fn, struct err *err)
{
	sqlite3_stmt *st = s->st[PUT_FUNCTION];

	bind_text(st, 1, fn->name);
	sqlite3_bind_int64(st, 2, fn->version);
	bind_text(st, 3, fn->python);
	bind_text(st, 4, fn->prefix);
	bind_text(st, 5, fn->lock);
	bind_text(st, 6, fn->settings);
	sqlite3_bind_double(st, 7, fn->deployed);
	return step(s, st, "storing a function", err);
}

int state_remove_function(struct state *s, const char *name, struct err *err)
{
	bind_text(s->st[REMOVE_FUNCTION], 1, name);
	return step(s, s->st[REMOVE_FUNCTION], "removing a function", err);
}

int state_each_function(struct state *s, void (*each)(void *ctx, const struct state_function *fn),
			void *ctx, struct err *err)
{
	sqlite3_stmt *st = s->st[EACH_FUNCTION];
	int rc;

	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		struct state_function fn = {
			.name = (const char *)sqlite3_column_text(st, 0),
			.version = (uint32_t)sqlite3_column_int64(st, 1),
			.python = (const char *)sqlite3_column_text(st, 2),
			.prefix = (const char *)sqlite3_column_text(st, 3),
			.lock = (const char *)sqlite3_column_text(st, 4),
			.settings = (const char *)sqlite3_column_text(st, 5),
			.deployed = sqlite3_column_double(st, 6),
		};

		each(ctx, &fn);
	}
	sqlite3_reset(st);
	return rc == SQLITE_DONE ? 0 : fail(s, err, "listing functions");
}

/* The first row's text. */
static int read_fact(struct state *s, sqlite3_stmt *st, struct buf *out, struct err *err)
{
	int rc = sqlite3_step(st), ret = 0;

	if (rc == SQLITE_ROW)
		ret = buf_puts(out, (const char *)sqlite3_column_text(st, 0), err) < 0 ? -1 : 1;
	else if (rc != SQLITE_DONE)
		ret = fail(s, err, "reading a fact");
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	return ret;
}

int state_get(struct state *s, const char *kind, const char *key, int64_t stamp, struct buf *out,
	      struct err *err)
{
	sqlite3_stmt *st = s->st[GET];

	bind_text(st, 1, kind);
	bind_text(st, 2, key);
	sqlite3_bind_int64(st, 3, stamp);
	return read_fact(s, st, out, err);
}

int state_get_near(struct state *s, const char *kind, const char *word, struct buf *out,
		   struct err *err)
{
	auto_free char *from = mem_printf("%s ", word), *to = mem_printf("%s!", word);
	sqlite3_stmt *st = s->st[GET_NEAR];

	bind_text(st, 1, kind);
	bind_text(st, 2, from);
	bind_text(st, 3, to);
	return read_fact(s, st, out, err);
}

int state_put(struct state *s, const char *kind, const char *key, int64_t stamp, const char *json,
	      struct err *err)
{
	sqlite3_stmt *st = s->st[PUT];

	bind_text(st, 1, kind);
	bind_text(st, 2, key);
	sqlite3_bind_int64(st, 3, stamp);
	bind_text(st, 4, json);
	sqlite3_bind_double(st, 5, clock_wall_s());
	if (step(s, st, "storing a fact", err) < 0)
		return -1;
	s->written_bytes += strlen(json);
	if (++s->written < FORGET_EACH && s->written_bytes < FORGET_EACH_BYTES)
		return 0;
	return forget_old(s, err);
}
