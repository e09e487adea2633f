/*
 * Requests whose body goes into memory or a file (upload.h). Called by route_notify.c and route_set.c,
 * which know what the bytes mean.
 */
#include "upload.h"

void upload_release(struct request *r)
{
    struct upload *u = (struct upload *)r;

    if (u->writer != NULL)
        body_writer_abort(u->writer);
    body_unref(u->body);
}

static void resume_if_ready(struct upload *u)
{
    if (!u->checking && !u->writing)
        http_exchange_resume(u->request.exchange);
}

void upload_authorized(struct request *r, int status)
{
    struct upload *u = (struct upload *)r;

    u->checking = false;
    if (status != 0)
        request_end(r, status);
    else
        resume_if_ready(u);
}

bool upload_begin(struct upload *u, int status, uint64_t expected)
{
    struct worker *w = u->request.worker;

    if (status == REQUEST_LATER) { /* what came along with the fields is taken all the same */
        u->checking = true;
        http_exchange_pause(u->request.exchange);
    } else if (status != 0) {
        request_end(&u->request, status);
        return false;
    }
    u->writer = body_writer_create(w->lane, expected);
    return true;
}

static void on_ready(void *arg)
{
    struct upload *u = arg;

    u->writing = false;
    resume_if_ready(u);
}

static void refuse(struct upload *u, enum body_error err)
{
    if (err == BODY_BUSY)
        u->request.reason = METRICS_REASON_BUSY;
    request_end(&u->request, err == BODY_NO_ROOM ? 507 : err == BODY_BUSY ? 503 : 500);
}

void upload_add(struct upload *u, struct lonely_span bytes)
{
    switch (body_writer_add(u->writer, bytes, on_ready, u)) {
    case BODY_ADD_MORE:
        break;
    case BODY_ADD_WAIT:
        u->writing = true;
        http_exchange_pause(u->request.exchange);
        break;
    case BODY_ADD_FAILED: /* not after all that the peer still has to send */
        refuse(u, body_writer_error(u->writer));
        break;
    }
}

static void on_body(void *arg, enum body_error err, struct body *body)
{
    struct upload *u = arg;

    u->body = body;
    if (err != BODY_OK)
        refuse(u, err);
    else
        u->then(u);
}

void upload_end(struct upload *u, void (*then)(struct upload *u))
{
    struct body_writer *writer = u->writer;

    u->writer = NULL;
    u->then = then;
    body_writer_finish(writer, on_body, u);
}

bool upload_begin_message(struct upload *u, int status, uint64_t message_len)
{
    u->message_len = message_len;
    return upload_begin(u, status, message_len);
}

void upload_add_message(struct upload *u, struct lonely_span bytes)
{
    if (bytes.len > u->message_len - u->message_received) {
        request_end(&u->request, 400);
        return;
    }
    u->message_received += bytes.len;
    metrics_add(&u->request.worker->metrics->message_bytes, bytes.len);
    upload_add(u, bytes);
}

void upload_end_message(struct upload *u, void (*then)(struct upload *u))
{
    if (u->writer == NULL || u->message_received != u->message_len)
        request_end(&u->request, 400);
    else
        upload_end(u, then);
}
