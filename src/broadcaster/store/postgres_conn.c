/*
 * Connecting to PostgreSQL and waiting for it (postgres_conn.h). Called by the threads of the
 * backend; the loops have their own way of waiting (postgres_look.c).
 */
#include "postgres_conn.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/ssl.h>

#include "clock.h"
#include "mem.h"
#include "postgres_schema.h"
#include "store_password.h"

#define POLL_MS     50u /* between two looks whether the store closes */
#define PAUSE_MIN   50u
#define PAUSE_MAX   1000u
#define OPTIONS_MAX 64

static uint64_t now_ms(void)
{
    return clock_mono_ms(&clock_system);
}

void postgres_conn_init(struct postgres_conn *c, const struct postgres_kind *kind,
                        struct postgres_place *place)
{
    *c = (struct postgres_conn){ .kind = kind, .place = place };
}

uint64_t postgres_until(const struct postgres_conn *c)
{
    return now_ms() + c->place->timeout_ms;
}

/* --- waiting -------------------------------------------------------------------------------- */

/* When the store closes, nothing waits longer than that takes. */
static uint64_t no_later(const struct postgres_conn *c, uint64_t until_ms)
{
    uint64_t stop_by = atomic_load(&c->place->stop_by_ms);

    return stop_by != 0 && stop_by < until_ms ? stop_by : until_ms;
}

bool postgres_has_more(PGconn *pg)
{
    SSL *ssl = PQsslInUse(pg) != 0 ? PQsslStruct(pg, "OpenSSL") : NULL;

    return ssl != NULL && SSL_pending(ssl) > 0;
}

/* false: it is `until_ms`, or the store closes and the wait is of no use to it. */
static bool wait_for(const struct postgres_conn *c, PGconn *pg, short events, uint64_t until_ms)
{
    struct pollfd fd = { .fd = PQsocket(pg), .events = events };

    if (postgres_has_more(pg))
        return true;
    for (;;) {
        uint64_t now = now_ms(), until = no_later(c, until_ms);
        uint64_t left = until > now ? until - now : 0;
        int n = poll(&fd, 1, (int)(left < POLL_MS ? left : POLL_MS));

        if (n > 0)
            return true;
        if (left == 0)
            return false;
    }
}

/* --- connecting ----------------------------------------------------------------------------- */

/* What libpq is given; values of lists are copies. */
struct arguments {
    const char *keywords[OPTIONS_MAX + 1], *values[OPTIONS_MAX + 1];
    char *copies[OPTIONS_MAX];
    size_t n, n_copies;
};

static void argument(struct arguments *a, const char *keyword, const char *value)
{
    if (value == NULL || a->n == OPTIONS_MAX)
        return;
    a->keywords[a->n] = keyword;
    a->values[a->n++] = value;
}

/* One item of a list, which may have a single item for all hosts. */
static char *item_of(const char *list, size_t at)
{
    char *item;
    size_t len;

    if (strchr(list, ',') != NULL)
        for (; at > 0 && strchr(list, ',') != NULL; at--)
            list = strchr(list, ',') + 1;
    len = strcspn(list, ",");
    item = mem_alloc(len + 1);
    memcpy(item, list, len);
    item[len] = '\0';
    return item;
}

static bool is_list(const char *keyword)
{
    return strcmp(keyword, "host") == 0 || strcmp(keyword, "hostaddr") == 0 ||
           strcmp(keyword, "port") == 0;
}

