/*
 * TLS: stream_tls.h and tls.h, under the HTTP server (http_server_listen_tls) and alone. The client
 * is OpenSSL on memory, whose bytes go through a raw socket (http_peer.h) in pieces of any size. What
 * the application does with a request depends on its target:
 *
 *     /echo   reads the body, answers its length and checksum
 *     /big    answers with BIG_ANSWER bytes
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include "http_peer.h"
#include "http_server.h"
#include "listener.h"
#include "mem.h"
#include "stream_tls.h"

#define BIG_ANSWER  (8u << 20)
#define BIG_BODY    (8u << 20)
#define ALL         ((size_t)-1)
#define CONNECTIONS 1000

/* ---- Certificates ---- */

static char folder[] = "/tmp/test_stream_tls.XXXXXX";
static char paths[8][64];

enum { CERT, KEY, OTHER_CERT, OTHER_KEY, LOCKED_KEY, NONSENSE, MISSING, FOLDER };
static const char *const names[] = { "cert",   "key",      "other_cert", "other_key",
                                     "locked", "nonsense", "missing",    "." };

static X509 *make_certificate(EVP_PKEY *key, const char *name)
{
    X509 *cert = X509_new();

    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    X509_set_pubkey(cert, key);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    return cert;
}

static void write_pair(int cert_at, int key_at, int locked_at)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = make_certificate(key, names[cert_at]);
    FILE *f = fopen(paths[cert_at], "w");

    PEM_write_X509(f, cert);
    fclose(f);
    f = fopen(paths[key_at], "w");
    PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    fclose(f);
    f = fopen(paths[locked_at], "w");
    PEM_write_PrivateKey(f, key, EVP_aes_128_cbc(), (const unsigned char *)"pass", 4, NULL, NULL);
    fclose(f);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static int make_files(void **state)
{
    FILE *f;

    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    for (int i = 0; i < 8; i++)
        snprintf(paths[i], sizeof paths[i], "%s/%s", folder, names[i]);
    write_pair(OTHER_CERT, OTHER_KEY, LOCKED_KEY);
    write_pair(CERT, KEY, LOCKED_KEY);
    f = fopen(paths[NONSENSE], "w");
    fputs("nonsense\n", f);
    return fclose(f);
}

static int remove_files(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++)
        unlink(paths[i]);
    return rmdir(folder);
}

static struct tls_server *make_server(enum tls_client_certificate client)
{
    const struct tls_files files = { paths[CERT], paths[KEY],
                                     client == TLS_CLIENT_NONE ? NULL : paths[OTHER_CERT], client };
    char error[256] = "";
    struct tls_server *tls = tls_server_create(&files, error);

    assert_string_equal(error, "");
    assert_non_null(tls);
    return tls;
}

/* ---- The server ---- */

struct fixture {
    uv_loop_t loop;
    struct http_server *server;
    struct tls_server *tls;
    bool closed;
    uint16_t port;
    unsigned requests, ends, aborts;
};

struct request {
    struct fixture *f;
    struct http_exchange *x;
    size_t len;
    uint32_t sum;
};

static uint32_t sum_bytes(uint32_t sum, const void *bytes, size_t len)
{
    const uint8_t *b = bytes;

    for (size_t i = 0; i < len; i++)
        sum = sum * 31 + b[i];
    return sum;
}

static void fill(uint8_t *to, size_t len)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(i * 7 + i / 251);
}

static void on_piece(void *arg, struct lonely_span piece)
{
    struct request *r = arg;

    assert_true(piece.len > 0);
    r->len += piece.len;
    r->sum = sum_bytes(r->sum, piece.ptr, piece.len);
}

static void on_end(void *arg)
{
    struct request *r = arg;
    struct http_response response = { .status = 200 };
    char text[64];
    int n = snprintf(text, sizeof text, "%zu %08x", r->len, r->sum);

    r->f->ends++;
    response.body = (struct lonely_span){ (const uint8_t *)text, (size_t)n };
    http_exchange_respond(r->x, &response);
    free(r);
}

static void on_abort(void *arg)
{
    struct request *r = arg;

    r->f->aborts++;
    free(r);
}

static const struct http_body_ops body_ops = { on_piece, on_end, on_abort };

static void on_request(void *app, struct http_exchange *x)
{
    struct fixture *f = app;
    struct request *r;

    f->requests++;
    if (x->head.target.len == 4) { /* /big */
        struct http_response response = { .status = 200 };
        uint8_t *body = malloc(BIG_ANSWER);

        fill(body, BIG_ANSWER);
        response.body = (struct lonely_span){ body, BIG_ANSWER };
        http_exchange_respond(x, &response);
        free(body);
        return;
    }
    r = calloc(1, sizeof *r);
    r->f = f;
    r->x = x;
    http_exchange_read_body(x, &body_ops, r);
}

