/*
 * What a server does for one connection: requests, one after the other. (doc/protocol/tinyproto.md, 14)
 */
#ifndef TPFT_VISIT_H
#define TPFT_VISIT_H

#include <stdatomic.h>
#include <sys/types.h>

#include <uv.h>

#include <tinyproto/tinyproto.h>

#include "root.h"

/* What all connections share; serve.c makes it. */
struct shop {
    struct root root;
    uv_loop_t loop;
    mode_t mode; /* of files that were uploaded */
    uint32_t chunk_bytes;
    uint32_t idle_ms; /* the longest time between letters and chunks */
    bool is_read_only;
    bool is_verbose;
    atomic_bool is_stopping; /* long reads end */
};

/* The hooks of a connection; its server's arg is the shop. */
extern const struct tinyproto_handler visit_handler;
bool visit_begin(struct tinyproto_server *server, struct tinyproto_conn *conn); /* conn_init */
void visit_end(struct tinyproto_server *server, struct tinyproto_conn *conn,
               const struct tinyproto_cause *why); /* conn_shutdown */

#endif
