/*
 * Attempts, verdicts and pauses (http_job.h). Called by link_http.c and http_notify.c.
 */
#include "http_job.h"

#include <stdio.h>
#include <string.h>

#include "mem.h"

static void next(struct http_job *job);

static uint64_t none_to_zero(uint64_t value)
{
    return value == CONF_NONE ? 0 : value;
}

static void finish(struct http_job *job, enum lonely_client_error err)
{
    list_remove(&job->node);
    deadline_clear(&job->pause);
    order_fini(&job->order);
    mem_free(job->url);
    mem_free(job->authorization);
    job->ops->done(job, err);
}

/* What to say when everybody was tried. */
static enum lonely_client_error exhausted(const struct http_job *job)
{
    if (job->ambiguous)
        return LONELY_CLIENT_AMBIGUOUS;
    if (job->forged)
        return LONELY_CLIENT_FORBIDDEN;
    if (job->bad)
        return LONELY_CLIENT_REFUSED;
    return job->reached ? LONELY_CLIENT_RETRIES_EXHAUSTED : LONELY_CLIENT_UNREACHABLE;
}

static void after_pause(void *arg, unsigned kind, struct deadline *d)
{
    (void)arg, (void)kind;
    next(list_entry(d, struct http_job, pause));
}

static void random_bytes(void *arg, uint8_t *to, size_t len)
{
    client_random(arg, to, len);
}

static void next_pass(struct http_job *job)
{
    struct lonely_client *c = job->jobs->client;
    uint32_t number;

    if (job->pass >= c->conf.outgoing_retries_per_broadcaster) {
        finish(job, exhausted(job));
        return;
    }
    order_shuffle(&job->order, random_bytes, c);
    if (job->pass++ == 0) {
        next(job);
        return;
    }
    if (job->ops->waiting != NULL)
        job->ops->waiting(job);
    client_random(c, (uint8_t *)&number, sizeof(number));
    deadline_set(&job->jobs->pauses, 0, &job->pause,
                 order_delay_ms(job->pass - 1, (double)number / 4294967296.0));
}

static void on_unanswered(struct http_job *job, const struct http_reply *reply)
{
    struct lonely_client *c = job->jobs->client;
    char why[512];

    snprintf(why, sizeof(why), "%s: %s", job->broadcaster->url, reply->detail);
    client_tell(c, LONELY_CLIENT_UNREACHABLE, why);
    if (job->ops->failed != NULL)
        job->ops->failed(job, reply->status);
    if (job->source_failed) {
        finish(job, job->ambiguous ? LONELY_CLIENT_AMBIGUOUS : LONELY_CLIENT_SOURCE);
        return;
    }
    if (reply->status == HTTP_CALL_CONNECT || reply->status == HTTP_CALL_TLS ||
        reply->status == HTTP_CALL_URL) { /* nothing of it has left */
        next(job);
        return;
    }
    job->ambiguous = true;
    if (c->conf.outgoing_retry_ambiguous)
        next(job);
    else
        finish(job, LONELY_CLIENT_AMBIGUOUS);
}

static const char *complaint_of(enum http_verdict verdict)
{
    switch (verdict) {
    case HTTP_JOB_BAD:
        return ", and no usable answer";
    case HTTP_JOB_FORGED:
        return ", but the authorization of the answer is wrong: is to-subscriber of the secrets?";
    case HTTP_JOB_DONE:
    case HTTP_JOB_UNAVAILABLE:
    case HTTP_JOB_STOP:
        break;
    }
    return "";
}

static void on_answered(struct http_job *job, const struct http_reply *reply)
{
    struct lonely_client *c = job->jobs->client;
    enum lonely_client_error err = LONELY_CLIENT_OK;
    enum http_verdict verdict = job->ops->judge(job, reply->http_status, reply->body, &err);
    char why[512];

    job->reached = true;
    if (verdict == HTTP_JOB_DONE) {
        client_tell(c, LONELY_CLIENT_OK, "");
        finish(job, LONELY_CLIENT_OK);
        return;
    }
    snprintf(why, sizeof(why), "%s%s: HTTP status %d%s", job->broadcaster->url, job->path,
             reply->http_status, complaint_of(verdict));
    if (verdict == HTTP_JOB_STOP) {
        client_tell(c, err, why);
        finish(job, err);
        return;
    }
    client_tell(
        c, verdict == HTTP_JOB_FORGED ? LONELY_CLIENT_FORBIDDEN : LONELY_CLIENT_RETRIES_EXHAUSTED,
        why);
    job->bad = job->bad || verdict == HTTP_JOB_BAD;
    job->forged = job->forged || verdict == HTTP_JOB_FORGED;
    next(job);
}

