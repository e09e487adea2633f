/*
 * The life of one HTTP connection and its input: bytes from the stream go through the parser to
 * the application. http_server.c makes connections, http_answer.c does their output.
 *
 * One exchange at a time. While its answer is awaited input is not looked at: what has been read by
 * then is kept, and reading stops when something comes. (Not before: a peer that does not
 * pipeline, as hardly any does, then costs no system call to stop and start.) No callback of the
 * application runs inside its own call: input that waits is looked at in a turn of its own.
 */
#include "http_conn.h"

#include <unistd.h>

#include "mem.h"

static const struct http_exchange_ops exchange_ops;

static bool takes_input(const struct http_conn *c)
{
    switch (c->state) {
    case CONN_IDLE:
    case CONN_HEAD:
    case CONN_BODY:
    case CONN_LINGER:
        return true;
    case CONN_ANSWERED:
        return !c->body_done;
    case CONN_ASKED:
    case CONN_PAUSED:
    case CONN_ENDED:
    case CONN_SWITCHING:
    case CONN_CLOSED:
        break;
    }
    return false;
}

static void set_deadline(struct http_conn *c, enum conn_deadline kind, uint64_t after_ms)
{
    deadline_set(&c->server->deadlines, kind, &c->due, after_ms);
}

static void begin_body_time(struct http_conn *c)
{
    const struct http_server_conf *conf = &c->server->conf;
    uint64_t total = conf->body_timeout_ms;

    c->body_since_ms = uv_now(c->server->loop);
    set_deadline(c, DEADLINE_BODY_IDLE, conf->body_idle_timeout_ms);
    if (total > 0)
        deadline_set(&c->server->deadlines, DEADLINE_BODY_TOTAL, &c->due_total,
                     total > c->body_ms ? total - c->body_ms : 1);
}

static void end_body_time(struct http_conn *c)
{
    c->body_ms += uv_now(c->server->loop) - c->body_since_ms;
    deadline_clear(&c->due_total);
}

/* The one place where the state changes, and deadlines with it. */
void http_conn_enter(struct http_conn *c, enum conn_state state)
{
    const struct http_server_conf *conf = &c->server->conf;

    if (c->state == CONN_BODY)
        end_body_time(c);
    c->state = state;
    if (state == CONN_LINGER && c->due.set)
        return; /* one time for all that comes behind an answer */
    deadline_clear(&c->due);
    if (state == CONN_IDLE)
        set_deadline(c, DEADLINE_KEEPALIVE, conf->keepalive_timeout_ms);
    else if (state == CONN_HEAD)
        set_deadline(c, DEADLINE_HEADER, conf->header_timeout_ms);
    else if (state == CONN_BODY)
        begin_body_time(c);
    else if (state == CONN_LINGER)
        set_deadline(c, DEADLINE_LINGER, conf->header_timeout_ms);
    else if (state == CONN_SWITCHING)
        set_deadline(c, DEADLINE_UPGRADE, conf->upgrade_timeout_ms);
}

void http_conn_release(struct http_conn *c)
{
    struct http_server *server = c->server;

    if (c->stream != NULL || c->awaited)
        return;
    if (server != NULL) {
        list_remove(&c->node);
        server->count--;
    }
    mem_free(c);
    if (server != NULL)
        http_server_conn_gone(server);
}

static void on_closed(void *arg)
{
    struct http_conn *c = arg;
    struct http_server *server = c->server;

    c->stream = NULL;
    http_server_peer_gone(server, &c->peer);
    mem_free(c->out);
    mem_free(c->out_next);
    buf_fini(&c->kept);
    server->streams--;
    if (c->abort_late)
        c->body_ops->on_abort(c->body_arg);
    http_conn_release(c);
    http_server_check_closed(server);
}

void http_conn_close(struct http_conn *c)
{
    enum conn_state state = c->state;

    if (state == CONN_CLOSED)
        return;
    http_conn_enter(c, CONN_CLOSED);
    c->awaited = state == CONN_ASKED || state == CONN_ENDED;
    list_remove(&c->ready_node);
    request_parser_fini(&c->parser);
    stream_close(c->stream);
    if (state == CONN_BODY || state == CONN_PAUSED)
        c->body_ops->on_abort(c->body_arg);
    else if (state == CONN_SWITCHING)
        c->on_upgraded(c->upgraded_arg, NULL, (struct lonely_span){ 0 });
}

/* The body will not be complete: tells the application, and the peer by `status`. */
static void abort_body(struct http_conn *c, int status)
{
    http_conn_enter(c, CONN_ANSWERED); /* the exchange is gone */
    c->body_ops->on_abort(c->body_arg);
    if (c->state == CONN_ANSWERED) /* the application may have closed the server */
        http_answer_error(c, status);
}

void http_conn_on_due(void *server, unsigned kind, struct deadline *d)
{
    struct http_conn *c = kind == DEADLINE_BODY_TOTAL ? list_entry(d, struct http_conn, due_total)
                                                      : list_entry(d, struct http_conn, due);

    (void)server;
    if (kind == DEADLINE_HEADER)
        http_answer_error(c, 408);
    else if (kind == DEADLINE_BODY_IDLE || kind == DEADLINE_BODY_TOTAL)
        abort_body(c, 408);
    else
        http_conn_close(c);
}

