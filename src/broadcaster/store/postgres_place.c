/*
 * The URL of the PostgreSQL server (postgres_conn.h): read once, its hosts counted.
 */
#include <stdio.h>
#include <string.h>

#include "mem.h"
#include "postgres_conn.h"
#include "store_password.h"

static const char *value_of(const struct postgres_place *p, const char *keyword)
{
    for (const PQconninfoOption *o = p->options; o->keyword != NULL; o++)
        if (strcmp(o->keyword, keyword) == 0)
            return o->val;
    return NULL;
}

static size_t count_items(const char *list)
{
    size_t n = 1;

    for (; *list != '\0'; list++)
        n += *list == ',';
    return n;
}

/* "host1,host2" or "host:5432": names the server in errors. */
static char *show(const struct postgres_place *p)
{
    const char *host = value_of(p, "host"), *port = value_of(p, "port");
    char text[120];

    if (host == NULL)
        host = value_of(p, "hostaddr");
    snprintf(text, sizeof text, "database %.80s%s%.20s", host == NULL ? "" : host,
             host == NULL || port == NULL ? "" : ":", port == NULL ? "" : port);
    return mem_strdup(text);
}

bool postgres_place_init(struct postgres_place *p, const struct store_conf *conf, char error[256])
{
    char *why = NULL;
    const char *hosts;

    *p = (struct postgres_place){ .log = conf->log, .timeout_ms = conf->timeout_ms };
    if (conf->n_urls != 1) {
        snprintf(error, 256, "postgres needs one database.url");
        return false;
    }
    p->options = PQconninfoParse(conf->urls[0], &why);
    if (p->options == NULL) { /* what libpq says may hold a part of the password */
        snprintf(error, 256,
                 "database.url: libpq cannot read it; see \"Connection URIs\" in the "
                 "manual of PostgreSQL");
        if (why != NULL)
            PQfreemem(why);
        return false;
    }
    hosts = value_of(p, "hostaddr");
    if (hosts == NULL)
        hosts = value_of(p, "host");
    p->n_hosts = hosts == NULL ? 1 : count_items(hosts);
    p->password_file = conf->password_file == NULL ? NULL : mem_strdup(conf->password_file);
    p->shown = show(p);
    return true;
}

void postgres_place_fini(struct postgres_place *p)
{
    PQconninfoFree(p->options);
    mem_free(p->password_file);
    mem_free(p->shown);
}
