/*
 * The server's side of TLS: certificate, key and rules, from files, replaceable while connections
 * run. The connections themselves are stream_tls.h's.
 *
 * TLS 1.2 and 1.3; of 1.2 only suites with forward secrecy and authenticated encryption. No
 * renegotiation, no compression, no early data. Sessions are resumed by tickets, nothing is kept
 * about a session here. ALPN: http/1.1; a peer that offers other protocols only is refused.
 */
#ifndef NET_TLS_H
#define NET_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>

enum tls_client_certificate {
    TLS_CLIENT_NONE,     /* is not asked for */
    TLS_CLIENT_OPTIONAL, /* one that is shown must be good */
    TLS_CLIENT_REQUIRED
};

/* Paths of PEM files. A key that needs a passphrase is refused. */
struct tls_files {
    const char *certificate; /* the server's, then those between it and an authority */
    const char *key;
    const char
        *client_ca; /* who may sign client certificates; NULL: nobody, needs TLS_CLIENT_NONE */
    enum tls_client_certificate client_certificate;
};

/* What new connections begin with. Any thread may use it. */
struct tls_server;

/* NULL: `error` says in one line which file is wrong and why; of a key never more than that. */
struct tls_server *tls_server_create(const struct tls_files *files, char error[256]);

/* Reads files anew. From now on connections begin with them; those that are open keep what they
 * have, and tickets of before are no longer taken. false: all is as before, and `error` says why. */
bool tls_server_reload(struct tls_server *server, const struct tls_files *files, char error[256]);

/* A new connection's own half, about to accept; the caller's to SSL_free. NULL: no memory. */
SSL *tls_server_connection(struct tls_server *server);

/* Connections may outlive it. NULL is allowed. */
void tls_server_destroy(struct tls_server *server);

/* The latest complaint of OpenSSL on this thread, in a few words; never NULL. */
const char *tls_reason(void);

/* Does the file hold certificates to trust; do the two hold a certificate and its key? `error` says why
 * not. libcurl would tell only when it connects. */
bool tls_trust_is_good(const char *path, char error[256]);
bool tls_identity_is_good(const char *certificate, const char *key, char error[256]);

#endif
