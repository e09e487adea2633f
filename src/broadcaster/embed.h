/*
 * The inside of <lonely/broadcaster.h>, which the daemon shares: main.c has read its options already.
 */
#ifndef EMBED_H
#define EMBED_H

#include <lonely/broadcaster.h>

#include "broadcaster.h"
#include "options.h"

struct lonely_broadcaster {
    struct options options;
    char *config, *mount; /* what options points at; NULL: it is the caller's, or nothing */
    struct log log;
    struct broadcaster *b;
    struct lonely_broadcaster_address *addresses;
    size_t address_count;
    bool started, joined;
};

/* As lonely_broadcaster_open, with options that are read and checked; takes them over, also on failure
 * (`o` is empty then). The log goes to standard error. */
enum lonely_broadcaster_error embed_open(struct options *o, struct lonely_broadcaster **out,
                                         struct lonely_broadcaster_why *why);

/* Only looks at the parts that `o` names: certificates, secrets, the form of the database's address. */
enum lonely_broadcaster_error embed_check(const struct options *o,
                                          struct lonely_broadcaster_why *why);

#endif
