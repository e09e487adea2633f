/*
 * For the tests of the PostgreSQL store: another program's connections.
 */
#ifndef POSTGRES_TOOL_H
#define POSTGRES_TOOL_H

#include <stdlib.h>

#include <libpq-fe.h>

#include "store_fixture.h"
#include "tables.h"

static inline PGconn *postgres_tool_open(const struct fixture *f)
{
    PGconn *pg = PQconnectdb(f->conf.urls[0]);

    table_require(PQstatus(pg) == CONNECTION_OK, PQerrorMessage(pg));
    PQclear(PQexec(pg, "SET client_min_messages = error"));
    return pg;
}

/* The first column of the first row as a number; -1 when there is none. */
static inline long long postgres_tool_number(PGconn *pg, const char *sql)
{
    PGresult *result = PQexec(pg, sql);
    long long n = -1;

    table_require(PQresultStatus(result) == PGRES_COMMAND_OK ||
                      PQresultStatus(result) == PGRES_TUPLES_OK,
                  PQerrorMessage(pg));
    if (PQntuples(result) > 0 && !PQgetisnull(result, 0, 0))
        n = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
    PQclear(result);
    return n;
}

/* The same on a connection for this one question. */
static inline long long postgres_tool_run(const struct fixture *f, const char *sql)
{
    PGconn *pg = postgres_tool_open(f);
    long long n = postgres_tool_number(pg, sql);

    PQfinish(pg);
    return n;
}

#endif
