/*
 * A broadcaster as anybody sees it, before any authorization: address, TLS, clock.
 */
#ifndef PROBE_H
#define PROBE_H

#include <stdbool.h>
#include <stdint.h>

enum probe_result {
    PROBE_GOOD,
    PROBE_ADDRESS, /* no such host, nobody listens, no answer in time */
    PROBE_TLS,     /* the handshake failed, or the certificate is not trusted */
    PROBE_PROTOCOL /* somebody answers, but not in HTTP */
};

struct probe {
    enum probe_result result;
    char peer[128]; /* "ADDRESS port PORT"; empty when nobody was reached */
    char why[256];  /* unless PROBE_GOOD */
    bool has_clock;
    double ahead_s; /* our clock is so much ahead of the broadcaster's; behind when negative */
};

struct probe_conf {
    const char *url;             /* http(s), ws(s), tcp(s) */
    const char *ca, *cert, *key; /* PEM files, or NULL */
    const char *proxy;           /* or NULL */
    int64_t timeout_ms;
    bool (*is_stopped)(
        void *arg); /* asked now and then; true: an end to it, whatever `result` says then */
    void *arg;
};

void probe_run(const struct probe_conf *conf, struct probe *out);

#endif