/* The options of the URL, for one of its hosts. Those given later win. */
static void arguments_fill(struct arguments *a, const struct postgres_place *p, size_t host,
                           const char *password, char timeout[24])
{
    argument(a, "fallback_application_name", "lonelypss");
    argument(a, "keepalives_idle", "10");
    argument(a, "keepalives_interval", "5");
    argument(a, "keepalives_count", "3");
    snprintf(timeout, 24, "%llu", (unsigned long long)p->timeout_ms);
    argument(a, "tcp_user_timeout", timeout);
    argument(a, "target_session_attrs", "read-write");
    argument(a, "password", password);
    for (const PQconninfoOption *o = p->options; o->keyword != NULL; o++) {
        if (o->val != NULL && is_list(o->keyword)) {
            a->copies[a->n_copies] = item_of(o->val, host);
            argument(a, o->keyword, a->copies[a->n_copies++]);
        } else {
            argument(a, o->keyword, o->val);
        }
    }
}

static void ignore_notice(void *arg, const PGresult *result)
{
    (void)arg;
    (void)result;
}

/* One line of what libpq says, which may be several. */
static bool say(const struct postgres_conn *c, const char *why, char error[256])
{
    size_t len;

    snprintf(error, 256, "%s: %s", c->place->shown, why);
    len = strlen(error);
    while (len > 0 && (error[len - 1] == '\n' || error[len - 1] == ' '))
        error[--len] = '\0';
    for (char *at = error; *at != '\0'; at++)
        if (*at == '\n' || *at == '\t')
            *at = ' ';
    return false;
}

/* Goes on with PQconnectStart until it has ended. */
static bool connect_wait(const struct postgres_conn *c, PGconn *pg, uint64_t until_ms,
                         char error[256])
{
    PostgresPollingStatusType status = PGRES_POLLING_WRITING;

    while (status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED) {
        if (atomic_load(&c->place->stop_by_ms) != 0)
            return say(c, "the store is being closed", error);
        if (!wait_for(c, pg, status == PGRES_POLLING_READING ? POLLIN : POLLOUT, until_ms))
            return say(c, "does not answer", error);
        status = PQconnectPoll(pg);
    }
    return status == PGRES_POLLING_OK || say(c, PQerrorMessage(pg), error);
}

static PGconn *connect_host(const struct postgres_conn *c, size_t host, char error[256])
{
    struct arguments a = { .n = 0 };
    char *password, timeout[24];
    PGconn *pg;

    if (!store_password_read(c->place->password_file, &password, error))
        return NULL;
    arguments_fill(&a, c->place, host, password, timeout);
    pg = PQconnectStartParams(a.keywords, a.values, 0);
    store_password_free(password);
    for (size_t i = 0; i < a.n_copies; i++)
        mem_free(a.copies[i]);
    if (pg == NULL) {
        say(c, "no memory for a connection", error);
        return NULL;
    }
    PQsetNoticeReceiver(pg, ignore_notice, NULL);
    if (PQstatus(pg) == CONNECTION_BAD)
        say(c, PQerrorMessage(pg), error);
    else if (connect_wait(c, pg, postgres_until(c), error))
        return pg;
    PQfinish(pg);
    return NULL;
}

/* --- the session ---------------------------------------------------------------------------- */

/* What waits on the server ends a little before we give up, so that its answer still comes. Whatever
 * the role has set, commits are durable and see what was committed before each statement. Without
 * sequential scans the planner takes some statements for dear enough to be compiled, which they are
 * not. */
static bool set_session(struct postgres_conn *c)
{
    uint64_t limit_ms = c->place->timeout_ms - c->place->timeout_ms / 5;
    char sql[640];
    PGresult *result;

    snprintf(sql, sizeof sql,
             "SET statement_timeout = %llu; SET lock_timeout = %llu; "
             "SET idle_in_transaction_session_timeout = %llu; "
             "SET default_transaction_isolation = 'read committed'; SET jit = off; "
             "SELECT set_config('synchronous_commit', 'on', false) "
             "WHERE current_setting('synchronous_commit') = 'off'; %s",
             (unsigned long long)limit_ms, (unsigned long long)limit_ms,
             (unsigned long long)c->place->timeout_ms,
             c->kind->session == NULL ? "" : c->kind->session);
    result = postgres_exec(c, sql, c->kind->session == NULL ? PGRES_TUPLES_OK : PGRES_COMMAND_OK,
                           postgres_until(c));
    PQclear(result);
    return result != NULL;
}