/* Events of the parser. */

static void on_head(struct http_conn *c)
{
    http_conn_enter(c, CONN_ASKED);
    c->body_ops = NULL;
    c->body_ms = 0;
    c->x.received = 0;
    c->body_done = c->x.head.content_length == 0;
    c->server->on_request(c->server->app, &c->x);
    c->x.head.headers = NULL; /* a use after on_request shows at once */
    c->x.head.header_count = 0;
}

/* Bytes behind an answer, thrown away up to the bound. */
static void discard(struct http_conn *c, size_t len)
{
    c->discarded += len;
    if (c->discarded > c->server->conf.discard_bytes)
        http_conn_close(c);
}

static void on_piece(struct http_conn *c, const struct request_step *step)
{
    if (c->state != CONN_BODY)
        return;
    c->x.received += step->piece.len;
    c->body_ops->on_piece(c->body_arg, step->piece);
}

static void on_message_end(struct http_conn *c)
{
    c->body_done = true;
    if (c->state == CONN_BODY) {
        http_conn_enter(c, CONN_ENDED);
        c->body_ops->on_end(c->body_arg);
    } else {
        http_answer_settle(c);
    }
}

static void stop_listening(struct http_conn *c)
{
    c->deaf = true;
    c->keep = false;
    http_answer_settle(c);
}

static void on_bad(struct http_conn *c, int status)
{
    if (c->state == CONN_BODY)
        abort_body(c, status);
    else if (c->state == CONN_ANSWERED)
        stop_listening(c); /* nonsense in a body that was being thrown away */
    else
        http_answer_error(c, status);
}

/* Has the parser look at `in` while the state allows. Returns how many bytes are done with. */
static size_t advance(struct http_conn *c, struct lonely_span in)
{
    size_t at = 0;
    bool more = true;

    c->advancing = true;
    while (more && takes_input(c)) {
        struct request_step step;

        if (c->state == CONN_LINGER || c->deaf) {
            discard(c, in.len - at);
            at = in.len;
            break;
        }
        step = request_parser_next(&c->parser, (struct lonely_span){ in.ptr + at, in.len - at },
                                   &c->x.head);
        at += step.used;
        c->more_input = at < in.len;
        if (c->state == CONN_ANSWERED)
            discard(c, step.used);
        if (c->state == CONN_CLOSED)
            break;
        switch (step.event) {
        case REQUEST_MORE:
            more = false;
            break;
        case REQUEST_HEAD:
            on_head(c);
            break;
        case REQUEST_PIECE:
            on_piece(c, &step);
            break;
        case REQUEST_END:
            on_message_end(c);
            break;
        case REQUEST_BAD:
            on_bad(c, step.status);
            break;
        }
    }
    c->advancing = false;
    return at;
}

static void set_reading(struct http_conn *c, bool reading)
{
    if (c->reading == reading)
        return;
    c->reading = reading;
    if (reading)
        stream_read_start(c->stream);
    else
        stream_read_stop(c->stream);
}

void http_conn_stop_reading(struct http_conn *c)
{
    set_reading(c, false);
}

static void on_peer_ended(struct http_conn *c)
{
    c->keep = false;
    if (takes_input(c) && !c->sending)
        http_conn_close(c); /* what it was sending will never be complete */
}

/* After a look at the input: sees to reading, and to the deadline of a head. */
static void after_advance(struct http_conn *c)
{
    if (c->state == CONN_CLOSED)
        return;
    if (c->state == CONN_IDLE && c->kept.len > 0)
        http_conn_enter(c, CONN_HEAD);
    else if (c->state == CONN_BODY)
        set_deadline(c, DEADLINE_BODY_IDLE, c->server->conf.body_idle_timeout_ms);
    if (takes_input(c))
        set_reading(c, true);
    else if (c->kept.len > 0 || c->state == CONN_PAUSED)
        set_reading(c, false);
}

/* false: no memory, and the connection is closed. */
static bool keep(struct http_conn *c, struct lonely_span bytes)
{
    if (buf_append(&c->kept, bytes.ptr, bytes.len))
        return true;
    http_conn_close(c);
    return false;
}

static void advance_kept(struct http_conn *c)
{
    const uint8_t *ptr = c->kept.len > 0 ? c->kept.ptr : (const uint8_t *)"";
    size_t used = advance(c, (struct lonely_span){ ptr, c->kept.len });

    if (used == c->kept.len)
        buf_fini(&c->kept); /* an idle connection holds no buffer */
    else
        buf_consume(&c->kept, used);
    after_advance(c);
}

