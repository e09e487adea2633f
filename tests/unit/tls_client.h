/*
 * For tests of TLS: certificates in files, and a client, OpenSSL on memory, whose bytes go through a
 * raw socket (http_peer.h) in pieces of any size. Header only.
 */
#ifndef TESTS_TLS_CLIENT_H
#define TESTS_TLS_CLIENT_H

#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "http_peer.h"
#include "listener.h"
#include "tls.h"

#define ALL ((size_t)-1) /* not in pieces */

/* ---- Certificates ---- */

static char folder[] = "/tmp/test_tls.XXXXXX";
static char paths[8][64];

enum { CERT, KEY, OTHER_CERT, OTHER_KEY, LOCKED_KEY, NONSENSE, MISSING, FOLDER };
static const char *const names[] = { "cert",   "key",      "other_cert", "other_key",
                                     "locked", "nonsense", "missing",    "." };

static inline X509 *make_certificate(EVP_PKEY *key, const char *name)
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

static inline void write_pair(int cert_at, int key_at, int locked_at)
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

static inline int make_files(void **state)
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

static inline int remove_files(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++)
        unlink(paths[i]);
    return rmdir(folder);
}

static inline struct tls_server *make_server(enum tls_client_certificate client)
{
    const struct tls_files files = { paths[CERT], paths[KEY],
                                     client == TLS_CLIENT_NONE ? NULL : paths[OTHER_CERT], client };
    char error[256] = "";
    struct tls_server *tls = tls_server_create(&files, error);

    assert_string_equal(error, "");
    assert_non_null(tls);
    return tls;
}

/* ---- Bytes ---- */

static inline uint32_t sum_bytes(uint32_t sum, const void *bytes, size_t len)
{
    const uint8_t *b = bytes;

    for (size_t i = 0; i < len; i++)
        sum = sum * 31 + b[i];
    return sum;
}

static inline void fill(uint8_t *to, size_t len)
{
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(i * 7 + i / 251);
}

static inline int listen_anywhere(uint16_t *port)
{
    char bound[LISTENER_ADDRESS_MAX], error[256];
    int fd;

    assert_true(listener_open("127.0.0.1:0", 128, 1, &fd, bound, error));
    *port = (uint16_t)atoi(strrchr(bound, ':') + 1);
    return fd;
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

static inline void client_open(uv_loop_t *loop, uint16_t port, struct client *c, int version,
                               size_t piece)
{
    int on = 1;

    memset(c, 0, sizeof *c);
    peer_open(loop, &c->peer, port);
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
static inline void client_close(uv_loop_t *loop, struct client *c)
{
    peer_close(loop, &c->peer, false);
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
    free(c->got);
    ERR_clear_error();
}

/* One piece of what OpenSSL wants to send. */
static inline void client_flush(struct client *c)
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

static inline void client_keep(struct client *c, const uint8_t *bytes, size_t len)
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

static inline void client_step(struct client *c)
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

static inline bool client_has(void *arg)
{
    struct client *c = arg;

    client_step(c);
    return c->failed || c->peer.ended || (c->left == 0 && c->ready && c->got_len >= c->want);
}

static inline bool client_is_over(void *arg)
{
    struct client *c = arg;

    client_step(c);
    return c->peer.ended;
}

static inline void client_say(struct client *c, const void *bytes, size_t len)
{
    c->data = bytes;
    c->left = len;
}

static inline void client_await(uv_loop_t *loop, struct client *c, size_t len)
{
    c->want = len;
    peer_until(loop, client_has, c);
    assert_false(c->failed);
    assert_true(c->got_len >= len);
}

static inline void client_expect(uv_loop_t *loop, struct client *c, const char *text)
{
    client_await(loop, c, strlen(text));
    assert_string_equal((char *)c->got, text);
    c->got_len = 0;
}

#endif