static const struct http_server_conf patient = {
    .header_timeout_ms = 60000,
    .body_idle_timeout_ms = 60000,
    .keepalive_timeout_ms = 60000,
    .discard_bytes = 1 << 20,
    .max_header_bytes = 1024,
    .max_connections = 2000,
};

static int listen_anywhere(uint16_t *port)
{
    char bound[LISTENER_ADDRESS_MAX], error[256];
    int fd;

    assert_true(listener_open("127.0.0.1:0", 128, 1, &fd, bound, error));
    *port = (uint16_t)atoi(strrchr(bound, ':') + 1);
    return fd;
}

static void start(struct fixture *f, const struct http_server_conf *conf,
                  enum tls_client_certificate client)
{
    int fd;

    memset(f, 0, sizeof *f);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    f->tls = make_server(client);
    fd = listen_anywhere(&f->port);
    f->server = http_server_create(&f->loop, conf, on_request, f);
    assert_int_equal(http_server_listen_tls(f->server, fd, f->tls), 0);
}

static void on_closed(void *arg)
{
    ((struct fixture *)arg)->closed = true;
}

static bool is_closed(void *arg)
{
    return ((struct fixture *)arg)->closed;
}

static void stop(struct fixture *f)
{
    http_server_close(f->server, on_closed, f);
    peer_until(&f->loop, is_closed, f);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    tls_server_destroy(f->tls);
}

static bool is_empty(void *arg)
{
    return http_server_connections(((struct fixture *)arg)->server) == 0;
}

/* ---- The client ---- */

struct client {
    struct peer peer;
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *from_peer, *to_peer;
    size_t piece;        /* encrypted bytes sent at once */
    const uint8_t *data; /* to send */
    size_t left;
    uint8_t *got;
    size_t got_len, got_cap;
    uint32_t sum; /* of all that was dropped from `got` */
    bool drops, ready, ended, failed;
    size_t want;
};