/* Never later than it is. */
static bool read_clock(struct postgres_conn *c)
{
    PGresult *result = postgres_exec(c, "SELECT extract(epoch FROM clock_timestamp()) * 1000",
                                     PGRES_TUPLES_OK, postgres_until(c));

    if (result != NULL)
        c->clock_ms = strtod(PQgetvalue(result, 0, 0), NULL) - (double)now_ms();
    PQclear(result);
    return result != NULL;
}

static bool prepare(struct postgres_conn *c)
{
    for (size_t i = 0; i < c->kind->n; i++) {
        char name[24];
        PGresult *result;
        bool good;

        if (c->kind->sql[i] == NULL)
            continue;
        snprintf(name, sizeof name, "s%zu", i);
        if (PQsendPrepare(c->pg, name, c->kind->sql[i], 0, NULL) != 1)
            return false;
        result = postgres_take(c, postgres_until(c));
        good = PQresultStatus(result) == PGRES_COMMAND_OK;
        if (result != NULL && !good)
            postgres_conn_failed(c, "prepare a statement", result);
        PQclear(result);
        if (!good)
            return false;
    }
    return true;
}

static bool set_up(struct postgres_conn *c, char error[256])
{
    if (PQserverVersion(c->pg) < 130000)
        return say(c, "is older than PostgreSQL 13", error);
    if (PQsetnonblocking(c->pg, 1) != 0 || !set_session(c) || !read_clock(c))
        return say(c, c->pg == NULL ? "the connection was lost" : PQerrorMessage(c->pg), error);
    if (c->kind->schema && !postgres_schema_ensure(c, error))
        return false;
    if (!prepare(c) || (c->kind->pipeline && PQenterPipelineMode(c->pg) != 1))
        return say(c, c->pg == NULL ? "the connection was lost" : PQerrorMessage(c->pg), error);
    return true;
}

bool postgres_conn_open(struct postgres_conn *c, char error[256])
{
    size_t first = atomic_load(&c->place->host);

    for (size_t i = 0; i < c->place->n_hosts; i++) {
        size_t host = (first + i) % c->place->n_hosts;

        if (i > 0 && atomic_load(&c->place->stop_by_ms) != 0)
            return false;
        c->pg = connect_host(c, host, error);
        if (c->pg == NULL)
            continue;
        if (set_up(c, error)) {
            atomic_store(&c->place->host, host);
            c->opened++;
            return true;
        }
        postgres_conn_close(c);
    }
    return false;
}

static void note_failure(struct postgres_conn *c, const char *error)
{
    unsigned shift = c->failures < 5 ? c->failures : 5;
    uint64_t pause = (uint64_t)PAUSE_MIN << shift;

    pause = pause > PAUSE_MAX ? PAUSE_MAX : pause;
    c->failures++;
    c->retry_ms = now_ms() + pause;
    atomic_store(&c->down, true);
    if (c->told || c->place->log == NULL || atomic_load(&c->place->stop_by_ms) != 0)
        return;
    log_error_limited(c->place->log, "database_lost", LOG_STR("error", error), LOG_END);
    c->told = true;
}

/* Has the server not said good-bye meanwhile? */
static bool is_alive(struct postgres_conn *c)
{
    struct pollfd fd = { .events = POLLIN };

    if (c->pg == NULL || PQstatus(c->pg) != CONNECTION_OK)
        return false;
    fd.fd = PQsocket(c->pg);
    while (poll(&fd, 1, 0) > 0) { /* its last words, then the end */
        if (PQconsumeInput(c->pg) == 0 || PQstatus(c->pg) != CONNECTION_OK)
            return false;
    }
    return true;
}

