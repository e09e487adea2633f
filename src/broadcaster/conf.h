/*
 * The options of the broadcaster: one table (conf.c) makes the configuration file, --set, --help,
 * the sample file and lonelypss.ini(5).
 */
#ifndef CONF_H
#define CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "conf_value.h"

/* A field a key, named after it; times in milliseconds, sizes in bytes; CONF_NONE where `none` is
 * allowed. */
struct conf {
    struct {
        struct conf_list listen, tls_listen;
        char *admin_listen; /* NULL: none */
        uint64_t workers;
        char *receiver_url, *missed_url; /* or `derived`; missed_url NULL: none */
        char *spool_dir;
        uint64_t drain_timeout_ms;
    } broadcaster;
    struct {
        uint64_t header_timeout_ms, body_idle_timeout_ms, keepalive_timeout_ms, body_timeout_ms;
        uint64_t discard_bytes, max_header_bytes;
    } http;
    struct {
        struct conf_list listen, tls_listen;
        uint64_t max_frame, outgoing_max_message_size;
        uint64_t user_timeout_ms;
    } tcp;
    struct {
        char *certificate, *key, *client_ca; /* NULL: none */
        char *client_certificate;            /* none, optional, required */
    } tls;
    struct {
        char *type;
        char *path;
        struct conf_list url;
        char *password_file; /* NULL: none */
        uint64_t timeout_ms;
        uint64_t missed_lock_time_s;
        uint64_t index_max_staleness_ms;
        char *rqlite_read; /* linearizable, weak */
    } database;
    struct {
        char *secrets; /* NULL: none */
        struct conf_list also_accept;
        bool strict_permissions;
        char *replay_store; /* database, memory, none */
    } auth;
    struct {
        uint64_t outgoing_http_timeout_total_ms, outgoing_http_timeout_connect_ms;
        uint64_t outgoing_http_timeout_sock_connect_ms, outgoing_http_timeout_sock_read_ms;
        uint64_t max_in_flight, max_per_origin, max_per_url, max_queued, max_reply_bytes;
        struct conf_list allow, deny; /* of ADDRESS/BITS */
        char *ca_file;                /* NULL: none */
        char *proxy;                  /* NULL: none */
    } webhook;
    struct {
        uint64_t websocket_accept_timeout_ms, configure_timeout_ms;
        uint64_t websocket_max_pending_sends, websocket_max_unprocessed_receives;
        uint64_t websocket_send_max_unacknowledged;
        bool websocket_minimal_headers;
        uint64_t websocket_large_direct_send_timeout_ms; /* of the reference; has no effect */
        uint64_t outgoing_max_ws_message_size, max_frame;
        char *websocket_count_parts; /* auto, each, first */
        uint64_t ping_interval_ms, ping_timeout_ms;
        struct conf_list allowed_origins;
    } websocket;
    struct {
        bool compression_allowed;
        struct conf_list dictionary; /* of "ID LEVEL PATH" */
        bool allow_training;
        uint64_t compression_min_size, compression_trained_max_size;
        uint64_t compression_training_low_watermark, compression_training_high_watermark;
        uint64_t compression_retrain_interval_seconds;
        uint64_t decompression_max_window_size; /* 0: the library's limit */
    } compression;
    struct {
        uint64_t sweep_missed_interval_ms;
        double expo_factor, expo_base, expo_max;
        uint64_t max_retries;
        double constant, jitter;
    } missed;
    struct {
        uint64_t message_body_spool_size, max_body_memory, max_message_bytes;
        uint64_t max_topic_bytes, max_glob_bytes, max_url_bytes;
        uint64_t max_connections, max_connections_per_address;
        uint64_t retry_after_s;
    } limits;
    struct {
        char *level;  /* error, warn, info, debug */
        char *format; /* text, json */
        bool access;
    } log;
    /* No key: the prefix under which a program mounts the broadcaster in its own server; NULL: it does
     * not. Borrowed. */
    const char *mount;
};

/* One line, what is wrong and where ("lonelypss.ini:12: ..."), ready to be printed. */
struct conf_error {
    char text[512];
};

/* Fills `c` with the defaults. Strings and lists are owned by `c` until conf_fini. */
void conf_init(struct conf *c);
void conf_fini(struct conf *c);

/* Reads an INI file; relative paths in it become relative to its folder. false: `error`, and `c` is
 * only good for conf_fini. */
bool conf_read_file(struct conf *c, const char *path, struct conf_error *error);

/* Applies "section.key=value"; wins over the file. A list given so replaces the file's; given again
 * it grows. */
bool conf_set(struct conf *c, const char *assignment, struct conf_error *error);

/* Checks what only the whole shows (an address list that is empty, a limit above another). */
bool conf_check(const struct conf *c, struct conf_error *error);

void conf_print_help(FILE *out); /* every option with unit, default and meaning */
void conf_print_sample(
    FILE *out,
    const struct conf *c); /* an INI file with the values of `c`; defaults commented out */

#endif