static void client_open(struct fixture *f, struct client *c, int version, size_t piece)
{
    int on = 1;

    memset(c, 0, sizeof *c);
    peer_open(&f->loop, &c->peer, f->port);
    setsockopt(c->peer.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->ctx = SSL_CTX_new(TLS_client_method());
    if (version != 0) {
        SSL_CTX_set_security_level(c->ctx, 0);
        SSL_CTX_set_min_proto_version(c->ctx, version);
        SSL_CTX_set_max_proto_version(c->ctx, version);
    }
    c->ssl = SSL_new(c->ctx);
    c->from_peer = BIO_new(BIO_s_mem());
    c->to_peer = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(c->from_peer, -1);
    SSL_set_bio(c->ssl, c->from_peer, c->to_peer);
    SSL_set_connect_state(c->ssl);
    SSL_set_mode(c->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    c->piece = piece;
}

/* Without a word, or with close_notify. */
static void client_close(struct fixture *f, struct client *c)
{
    peer_close(&f->loop, &c->peer, false);
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
    free(c->got);
    ERR_clear_error();
}

/* One piece of what OpenSSL wants to send. */
static void client_flush(struct client *c)
{
    char *bytes;
    long all = BIO_get_mem_data(c->to_peer, &bytes);
    size_t len = (size_t)all < c->piece ? (size_t)all : c->piece, sent;
    char drop[4096];

    if (len == 0)
        return;
    sent = peer_try_send(&c->peer, bytes, len);
    while (sent > 0)
        sent -= (size_t)BIO_read(c->to_peer, drop, (int)(sent < sizeof drop ? sent : sizeof drop));
}

static void client_keep(struct client *c, const uint8_t *bytes, size_t len)
{
    if (c->drops) {
        c->sum = sum_bytes(c->sum, bytes, len);
        c->got_len += len;
        return;
    }
    if (c->got_cap < c->got_len + len + 1) {
        c->got_cap = 2 * (c->got_len + len + 1);
        c->got = realloc(c->got, c->got_cap);
    }
    memcpy(c->got + c->got_len, bytes, len);
    c->got_len += len;
    c->got[c->got_len] = '\0';
}

static void client_step(struct client *c)
{
    static uint8_t plain[65536];
    size_t n;

    if (c->peer.len > 0)
        BIO_write(c->from_peer, c->peer.in, (int)c->peer.len);
    c->peer.len = 0;
    ERR_clear_error();
    while (!c->ended && !c->failed) {
        int r = SSL_read_ex(c->ssl, plain, sizeof plain, &n);

        if (r == 1) {
            client_keep(c, plain, n);
            continue;
        }
        c->ended = SSL_get_error(c->ssl, r) == SSL_ERROR_ZERO_RETURN;
        c->failed = !c->ended && SSL_get_error(c->ssl, r) != SSL_ERROR_WANT_READ;
        break;
    }
    c->ready = SSL_is_init_finished(c->ssl);
    if (c->ready && c->left > 0 && !c->failed && BIO_pending(c->to_peer) < 65536) {
        if (SSL_write_ex(c->ssl, c->data, c->left, &n) == 1) {
            c->data += n;
            c->left -= n;
        } else {
            c->failed = true;
        }
    }
    client_flush(c);
}

static bool client_has(void *arg)
{
    struct client *c = arg;

    client_step(c);
    return c->failed || c->peer.ended || (c->left == 0 && c->ready && c->got_len >= c->want);
}

static bool client_is_over(void *arg)
{
    struct client *c = arg;

    client_step(c);
    return c->peer.ended;
}

static void client_say(struct client *c, const void *bytes, size_t len)
{
    c->data = bytes;
    c->left = len;
}

static void client_await(struct fixture *f, struct client *c, size_t len)
{
    c->want = len;
    peer_until(&f->loop, client_has, c);
    assert_false(c->failed);
    assert_true(c->got_len >= len);
}

static void client_expect(struct fixture *f, struct client *c, const char *text)
{
    client_await(f, c, strlen(text));
    assert_string_equal((char *)c->got, text);
    c->got_len = 0;
}

static const int versions[] = { TLS1_2_VERSION, TLS1_3_VERSION };

#define POST(len, body) "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: " #len "\r\n\r\n" body
#define OK(len, body)   "HTTP/1.1 200 OK\r\nContent-Length: " #len "\r\n\r\n" body

/* ---- Tests ---- */

static void requests_in_pieces_of_any_size(void **state)
{
    static const size_t pieces[] = { 1, 2, 3, 4, 5, 6, 7, 16, 29, 100, 517, 1500, ALL };
    struct fixture f;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    for (size_t v = 0; v < TABLE_LEN(versions); v++)
        for (size_t i = 0; i < TABLE_LEN(pieces); i++) {
            struct client c;
            char text[64];
            size_t before = f.ends;

            client_open(&f, &c, versions[v], pieces[i]);
            for (int n = 0; n < 2; n++) {
                client_say(&c, POST(5, "hello"), strlen(POST(5, "hello")));
                snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n5 %08x",
                         sum_bytes(0, "hello", 5));
                client_expect(&f, &c, text);
            }
            assert_int_equal(f.ends, before + 2);
            client_close(&f, &c);
        }
    stop(&f);
}

static void says_goodbye(void **state)
{
    static const char request[] = "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                                  "Content-Length: 0\r\n\r\n";
    struct fixture f;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    for (size_t v = 0; v < TABLE_LEN(versions); v++) {
        struct client c;

        client_open(&f, &c, versions[v], ALL);
        client_say(&c, request, strlen(request));
        peer_until(&f.loop, client_is_over, &c);
        assert_true(c.ended);
        assert_non_null(strstr((char *)c.got, "\r\n\r\n0 00000000"));
        client_close(&f, &c);
    }
    stop(&f);
}

static void large_bodies(void **state)
{
    char head[128], text[96];
    uint8_t *body = malloc(BIG_BODY + sizeof head);
    struct fixture f;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    for (size_t v = 0; v < TABLE_LEN(versions); v++) {
        int n = snprintf(head, sizeof head,
                         "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %u\r\n\r\n", BIG_BODY);
        struct client c;

        memcpy(body, head, (size_t)n);
        fill(body + n, BIG_BODY);
        client_open(&f, &c, versions[v], ALL);
        client_say(&c, body, (size_t)n + BIG_BODY);
        snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n%u %08x",
                 BIG_BODY, sum_bytes(0, body + n, BIG_BODY));
        client_expect(&f, &c, text);
        client_close(&f, &c);
    }
    free(body);
    stop(&f);
}

/* The peer stops reading for a while, so that the answer stays with the server. */
static void large_answers(void **state)
{
    static const char request[] = "GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    static const char head[] =
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8388608\r\n\r\n";
    uint8_t *body = malloc(BIG_ANSWER);
    struct fixture f;

    (void)state;
    fill(body, BIG_ANSWER);
    start(&f, &patient, TLS_CLIENT_NONE);
    for (int slow = 0; slow < 2; slow++) {
        struct client c;

        client_open(&f, &c, 0, ALL);
        client_await(&f, &c, 0);
        c.drops = true;
        client_say(&c, request, strlen(request));
        client_step(&c);
        if (slow) {
            uv_poll_stop(&c.peer.poll);
            peer_let_pass(&f.loop, 50);
            assert_false(is_empty(&f));
            uv_poll_start(&c.peer.poll, UV_READABLE, peer_on_poll);
        }
        client_await(&f, &c, sizeof head - 1 + BIG_ANSWER);
        assert_int_equal(c.got_len, sizeof head - 1 + BIG_ANSWER);
        assert_int_equal(c.sum, sum_bytes(sum_bytes(0, head, sizeof head - 1), body, BIG_ANSWER));
        peer_until(&f.loop, client_is_over, &c);
        assert_true(c.ended);
        client_close(&f, &c);
    }
    free(body);
    stop(&f);
}