bool postgres_conn_ready(struct postgres_conn *c)
{
    char error[256];

    if (is_alive(c))
        return true;
    postgres_conn_close(c);
    if (now_ms() < c->retry_ms)
        return false;
    if (!postgres_conn_open(c, error)) {
        note_failure(c, error);
        return false;
    }
    if (c->told && c->place->log != NULL)
        log_info(c->place->log, "database_back", LOG_STR("database", c->place->shown), LOG_END);
    c->told = false;
    c->failures = 0;
    atomic_store(&c->down, false);
    return true;
}

uint64_t postgres_conn_pause_ms(const struct postgres_conn *c)
{
    uint64_t now = now_ms();

    return c->pg != NULL || now >= c->retry_ms ? 0 : c->retry_ms - now;
}

void postgres_finish(PGconn *pg)
{
    const struct linger now = { .l_onoff = 1, .l_linger = 0 };

    if (pg != NULL && PQsocket(pg) >= 0)
        setsockopt(PQsocket(pg), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    PQfinish(pg);
}

/* With a statement under way the server shall not be left to do it when we have given up. */
void postgres_conn_close(struct postgres_conn *c)
{
    if (c->pg == NULL)
        return;
    if (PQtransactionStatus(c->pg) == PQTRANS_IDLE)
        PQfinish(c->pg);
    else
        postgres_finish(c->pg);
    c->pg = NULL;
}

PGconn *postgres_conn_release(struct postgres_conn *c)
{
    PGconn *pg = c->pg;

    c->pg = NULL;
    return pg;
}

/* --- statements ----------------------------------------------------------------------------- */

bool postgres_send(PGconn *pg, size_t statement, const struct postgres_params *params)
{
    static const int binary[POSTGRES_PARAMS_MAX] = { 1, 1, 1, 1, 1, 1 };
    char name[24];

    snprintf(name, sizeof name, "s%zu", statement);
    return PQsendQueryPrepared(pg, name, params == NULL ? 0 : params->n,
                               params == NULL ? NULL : params->values,
                               params == NULL ? NULL : params->lengths, binary, 1) == 1;
}

bool postgres_sync(PGconn *pg)
{
    return PQpipelineSync(pg) == 1;
}

/* The server is not there, or does not answer: nobody need wait for it until it does. */
static void lost(struct postgres_conn *c, bool timed_out)
{
    if (timed_out)
        note_failure(c, "the database does not answer");
    postgres_conn_close(c);
}

/* Sends what is queued and reads until a result is there. false: the connection was closed. */
static bool wait_result(struct postgres_conn *c, uint64_t until_ms)
{
    for (;;) {
        int unsent = PQflush(c->pg);

        if (unsent < 0 || PQstatus(c->pg) == CONNECTION_BAD)
            break;
        if (PQisBusy(c->pg) == 0)
            return true;
        if (!wait_for(c, c->pg, (short)(unsent > 0 ? POLLIN | POLLOUT : POLLIN), until_ms)) {
            lost(c, true);
            return false;
        }
        if (PQconsumeInput(c->pg) == 0)
            break;
    }
    lost(c, false);
    return false;
}

static bool is_whole(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);

    return status == PGRES_PIPELINE_SYNC || status == PGRES_COPY_OUT;
}

PGresult *postgres_take(struct postgres_conn *c, uint64_t until_ms)
{
    PGresult *result, *end;

    if (c->pg == NULL || !wait_result(c, until_ms))
        return NULL;
    result = PQgetResult(c->pg);
    if (result == NULL || is_whole(result))
        return result;
    for (;;) { /* several commands of one text: the last result, or the first error */
        if (!wait_result(c, until_ms)) {
            PQclear(result);
            return NULL;
        }
        end = PQgetResult(c->pg);
        if (end == NULL)
            return result;
        PQclear(result);
        result = end;
    }
}

