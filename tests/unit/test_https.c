/*
 * HTTPS: http_server_listen_tls and tls.h. What the application does with a request depends on its
 * target:
 *
 *     /echo   reads the body, answers its length and checksum
 *     /big    answers with BIG_ANSWER bytes
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "http_server.h"
#include "tls_client.h"

#define BIG_ANSWER  (8u << 20)
#define BIG_BODY    (8u << 20)
#define CONNECTIONS 1000

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

            client_open(&f.loop, f.port, &c, versions[v], pieces[i]);
            for (int n = 0; n < 2; n++) {
                client_say(&c, POST(5, "hello"), strlen(POST(5, "hello")));
                snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n5 %08x",
                         sum_bytes(0, "hello", 5));
                client_expect(&f.loop, &c, text);
            }
            assert_int_equal(f.ends, before + 2);
            client_close(&f.loop, &c);
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

        client_open(&f.loop, f.port, &c, versions[v], ALL);
        client_say(&c, request, strlen(request));
        peer_until(&f.loop, client_is_over, &c);
        assert_true(c.ended);
        assert_non_null(strstr((char *)c.got, "\r\n\r\n0 00000000"));
        client_close(&f.loop, &c);
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
        client_open(&f.loop, f.port, &c, versions[v], ALL);
        client_say(&c, body, (size_t)n + BIG_BODY);
        snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n%u %08x",
                 BIG_BODY, sum_bytes(0, body + n, BIG_BODY));
        client_expect(&f.loop, &c, text);
        client_close(&f.loop, &c);
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

        client_open(&f.loop, f.port, &c, 0, ALL);
        client_await(&f.loop, &c, 0);
        c.drops = true;
        client_say(&c, request, strlen(request));
        client_step(&c);
        if (slow) {
            uv_poll_stop(&c.peer.poll);
            peer_let_pass(&f.loop, 50);
            assert_false(is_empty(&f));
            uv_poll_start(&c.peer.poll, UV_READABLE, peer_on_poll);
        }
        client_await(&f.loop, &c, sizeof head - 1 + BIG_ANSWER);
        assert_int_equal(c.got_len, sizeof head - 1 + BIG_ANSWER);
        assert_int_equal(c.sum, sum_bytes(sum_bytes(0, head, sizeof head - 1), body, BIG_ANSWER));
        peer_until(&f.loop, client_is_over, &c);
        assert_true(c.ended);
        client_close(&f.loop, &c);
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

        client_open(&f.loop, f.port, &c, 0, ALL);
        client_say(&c, POST(9, "hello"), strlen(POST(9, "hello")));
        client_await(&f.loop, &c, 0);
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

        client_open(&f.loop, f.port, &c, 0, ALL);
        client_say(&c, POST(0, ""), strlen(POST(0, "")));
        client_expect(&f.loop, &c, OK(10, "0 00000000"));
        if (notify) {
            SSL_shutdown(c.ssl);
            client_flush(&c);
        } else {
            end_of_peer(&c);
        }
        peer_until(&f.loop, client_is_over, &c);
        assert_true(c.ended); /* our close_notify, in either case */
        client_close(&f.loop, &c);
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
    client_open(&f.loop, f.port, &c, 0, ALL);
    client_await(&f.loop, &c, 0);
    SSL_write(c.ssl, POST(0, ""), (int)strlen(POST(0, "")));
    SSL_shutdown(c.ssl);
    peer_until(&f.loop, client_is_over, &c);
    assert_memory_equal(c.got, "HTTP/1.1 200 OK\r\n", 17);
    client_close(&f.loop, &c);
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

    client_open(&f.loop, f.port, &c, 0, 1); /* drips: a byte in 20 ms */
    SSL_do_handshake(c.ssl);
    for (int i = 0; i < 100 && !c.peer.ended; i++) {
        client_flush(&c);
        peer_let_pass(&f.loop, 20);
    }
    assert_true(c.peer.ended);
    client_close(&f.loop, &c);

    client_open(&f.loop, f.port, &c, 0, ALL); /* once it is done, idling has its own time */
    client_await(&f.loop, &c, 0);
    peer_let_pass(&f.loop, 500);
    assert_false(c.peer.ended);
    client_say(&c, POST(0, ""), strlen(POST(0, "")));
    client_expect(&f.loop, &c, OK(10, "0 00000000"));
    client_close(&f.loop, &c);
    stop(&f);
}

