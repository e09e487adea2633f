/*
 * The job of a notify (http_notify.h): its head, its message as the source, its answer.
 */
#include "http_notify.h"

#include <string.h>

#include "mem.h"

struct notify_job {
    struct http_job job; /* first */
    struct http_notifies *all;
    struct notify *n;
    uint8_t identifier[4];
    uint8_t *head;
    size_t head_cap;
    uint8_t *tracing;
    size_t tracing_len;
    uint32_t notified;
    bool waited;
};

static const struct lonely_client_tracer *tracer_of(const struct notify_job *j)
{
    return &j->n->cmd.client->conf.tracer;
}

static ptrdiff_t read_source(void *arg, uint64_t at, uint8_t *to, size_t len)
{
    struct notify_job *j = arg;
    ptrdiff_t n = notify_read(j->n, at, to, len);

    if (n <= 0) {
        j->job.source_failed = true;
        return HTTP_SOURCE_FAIL;
    }
    notify_progress(j->n, at + (uint64_t)n);
    return n;
}

static bool prepare(struct http_job *job, struct lonely_auth_input *in)
{
    struct notify_job *j = (struct notify_job *)job;
    const struct lonely_client_tracer *tracer = tracer_of(j);
    struct lonely_client *c = job->jobs->client;
    struct lonely_stateless fields = {
        .topic = j->n->topic,
        .hash = { j->n->sha512, LONELY_SHA512_BYTES },
        .identifier = { j->identifier, sizeof(j->identifier) },
        .message_len = j->n->size,
    };
    struct lonely_result written;

    client_random(c, j->identifier, sizeof(j->identifier));
    if (j->waited && tracer->retrying != NULL)
        tracer->retrying(tracer->arg, j->n->trace_id);
    j->waited = false;
    if (tracer->sending != NULL)
        j->tracing_len = tracer->sending(tracer->arg, j->n->trace_id, job->broadcaster->url,
                                         fields.identifier, j->tracing, LONELY_FIELD16_MAX_BYTES);
    fields.tracing = (struct lonely_span){ j->tracing, j->tracing_len };
    written = lonely_stateless_write(LONELY_STATELESS_NOTIFY, &fields, j->head, j->head_cap);
    if (written.err != LONELY_OK)
        return false;
    job->body = (struct lonely_span){ j->head, written.at };
    job->source = (struct http_source){ .size = j->n->size, .read = read_source, .arg = j };
    *in = (struct lonely_auth_input){
        .op = LONELY_AUTH_NOTIFY,
        .tracing = fields.tracing,
        .topic = fields.topic,
        .identifier = fields.identifier,
        .hash = fields.hash,
    };
    return true;
}

static bool is_confirmation(struct notify_job *j, struct lonely_span body,
                            struct lonely_stateless *reply)
{
    return lonely_stateless_parse(LONELY_STATELESS_RESPONSE_NOTIFY, body, reply).err == LONELY_OK &&
           reply->identifier.len == sizeof(j->identifier) &&
           memcmp(reply->identifier.ptr, j->identifier, sizeof(j->identifier)) == 0;
}

static enum lonely_auth_result check(struct notify_job *j, const struct lonely_stateless *reply)
{
    const struct lonely_auth_input in = {
        .op = LONELY_AUTH_CONFIRM_NOTIFY,
        .tracing = reply->tracing,
        .topic = j->n->topic,
        .identifier = reply->identifier,
        .hash = { j->n->sha512, LONELY_SHA512_BYTES },
        .subscribers = reply->count,
    };

    return client_verify(j->n->cmd.client, &in, lonely_auth_field(&reply->authorization));
}

/* The status is only looked at where the body confirms nothing. */
static enum http_verdict judge_failure(int http_status, enum lonely_client_error *err)
{
    if (http_status == 401 || http_status == 403) {
        *err = LONELY_CLIENT_FORBIDDEN;
        return HTTP_JOB_STOP;
    }
    if (http_status >= 400 && http_status < 500) {
        *err = LONELY_CLIENT_REFUSED;
        return HTTP_JOB_STOP;
    }
    return http_status >= 502 && http_status <= 504 ? HTTP_JOB_UNAVAILABLE : HTTP_JOB_BAD;
}

