/*
 * Messages and events on standard output, in the formats of `lonelypsc subscribe`.
 */
#ifndef PRINT_H
#define PRINT_H

#include "cli.h"

enum print_format { PRINT_TEXT, PRINT_RAW, PRINT_JSONL };
enum print_data { PRINT_DATA_AUTO, PRINT_DATA_ALWAYS, PRINT_DATA_NEVER }; /* auto: up to 64 KiB */

struct printer {
    enum print_format format;
    enum print_data data; /* JSONL: data_base64 */
    bool messages;        /* else only events */
};

/* `file`: where --output has put it, or NULL. False: it cannot be read again (complained). What stands
 * in the way of writing is told by cli_flush. */
bool print_message(const struct printer *p, const struct lonely_delivery *d, const char *file);
void print_ready(const struct printer *p);
/* `topic.ptr` NULL: on any topic. Not as JSONL it goes to standard error. */
void print_missed(const struct printer *p, struct lonely_span topic);

/* Hands all of a message to `take`, piece by piece; `more`: it is not the last. False: `take` said so, or
 * the message cannot be read again (complained). */
bool delivery_each_piece(const struct lonely_delivery *d,
                         bool (*take)(void *arg, struct lonely_span piece, bool more), void *arg);

#endif
