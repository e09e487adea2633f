/*
 * A mount on a loop of the test's own, an application behind it that does what it is told, and a host that
 * is the test itself. Header only.
 */
#ifndef TESTS_MOUNT_FIXTURE_H
#define TESTS_MOUNT_FIXTURE_H

#include <dirent.h>
#include <string.h>
#include <unistd.h>

#include "mem.h"
#include "mount_port.h"
#include "stream.h"
#include "tables.h"

/* What the application does with a head, a piece, the end. */
enum app_does {
    APP_ANSWERS,       /* 204 at once */
    APP_KEEPS,         /* nothing: asked, and never answered by itself */
    APP_READS,         /* the body; 200 with its first bytes at its end */
    APP_PAUSES,        /* the same, paused at the first piece */
    APP_ANSWERS_EARLY, /* 413 at the first piece */
    APP_AWAITS,        /* reads, and does not answer at the end */
    APP_UPGRADES
};

struct app {
    enum app_does does;
    struct http_exchange *x; /* that is to be answered */
    char method[16], target[64], mounted[64], host[64];
    uint8_t *body;
    size_t len, cap, largest;
    unsigned heads, ends, aborts, upgrades, losses;
    struct stream *stream;
    char rest[64];
    char echoed[64];
    bool stream_closed;
};

static inline void app_answer(struct app *app, int status)
{
    struct http_exchange *x = app->x;

    app->x = NULL;
    http_exchange_respond(x, &(struct http_response){
                                 .status = status,
                                 .content_type = "text/plain",
                                 .headers = "X-One: 1\r\nX-Two:  two: 2\r\n",
                                 .body = { app->body, app->len < 8 ? app->len : 8 },
                             });
}

static inline void app_on_piece(void *arg, struct lonely_span piece)
{
    struct app *app = arg;

    while (app->cap < app->len + piece.len)
        app->body = mem_realloc(app->body, app->cap = 2 * app->cap + 4096);
    memcpy(app->body + app->len, piece.ptr, piece.len);
    app->len += piece.len;
    app->largest = piece.len > app->largest ? piece.len : app->largest;
    table_require(app->x->received == app->len, "received counts the pieces");
    if (app->does == APP_PAUSES)
        http_exchange_pause(app->x);
    else if (app->does == APP_ANSWERS_EARLY)
        app_answer(app, 413);
}

static inline void app_on_end(void *arg)
{
    struct app *app = arg;

    app->ends++;
    if (app->does != APP_AWAITS)
        app_answer(app, 200);
}

static inline void app_on_abort(void *arg)
{
    struct app *app = arg;

    app->x = NULL;
    app->aborts++;
}

static inline void app_on_read(void *arg, struct lonely_span bytes)
{
    struct app *app = arg;
    ptrdiff_t sent = stream_try_send(app->stream, &bytes, 1);

    table_require(sent == (ptrdiff_t)bytes.len, "the peer takes what it sent");
}

static inline void app_on_stream_end(void *arg)
{
    struct app *app = arg;

    stream_close(app->stream);
    app->stream = NULL;
}

static inline void app_on_stream_closed(void *arg)
{
    ((struct app *)arg)->stream_closed = true;
}

static inline void app_on_upgraded(void *arg, struct stream *stream, struct lonely_span rest)
{
    static const struct stream_events events = {
        .on_read = app_on_read,
        .on_end = app_on_stream_end,
        .on_lost = app_on_stream_end,
        .on_closed = app_on_stream_closed,
    };
    struct app *app = arg;

    app->x = NULL;
    app->stream = stream;
    if (stream == NULL) {
        app->losses++;
        return;
    }
    app->upgrades++;
    snprintf(app->rest, sizeof(app->rest), "%.*s", (int)rest.len, (const char *)rest.ptr);
    stream_attach(stream, &events, app);
    stream_read_start(stream);
}

static inline void app_copy(char *to, size_t cap, struct lonely_span from)
{
    snprintf(to, cap, "%.*s", (int)from.len, from.ptr == NULL ? "" : (const char *)from.ptr);
}

