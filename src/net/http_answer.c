/*
 * Output of an HTTP connection: 100 Continue, the application's answers, our own errors; and what
 * becomes of the connection behind an answer. Input is http_conn.c's.
 */
#include <assert.h>

#include "http_conn.h"
#include "http_response.h"
#include "mem.h"

static const char continue_text[] = "HTTP/1.1 100 Continue\r\n\r\n";

/* Sends what the peer takes now; the rest follows from `out`, or from static memory. false: the
 * connection is lost. */
static bool transmit(struct http_conn *c, struct lonely_span bytes, bool is_static)
{
    ptrdiff_t sent = stream_try_send(c->stream, &bytes, 1);

    if (sent == STREAM_LOST)
        return false;
    bytes.ptr += sent;
    bytes.len -= (size_t)sent;
    if (bytes.len == 0)
        return true;
    if (!is_static) {
        c->out = mem_dup(bytes.ptr, bytes.len);
        bytes.ptr = c->out;
    }
    c->sending = true;
    stream_send(c->stream, &bytes, 1);
    return true;
}

static void transmit_or_close(struct http_conn *c, struct lonely_span bytes)
{
    if (c->sending) { /* the rest of a 100 Continue */
        c->out_next = mem_dup(bytes.ptr, bytes.len);
        c->out_next_len = bytes.len;
    } else if (!transmit(c, bytes, false)) {
        http_conn_close(c);
    }
}

void http_answer_sent(struct http_conn *c)
{
    uint8_t *next = c->out_next;

    mem_free(c->out);
    c->out = NULL;
    c->sending = false;
    if (next != NULL) {
        c->out_next = NULL;
        transmit_or_close(c, (struct lonely_span){ next, c->out_next_len });
        mem_free(next);
    }
    if (c->state == CONN_SWITCHING)
        http_conn_schedule(c);
    else
        http_answer_settle(c);
}

void http_answer_continue(struct http_conn *c)
{
    struct lonely_span text = { (const uint8_t *)continue_text, sizeof(continue_text) - 1 };

    /* A lost connection is noticed by reading on. */
    (void)transmit(c, text, true);
}

/* May another request follow on this connection, once the present one is answered now? */
static bool may_keep(const struct http_conn *c)
{
    uint64_t left = c->body_done ? 0 : request_parser_left(&c->parser);

    if (!c->parser.keep_alive || c->server->draining || c->peer_ended)
        return false;
    if (left == 0)
        return true;
    /* A peer that waits for 100 Continue may send its body or not: nobody could tell where the next
     * request begins. */
    if (c->parser.expect_continue && c->body_ops == NULL)
        return false;
    return left == HTTP_LENGTH_UNKNOWN || left <= c->server->conf.discard_bytes;
}

/* The present second as text: formatted, and the clock read, no more than once in it. */
static const char *date_of(struct http_server *server)
{
    const struct clock *clock = server->conf.clock;
    uint64_t now_ms = uv_now(server->loop);
    int64_t wall_ms;

    if (clock == NULL)
        return NULL;
    if (now_ms >= server->date_until_ms) {
        wall_ms = clock_wall_ns(clock) / 1000000;
        http_date_format(wall_ms / 1000, server->date);
        server->date_until_ms = now_ms + 1000 - (uint64_t)(wall_ms % 1000);
    }
    return server->date;
}

static void send_response(struct http_conn *c, const struct http_response *r, bool no_body)
{
    enum http_response_connection connection = !c->keep                ? HTTP_CONNECTION_CLOSE
                                               : c->parser.version_1_0 ? HTTP_CONNECTION_KEEP_ALIVE
                                                                       : HTTP_CONNECTION_UNSAID;
    size_t room = http_response_room(r), len;
    uint8_t *to = room <= HTTP_ANSWER_SCRATCH ? c->server->scratch : mem_alloc(room);

    c->discarded = 0;
    http_conn_enter(c, CONN_ANSWERED);
    len = http_response_write(r, connection, date_of(c->server), no_body, to);
    transmit_or_close(c, (struct lonely_span){ to, len });
    if (to != c->server->scratch)
        mem_free(to);
    http_answer_settle(c);
}

bool http_answer_switch(struct http_conn *c, const char *headers)
{
    const struct http_response r = { .status = 101, .headers = headers };
    size_t room = http_response_room(&r), len;
    uint8_t *to = room <= HTTP_ANSWER_SCRATCH ? c->server->scratch : mem_alloc(room);
    bool ok;

    len = http_response_write(&r, HTTP_CONNECTION_UNSAID, date_of(c->server), true, to);
    ok = transmit(c, (struct lonely_span){ to, len }, false);
    if (to != c->server->scratch)
        mem_free(to);
    return ok;
}

void http_answer_respond(struct http_exchange *x, const struct http_response *response)
{
    struct http_conn *c = list_entry(x, struct http_conn, x);

    if (c->state == CONN_CLOSED) {
        c->awaited = false;
        http_conn_release(c);
        return;
    }
    assert(c->state >= CONN_ASKED && c->state <= CONN_ENDED); /* answered once */
    c->keep = may_keep(c);
    send_response(c, response, c->parser.no_reply_body);
}

void http_answer_error(struct http_conn *c, int status)
{
    const struct http_response response = { .status = status };

    if (c->server->conf.on_reject != NULL)
        c->server->conf.on_reject(c->server->app, status, c->x.peer);
    c->keep = false;
    c->body_done = false;
    c->deaf = true;
    send_response(c, &response, false);
}

/* Has the peer sent more than the request that was answered? */
static bool more_has_come(const struct http_conn *c)
{
    /* While advance() runs, what it has used up is still kept. */
    bool read = c->advancing ? c->more_input : c->kept.len > 0;

    return read || stream_has_unread(c->stream);
}

/* The answer says close. While more may be coming from the peer, closing at once would reset the
 * connection and might take the answer with it. */
static void finish(struct http_conn *c)
{
    if (c->peer_ended || (c->body_done && !more_has_come(c))) {
        http_conn_close(c);
        return;
    }
    stream_shutdown(c->stream);
    http_conn_enter(c, CONN_LINGER);
    http_conn_wake(c);
}

void http_answer_settle(struct http_conn *c)
{
    if (c->state != CONN_ANSWERED)
        return;
    if (!c->sending && (!c->keep || c->server->draining)) {
        finish(c);
    } else if (!c->sending && c->body_done) {
        http_conn_enter(c, CONN_IDLE);
        http_conn_wake(c);
    } else {
        if (!c->due.set)
            deadline_set(&c->server->deadlines, DEADLINE_LINGER, &c->due,
                         c->server->conf.header_timeout_ms);
        http_conn_wake(c);
    }
}
