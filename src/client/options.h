/*
 * The options of a client: one table makes lonely_client_options_set, the command line's long options,
 * their completion and the manual. (doc/protocol/session.md, 10)
 */
#ifndef CLIENT_OPTIONS_H
#define CLIENT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <lonely/client.h>

#include "conf_value.h"

enum client_scheme { CLIENT_HTTP, CLIENT_HTTPS, CLIENT_WS, CLIENT_WSS, CLIENT_TCP, CLIENT_TCPS };

#define CLIENT_NO_PRIORITY INT64_MAX

struct client_broadcaster {
    enum client_scheme scheme;
    char *url; /* as given, without a slash at its end */
    int64_t priority;
};

struct client_dictionary {
    uint64_t id;
    int level;
    char *path;
};

/* A field an option, named after it; times in milliseconds, sizes in bytes; CONF_NONE for none. */
struct client_conf {
    struct conf_list broadcaster, dictionary;
    char *io;
    char *secrets;
    char *bind, *host;
    char *ca, *cert, *key;
    char *receiver_cert, *receiver_key;
    char *proxy;
    char *spool_dir;
    char *tracing;
    uint64_t message_body_spool_size, max_received, max_received_bytes;
    uint64_t outgoing_retries_per_broadcaster, outgoing_http_timeout_total_ms,
        outgoing_http_timeout_connect_ms, outgoing_http_timeout_sock_read_ms,
        outgoing_http_timeout_sock_connect_ms, resubscribe_interval_ms;
    bool outgoing_retry_ambiguous;
    uint64_t outgoing_initial_connect_retries, outgoing_reconnect_retries,
        outgoing_min_reconnect_interval_ms;
    uint64_t max_websocket_message_size, max_frame;
    uint64_t websocket_open_timeout_ms, websocket_close_timeout_ms, websocket_heartbeat_interval_ms;
    bool websocket_minimal_headers, check_confirmations;
    uint64_t max_sent_notifications, max_unsent_notifications, max_expected_acks, max_unsent_acks;
    bool allow_compression, allow_training_compression;
    uint64_t initial_compression_dict_id, decompression_max_window_size;
    uint64_t tcp_user_timeout_ms;
    struct lonely_client_tracer tracer;
    bool has_tracer;
    /* Made of the lists by client_conf_finish: */
    struct client_broadcaster *broadcasters;
    size_t broadcaster_count;
    struct client_dictionary *dictionaries;
    size_t dictionary_count;
};

struct lonely_client_options {
    struct client_conf conf;
};

/* A copy, checked as a whole. false: `why`. */
bool client_conf_finish(const struct lonely_client_options *o, struct client_conf *out,
                        struct lonely_client_why *why);
void client_conf_fini(struct client_conf *conf);

static inline bool client_scheme_is_http(enum client_scheme scheme)
{
    return scheme == CLIENT_HTTP || scheme == CLIENT_HTTPS;
}

#endif