/* `result` is what came; checks that it is what was expected. */
static PGresult *expect(struct postgres_conn *c, PGresult *result, ExecStatusType expected)
{
    ExecStatusType status = PQresultStatus(result);

    if (result == NULL || status == expected ||
        (expected == PGRES_TUPLES_OK && status == PGRES_COMMAND_OK))
        return result;
    postgres_conn_failed(c, "read", result);
    PQclear(result);
    return NULL;
}

PGresult *postgres_run(struct postgres_conn *c, size_t statement,
                       const struct postgres_params *params, uint64_t until_ms)
{
    if (c->pg != NULL && !postgres_send(c->pg, statement, params))
        lost(c, false);
    return expect(c, postgres_take(c, until_ms), PGRES_TUPLES_OK);
}

PGresult *postgres_exec(struct postgres_conn *c, const char *sql, ExecStatusType expected,
                        uint64_t until_ms)
{
    if (c->pg != NULL && PQsendQuery(c->pg, sql) != 1)
        lost(c, false);
    return expect(c, postgres_take(c, until_ms), expected);
}

int postgres_copy_take(struct postgres_conn *c, char **out, uint64_t until_ms)
{
    int len;

    while (c->pg != NULL && (len = PQgetCopyData(c->pg, out, 1)) == 0) {
        if (!wait_for(c, c->pg, POLLIN, until_ms)) {
            lost(c, true);
            return -2;
        }
        if (PQconsumeInput(c->pg) == 0) {
            lost(c, false);
            return -2;
        }
    }
    return c->pg == NULL ? -2 : len;
}

/* --- errors --------------------------------------------------------------------------------- */

/* By the first characters of SQLSTATE; the longest match wins. */
static const struct {
    const char *state;
    enum postgres_fault fault;
} faults[] = {
    { "08", POSTGRES_FAULT_CONNECTION },
    { "57P", POSTGRES_FAULT_CONNECTION },   /* shut down, not yet up */
    { "25006", POSTGRES_FAULT_CONNECTION }, /* it has become a standby */
    { "25P03", POSTGRES_FAULT_CONNECTION }, /* idle in a transaction for too long */
    { "26", POSTGRES_FAULT_CONNECTION },    /* no such prepared statement */
    { "0A000", POSTGRES_FAULT_CONNECTION }, /* columns were changed under a prepared statement */
    { "3F", POSTGRES_FAULT_CONNECTION },    /* no such schema */
    { "42P01", POSTGRES_FAULT_CONNECTION }, /* no such table: it is made when connecting */
    { "42704", POSTGRES_FAULT_CONNECTION }, /* no such object */
    { "XX", POSTGRES_FAULT_CONNECTION },
    { "22012", POSTGRES_FAULT_CONNECTION }, /* too late, by a clock to be read again: W_GUARD */
    { "53", POSTGRES_FAULT_BUSY },
    { "54", POSTGRES_FAULT_BUSY },
    { "55P03", POSTGRES_FAULT_BUSY },
    { "57014", POSTGRES_FAULT_BUSY },
    { "58", POSTGRES_FAULT_BUSY },
};

enum postgres_fault postgres_fault_of(const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

    if (state == NULL) /* libpq's own: the connection is gone */
        return POSTGRES_FAULT_CONNECTION;
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        if (strncmp(state, faults[i].state, strlen(faults[i].state)) == 0)
            return faults[i].fault;
    return POSTGRES_FAULT_OWN;
}

enum postgres_fault postgres_conn_failed(struct postgres_conn *c, const char *doing,
                                         const PGresult *result)
{
    enum postgres_fault fault = postgres_fault_of(result);
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

    if (c->place->log != NULL)
        log_warn_limited(c->place->log, "database_failed", LOG_STR("doing", doing),
                         LOG_STR("state", state == NULL ? "" : state),
                         LOG_STR("error", text == NULL ? PQresultErrorMessage(result) : text),
                         LOG_END);
    if (fault == POSTGRES_FAULT_CONNECTION)
        postgres_conn_close(c);
    return fault;
}
