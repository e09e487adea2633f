/*
 * Notifies until the link takes them: copied, hashed in the thread pool where that takes long; and what
 * the link asks of them.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "link.h"
#include "mem.h"

#define HASH_AT_ONCE_BYTES ((size_t)64 * 1024)
#define READ_BYTES         ((size_t)256 * 1024)

void lonely_notify_init(struct lonely_notify *n)
{
    memset(n, 0, sizeof(*n));
    n->fd = -1;
}

struct lonely_span notify_span(const struct notify *n)
{
    return n->source.fd < 0 && n->source.read == NULL ? n->source.bytes
                                                      : (struct lonely_span){ NULL, 0 };
}

ptrdiff_t notify_read(const struct notify *n, uint64_t at, uint8_t *to, size_t len)
{
    ssize_t got;

    if (at >= n->size)
        return 0;
    if (len > n->size - at)
        len = (size_t)(n->size - at);
    if (n->source.read != NULL)
        return n->source.read(n->source.read_arg, at, to, len);
    if (n->source.fd < 0) {
        memcpy(to, n->source.bytes.ptr + at, len);
        return (ptrdiff_t)len;
    }
    do
        got = pread(n->source.fd, to, len, (off_t)(n->fd_offset + at));
    while (got < 0 && errno == EINTR);
    return got;
}

void notify_progress(const struct notify *n, uint64_t sent)
{
    if (n->source.progress != NULL)
        n->source.progress(n->source.progress_arg, sent, n->size);
}

void notify_done(struct notify *n, enum lonely_client_error err, uint64_t notified)
{
    const struct lonely_client_tracer *tracer = &n->cmd.client->conf.tracer;

    n->notified = notified;
    if (tracer->end != NULL)
        tracer->end(tracer->arg, n->trace_id, err);
    if (n->done_fn != NULL)
        n->done_fn(n->done_arg, err, notified);
    command_done(&n->cmd, err);
}

static void free_notify(struct command *cmd)
{
    mem_free(((struct notify *)cmd)->copy);
}

/* ---- Hashing ---- */

static bool hash_source(struct notify *n)
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    uint8_t *chunk = mem_try_alloc(READ_BYTES);
    uint64_t at = 0;
    bool good = hash != NULL && chunk != NULL && EVP_DigestInit_ex(hash, EVP_sha512(), NULL) == 1;

    while (good && at < n->size && !atomic_load(&n->cmd.client->ending)) {
        ptrdiff_t got = notify_read(n, at, chunk, READ_BYTES);

        good = got > 0 && EVP_DigestUpdate(hash, chunk, (size_t)got) == 1;
        at += good ? (uint64_t)got : 0;
    }
    good = good && EVP_DigestFinal_ex(hash, n->sha512, NULL) == 1;
    EVP_MD_CTX_free(hash);
    mem_free(chunk);
    return good;
}

static void hand_on(struct notify *n)
{
    struct lonely_client *c = n->cmd.client;

    if (c->dead || c->closing)
        notify_done(n, LONELY_CLIENT_ABANDONED, 0);
    else
        c->link->ops->notify(c->link, n);
}

static void on_hashed(struct notify *n, bool good)
{
    const struct lonely_client_tracer *tracer = &n->cmd.client->conf.tracer;

    if (atomic_load(&n->cmd.client->ending)) {
        notify_done(n, LONELY_CLIENT_ABANDONED, 0);
        return;
    }
    if (!good) {
        notify_done(n, LONELY_CLIENT_SOURCE, 0);
        return;
    }
    if (tracer->hashed != NULL)
        tracer->hashed(tracer->arg, n->trace_id);
    hand_on(n);
}

static void hash_in_pool(uv_work_t *work)
{
    struct notify *n = work->data;

    n->source.sha512 = hash_source(n) ? n->sha512 : NULL;
}

static void after_pool(uv_work_t *work, int status)
{
    struct notify *n = work->data;

    (void)status; /* never cancelled */
    on_hashed(n, n->source.sha512 != NULL);
}

static void trace_start(struct notify *n)
{
    struct lonely_client *c = n->cmd.client;
    const struct lonely_client_tracer *tracer = &c->conf.tracer;

    n->trace_id = atomic_fetch_add(&c->next_id, 1) + 1;
    if (tracer->start != NULL)
        tracer->start(tracer->arg, n->trace_id, n->topic, n->size, n->source.fd >= 0,
                      n->source.sha512 != NULL);
}

