/*
 * The HTTP client and TLS: a server on a thread of its own, whose certificate is made here. It
 * takes connections one after another and ends when the test connects without a byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "http_client.h"

struct server {
    pthread_t thread;
    SSL_CTX *ctx;
    int fd, port;
    unsigned accepted;
    char ca_file[64];
    bool garbage; /* instead of TLS */
};

static X509 *make_certificate(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");

    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)"test", -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    X509_set_pubkey(cert, key);
    X509_add_ext(cert, ext, -1);
    X509_EXTENSION_free(ext);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    return cert;
}

static void serve(struct server *s, int fd)
{
    static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    SSL *ssl = SSL_new(s->ctx);
    char request[4096];
    size_t len = 0;
    int n;

    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1)
        while ((n = SSL_read(ssl, request + len, (int)(sizeof request - 1 - len))) > 0) {
            len += (size_t)n;
            request[len] = '\0';
            if (strstr(request, "\r\n\r\n") == NULL) /* requests here have no body */
                continue;
            SSL_write(ssl, reply, sizeof reply - 1);
            len = 0;
        }
    SSL_free(ssl);
}

static void *run_server(void *arg)
{
    struct server *s = arg;
    char byte;
    int fd;

    while ((fd = accept(s->fd, NULL, NULL)) >= 0) {
        if (recv(fd, &byte, 1, MSG_PEEK) <= 0) {
            close(fd);
            break;
        }
        s->accepted++;
        if (s->garbage)
            dprintf(fd, "HTTP/1.1 200 OK\r\n\r\nhello");
        else
            serve(s, fd);
        close(fd);
    }
    return NULL;
}

static void server_start(struct server *s)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t len = sizeof address;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = make_certificate(key);
    FILE *file;
    int fd;

    s->ctx = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(s->ctx, cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(s->ctx, key), 1);
    strcpy(s->ca_file, "/tmp/test_http_client.XXXXXX");
    fd = mkstemp(s->ca_file);
    file = fdopen(fd, "w");
    PEM_write_X509(file, cert);
    fclose(file);
    X509_free(cert);
    EVP_PKEY_free(key);

    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(s->fd, 8), 0);
    getsockname(s->fd, (struct sockaddr *)&address, &len);
    s->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, run_server, s), 0);
}

static void server_stop(struct server *s)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)s->port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    pthread_join(s->thread, NULL);
    close(s->fd);
    SSL_CTX_free(s->ctx);
    unlink(s->ca_file);
}

struct result {
    unsigned done;
    enum http_call_status status;
    size_t body_len;
};

static void on_done(void *arg, const struct http_reply *reply)
{
    struct result *r = arg;

    r->done++;
    r->status = reply->status;
    r->body_len = reply->body.len;
    if (reply->status == HTTP_CALL_TLS)
        assert_true(strlen(reply->detail) > 5);
}

static void test_tls(void **state)
{
    static const struct {
        const char *host;
        bool trusted, garbage;
        enum http_call_status status;
    } cases[] = {
        { "127.0.0.1", true, false, HTTP_CALL_REPLIED },
        { "127.0.0.1", false, false, HTTP_CALL_TLS },
        { "localhost", true, false, HTTP_CALL_TLS }, /* not the certificate's name */
        { "127.0.0.1", true, true, HTTP_CALL_TLS },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct server server = { .garbage = cases[i].garbage };
        struct http_client_conf conf = { .max_reply_bytes = 100,
                                         .max_connections = 10,
                                         .timeout_total_ms = 20000,
                                         .timeout_sock_connect_ms = 10000,
                                         .timeout_sock_read_ms = 10000 };
        struct http_call_request request = { 0 };
        struct http_client *client;
        struct result r = { 0 };
        char url[64], error[256];
        uv_loop_t loop;

        server_start(&server);
        uv_loop_init(&loop);
        conf.ca_file = cases[i].trusted ? server.ca_file : NULL;
        client = http_client_create(&loop, &conf, error);
        assert_non_null(client);
        snprintf(url, sizeof url, "https://%s:%d/", cases[i].host, server.port);
        request.url = url;
        for (unsigned n = 1; n <= 3; n++) {
            http_client_post(client, &request, on_done, &r);
            uv_run(&loop, UV_RUN_DEFAULT); /* kept connections do not keep it running */
            assert_int_equal(r.done, n);
            assert_int_equal(r.status, cases[i].status);
            if (r.status == HTTP_CALL_REPLIED)
                assert_int_equal(r.body_len, 5);
        }
        http_client_close(client, NULL, NULL);
        uv_run(&loop, UV_RUN_DEFAULT);
        assert_int_equal(uv_loop_close(&loop), 0);
        server_stop(&server);
        assert_int_equal(server.accepted, cases[i].status == HTTP_CALL_REPLIED ? 1 : 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_tls) };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
