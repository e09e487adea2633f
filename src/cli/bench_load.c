/*
 * A run of `lonelypsc bench` on bare sockets: one thread, epoll. Publishers send as much as the window lets
 * them, subscribers count and acknowledge. Nothing is checked that costs time and would change nothing:
 * neither hashes nor authorizations of what comes. Called by bench.c.
 */
#include "bench_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "mem.h"

#define IN_BYTES     (256u * 1024)
#define OUT_FULL     (1024u * 1024) /* of parts, more waits until less is queued */
#define OPENING_MAX  256            /* at the same time */
#define EVENTS       256
#define NS_PER_S     UINT64_C(1000000000)
#define OPEN_LIMIT_S 60
#define GRACE_S      10 /* for what is under way at the end, without a sign of life */

/* ---- Output ---- */

uint8_t *bench_put_room(struct bench_peer *p, size_t len)
{
    struct bench_bytes *out = &p->out;

    if (out->cap - out->len < len) {
        out->cap = 2 * out->cap + len;
        out->ptr = mem_realloc(out->ptr, out->cap);
    }
    return out->ptr + out->len;
}

void bench_put_done(struct bench_peer *p, size_t len)
{
    p->out.len += len;
}

void bench_put(struct bench_peer *p, const void *bytes, size_t len)
{
    memcpy(bench_put_room(p, len), bytes, len);
    bench_put_done(p, len);
}

static void watch(struct bench_peer *p, bool writes)
{
    struct epoll_event ev = { .events = EPOLLIN | (writes ? EPOLLOUT : 0), .data.ptr = p };

    if (p->waits_to_write == writes)
        return;
    p->waits_to_write = writes;
    (void)epoll_ctl(p->load->poll, EPOLL_CTL_MOD, p->fd, &ev);
}