static void a_thousand_connections_leave_nothing(void **state)
{
    struct fixture f;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    for (int i = 0; i < CONNECTIONS; i++) {
        struct client c;

        client_open(&f.loop, f.port, &c, versions[i % 2], ALL);
        if (i % 5 != 0) { /* the others leave within the handshake */
            client_say(&c, POST(0, ""), strlen(POST(0, "")));
            client_expect(&f.loop, &c, OK(10, "0 00000000"));
        } else {
            client_step(&c);
        }
        client_close(&f.loop, &c);
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
    client_open(&f.loop, f.port, &in_body, 0, ALL);
    client_say(&in_body, POST(9, "hello"), strlen(POST(9, "hello")));
    client_await(&f.loop, &in_body, 0);
    client_open(&f.loop, f.port, &in_handshake, 0, 1);
    client_step(&in_handshake);
    peer_let_pass(&f.loop, 20);
    assert_int_equal(http_server_connections(f.server), 2);
    http_server_close(f.server, on_closed, &f);
    peer_until(&f.loop, is_closed, &f);
    assert_int_equal(f.aborts, 1);
    client_close(&f.loop, &in_body);
    client_close(&f.loop, &in_handshake);
    assert_int_equal(uv_loop_close(&f.loop), 0);
    tls_server_destroy(f.tls);
}

static void keys_may_be_updated(void **state)
{
    struct fixture f;
    struct client c;

    (void)state;
    start(&f, &patient, TLS_CLIENT_NONE);
    client_open(&f.loop, f.port, &c, TLS1_3_VERSION, ALL);
    for (int i = 0; i < 20; i++) {
        client_say(&c, POST(0, ""), strlen(POST(0, "")));
        client_expect(&f.loop, &c, OK(10, "0 00000000"));
        assert_int_equal(SSL_key_update(c.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    }
    client_close(&f.loop, &c);
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
    client_open(&f.loop, f.port, &c, TLS1_1_VERSION, ALL);
    peer_until(&f.loop, client_is_over, &c);
    assert_true(c.failed);
    client_close(&f.loop, &c);

    client_open(&f.loop, f.port, &c, 0, ALL);
    SSL_set_alpn_protos(c.ssl, h2, sizeof h2 - 1);
    peer_until(&f.loop, client_is_over, &c);
    assert_true(c.failed);
    client_close(&f.loop, &c);

    client_open(&f.loop, f.port, &c, 0, ALL);
    SSL_set_alpn_protos(c.ssl, both, sizeof both - 1);
    client_await(&f.loop, &c, 0);
    SSL_get0_alpn_selected(c.ssl, &chosen, &chosen_len);
    assert_int_equal(chosen_len, 8);
    assert_memory_equal(chosen, "http/1.1", 8);
    client_close(&f.loop, &c);
    stop(&f);
}

static SSL_SESSION *resume(struct fixture *f, int version, SSL_SESSION *session, bool reused)
{
    struct client c;

    client_open(&f->loop, f->port, &c, version, ALL);
    SSL_use_certificate_file(c.ssl, paths[OTHER_CERT], SSL_FILETYPE_PEM);
    SSL_use_PrivateKey_file(c.ssl, paths[OTHER_KEY], SSL_FILETYPE_PEM);
    SSL_set_session(c.ssl, session);
    SSL_SESSION_free(session);
    client_say(&c, POST(0, ""), strlen(POST(0, "")));
    client_expect(&f->loop, &c, OK(10, "0 00000000"));
    assert_int_equal(SSL_session_reused(c.ssl), reused);
    session = SSL_get1_session(c.ssl);
    SSL_shutdown(c.ssl); /* else the session is not good any more */
    client_close(&f->loop, &c);
    return session;
}

static void sessions_are_resumed_until_a_reload(void **state)
{
    static const enum tls_client_certificate modes[] = { TLS_CLIENT_NONE, TLS_CLIENT_REQUIRED };
    char error[256];

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(modes); i++)
        for (size_t v = 0; v < TABLE_LEN(versions); v++) {
            const struct tls_files files = { paths[CERT], paths[KEY], paths[OTHER_CERT], modes[i] };
            SSL_SESSION *session;
            struct fixture f;

            start(&f, &patient, modes[i]);
            session = resume(&f, versions[v], NULL, false);
            session = resume(&f, versions[v], session, true);
            assert_true(tls_server_reload(f.tls, &files, error));
            SSL_SESSION_free(resume(&f, versions[v], session, false));
            stop(&f);
        }
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
    client_open(&f.loop, f.port, &old, 0, ALL);
    client_await(&f.loop, &old, 0);
    assert_true(tls_server_reload(f.tls, &files, error));
    files.certificate = paths[NONSENSE];
    assert_false(tls_server_reload(f.tls, &files, error));
    client_open(&f.loop, f.port, &fresh, 0, ALL);
    client_await(&f.loop, &fresh, 0);
    expect_name(&old, "cert");
    expect_name(&fresh, "other_cert");
    client_say(&old, POST(0, ""), strlen(POST(0, "")));
    client_expect(&f.loop, &old, OK(10, "0 00000000"));
    client_close(&f.loop, &old);
    client_close(&f.loop, &fresh);
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
            client_open(&f.loop, f.port, &c, versions[v], ALL);
            if (cases[i].shown >= 0) {
                SSL_use_certificate_file(c.ssl, paths[cases[i].shown], SSL_FILETYPE_PEM);
                SSL_use_PrivateKey_file(c.ssl, paths[cases[i].shown + 1], SSL_FILETYPE_PEM);
            }
            client_say(&c, POST(0, ""), strlen(POST(0, "")));
            c.want = 1;
            peer_until(&f.loop, client_has, &c);
            assert_int_equal(c.failed, !cases[i].served);
            assert_int_equal(f.ends, cases[i].served);
            client_close(&f.loop, &c);
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
    };

    return cmocka_run_group_tests(tests, make_files, remove_files);
}