static inline void app_on_request(void *arg, struct http_exchange *x)
{
    static const struct http_body_ops ops = { app_on_piece, app_on_end, app_on_abort };
    const struct http_header *host = http_head_find(&x->head, "host");
    struct app *app = arg;

    app->heads++;
    app->x = x;
    app_copy(app->method, sizeof(app->method), x->head.method);
    app_copy(app->target, sizeof(app->target), x->head.target);
    app_copy(app->mounted, sizeof(app->mounted), x->head.mounted);
    app_copy(app->host, sizeof(app->host), host == NULL ? (struct lonely_span){ 0 } : host->value);
    if (app->does == APP_ANSWERS)
        app_answer(app, 204);
    else if (app->does == APP_UPGRADES)
        table_require(http_exchange_upgrade(x, "Upgrade: x\r\n", app_on_upgraded, app),
                      "an upgrade");
    else if (app->does != APP_KEEPS)
        http_exchange_read_body(x, &ops, app);
}

struct fixture {
    uv_loop_t loop;
    struct app app;
    struct mount_port *port;
    struct lonely_mount *mount;
    unsigned ready, drained;
    bool closed;
    struct lonely_exchange *free_when_ready;
    size_t descriptors;
};

static inline size_t open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    size_t n = 0;

    table_require(d != NULL, "/proc/self/fd");
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static inline void fixture_on_ready(void *arg)
{
    struct fixture *f = arg;

    f->ready++;
    lonely_exchange_free(f->free_when_ready);
    f->free_when_ready = NULL;
}

static inline void fixture_on_drained(void *arg)
{
    ((struct fixture *)arg)->drained++;
}

static inline void fixture_on_closed(void *arg)
{
    ((struct fixture *)arg)->closed = true;
}

static inline void fixture_open(struct fixture *f, enum app_does does, size_t max)
{
    uv_loop_t first;

    /* The first loop of a process makes pipes that stay. */
    table_require(uv_loop_init(&first) == 0 && uv_loop_close(&first) == 0, "a first loop");
    *f = (struct fixture){ .descriptors = open_descriptors() };
    f->app.does = does;
    table_require(uv_loop_init(&f->loop) == 0, "a loop");
    f->port = mount_port_create(&f->loop, max, app_on_request, &f->app);
    table_require(f->port != NULL, "a port");
    f->mount = mount_create("/p/", &f->port, 1);
}

/* Turns of the loop in which all that is due is done. */
static inline void fixture_turn(struct fixture *f)
{
    for (int i = 0; i < 8; i++)
        uv_run(&f->loop, UV_RUN_NOWAIT);
}

static inline void fixture_close_port(struct fixture *f)
{
    mount_port_close(f->port, fixture_on_closed, f);
    uv_run(&f->loop, UV_RUN_DEFAULT);
}

/* To be called when everything is answered, freed and closed. */
static inline void fixture_fini(struct fixture *f)
{
    if (!f->closed)
        fixture_close_port(f);
    table_require(f->closed, "the port to close");
    mount_destroy(f->mount);
    table_require(uv_loop_close(&f->loop) == 0, "a loop without handles");
    mem_free(f->app.body);
    table_require(open_descriptors() == f->descriptors, "no descriptor left open");
}

static inline struct lonely_span text_span(const char *text)
{
    return (struct lonely_span){ (const uint8_t *)text, strlen(text) };
}

static inline struct lonely_exchange *fixture_begin(struct fixture *f, const char *target,
                                                    uint64_t length)
{
    const struct lonely_exchange_header headers[] = { { text_span("Host"), text_span("h:1") } };
    const struct lonely_exchange_request request = {
        .method = text_span("POST"),
        .target = text_span(target),
        .headers = headers,
        .header_count = 1,
        .content_length = length,
    };
    struct lonely_exchange *x = lonely_mount_begin(f->mount, &request, fixture_on_ready, f);

    table_require(x != NULL, "an exchange");
    return x;
}

static inline int status_of(struct lonely_exchange *x)
{
    const struct lonely_exchange_response *r = lonely_exchange_response(x);

    return r == NULL ? 0 : r->status;
}

#endif