static void flush(struct bench_peer *p)
{
    struct bench_bytes *out = &p->out;

    while (out->at < out->len) {
        ssize_t n = send(p->fd, out->ptr + out->at, out->len - out->at, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            bench_failed(p->load, "a connection broke");
        if (n < 0)
            break;
        out->at += (size_t)n;
    }
    if (out->at == out->len)
        out->at = out->len = 0;
    watch(p, out->len > 0);
}

/* ---- Counts ---- */

void bench_failed(struct bench_load *l, const char *why)
{
    if (l->results->error[0] == '\0')
        snprintf(l->results->error, sizeof(l->results->error), "%s", why);
}

void bench_peer_ready(struct bench_peer *p)
{
    p->ready = true;
    p->load->ready++;
}

void bench_confirmed(struct bench_load *l, uint64_t messages, uint64_t notified)
{
    l->results->confirmed += messages;
    l->results->notified += notified;
}

void bench_delivered(struct bench_peer *p, struct lonely_span head, uint64_t size)
{
    struct bench_load *l = p->load;
    uint64_t sent_ns, now_ns;

    p->delivered++;
    l->results->delivered++;
    l->results->delivered_bytes += size;
    if (head.len < sizeof(sent_ns))
        return;
    memcpy(&sent_ns, head.ptr, sizeof(sent_ns));
    now_ns = bench_now_ns();
    if (sent_ns < now_ns && sent_ns >= l->began_ns) /* else somebody else's message */
        bench_latency_add(&l->results->latency, now_ns - sent_ns);
}

/* ---- Publishing ---- */

/* How many messages may be sent now: a whole write, or all that the window holds. */
static uint64_t allowed(const struct bench_load *l)
{
    const struct bench_settings *set = l->set;
    uint64_t sent = l->results->published, room = set->window - l->under_way;
    uint64_t batch = set->batch < set->window ? set->batch : set->window;
    uint64_t due;

    if (l->stopping || (set->messages > 0 && sent >= set->messages))
        return 0;
    if (set->messages > 0 && set->messages - sent < batch)
        batch = set->messages - sent;
    if (set->rate > 0) {
        due = (uint64_t)((double)(bench_now_ns() - l->began_ns) / 1e9 * (double)set->rate) + 1;
        if (due <= sent)
            return 0;
        batch = due - sent < batch ? due - sent : batch;
    }
    return room >= batch ? batch : 0;
}

/* A message in parts: as many as the socket may hold. */
static void publish_parts(struct bench_peer *p)
{
    do {
        if (p->sent == 0 && allowed(p->load) == 0)
            break;
        if (p->sent == 0) {
            p->load->under_way++;
            p->load->results->published++;
        }
        p->load->set->wire->publish(p);
    } while (p->out.len - p->out.at < OUT_FULL);
    flush(p);
}

static void publish_batch(struct bench_peer *p, unsigned messages)
{
    struct bench_load *l = p->load;

    for (unsigned i = 0; i < messages; i++) {
        uint64_t now_ns = bench_now_ns();

        if (l->payload_len >= sizeof(now_ns))
            memcpy(l->payload, &now_ns, sizeof(now_ns));
        l->set->wire->publish(p);
    }
    l->under_way += messages;
    l->results->published += messages;
    l->set->wire->end_write(p, messages);
    flush(p);
}

/* A subscriber that falls behind slows the publishers down: what is measured is what all can take. */
static void count_under_way(struct bench_load *l)
{
    const struct bench_settings *set = l->set;
    uint64_t done = l->results->confirmed;

    for (size_t i = set->publishers; i < set->publishers + set->subscribers; i++) {
        if (l->peers[i].delivered < done)
            done = l->peers[i].delivered;
    }
    l->under_way = l->results->published - done;
}

static void publish(struct bench_load *l)
{
    bool in_parts = l->set->size > l->set->part_bytes, any = true;
    uint64_t n;

    count_under_way(l);
    while (any && l->results->error[0] == '\0') {
        any = false;
        for (size_t i = 0; i < l->set->publishers; i++) {
            struct bench_peer *p = &l->peers[i];

            if (p->out.len > 0)
                continue;
            if (in_parts) {
                publish_parts(p);
            } else if ((n = allowed(l)) > 0) {
                publish_batch(p, (unsigned)n);
                any = true;
            }
        }
    }
}

/* ---- Input ---- */

/* Whoever reads borrows the one large buffer, and keeps it only with a message half read. */
static void borrow(struct bench_peer *p)
{
    if (p->in.ptr != NULL)
        return;
    p->in = p->load->spare;
    p->load->spare = (struct bench_bytes){ 0 };
    if (p->in.ptr == NULL)
        p->in = (struct bench_bytes){ .ptr = mem_alloc(IN_BYTES), .cap = IN_BYTES };
}

static void give_back(struct bench_peer *p)
{
    p->in.at = p->in.len = 0;
    if (p->load->spare.ptr == NULL)
        p->load->spare = p->in;
    else
        mem_free(p->in.ptr);
    p->in = (struct bench_bytes){ 0 };
}

static void look(struct bench_peer *p)
{
    struct bench_bytes *in = &p->in;
    size_t wanted = 0;
    size_t used = p->load->set->wire->take(p, in->ptr, in->len, &wanted);

    if (used == in->len) {
        give_back(p);
        return;
    }
    memmove(in->ptr, in->ptr + used, in->len - used);
    in->len -= used;
    if (wanted > in->cap) {
        in->cap = wanted;
        in->ptr = mem_realloc(in->ptr, in->cap);
    }
}

static void on_readable(struct bench_peer *p)
{
    ssize_t n;

    borrow(p);
    n = recv(p->fd, p->in.ptr + p->in.len, p->in.cap - p->in.len, 0);
    if (n > 0) {
        p->load->quiet_ns = 0;
        p->in.len += (size_t)n;
        look(p);
        flush(p);
        return;
    }
    if (p->in.len == 0)
        give_back(p);
    if (n == 0)
        bench_failed(p->load, "the broadcaster closed a connection");
    else if (errno != EAGAIN && errno != EINTR)
        bench_failed(p->load, "a connection broke");
}

/* ---- Connections ---- */

static int connect_to(const struct addrinfo *to)
{
    int one = 1, fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    if (connect(fd, to->ai_addr, to->ai_addrlen) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        close(fd);
        return -1;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

static enum bench_role role_of(const struct bench_settings *set, size_t i)
{
    if (i < set->publishers)
        return BENCH_PUBLISHER;
    return i < set->publishers + set->subscribers ? BENCH_SUBSCRIBER : BENCH_IDLE;
}

static void open_next(struct bench_load *l, const struct addrinfo *to)
{
    struct bench_peer *p = &l->peers[l->opened];
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = p };

    p->load = l;
    p->role = role_of(l->set, l->opened);
    p->fd = connect_to(to);
    if (p->fd < 0 || epoll_ctl(l->poll, EPOLL_CTL_ADD, p->fd, &ev) != 0) {
        l->results->unreachable = true;
        snprintf(l->results->error, sizeof(l->results->error), "cannot connect to %s port %s: %s",
                 l->set->host, l->set->port, strerror(errno));
        return;
    }
    l->opened++;
    l->set->wire->open(p);
    flush(p);
}

/* ---- The run ---- */

static int wait_ms(const struct bench_load *l)
{
    return l->running && l->set->rate > 0 ? 1 : 100;
}

static void turn(struct bench_load *l)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(l->poll, events, EVENTS, wait_ms(l));

    l->epoch_s = (uint64_t)time(NULL);
    for (int i = 0; i < n; i++) {
        struct bench_peer *p = events[i].data.ptr;

        if (events[i].events & EPOLLOUT)
            flush(p);
        if (events[i].events & ~(uint32_t)EPOLLOUT)
            on_readable(p);
    }
}

static void open_all(struct bench_load *l, const struct addrinfo *to)
{
    uint64_t began_ns = bench_now_ns();

    while (l->ready < l->count && l->results->error[0] == '\0') {
        while (l->opened < l->count && l->opened - l->ready < OPENING_MAX &&
               l->results->error[0] == '\0')
            open_next(l, to);
        turn(l);
        if (bench_now_ns() - began_ns > OPEN_LIMIT_S * NS_PER_S)
            bench_failed(l, "not every connection was opened in time");
    }
    l->results->open_s = (double)(bench_now_ns() - began_ns) / 1e9;
}

static bool is_over(struct bench_load *l)
{
    const struct bench_results *r = l->results;

    if (!l->stopping || r->error[0] != '\0')
        return r->error[0] != '\0';
    return l->set->publishers == 0 ||
           (r->confirmed == r->published && r->delivered >= r->published * l->set->subscribers);
}

/* Has nothing come for too long? Only then is the clock of any interest. */
static bool is_quiet(struct bench_load *l, uint64_t now_ns)
{
    if (l->quiet_ns == 0)
        l->quiet_ns = now_ns;
    return l->stopping && now_ns - l->quiet_ns > GRACE_S * NS_PER_S;
}

static void run(struct bench_load *l)
{
    const struct bench_settings *set = l->set;
    struct bench_results *r = l->results;
    double cpu_s = bench_cpu_s();

    l->began_ns = bench_now_ns();
    l->stop_ns = l->began_ns + (uint64_t)(set->seconds * 1e9);
    l->running = true;
    while (!is_over(l)) {
        uint64_t now_ns;

        publish(l);
        turn(l);
        now_ns = bench_now_ns();
        if (now_ns >= l->stop_ns || (set->messages > 0 && r->published >= set->messages) ||
            (set->expect > 0 && r->delivered >= set->expect))
            l->stopping = true;
        if (is_quiet(l, now_ns))
            break;
    }
    r->run_s = (double)(bench_now_ns() - l->began_ns) / 1e9;
    r->cpu_s = bench_cpu_s() - cpu_s;
    r->complete = r->confirmed == r->published &&
                  (set->publishers == 0 || r->delivered >= r->published * set->subscribers);
}

/* ---- Making ready ---- */

/* What every message is made of. One in parts repeats it, so that it needs no memory of its size, and is hashed once. */
static bool make_payload(struct bench_load *l)
{
    uint64_t size = l->set->size, part = l->set->part_bytes;
    EVP_MD_CTX *ctx;
    bool good;

    l->payload_len = size < part ? (size_t)size : (size_t)part;
    l->payload = mem_calloc(1, l->payload_len + 1);
    for (size_t i = 0; i < l->payload_len; i++)
        l->payload[i] = (uint8_t)(i * 2654435761u >> 11);
    if (size <= part)
        return true;
    ctx = EVP_MD_CTX_new();
    good = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha512(), NULL) == 1;
    for (uint64_t at = 0; good && at < size; at += part)
        good =
            EVP_DigestUpdate(ctx, l->payload, size - at < part ? (size_t)(size - at) : part) == 1;
    good = good && EVP_DigestFinal_ex(ctx, l->hash, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    return good;
}

static bool make_auth(struct bench_load *l)
{
    struct secrets_error err;

    if (l->set->secrets == NULL)
        return true;
    if (!secrets_load(l->set->secrets, SECRETS_SUBSCRIBER, &l->secrets, &err)) {
        bench_failed(l, err.text);
        return false;
    }
    if (lonely_auth_key_scheme(l->secrets.to_broadcaster) == LONELY_AUTH_NONE)
        return true;
    return lonely_auth_ctx_create(&l->auth) == LONELY_OK;
}

/* As many descriptors as it takes, if the system lets us. */
static void raise_limit(size_t connections)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= connections + 64)
        return;
    limit.rlim_cur = limit.rlim_max < connections + 64 ? limit.rlim_max : connections + 64;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static void free_peer(struct bench_peer *p)
{
    if (p->load != NULL && p->fd >= 0)
        close(p->fd);
    mem_free(p->in.ptr);
    mem_free(p->out.ptr);
}

