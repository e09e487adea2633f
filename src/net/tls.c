/*
 * OpenSSL's context of a server from files (tls.h). Made at start and on SIGHUP by the main thread;
 * stream_tls.c takes a connection from it for each socket, on the threads of the workers. What keeps
 * an old context alive is OpenSSL's own count: each connection holds one.
 */
#include "tls.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "mem.h"

#define SUITES_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20"

/* How long a ticket is good: a client certificate that has run out meanwhile is not looked at. */
#define TICKET_S 3600

struct tls_server {
    uv_mutex_t lock; /* held for the time of a count only */
    SSL_CTX *ctx;
};

const char *tls_reason(void)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason;

    if (ERR_SYSTEM_ERROR(code))
        return strerror(ERR_GET_REASON(code));
    reason = code == 0 ? NULL : ERR_reason_error_string(code);
    return reason == NULL ? "unknown error" : reason;
}

/* The end of a path, so that the reason behind it is never cut off. */
static const char *show_path(const char *path)
{
    size_t len = strlen(path);

    return len > 120 ? path + len - 120 : path;
}

static bool fail(char error[256], const char *what, const char *path, const char *why)
{
    snprintf(error, 256, "%s: %s: %s", what, show_path(path), why);
    ERR_clear_error();
    return false;
}

/* OpenSSL's own words for a file that is missing or no file are of little use. */
static bool is_readable(const char *what, const char *path, char error[256])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (fd < 0)
        return fail(error, what, path, strerror(errno));
    if (fstat(fd, &st) != 0)
        st.st_mode = 0;
    close(fd);
    return S_ISREG(st.st_mode) || fail(error, what, path, "not a regular file");
}

/* Asking a terminal, OpenSSL's default, is nothing for a daemon. */
static int no_passphrase(char *to, int size, int writing, void *arg)
{
    (void)to;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

static bool load_own(SSL_CTX *ctx, const struct tls_files *files, char error[256])
{
    if (!is_readable("certificate", files->certificate, error) ||
        !is_readable("key", files->key, error))
        return false;
    if (SSL_CTX_use_certificate_chain_file(ctx, files->certificate) != 1)
        return fail(error, "certificate", files->certificate,
                    ERR_GET_REASON(ERR_peek_last_error()) == ERR_R_PEM_LIB
                        ? "holds no certificate in PEM"
                        : tls_reason());
    SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
    if (SSL_CTX_use_PrivateKey_file(ctx, files->key, SSL_FILETYPE_PEM) != 1)
        return fail(error, "key", files->key,
                    ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH ||
                            ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_TYPE_MISMATCH
                        ? "is not the key of the certificate"
                        : "holds no private key in PEM, or needs a passphrase");
    return SSL_CTX_check_private_key(ctx) == 1 ||
           fail(error, "key", files->key, "is not the key of the certificate");
}

static bool load_clients(SSL_CTX *ctx, const struct tls_files *files, char error[256])
{
    static const unsigned char id[] = "lonely"; /* tickets and client certificates need one */
    static const int modes[] = {
        [TLS_CLIENT_NONE] = SSL_VERIFY_NONE,
        [TLS_CLIENT_OPTIONAL] = SSL_VERIFY_PEER,
        [TLS_CLIENT_REQUIRED] = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
    };
    STACK_OF(X509_NAME) * names;

    SSL_CTX_set_session_id_context(ctx, id, sizeof(id) - 1);
    SSL_CTX_set_verify(ctx, modes[files->client_certificate], NULL);
    if (files->client_ca == NULL)
        return true;
    if (!is_readable("client CA", files->client_ca, error))
        return false;
    names = SSL_load_client_CA_file(files->client_ca);
    if (names == NULL || SSL_CTX_load_verify_file(ctx, files->client_ca) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return fail(error, "client CA", files->client_ca, "holds no certificate in PEM");
    }
    if (files->client_certificate == TLS_CLIENT_NONE)
        sk_X509_NAME_pop_free(names, X509_NAME_free);
    else
        SSL_CTX_set_client_CA_list(ctx, names);
    return true;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                   const unsigned char *in, unsigned in_len, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen;

    (void)ssl;
    (void)arg;
    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof(ours) - 1, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL; /* (RFC 7301, 3.2) */
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static bool set_rules(SSL_CTX *ctx)
{
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_timeout(ctx, TICKET_S);
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    return SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(ctx, SUITES_1_2) == 1;
}

/* NULL: `error`. */
static SSL_CTX *load(const struct tls_files *files, char error[256])
{
    SSL_CTX *ctx;

    ERR_clear_error();
    ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL || !set_rules(ctx)) {
        snprintf(error, 256, "cannot set up TLS: %s", tls_reason());
        ERR_clear_error();
        SSL_CTX_free(ctx);
        return NULL;
    }
    if (!load_own(ctx, files, error) || !load_clients(ctx, files, error)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

struct tls_server *tls_server_create(const struct tls_files *files, char error[256])
{
    SSL_CTX *ctx = load(files, error);
    struct tls_server *server;

    if (ctx == NULL)
        return NULL;
    server = mem_calloc(1, sizeof(*server));
    (void)uv_mutex_init(&server->lock);
    server->ctx = ctx;
    return server;
}

bool tls_server_reload(struct tls_server *server, const struct tls_files *files, char error[256])
{
    SSL_CTX *fresh = load(files, error), *old;

    if (fresh == NULL)
        return false;
    uv_mutex_lock(&server->lock);
    old = server->ctx;
    server->ctx = fresh;
    uv_mutex_unlock(&server->lock);
    SSL_CTX_free(old);
    return true;
}

SSL *tls_server_connection(struct tls_server *server)
{
    SSL_CTX *ctx;
    SSL *ssl;

    uv_mutex_lock(&server->lock);
    ctx = server->ctx;
    SSL_CTX_up_ref(ctx);
    uv_mutex_unlock(&server->lock);
    ssl = SSL_new(ctx);
    SSL_CTX_free(ctx);
    if (ssl != NULL)
        SSL_set_accept_state(ssl);
    ERR_clear_error();
    return ssl;
}

void tls_server_destroy(struct tls_server *server)
{
    if (server == NULL)
        return;
    SSL_CTX_free(server->ctx);
    uv_mutex_destroy(&server->lock);
    mem_free(server);
}

/* ---- Files of a client ---- */

bool tls_trust_is_good(const char *path, char error[256])
{
    X509_STORE *store = X509_STORE_new();
    bool good = store != NULL && X509_STORE_load_file(store, path) == 1;

    X509_STORE_free(store);
    if (!good && access(path, R_OK) != 0)
        snprintf(error, 256, "ca_file %s: %s", path, strerror(errno));
    else if (!good)
        snprintf(error, 256, "ca_file %s: no PEM certificates in it", path);
    return good;
}

bool tls_identity_is_good(const char *certificate, const char *key, char error[256])
{
    SSL_CTX *ssl = SSL_CTX_new(TLS_client_method());
    bool good = ssl != NULL && SSL_CTX_use_certificate_chain_file(ssl, certificate) == 1 &&
                SSL_CTX_use_PrivateKey_file(ssl, key, SSL_FILETYPE_PEM) == 1 &&
                SSL_CTX_check_private_key(ssl) == 1;

    SSL_CTX_free(ssl);
    ERR_clear_error();
    if (!good)
        snprintf(error, 256, "%.100s, %.100s: not a PEM certificate and its key", certificate, key);
    return good;
}
