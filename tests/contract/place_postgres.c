/*
 * A schema of its own in the database of the server (fixture_places.h).
 */
#include <stdio.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "fixture_places.h"
#include "tables.h"

#define PARAMETER "options=-csearch_path%3D"

static void run(const char *server, const char *before, const char *schema, const char *after)
{
    PGconn *pg = PQconnectdb(server);
    char sql[256];
    PGresult *result;

    table_require(PQstatus(pg) == CONNECTION_OK, PQerrorMessage(pg));
    snprintf(sql, sizeof sql, "SET client_min_messages = error; %s %s %s", before, schema, after);
    result = PQexec(pg, sql);
    table_require(PQresultStatus(result) == PGRES_COMMAND_OK, PQerrorMessage(pg));
    PQclear(result);
    PQfinish(pg);
}

void place_postgres_make(const char *server, char url[FIXTURE_URL_MAX])
{
    static int number;
    char schema[64];

    snprintf(schema, sizeof schema, "t%ld_%d", (long)getpid(), ++number);
    run(server, "CREATE SCHEMA", schema, "");
    table_require(snprintf(url, FIXTURE_URL_MAX, "%s%c%s%s", server,
                           strchr(server, '?') == NULL ? '?' : '&', PARAMETER,
                           schema) < FIXTURE_URL_MAX,
                  "a shorter LONELY_STORE_URL");
}

void place_postgres_unmake(const char *server, const char *url)
{
    run(server, "DROP SCHEMA", strstr(url, PARAMETER) + sizeof PARAMETER - 1, "CASCADE");
}
