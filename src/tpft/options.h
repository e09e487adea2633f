/*
 * The command line of tpft(1).                               (doc/protocol/tinyproto.md, 14.1)
 */
#ifndef TPFT_OPTIONS_H
#define TPFT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "path.h"

#define OPTIONS_LISTEN_MAX 16

struct options {
    struct path_remote listen[OPTIONS_LISTEN_MAX];
    size_t n_listen; /* 0: a client */
    bool is_verbose, shows_progress, is_read_only, wants_checksum, wants_resume;
    const char *root;
    uint32_t chunk_bytes;
    uint32_t max_connections;
    uint32_t timeout_s; /* without progress */

    /* Of a client: sources, and the destination behind them. */
    char **paths;
    size_t n_sources;
    bool is_upload;
    struct path_remote server;
};

/* -1: go on; else exit with that. What is wrong was said. */
int options_parse(struct options *o, int argc, char **argv);

#endif