static void on_read(void *arg, struct lonely_span bytes)
{
    struct http_conn *c = arg;
    size_t used;

    if (c->kept.len > 0 || !takes_input(c)) {
        if (!keep(c, bytes))
            return;
        if (takes_input(c))
            advance_kept(c);
        else
            set_reading(c, false);
        return;
    }
    used = advance(c, bytes);
    if (used < bytes.len && c->state != CONN_CLOSED &&
        !keep(c, (struct lonely_span){ bytes.ptr + used, bytes.len - used }))
        return;
    after_advance(c);
}

static void on_end(void *arg)
{
    struct http_conn *c = arg;

    c->peer_ended = true;
    c->reading = false;
    on_peer_ended(c);
}

static void on_lost(void *arg)
{
    http_conn_close(arg);
}

static void on_sent(void *arg)
{
    http_answer_sent(arg);
}

/* From here on it is a connection that has sent nothing yet. */
static void on_open(void *arg)
{
    struct http_conn *c = arg;

    if (c->state == CONN_IDLE)
        http_conn_enter(c, CONN_IDLE);
}

const struct stream_events http_conn_events = {
    .on_read = on_read,
    .on_end = on_end,
    .on_sent = on_sent,
    .on_lost = on_lost,
    .on_closed = on_closed,
    .on_open = on_open,
};

void http_conn_wake(struct http_conn *c)
{
    if (c->advancing || (c->kept.len == 0 && c->reading))
        return; /* what comes next comes from the stream */
    http_conn_schedule(c);
}

void http_conn_schedule(struct http_conn *c)
{
    if (c->state == CONN_CLOSED || list_is_linked(&c->ready_node))
        return;
    list_push_back(&c->server->ready, &c->ready_node);
    http_server_schedule(c->server);
}

void http_conn_ready(struct http_conn *c)
{
    if (c->state == CONN_SWITCHING)
        http_upgrade_go_on(c);
    else if (takes_input(c))
        advance_kept(c);
    else
        after_advance(c);
}

/* What the application may do with its exchange. */

static void exchange_read_body(struct http_exchange *x, const struct http_body_ops *ops, void *arg)
{
    struct http_conn *c = list_entry(x, struct http_conn, x);

    c->body_ops = ops;
    c->body_arg = arg;
    if (c->state == CONN_CLOSED) { /* the application has closed the server just before */
        c->awaited = false;
        c->abort_late = true;
        return;
    }
    http_conn_enter(c, CONN_BODY);
    if (c->parser.expect_continue && !c->more_input && !c->body_done)
        http_answer_continue(c);
}

static void exchange_pause(struct http_exchange *x)
{
    struct http_conn *c = list_entry(x, struct http_conn, x);

    if (c->state != CONN_BODY)
        return;
    http_conn_enter(c, CONN_PAUSED);
    set_reading(c, false);
}

static void exchange_resume(struct http_exchange *x)
{
    struct http_conn *c = list_entry(x, struct http_conn, x);

    if (c->state != CONN_PAUSED)
        return;
    http_conn_enter(c, CONN_BODY);
    http_conn_wake(c);
}

static const struct http_exchange_ops exchange_ops = {
    .read_body = exchange_read_body,
    .pause = exchange_pause,
    .resume = exchange_resume,
    .respond = http_answer_respond,
    .upgrade = http_upgrade,
};

struct http_conn *http_conn_create(struct http_server *server)
{
    struct http_conn *c = mem_try_calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->x.ops = &exchange_ops;
    c->peer.sa.sa_family = AF_UNSPEC;
    c->server = server;
    request_parser_init(&c->parser, &server->pool, server->conf.max_header_bytes);
    buf_init(&c->kept, (size_t)server->conf.max_header_bytes + 2 * sizeof(server->buffer.bytes));
    list_init(&c->ready_node);
    return c;
}

void http_conn_begin(struct http_conn *c, struct stream *stream)
{
    struct http_server *server = c->server;

    c->stream = stream;
    list_push_back(&server->conns, &c->node);
    server->count++;
    server->streams++;
    http_conn_enter(c, CONN_IDLE);
    set_reading(c, true);
}

static struct stream *open_stream(struct http_conn *c, int fd, struct tls_server *tls)
{
    struct http_server *server = c->server;

    if (tls == NULL)
        return stream_tcp_open(server->loop, fd, &server->buffer, &http_conn_events, c);
    return stream_tls_open(server->tls, tls, fd, &server->buffer, &http_conn_events, c);
}

void http_conn_open(struct http_server *server, int fd, struct tls_server *tls,
                    const union peer_address *peer)
{
    struct http_conn *c = http_conn_create(server);
    struct stream *stream;

    if (c == NULL) {
        http_server_peer_gone(server, peer);
        close(fd);
        return;
    }
    c->peer = *peer;
    c->x.secure = tls != NULL;
    if (peer->sa.sa_family == AF_INET || peer->sa.sa_family == AF_INET6)
        c->x.peer = &c->peer.sa;
    stream = open_stream(c, fd, tls);
    if (stream == NULL) {
        http_server_peer_gone(server, peer);
        mem_free(c);
        return;
    }
    http_conn_begin(c, stream);
    if (tls != NULL)
        set_deadline(c, DEADLINE_HANDSHAKE, server->conf.header_timeout_ms);
}
