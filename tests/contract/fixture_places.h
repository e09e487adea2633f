/*
 * Empty places for tests in the servers of backends; a file a backend. `server` is what
 * LONELY_STORE_URL says, `url` what the backend is opened with. They die with a message when
 * something fails.
 */
#ifndef FIXTURE_PLACES_H
#define FIXTURE_PLACES_H

#include "store_fixture.h"

void place_postgres_make(const char *server, char url[FIXTURE_URL_MAX]); /* a schema of its own */
void place_postgres_unmake(const char *server, const char *url);
/* The whole database: empty unless another place of this process is in use. */
void place_rqlite_make(const char *server, char url[FIXTURE_URL_MAX]);
void place_rqlite_unmake(const char *server, const char *url);

#endif