static void end_of_peer(struct client *c)
{
    shutdown(c->peer.fd, SHUT_WR);
}

static void truncation_aborts_a_body(void **state)
{
    enum { FIN, FIN_IN_RECORD, NOTIFY, RESET, ENDS };
    struct fixture f;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    for (unsigned how = 0; how < ENDS; how++) {
        struct client c;

        client_open(&f, &c, 0, ALL);
        client_say(&c, POST(9, "hello"), strlen(POST(9, "hello")));
        client_await(&f, &c, 0);
        peer_let_pass(&f.loop, 1);
        if (how == FIN_IN_RECORD) {
            SSL_write(c.ssl, "1234", 4);
            c.piece = (size_t)BIO_pending(c.to_peer) - 1;
            client_flush(&c);
        } else if (how == NOTIFY) {
            SSL_shutdown(c.ssl);
            client_flush(&c);
        }
        if (how == RESET)
            peer_close(&f.loop, &c.peer, true);
        else if (how != NOTIFY)
            end_of_peer(&c);
        peer_until(&f.loop, is_empty, &f);
        assert_int_equal(f.aborts, how + 1);
        if (how != RESET)
            peer_close(&f.loop, &c.peer, false);
        SSL_free(c.ssl);
        SSL_CTX_free(c.ctx);
        free(c.got);
    }
    assert_int_equal(f.ends, 0);
    stop(&f);
}

static void leaving_between_requests_is_tolerated(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    for (int notify = 0; notify < 2; notify++) {
        struct client c;

        client_open(&f, &c, 0, ALL);
        client_say(&c, POST(0, ""), strlen(POST(0, "")));
        client_expect(&f, &c, OK(10, "0 00000000"));
        if (notify) {
            SSL_shutdown(c.ssl);
            client_flush(&c);
        } else {
            end_of_peer(&c);
        }
        peer_until(&f.loop, client_is_over, &c);
        assert_true(c.ended); /* our close_notify, in either case */
        client_close(&f, &c);
    }
    assert_int_equal(f.aborts, 0);
    stop(&f);
}

/* The answer of the last request comes, although its sender has said goodbye. */
static void answers_a_peer_that_has_ended(void **state)
{
    struct fixture f;
    struct client c;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    client_open(&f, &c, 0, ALL);
    client_await(&f, &c, 0);
    SSL_write(c.ssl, POST(0, ""), (int)strlen(POST(0, "")));
    SSL_shutdown(c.ssl);
    peer_until(&f.loop, client_is_over, &c);
    assert_memory_equal(c.got, "HTTP/1.1 200 OK\r\n", 17);
    client_close(&f, &c);
    stop(&f);
}