static void run_notify(struct command *cmd)
{
    struct notify *n = (struct notify *)cmd;

    trace_start(n);
    if (n->source.sha512 != NULL || cmd->client->dead || cmd->client->closing) {
        hand_on(n);
    } else if (n->source.fd < 0 && n->source.read == NULL && n->size <= HASH_AT_ONCE_BYTES) {
        on_hashed(n, hash_source(n));
    } else {
        n->work.data = n;
        uv_queue_work(&cmd->client->loop, &n->work, hash_in_pool, after_pool);
    }
}

/* ---- From the caller ---- */

/* How long a descriptor's rest is. */
static bool measure_fd(struct notify *n)
{
    off_t at = lseek(n->source.fd, 0, SEEK_CUR);
    struct stat st;

    if (at < 0 || fstat(n->source.fd, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    n->fd_offset = (uint64_t)at;
    if (n->source.size == UINT64_MAX)
        n->size = st.st_size > at ? (uint64_t)(st.st_size - at) : 0;
    else
        n->size = n->source.size;
    return at <= st.st_size && n->size <= (uint64_t)(st.st_size - at);
}

static enum lonely_client_error take_source(struct notify *n, const struct lonely_notify *from)
{
    size_t len = from->fd < 0 && from->read == NULL ? from->bytes.len : 0;

    n->source = *from;
    if (from->fd >= 0 && !measure_fd(n))
        return LONELY_CLIENT_SOURCE;
    if (from->fd < 0)
        n->size = from->read != NULL ? from->size : len;
    n->copy = mem_try_alloc(from->topic.len + len + 1);
    if (n->copy == NULL)
        return LONELY_CLIENT_NO_MEMORY;
    if (from->topic.len > 0)
        memcpy(n->copy, from->topic.ptr, from->topic.len);
    if (len > 0)
        memcpy(n->copy + from->topic.len, from->bytes.ptr, len);
    n->topic = (struct lonely_span){ n->copy, from->topic.len };
    n->source.bytes = (struct lonely_span){ n->copy + from->topic.len, len };
    if (from->sha512 != NULL) {
        memcpy(n->sha512, from->sha512, sizeof(n->sha512));
        n->source.sha512 = n->sha512;
    }
    return LONELY_CLIENT_OK;
}

static enum lonely_client_error notify_create(struct lonely_client *c,
                                              const struct lonely_notify *from, struct notify **out)
{
    enum lonely_client_error err;

    if (from->topic.len > 65535 || (from->fd >= 0 && from->read != NULL) ||
        (from->read != NULL && from->size == UINT64_MAX) ||
        (from->bytes.ptr == NULL && from->bytes.len > 0))
        return LONELY_CLIENT_ARGUMENT;
    *out = command_create(c, sizeof(**out), run_notify);
    if (*out == NULL)
        return LONELY_CLIENT_NO_MEMORY;
    (*out)->cmd.free = free_notify;
    list_init(&(*out)->node);
    err = take_source(*out, from);
    if (err != LONELY_CLIENT_OK)
        command_unref(&(*out)->cmd);
    return err;
}

enum lonely_client_error lonely_client_notify(struct lonely_client *c,
                                              const struct lonely_notify *n, int64_t timeout_ms,
                                              uint64_t *notified)
{
    struct notify *mine;
    enum lonely_client_error err = notify_create(c, n, &mine);

    if (err != LONELY_CLIENT_OK)
        return err;
    command_ref(&mine->cmd);
    err = client_submit(&mine->cmd, timeout_ms);
    if (notified != NULL)
        *notified = err == LONELY_CLIENT_OK && timeout_ms != 0 ? mine->notified : 0;
    command_unref(&mine->cmd);
    return err;
}

enum lonely_client_error lonely_client_notify_start(struct lonely_client *c,
                                                    const struct lonely_notify *n,
                                                    lonely_notify_done_fn *done, void *arg)
{
    struct notify *mine;
    enum lonely_client_error err = notify_create(c, n, &mine);

    if (err != LONELY_CLIENT_OK)
        return err;
    mine->done_fn = done;
    mine->done_arg = arg;
    client_submit(&mine->cmd, 0);
    return LONELY_CLIENT_OK;
}