static void load_fini(struct bench_load *l)
{
    for (size_t i = 0; i < l->count; i++)
        free_peer(&l->peers[i]);
    mem_free(l->peers);
    mem_free(l->payload);
    mem_free(l->spare.ptr);
    lonely_auth_ctx_destroy(l->auth);
    secrets_fini(&l->secrets);
    if (l->poll >= 0)
        close(l->poll);
}

bool bench_load(const struct bench_settings *set, struct bench_results *out)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    struct bench_load l = { .set = set, .results = out };
    struct addrinfo *to = NULL;
    int err = getaddrinfo(set->host, set->port, &hints, &to);

    l.count = set->publishers + set->subscribers + set->idle;
    raise_limit(l.count);
    l.poll = epoll_create1(EPOLL_CLOEXEC);
    l.peers = mem_calloc(l.count + 1, sizeof(*l.peers));
    l.epoch_s = (uint64_t)time(NULL);
    out->unreachable = err != 0;
    if (err != 0)
        bench_failed(&l, gai_strerror(err));
    else if (l.poll < 0 || !make_auth(&l) || !make_payload(&l))
        bench_failed(&l, "out of memory or descriptors");
    else
        open_all(&l, to);
    if (out->error[0] == '\0') {
        bench_ready(set);
        run(&l);
    }
    if (to != NULL)
        freeaddrinfo(to);
    load_fini(&l);
    return out->error[0] == '\0';
}
