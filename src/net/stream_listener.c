/*
 * The listener of raw TCP (stream_listener.h): acceptor.c accepts, stream_tcp.c and stream_tls.c make the
 * streams. A record of each connection lives until its stream is gone, for the counts.
 */
#include "stream_listener.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "acceptor.h"
#include "deadline.h"
#include "list.h"
#include "mem.h"
#include "stream_tls.h"

struct stream_listener {
    uv_loop_t *loop;
    struct stream_listener_conf conf;
    stream_listener_fn *on_accept;
    void *arg;
    struct acceptor *acceptor;
    struct deadlines deadlines;
    struct list handshakes; /* connection.node */
    uint32_t connections;
    unsigned handles; /* not closed; so is `tls` */
    bool closing;
    void (*on_closed)(void *arg);
    void *closed_arg;
    struct tls_loop *tls; /* NULL: nothing that listens needs it */
    struct stream_buffer buffer;
};

struct connection {
    struct stream_listener *listener;
    union peer_address peer;
    struct stream *stream;
    struct list node; /* while the handshake is under way */
    struct deadline due;
};

/* ---- The end of a connection, and of the listener ---- */

static void update_hold(struct stream_listener *l)
{
    if (!l->closing)
        acceptor_hold(l->acceptor, l->connections >= l->conf.max_connections);
}

static void check_closed(struct stream_listener *l)
{
    void (*on_closed)(void *arg) = l->on_closed;
    void *arg = l->closed_arg;

    if (!l->closing || l->handles > 0 || l->connections > 0)
        return;
    mem_free(l);
    if (on_closed != NULL)
        on_closed(arg);
}

static void release_peer(struct stream_listener *l, const union peer_address *peer)
{
    if (l->conf.peers != NULL)
        peer_limit_release(l->conf.peers, &peer->sa);
}

static void on_gone(void *arg)
{
    struct connection *c = arg;
    struct stream_listener *l = c->listener;

    release_peer(l, &c->peer);
    mem_free(c);
    l->connections--;
    update_hold(l);
    check_closed(l);
}

/* ---- TLS handshakes ---- */

static void end_handshake(struct connection *c)
{
    deadline_clear(&c->due);
    list_remove(&c->node);
}

static void drop(struct connection *c)
{
    end_handshake(c);
    stream_close(c->stream);
}

static void on_open(void *arg)
{
    struct connection *c = arg;
    struct stream_listener *l = c->listener;

    end_handshake(c);
    stream_read_stop(c->stream);
    l->on_accept(l->arg, c->stream, &c->peer);
}

/* No byte of data comes before on_open, and then the stream has another user. */
static void on_read(void *arg, struct lonely_span bytes)
{
    (void)arg;
    (void)bytes;
}

static void on_lost(void *arg)
{
    drop(arg);
}

static void on_nothing(void *arg)
{
    (void)arg;
}

static const struct stream_events handshake_events = {
    .on_read = on_read,
    .on_end = on_lost,
    .on_sent = on_nothing,
    .on_lost = on_lost,
    .on_closed = on_nothing,
    .on_open = on_open,
};

static void on_due(void *arg, unsigned kind, struct deadline *d)
{
    (void)arg;
    (void)kind;
    drop(list_entry(d, struct connection, due));
}

/* ---- Accepting ---- */

/* As far as the system lets us; without them a dead peer is noticed later. */
static void set_timeouts(int fd, uint64_t timeout_ms)
{
    const int on = 1;
    uint64_t longest_ms = 24u * 3600 * 1000;
    unsigned ms = (unsigned)(timeout_ms < longest_ms ? timeout_ms : longest_ms);
    int idle_s = (int)(ms / 2000), interval_s = (int)(ms / 4000);

    if (ms == 0)
        return;
    idle_s = idle_s > 0 ? idle_s : 1;
    interval_s = interval_s > 0 ? interval_s : 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
}

static struct stream *open_stream(struct connection *c, int fd, struct tls_server *tls)
{
    struct stream_listener *l = c->listener;

    if (tls == NULL)
        return stream_tcp_open(l->loop, fd, &l->buffer, &handshake_events, c);
    return stream_tls_open(l->tls, tls, fd, &l->buffer, &handshake_events, c);
}

/* false: no memory or descriptors; fd is closed. */
static bool begin(struct stream_listener *l, int fd, struct tls_server *tls,
                  const union peer_address *peer)
{
    struct connection *c = mem_try_calloc(1, sizeof(*c));

    if (c == NULL) {
        close(fd);
        return false;
    }
    c->listener = l;
    c->peer = *peer;
    list_init(&c->node);
    c->stream = open_stream(c, fd, tls);
    if (c->stream == NULL) {
        mem_free(c);
        return false;
    }
    c->stream->on_gone = on_gone;
    c->stream->gone_arg = c;
    l->connections++;
    update_hold(l);
    if (tls == NULL) {
        l->on_accept(l->arg, c->stream, peer);
        return true;
    }
    list_push_back(&l->handshakes, &c->node);
    deadline_set(&l->deadlines, 0, &c->due, l->conf.handshake_timeout_ms);
    stream_read_start(c->stream);
    return true;
}

static void on_socket(void *arg, void *socket_arg, int fd, const union peer_address *peer)
{
    struct stream_listener *l = arg;

    if (l->conf.peers != NULL && !peer_limit_take(l->conf.peers, &peer->sa)) {
        close(fd);
        if (l->conf.on_reject != NULL)
            l->conf.on_reject(l->arg, &peer->sa);
        return;
    }
    set_timeouts(fd, l->conf.user_timeout_ms);
    if (!begin(l, fd, socket_arg, peer))
        release_peer(l, peer);
}

/* ---- The listener ---- */

struct stream_listener *stream_listener_create(uv_loop_t *loop,
                                               const struct stream_listener_conf *conf,
                                               stream_listener_fn *on_accept, void *arg)
{
    struct stream_listener *l = mem_calloc(1, sizeof(*l));

    l->loop = loop;
    l->conf = *conf;
    l->on_accept = on_accept;
    l->arg = arg;
    l->acceptor = acceptor_create(loop, conf->log, on_socket, l);
    deadlines_init(&l->deadlines, loop, on_due, l);
    list_init(&l->handshakes);
    l->handles = 2;
    return l;
}

int stream_listener_listen(struct stream_listener *l, int fd, struct tls_server *tls)
{
    if (tls != NULL && l->tls == NULL) {
        l->tls = tls_loop_create(l->loop, l->conf.log);
        l->handles++;
    }
    return acceptor_listen(l->acceptor, fd, tls);
}

void stream_listener_stop(struct stream_listener *l)
{
    acceptor_stop(l->acceptor);
}

static void handle_closed(void *arg)
{
    struct stream_listener *l = arg;

    l->handles--;
    check_closed(l);
}

static void on_timer_closed(uv_handle_t *handle)
{
    handle_closed(handle->data);
}

void stream_listener_close(struct stream_listener *l, void (*on_closed)(void *arg), void *arg)
{
    l->closing = true;
    l->on_closed = on_closed;
    l->closed_arg = arg;
    list_foreach (&l->handshakes, node, next)
        drop(list_entry(node, struct connection, node));
    acceptor_close(l->acceptor, handle_closed, l);
    deadlines_close(&l->deadlines, on_timer_closed);
    if (l->tls != NULL)
        tls_loop_close(l->tls, handle_closed, l);
}

uint32_t stream_listener_connections(const struct stream_listener *l)
{
    return l->connections;
}
