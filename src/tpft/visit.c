/*
 * Visits (visit.h): letters by phase, jobs, the end.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "show.h"
#include "visit_private.h"

#define IDLE_BYTES_PER_MS (16u * 1024) /* what a slow disk reads or writes */
#define IDLE_MS_MAX       86400000u

static struct visit *of_conn(const struct tinyproto_conn *conn)
{
    return *(struct visit **)tinyproto_conn_data(conn);
}

/* ---- Jobs ---- */

static void on_work(uv_work_t *work)
{
    struct visit *v = work->data;

    v->job(v);
}

static void finish(struct visit *v);

static void on_worked(uv_work_t *work, int status)
{
    struct visit *v = work->data;

    (void)status;
    v->is_working = false;
    if (v->conn == NULL)
        finish(v);
    else
        v->after(v);
}

void visit_work(struct visit *v, void (*job)(struct visit *v), void (*after)(struct visit *v))
{
    v->job = job;
    v->after = after;
    v->fault = fault_of(FAULT_NONE);
    v->is_working = true;
    v->work.data = v;
    (void)uv_queue_work(&v->shop->loop, &v->work, on_work, on_worked);
}

void visit_work_alone(struct visit *v, void (*job)(struct visit *v), void (*after)(struct visit *v))
{
    v->phase = VISIT_WORKING;
    tinyproto_conn_set_idle_timeout(v->conn, 0);
    visit_pause(v);
    visit_work(v, job, after);
}

void visit_pause(struct visit *v)
{
    v->is_paused = true;
    tinyproto_conn_pause(v->conn);
}

void visit_resume(struct visit *v)
{
    if (!v->is_paused)
        return;
    v->is_paused = false;
    tinyproto_conn_set_idle_timeout(v->conn, v->shop->idle_ms);
    tinyproto_conn_resume(v->conn);
}

void visit_be_patient(struct visit *v, uint64_t bytes)
{
    uint64_t ms = v->shop->idle_ms + bytes / IDLE_BYTES_PER_MS;

    tinyproto_conn_set_idle_timeout(v->conn, ms < IDLE_MS_MAX ? (uint32_t)ms : IDLE_MS_MAX);
}

/* ---- Letters out ---- */

void visit_note(const struct visit *v, const char *format, ...)
{
    char line[512];
    va_list args;

    if (!v->shop->is_verbose)
        return;
    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    show_line("[%s] %s", v->conn != NULL ? tinyproto_conn_id(v->conn) : "gone", line);
}

void visit_say(struct visit *v, const struct letter *letter)
{
    char text[1024]; /* none has a path */
    size_t len = letter_print(letter, text, sizeof(text));

    if (len == 0 || tinyproto_transmit(v->conn, text, len) != TINYPROTO_OK)
        tinyproto_abort(v->conn);
}

static void say_rejected(struct visit *v, struct fault fault)
{
    char text[FAULT_TEXT_MAX];
    struct letter letter = { .type = LETTER_REJECTED, .given = LETTER_REASON };

    letter.reason.ptr = fault_text(fault, text, sizeof(text));
    letter.reason.len = strlen(text);
    visit_note(v, "rejected: %s", text);
    visit_say(v, &letter);
}

void visit_reject(struct visit *v, struct fault fault)
{
    v->phase = VISIT_IDLE;
    say_rejected(v, fault);
    visit_resume(v);
}

void visit_reject_and_close(struct visit *v, struct fault fault)
{
    say_rejected(v, fault);
    tinyproto_close(v->conn);
}

/* ---- Letters in ---- */

static void on_request(struct visit *v, const struct letter *letter)
{
    if (letter->type == LETTER_UPLOAD_REQUEST)
        upload_request(v, letter);
    else if (letter->type == LETTER_DOWNLOAD_REQUEST)
        download_request(v, letter);
    else
        visit_reject(v, fault_of(FAULT_REQUEST));
}

static void on_letter(struct visit *v, const struct letter *letter)
{
    if (letter->type == LETTER_CLOSE) {
        tinyproto_close(v->conn);
        return;
    }
    switch (v->phase) {
    case VISIT_IDLE:
        on_request(v, letter);
        break;
    case VISIT_AWAIT_OFFSET:
        upload_offset(v, letter);
        break;
    case VISIT_AWAIT_SUM:
        upload_sum(v, letter);
        break;
    case VISIT_AWAIT_ACCEPT:
        download_accepted(v, letter);
        break;
    case VISIT_AWAIT_VERDICT:
        download_verdict(v, letter);
        break;
    case VISIT_WORKING:
    case VISIT_RECEIVING:
    case VISIT_SENDING: /* not while a chunk of ours is under way */
        tinyproto_abort(v->conn);
        break;
    }
}

static void on_message(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    struct visit *v = of_conn(conn);
    char *text = malloc(message->len + 1);
    struct letter letter;

    if (text == NULL)
        visit_reject_and_close(v, fault_of(FAULT_MEMORY));
    else if (!letter_parse(message->ptr, message->len, text, &letter))
        visit_reject_and_close(v, fault_of(FAULT_LETTER));
    else
        on_letter(v, &letter);
    free(text);
}

static enum tinyproto_delivery on_begin(struct tinyproto_conn *conn, size_t size)
{
    struct visit *v = of_conn(conn);

    if (v->phase == VISIT_RECEIVING)
        return upload_begin(v, size);
    return size <= LETTER_MAX ? TINYPROTO_WHOLE : TINYPROTO_REFUSE;
}

static void on_data(struct tinyproto_conn *conn, const uint8_t *ptr, size_t len)
{
    upload_data(of_conn(conn), ptr, len);
}

const struct tinyproto_handler visit_handler = {
    .data_size = sizeof(struct visit *),
    .begin = on_begin,
    .transmission_received = on_message,
    .data = on_data,
};

/* ---- Begin and end ---- */

bool visit_begin(struct tinyproto_server *server, struct tinyproto_conn *conn)
{
    struct visit *v = calloc(1, sizeof(*v));

    *(struct visit **)tinyproto_conn_data(conn) = v;
    if (v == NULL)
        return false;
    v->shop = tinyproto_server_arg(server);
    v->conn = conn;
    v->sink.fd = -1;
    v->source.fd = -1;
    tinyproto_conn_set_idle_timeout(conn, v->shop->idle_ms);
    visit_note(v, "connected: %s", tinyproto_conn_peer(conn));
    return true;
}

static void job_drop(struct visit *v)
{
    sink_drop(&v->sink);
}

/* The connection is gone and no job runs. */
static void finish(struct visit *v)
{
    if (v->sink.fd >= 0) {
        visit_work(v, job_drop, NULL);
        return;
    }
    source_close(&v->source);
    sum_destroy(v->sum);
    free(v->filling.ptr);
    free(v->writing.ptr);
    free(v);
}

void visit_end(struct tinyproto_server *server, struct tinyproto_conn *conn,
               const struct tinyproto_cause *why)
{
    struct visit *v = of_conn(conn);
    char text[TINYPROTO_CAUSE_MAX];

    (void)server;
    if (v == NULL)
        return;
    visit_note(v, "closed: %s",
               why->err == TINYPROTO_OK ? "in order"
                                        : tinyproto_cause_print(why, text, sizeof(text)));
    v->conn = NULL;
    if (!v->is_working)
        finish(v);
}