static void on_reply(void *arg, const struct http_reply *reply)
{
    struct http_job *job = arg;

    job->call = NULL;
    if (reply->status == HTTP_CALL_CANCELLED)
        finish(job, LONELY_CLIENT_AMBIGUOUS);
    else if (reply->status == HTTP_CALL_REPLIED)
        on_answered(job, reply);
    else
        on_unanswered(job, reply);
}

static char *join(const char *a, const char *b, size_t b_len)
{
    size_t a_len = strlen(a);
    char *text = mem_alloc(a_len + b_len + 1);

    memcpy(text, a, a_len);
    memcpy(text + a_len, b, b_len);
    text[a_len + b_len] = '\0';
    return text;
}

/* false: it cannot be made. */
static bool prepare(struct http_job *job)
{
    struct lonely_auth_input in = { 0 };
    uint8_t authorization[LONELY_AUTH_MAX_BYTES];
    struct lonely_span signed_by;

    mem_free(job->url);
    mem_free(job->authorization);
    job->url = join(job->broadcaster->url, job->path, strlen(job->path));
    job->authorization = NULL;
    if (!job->ops->prepare(job, &in) ||
        !client_sign(job->jobs->client, &in, authorization, &signed_by))
        return false;
    if (signed_by.len > 0)
        job->authorization = join("Authorization: ", (const char *)signed_by.ptr, signed_by.len);
    return true;
}

static void next(struct http_job *job)
{
    struct http_call_request request = { .headers = job->headers, .header_count = 1 };

    job->broadcaster = order_next(&job->order);
    if (job->broadcaster == NULL) {
        next_pass(job);
        return;
    }
    if (!prepare(job)) {
        finish(job, LONELY_CLIENT_ARGUMENT);
        return;
    }
    job->headers[0] = "Content-Type: application/octet-stream";
    job->headers[1] = job->authorization;
    request.header_count = job->authorization != NULL ? 2 : 1;
    request.url = job->url;
    request.prefix = job->body;
    request.source = job->source.read != NULL ? &job->source : NULL;
    job->call = http_client_post(job->jobs->http, &request, on_reply, job);
}

void http_job_start(struct http_jobs *jobs, struct http_job *job)
{
    job->jobs = jobs;
    order_init(&job->order, &jobs->client->conf);
    list_push_back(&jobs->all, &job->node);
    next(job);
}

void http_job_cancel(struct http_job *job)
{
    if (job->call != NULL)
        http_call_cancel(job->call);
    else
        finish(job, job->ambiguous ? LONELY_CLIENT_AMBIGUOUS : LONELY_CLIENT_ABANDONED);
}

struct http_jobs *http_jobs_create(struct lonely_client *c, struct lonely_client_why *why)
{
    const struct http_client_conf conf = {
        .timeout_total_ms = none_to_zero(c->conf.outgoing_http_timeout_total_ms),
        .timeout_connect_ms = none_to_zero(c->conf.outgoing_http_timeout_connect_ms),
        .timeout_sock_connect_ms = none_to_zero(c->conf.outgoing_http_timeout_sock_connect_ms),
        .timeout_sock_read_ms = none_to_zero(c->conf.outgoing_http_timeout_sock_read_ms),
        .max_reply_bytes = LONELY_STATELESS_RESPONSE_CHECK_SUBSCRIPTIONS_MAX_BYTES + 4096,
        .max_connections = 256,
        .ca_file = c->conf.ca,
        .cert_file = c->conf.cert,
        .key_file = c->conf.key,
        .proxy = c->conf.proxy,
        .user_agent = "lonelypsc/" LONELY_VERSION,
    };
    struct http_jobs *jobs = mem_calloc(1, sizeof(*jobs));

    jobs->client = c;
    list_init(&jobs->all);
    jobs->http = http_client_create(&c->loop, &conf, why->text);
    if (jobs->http == NULL) {
        mem_free(jobs);
        return NULL;
    }
    deadlines_init(&jobs->pauses, &c->loop, after_pause, jobs);
    return jobs;
}

static void on_pauses_closed(uv_handle_t *timer)
{
    struct http_jobs *jobs = timer->data;
    void (*on_closed)(void *arg) = jobs->on_closed;
    void *arg = jobs->closed_arg;

    mem_free(jobs);
    on_closed(arg);
}

static void on_http_closed(void *arg)
{
    struct http_jobs *jobs = arg;

    deadlines_close(&jobs->pauses, on_pauses_closed);
}

void http_jobs_close(struct http_jobs *jobs, void (*on_closed)(void *arg), void *arg)
{
    jobs->on_closed = on_closed;
    jobs->closed_arg = arg;
    list_foreach (&jobs->all, node, next)
        http_job_cancel(list_entry(node, struct http_job, node));
    http_client_close(jobs->http, on_http_closed, jobs);
}