static void what_is_no_tls_is_closed(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        { "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 31 },
        { "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\x00\x00", 12 },
        { "\x16\x03\x01\xff\xff zzzzzzzzzzzzzzzz", 22 },
        { "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16 },
        { "\x15\x03\x01\x00\x02\x02\x28", 7 },
        { "\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10", 11 },
    };
    struct fixture f;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    for (size_t i = 0; i < TABLE_LEN(cases); i++)
        for (int together = 0; together < 2; together++) {
            struct peer p;

            peer_open(&f.loop, &p, f.port);
            for (size_t at = 0; !together && at < cases[i].len - 1; at++) {
                peer_send_bytes(&p, cases[i].bytes + at, 1);
                peer_let_pass(&f.loop, 1);
            }
            if (together)
                peer_send_bytes(&p, cases[i].bytes, cases[i].len);
            else
                peer_send_bytes(&p, cases[i].bytes + cases[i].len - 1, 1);
            shutdown(p.fd, SHUT_WR); /* some wait for more, which cannot come */
            peer_until(&f.loop, peer_has_ended, &p);
            assert_true(p.len < 16); /* at most an alert */
            peer_close(&f.loop, &p, false);
        }
    assert_int_equal(f.requests, 0);
    stop(&f);
}

static void a_handshake_has_its_time(void **state)
{
    struct http_server_conf conf = patient;
    struct fixture f;
    struct client c;
    struct peer silent;

    (void)state;
    conf.header_timeout_ms = 300;
    start(&f, &conf, TLS_CLIENT_NONE);
    peer_open(&f.loop, &silent, f.port);
    peer_expect_end(&f.loop, &silent);
    peer_close(&f.loop, &silent, false);

    client_open(&f, &c, 0, 1); /* drips: a byte in 20 ms */
    SSL_do_handshake(c.ssl);
    for (int i = 0; i < 100 && !c.peer.ended; i++) {
        client_flush(&c);
        peer_let_pass(&f.loop, 20);
    }
    assert_true(c.peer.ended);
    client_close(&f, &c);

    client_open(&f, &c, 0, ALL); /* once it is done, idling has its own time */
    client_await(&f, &c, 0);
    peer_let_pass(&f.loop, 500);
    assert_false(c.peer.ended);
    client_say(&c, POST(0, ""), strlen(POST(0, "")));
    client_expect(&f, &c, OK(10, "0 00000000"));
    client_close(&f, &c);
    stop(&f);
}

static void a_thousand_connections_leave_nothing(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    for (int i = 0; i < CONNECTIONS; i++) {
        struct client c;

        client_open(&f, &c, versions[i % 2], ALL);
        if (i % 5 != 0) { /* the others leave within the handshake */
            client_say(&c, POST(0, ""), strlen(POST(0, "")));
            client_expect(&f, &c, OK(10, "0 00000000"));
        } else {
            client_step(&c);
        }
        client_close(&f, &c);
    }
    peer_until(&f.loop, is_empty, &f);
    assert_int_equal(f.ends, CONNECTIONS - CONNECTIONS / 5);
    stop(&f);
}

static void closes_with_connections_open(void **state)
{
    struct fixture f;
    struct client in_body, in_handshake;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    client_open(&f, &in_body, 0, ALL);
    client_say(&in_body, POST(9, "hello"), strlen(POST(9, "hello")));
    client_await(&f, &in_body, 0);
    client_open(&f, &in_handshake, 0, 1);
    client_step(&in_handshake);
    peer_let_pass(&f.loop, 20);
    assert_int_equal(http_server_connections(f.server), 2);
    http_server_close(f.server, on_closed, &f);
    peer_until(&f.loop, is_closed, &f);
    assert_int_equal(f.aborts, 1);
    client_close(&f, &in_body);
    client_close(&f, &in_handshake);
    assert_int_equal(uv_loop_close(&f.loop), 0);
    tls_server_destroy(f.tls);
}

static void keys_may_be_updated(void **state)
{
    struct fixture f;
    struct client c;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    client_open(&f, &c, TLS1_3_VERSION, ALL);
    for (int i = 0; i < 20; i++) {
        client_say(&c, POST(0, ""), strlen(POST(0, "")));
        client_expect(&f, &c, OK(10, "0 00000000"));
        assert_int_equal(SSL_key_update(c.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    }
    client_close(&f, &c);
    stop(&f);
}

static void old_and_foreign_protocols_are_refused(void **state)
{
    static const unsigned char h2[] = "\x02h2", both[] = "\x02h2\x08http/1.1";
    const unsigned char *chosen;
    unsigned chosen_len;
    struct fixture f;
    struct client c;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    client_open(&f, &c, TLS1_1_VERSION, ALL);
    peer_until(&f.loop, client_is_over, &c);
    assert_true(c.failed);
    client_close(&f, &c);

    client_open(&f, &c, 0, ALL);
    SSL_set_alpn_protos(c.ssl, h2, sizeof h2 - 1);
    peer_until(&f.loop, client_is_over, &c);
    assert_true(c.failed);
    client_close(&f, &c);

    client_open(&f, &c, 0, ALL);
    SSL_set_alpn_protos(c.ssl, both, sizeof both - 1);
    client_await(&f, &c, 0);
    SSL_get0_alpn_selected(c.ssl, &chosen, &chosen_len);
    assert_int_equal(chosen_len, 8);
    assert_memory_equal(chosen, "http/1.1", 8);
    client_close(&f, &c);
    stop(&f);
}

static void sessions_are_resumed_until_a_reload(void **state)
{
    const struct tls_files files = { paths[OTHER_CERT], paths[OTHER_KEY], NULL, TLS_CLIENT_NONE };
    char error[256];
    struct fixture f;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    for (size_t v = 0; v < TABLE_LEN(versions); v++) {
        SSL_SESSION *session = NULL;

        for (int n = 0; n < 3; n++) {
            struct client c;

            if (n == 2)
                assert_true(tls_server_reload(f.tls, &files, error));
            client_open(&f, &c, versions[v], ALL);
            SSL_set_session(c.ssl, session);
            client_say(&c, POST(0, ""), strlen(POST(0, "")));
            client_expect(&f, &c, OK(10, "0 00000000"));
            assert_int_equal(SSL_session_reused(c.ssl), n == 1);
            SSL_SESSION_free(session);
            session = SSL_get1_session(c.ssl);
            SSL_shutdown(c.ssl); /* else the session is not good any more */
            client_close(&f, &c);
        }
        SSL_SESSION_free(session);
    }
    stop(&f);
}

/* The common name of the server's certificate. */
static void expect_name(struct client *c, const char *name)
{
    X509 *cert = SSL_get1_peer_certificate(c->ssl);
    char got[64] = "";

    X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, got, sizeof got);
    assert_string_equal(got, name);
    X509_free(cert);
}

static void reloads(void **state)
{
    struct tls_files files = { paths[OTHER_CERT], paths[OTHER_KEY], NULL, TLS_CLIENT_NONE };
    char error[256];
    struct fixture f;
    struct client old, fresh;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    client_open(&f, &old, 0, ALL);
    client_await(&f, &old, 0);
    assert_true(tls_server_reload(f.tls, &files, error));
    files.certificate = paths[NONSENSE];
    assert_false(tls_server_reload(f.tls, &files, error));
    client_open(&f, &fresh, 0, ALL);
    client_await(&f, &fresh, 0);
    expect_name(&old, "cert");
    expect_name(&fresh, "other_cert");
    client_say(&old, POST(0, ""), strlen(POST(0, "")));
    client_expect(&f, &old, OK(10, "0 00000000"));
    client_close(&f, &old);
    client_close(&f, &fresh);
    stop(&f);
}

static void asks_for_client_certificates(void **state)
{
    static const struct {
        enum tls_client_certificate mode;
        int shown; /* of `names`; -1: none */
        bool served;
    } cases[] = {
        { TLS_CLIENT_NONE, -1, true },
        { TLS_CLIENT_NONE, CERT, true },
        { TLS_CLIENT_OPTIONAL, -1, true },
        { TLS_CLIENT_OPTIONAL, OTHER_CERT, true },
        { TLS_CLIENT_OPTIONAL, CERT, false },
        { TLS_CLIENT_REQUIRED, -1, false },
        { TLS_CLIENT_REQUIRED, OTHER_CERT, true },
        { TLS_CLIENT_REQUIRED, CERT, false },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++)
        for (size_t v = 0; v < TABLE_LEN(versions); v++) {
            struct fixture f;
            struct client c;

            start(&f, &patient, cases[i].mode);
            client_open(&f, &c, versions[v], ALL);
            if (cases[i].shown >= 0) {
                SSL_use_certificate_file(c.ssl, paths[cases[i].shown], SSL_FILETYPE_PEM);
                SSL_use_PrivateKey_file(c.ssl, paths[cases[i].shown + 1], SSL_FILETYPE_PEM);
            }
            client_say(&c, POST(0, ""), strlen(POST(0, "")));
            c.want = 1;
            peer_until(&f.loop, client_has, &c);
            assert_int_equal(c.failed, !cases[i].served);
            assert_int_equal(f.ends, cases[i].served);
            client_close(&f, &c);
            stop(&f);
        }
}

static void errors_name_the_file(void **state)
{
    static const struct {
        int certificate, key, client_ca; /* of `names`; -1: none */
        int named;
        const char *what, *why;
    } cases[] = {
        { MISSING, KEY, -1, MISSING, "certificate", "No such file or directory" },
        { FOLDER, KEY, -1, FOLDER, "certificate", "not a regular file" },
        { NONSENSE, KEY, -1, NONSENSE, "certificate", "holds no certificate in PEM" },
        { KEY, KEY, -1, KEY, "certificate", "holds no certificate in PEM" },
        { CERT, MISSING, -1, MISSING, "key", "No such file or directory" },
        { CERT, OTHER_KEY, -1, OTHER_KEY, "key", "is not the key of the certificate" },
        { CERT, NONSENSE, -1, NONSENSE, "key",
          "holds no private key in PEM, or needs a passphrase" },
        { CERT, LOCKED_KEY, -1, LOCKED_KEY, "key",
          "holds no private key in PEM, or needs a passphrase" },
        { CERT, KEY, MISSING, MISSING, "client CA", "No such file or directory" },
        { CERT, KEY, NONSENSE, NONSENSE, "client CA", "holds no certificate in PEM" },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        const struct tls_files files = { paths[cases[i].certificate], paths[cases[i].key],
                                         cases[i].client_ca < 0 ? NULL : paths[cases[i].client_ca],
                                         TLS_CLIENT_OPTIONAL };
        char error[256] = "", want[256];

        assert_null(tls_server_create(&files, error));
        snprintf(want, sizeof want, "%s: %s: %s", cases[i].what, paths[cases[i].named],
                 cases[i].why);
        assert_string_equal(error, want);
        assert_int_equal(ERR_peek_error(), 0);
    }
}

/* ---- The stream alone ---- */

struct user {
    struct fixture *f;
    struct tls_loop *shared;
    struct stream *stream;
    struct stream_buffer buffer;
    const uint8_t *bytes; /* to send */
    size_t len, at;
    bool open, sending, ended, lost, gone, loop_gone;
    bool in_call; /* no event may come */
    unsigned ends, sends;
    size_t got;
    bool stops; /* reading, at each on_read */
};

static void user_on_read(void *arg, struct lonely_span bytes)
{
    struct user *u = arg;

    assert_false(u->in_call);
    u->got += bytes.len;
    if (u->stops)
        stream_read_stop(u->stream);
}

static void user_on_end(void *arg)
{
    struct user *u = arg;

    assert_false(u->in_call);
    u->ends++;
}

static void user_on_sent(void *arg)
{
    struct user *u = arg;

    assert_false(u->in_call);
    u->sending = false;
}

static void user_close(struct user *u)
{
    u->in_call = true;
    stream_close(u->stream);
    u->in_call = false;
}

static void user_on_lost(void *arg)
{
    struct user *u = arg;

    assert_false(u->in_call);
    u->lost = true;
    user_close(u);
}

static void user_on_closed(void *arg)
{
    ((struct user *)arg)->gone = true;
}

static void user_on_open(void *arg)
{
    ((struct user *)arg)->open = true;
}

static const struct stream_events user_events = {
    .on_read = user_on_read,
    .on_end = user_on_end,
    .on_sent = user_on_sent,
    .on_lost = user_on_lost,
    .on_closed = user_on_closed,
    .on_open = user_on_open,
};

static void user_open(struct fixture *f, struct user *u, struct client *c)
{
    int listening, fd, small = 4096;

    memset(f, 0, sizeof *f);
    memset(u, 0, sizeof *u);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    f->tls = make_server(TLS_CLIENT_NONE);
    listening = listen_anywhere(&f->port);
    client_open(f, c, 0, ALL);
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0)
        ;
    close(listening);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    u->f = f;
    u->shared = tls_loop_create(&f->loop, NULL);
    u->stream = stream_tls_open(u->shared, f->tls, fd, &u->buffer, &user_events, u);
    assert_non_null(u->stream);
    assert_int_equal(
        stream_try_send(u->stream, &(struct lonely_span){ (const uint8_t *)"x", 1 }, 1),
        0); /* not before the handshake */
    stream_read_start(u->stream);
    client_await(f, c, 0);
}

static void user_on_loop_closed(void *arg)
{
    ((struct user *)arg)->loop_gone = true;
}

static bool user_is_gone(void *arg)
{
    return ((struct user *)arg)->loop_gone;
}

static void user_end(struct fixture *f, struct user *u, struct client *c)
{
    if (!u->lost)
        user_close(u);
    tls_loop_close(u->shared, user_on_loop_closed, u);
    peer_until(&f->loop, user_is_gone, u);
    assert_true(u->gone);
    client_close(f, c);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    tls_server_destroy(f->tls);
}

/* Sends the next bytes in parts of `part` bytes, as far as they go; sometimes without trying. */
static void user_send_more(struct user *u, size_t part)
{
    struct lonely_span parts[STREAM_PARTS_MAX];
    size_t count = 0, at = u->at;

    while (count < STREAM_PARTS_MAX && at < u->len) {
        size_t n = part < u->len - at ? part : u->len - at;

        parts[count++] = (struct lonely_span){ u->bytes + at, n };
        at += n;
    }
    u->in_call = true;
    if (u->sends++ % 3 != 0) {
        ptrdiff_t sent = stream_try_send(u->stream, parts, count);

        assert_true(sent >= 0 && (size_t)sent <= at - u->at);
        u->at += (size_t)sent;
    } else {
        stream_send(u->stream, parts, count);
        assert_int_equal(stream_try_send(u->stream, parts, count), 0);
        u->sending = true;
        u->at = at;
    }
    u->in_call = false;
}

struct transfer {
    struct user *u;
    struct client *c;
    size_t part;
};

static bool is_transferred(void *arg)
{
    struct transfer *t = arg;

    client_step(t->c);
    while (!t->u->sending && t->u->at < t->u->len) {
        size_t before = t->u->at;

        user_send_more(t->u, t->part);
        if (t->u->at == before && !t->u->sending)
            continue; /* the next call sends */
    }
    return t->c->got_len == t->u->len && !t->u->sending;
}

/* Whatever the sizes of parts and the places where the socket stops, what comes is what was sent. */
static void nothing_is_lost_or_sent_twice(void **state)
{
    static const size_t sizes[] = { 1, 2, 1000, 16384, 16385, 100000, 3000000 };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(sizes); i++) {
        struct fixture f;
        struct client c;
        struct user u;
        struct transfer t = { &u, &c, sizes[i] };
        size_t len = sizes[i] < 100 ? 3000 : 1 << 20;
        uint8_t *bytes = malloc(len);

        fill(bytes, len);
        user_open(&f, &u, &c);
        u.bytes = bytes;
        u.len = len;
        peer_until(&f.loop, is_transferred, &t);
        assert_memory_equal(c.got, bytes, len);
        user_end(&f, &u, &c);
        free(bytes);
    }
}

