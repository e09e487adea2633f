/*
 * Transactions that may be sent twice and are done once (rqlite_store.h). Called by the writer.
 */
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "rqlite_store.h"
#include "store_process.h"

#define SQL_NOTE                                                                      \
    "INSERT INTO " RQ_PROCESSES "(id, batch, at, until, first, process, keeps_macs) " \
    "VALUES (?, ?, ?, ?, (SELECT max(seq) FROM " RQ_CHANGES "), CAST(? AS TEXT), ?) " \
    "ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, at = excluded.at, "       \
    "until = excluded.until, first = excluded.first, keeps_macs = excluded.keeps_macs"

bool rqlite_batches_open(struct rqlite_batches *b, struct rqlite_cluster *cluster, bool keeps_macs,
                         char error[256])
{
    *b = (struct rqlite_batches){ .keeps_macs = keeps_macs };
    if (uv_random(NULL, NULL, &b->process_id, sizeof b->process_id, 0, NULL) != 0) {
        snprintf(error, 256, "rqlite: no random bytes");
        return false;
    }
    if (!rqlite_conn_open(&b->conn, cluster, error))
        return false;
    b->process_id |= 1;
    store_process_self(b->process);
    rqlite_body_init(&b->body, RQLITE_BODY_MAX);
    rqlite_body_init(&b->request, RQLITE_BODY_MAX + 4096);
    return true;
}

void rqlite_batches_close(struct rqlite_batches *b)
{
    rqlite_body_fini(&b->body);
    rqlite_body_fini(&b->request);
    rqlite_conn_close(&b->conn);
}

static int64_t wall_ms(void)
{
    return clock_wall_ns(&clock_system) / 1000000;
}

int64_t rqlite_batch_time_ms(const struct rqlite_batches *b)
{
    return wall_ms() + b->time_ahead_ms;
}

/* Others have noted a later time than we think it is. */
static bool learn_time(struct rqlite_batches *b, uint64_t until_ms)
{
    struct rqlite_body body;
    int64_t noted_ms = 0;
    json_t *results;

    rqlite_body_init(&body, 1024);
    rqlite_body_statement(&body, "SELECT max(at) FROM " RQ_PROCESSES);
    (void)rqlite_body_end(&body);
    (void)rqlite_read(&b->conn, RQLITE_READ, &body, until_ms, &results);
    rqlite_body_fini(&body);
    if (rqlite_int(rqlite_row(results, 0, 0), 0, &noted_ms) &&
        noted_ms - wall_ms() > b->time_ahead_ms)
        b->time_ahead_ms = noted_ms - wall_ms();
    json_decref(results);
    return noted_ms != 0;
}

/* Puts the first statement in front of the body. */
static bool compose(struct rqlite_batches *b, uint64_t until_ms)
{
    struct rqlite_body *r = &b->request;
    int64_t now_ms = rqlite_batch_time_ms(b);

    rqlite_body_clear(r);
    rqlite_body_statement(r, SQL_NOTE);
    rqlite_body_int(r, b->process_id);
    rqlite_body_int(r, b->number);
    rqlite_body_int(r, now_ms);
    rqlite_body_int(r, now_ms + (int64_t)until_ms - (int64_t)rqlite_now_ms());
    rqlite_body_bytes(r, (struct lonely_span){ (const uint8_t *)b->process, strlen(b->process) });
    rqlite_body_int(r, b->keeps_macs);
    if (b->body.count > 0) { /* "[[a" and "[[b],[c" are one array "[[a],[b],[c" */
        r->failed = r->failed || b->body.failed || !buf_append_str(&r->text, "],") ||
                    !buf_append(&r->text, b->body.text.ptr + 1, b->body.text.len - 1);
        r->count += b->body.count;
    }
    return rqlite_body_end(r);
}

/* What a statement said. */
static enum rqlite_outcome judge(struct rqlite_batches *b, const char *error)
{
    if (error == NULL)
        return RQLITE_DONE;
    if (strcmp(error, RQLITE_SAYS_REPEATED) == 0)
        return RQLITE_APPLIED;
    rqlite_failed(&b->conn, "write", error);
    if (rqlite_schema_is_missing(error))
        b->schema_is_missing = true;
    return RQLITE_FAILED;
}

static enum rqlite_outcome send_until(struct rqlite_batches *b, uint64_t until_ms, json_t **results)
{
    enum rqlite_result result;
    const char *error;

    while (rqlite_now_ms() < until_ms) {
        if (!compose(b, until_ms))
            return RQLITE_FAILED;
        result = rqlite_call(&b->conn, RQLITE_WRITE, &b->request, until_ms, results);
        if (result == RQLITE_DOWN)
            break;
        if (result != RQLITE_OK) {
            rqlite_failed(&b->conn, "write", b->conn.trouble);
            return result == RQLITE_REFUSED ? RQLITE_FAILED : RQLITE_APPLIED;
        }
        error = rqlite_error(*results);
        if (error == NULL || strcmp(error, RQLITE_SAYS_LATE) != 0)
            return judge(b, error);
        json_decref(*results);
        *results = NULL;
        if (!learn_time(b, until_ms))
            break;
    }
    rqlite_failed(&b->conn, "write", b->conn.trouble);
    return RQLITE_UNKNOWN;
}

enum rqlite_outcome rqlite_batch_run(struct rqlite_batches *b, uint64_t until_ms, json_t **results)
{
    enum rqlite_outcome outcome;

    *results = NULL;
    b->number++;
    outcome = send_until(b, until_ms, results);
    rqlite_body_clear(&b->body);
    if (outcome == RQLITE_DONE) {
        (void)json_array_remove(*results, 0); /* that of our first statement */
    } else {
        json_decref(*results);
        *results = NULL;
    }
    return outcome;
}

json_t *rqlite_batch_changes(struct rqlite_batches *b, uint64_t until_ms)
{
    struct rqlite_body body;
    json_t *results;

    rqlite_body_init(&body, 1024);
    rqlite_body_statement(&body, "SELECT kind, op, " RQ_TEXT(
                                     "url") ", hex(key) FROM " RQ_CHANGES
                                            " WHERE seq > (SELECT first FROM " RQ_PROCESSES
                                            " WHERE id = ? AND batch = ?) ORDER BY seq LIMIT 1000");
    rqlite_body_int(&body, b->process_id);
    rqlite_body_int(&body, b->number);
    (void)rqlite_body_end(&body);
    (void)rqlite_read(&b->conn, RQLITE_READ, &body, until_ms, &results);
    rqlite_body_fini(&body);
    return results;
}