static enum http_verdict judge(struct http_job *job, int http_status, struct lonely_span body,
                               enum lonely_client_error *err)
{
    struct notify_job *j = (struct notify_job *)job;
    const struct lonely_client_tracer *tracer = tracer_of(j);
    struct lonely_stateless reply;
    enum lonely_auth_result result;

    if (tracer->response_received != NULL)
        tracer->response_received(tracer->arg, j->n->trace_id, http_status);
    if (!is_confirmation(j, body, &reply)) {
        if (tracer->bad_response != NULL)
            tracer->bad_response(tracer->arg, j->n->trace_id);
        return judge_failure(http_status, err);
    }
    result = check(j, &reply);
    if (result != LONELY_AUTH_OK) {
        if (tracer->bad_authorization != NULL)
            tracer->bad_authorization(tracer->arg, j->n->trace_id, lonely_auth_result_str(result));
        return result == LONELY_AUTH_UNAVAILABLE ? HTTP_JOB_BAD : HTTP_JOB_FORGED;
    }
    j->notified = reply.count;
    if (tracer->accepted != NULL)
        tracer->accepted(tracer->arg, j->n->trace_id, reply.tracing, reply.count);
    return HTTP_JOB_DONE;
}

static void on_failed(struct http_job *job, enum http_call_status status)
{
    struct notify_job *j = (struct notify_job *)job;
    const struct lonely_client_tracer *tracer = tracer_of(j);

    (void)status;
    if (tracer->network_error != NULL)
        tracer->network_error(tracer->arg, j->n->trace_id);
}

static void on_waiting(struct http_job *job)
{
    struct notify_job *j = (struct notify_job *)job;
    const struct lonely_client_tracer *tracer = tracer_of(j);

    j->waited = true;
    if (tracer->waiting_to_retry != NULL)
        tracer->waiting_to_retry(tracer->arg, j->n->trace_id);
}

static void start(struct http_notifies *all, struct notify *n);

static void on_done(struct http_job *job, enum lonely_client_error err)
{
    struct notify_job *j = (struct notify_job *)job;
    struct http_notifies *all = j->all;
    struct notify *n = j->n;
    uint32_t notified = err == LONELY_CLIENT_OK ? j->notified : 0;
    struct list *node;

    mem_free(j->head);
    mem_free(j->tracing);
    mem_free(j);
    all->running--;
    notify_done(n, err, notified);
    if (all->running < HTTP_NOTIFIES_RUNNING && (node = list_pop_front(&all->waiting)) != NULL) {
        all->n_waiting--;
        start(all, list_entry(node, struct notify, node));
    }
}

static void start(struct http_notifies *all, struct notify *n)
{
    static const struct http_job_ops ops = {
        .prepare = prepare,
        .judge = judge,
        .failed = on_failed,
        .waiting = on_waiting,
        .done = on_done,
    };
    struct notify_job *j = mem_calloc(1, sizeof(*j));
    bool traces = n->cmd.client->conf.tracer.sending != NULL;

    j->job.ops = &ops;
    j->job.path = "/v1/notify";
    j->all = all;
    j->n = n;
    /* Topic, hash, tracing, identifier and their lengths. */
    j->head_cap = n->topic.len + 128 + (traces ? LONELY_FIELD16_MAX_BYTES : 0);
    j->head = mem_alloc(j->head_cap);
    j->tracing = traces ? mem_alloc(LONELY_FIELD16_MAX_BYTES) : NULL;
    all->running++;
    http_job_start(all->jobs, &j->job);
}

void http_notifies_init(struct http_notifies *all, struct http_jobs *jobs)
{
    *all = (struct http_notifies){ .jobs = jobs };
    list_init(&all->waiting);
}

void http_notifies_add(struct http_notifies *all, struct notify *n)
{
    if (all->running < HTTP_NOTIFIES_RUNNING) {
        start(all, n);
    } else if (all->n_waiting >= all->jobs->client->conf.max_unsent_notifications) {
        notify_done(n, LONELY_CLIENT_QUEUE_FULL, 0);
    } else {
        all->n_waiting++;
        list_push_back(&all->waiting, &n->node);
    }
}

void http_notifies_abandon(struct http_notifies *all)
{
    struct list *node;

    while ((node = list_pop_front(&all->waiting)) != NULL)
        notify_done(list_entry(node, struct notify, node), LONELY_CLIENT_ABANDONED, 0);
    all->n_waiting = 0;
}