static bool has_ends(void *arg)
{
    struct user *u = arg;

    return u->ends > 0 || u->lost;
}

static bool has_bytes(void *arg)
{
    return ((struct user *)arg)->got > 0;
}

/* Data and close_notify in one read: the end waits until it may be told. */
static void no_end_while_stopped(void **state)
{
    struct fixture f;
    struct client c;
    struct user u;

    (void)state;
    user_open(&f, &u, &c);
    assert_true(u.open);
    u.stops = true;
    SSL_write(c.ssl, "hello", 5);
    SSL_shutdown(c.ssl);
    client_flush(&c);
    peer_until(&f.loop, has_bytes, &u);
    assert_int_equal(u.got, 5);
    peer_let_pass(&f.loop, 10);
    assert_int_equal(u.ends, 0);
    u.in_call = true;
    stream_read_start(u.stream);
    u.in_call = false;
    peer_until(&f.loop, has_ends, &u);
    assert_int_equal(u.ends, 1);
    u.at = u.len = 0;
    assert_int_equal(stream_try_send(u.stream, &(struct lonely_span){ (const uint8_t *)"x", 1 }, 1),
                     1); /* the other way is open */
    client_step(&c);
    user_end(&f, &u, &c);
}

/* A close in the midst of sending is no close_notify: the peer must not take it for the end. */
static void a_cut_answer_does_not_look_whole(void **state)
{
    static uint8_t bytes[4 << 20];
    const struct lonely_span part = { bytes, sizeof bytes };
    struct fixture f;
    struct client c;
    struct user u;

    (void)state;
    for (int tries = 0; tries < 2; tries++) {
        user_open(&f, &u, &c);
        if (tries)
            assert_true(stream_try_send(u.stream, &part, 1) < (ptrdiff_t)sizeof bytes);
        else
            stream_send(u.stream, &part, 1);
        user_close(&u);
        u.lost = true;
        peer_until(&f.loop, client_is_over, &c);
        assert_false(c.ended);
        assert_true(c.got_len < sizeof bytes);
        user_end(&f, &u, &c);
    }
}

/* Answers to key updates gather behind what the peer does not read, up to a bound. */
static void endless_key_updates_are_refused(void **state)
{
    static uint8_t bytes[8 << 20];
    const struct lonely_span part = { bytes, sizeof bytes };
    struct fixture f;
    struct client c;
    struct user u;

    (void)state;
    user_open(&f, &u, &c);
    uv_poll_stop(&c.peer.poll);
    stream_send(u.stream, &part, 1);
    peer_let_pass(&f.loop, 50);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(SSL_key_update(c.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(c.ssl), 1);
        client_flush(&c);
    }
    peer_let_pass(&f.loop, 50);
    assert_false(u.lost);
    for (int i = 0; i < 1000; i++) {
        SSL_key_update(c.ssl, SSL_KEY_UPDATE_REQUESTED);
        SSL_do_handshake(c.ssl);
        client_flush(&c);
    }
    peer_until(&f.loop, has_ends, &u);
    assert_true(u.lost);
    user_end(&f, &u, &c);
}

static void shutdown_says_goodbye_and_reads_on(void **state)
{
    struct fixture f;
    struct client c;
    struct user u;

    (void)state;
    user_open(&f, &u, &c);
    stream_shutdown(u.stream);
    peer_until(&f.loop, client_is_over, &c);
    assert_true(c.ended);
    SSL_write(c.ssl, "hello", 5);
    client_flush(&c);
    peer_until(&f.loop, has_bytes, &u);
    assert_int_equal(u.got, 5);
    user_end(&f, &u, &c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_in_pieces_of_any_size),
        cmocka_unit_test(says_goodbye),
        cmocka_unit_test(large_bodies),
        cmocka_unit_test(large_answers),
        cmocka_unit_test(truncation_aborts_a_body),
        cmocka_unit_test(leaving_between_requests_is_tolerated),
        cmocka_unit_test(answers_a_peer_that_has_ended),
        cmocka_unit_test(what_is_no_tls_is_closed),
        cmocka_unit_test(a_handshake_has_its_time),
        cmocka_unit_test(a_thousand_connections_leave_nothing),
        cmocka_unit_test(closes_with_connections_open),
        cmocka_unit_test(keys_may_be_updated),
        cmocka_unit_test(old_and_foreign_protocols_are_refused),
        cmocka_unit_test(sessions_are_resumed_until_a_reload),
        cmocka_unit_test(reloads),
        cmocka_unit_test(asks_for_client_certificates),
        cmocka_unit_test(errors_name_the_file),
        cmocka_unit_test(nothing_is_lost_or_sent_twice),
        cmocka_unit_test(no_end_while_stopped),
        cmocka_unit_test(a_cut_answer_does_not_look_whole),
        cmocka_unit_test(endless_key_updates_are_refused),
        cmocka_unit_test(shutdown_says_goodbye_and_reads_on),
    };

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
