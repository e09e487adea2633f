/*
 * What the examples of the subscriber library share: opening a client from the command line, and saying what
 * went wrong. Header only; the examples are built with -llonelypsc and nothing else.
 */
#ifndef CLIENT_EXAMPLE_H
#define CLIENT_EXAMPLE_H

#include <lonely/client.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline struct lonely_span example_span(const char *text)
{
    return (struct lonely_span){ (const uint8_t *)text, strlen(text) };
}

/* Prints what failed, and ends. */
static inline void example_check(enum lonely_client_error err, const char *what)
{
    if (err == LONELY_CLIENT_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, lonely_client_error_str(err));
    exit(1);
}

/* A client of one broadcaster: URL says by which transport. The port of the receiver (HTTP) is any that is
 * free; where $LONELY_SECRETS names a file, that is used. */
static inline struct lonely_client *example_open(const char *url)
{
    struct lonely_client_options *o = lonely_client_options_create();
    const char *secrets = getenv("LONELY_SECRETS");
    struct lonely_client_why why = { "" };
    struct lonely_client *client = NULL;

    signal(SIGPIPE, SIG_IGN);
    if (lonely_client_options_set(o, "broadcaster", url, &why) != LONELY_CLIENT_OK ||
        lonely_client_options_set(o, "bind", "127.0.0.1:0", &why) != LONELY_CLIENT_OK ||
        (secrets != NULL &&
         lonely_client_options_set(o, "secrets", secrets, &why) != LONELY_CLIENT_OK) ||
        lonely_client_open(o, &client, &why) != LONELY_CLIENT_OK) {
        fprintf(stderr, "cannot open a client: %s\n", why.text);
        exit(1);
    }
    lonely_client_options_destroy(o);
    return client;
}

/* The number of bytes, and the message if it is short text. */
static inline void example_print(const struct lonely_delivery *d)
{
    struct lonely_span topic = lonely_delivery_topic(d);
    char text[256];
    ptrdiff_t n = lonely_delivery_read(d, 0, text, sizeof(text));

    printf("%.*s\t%.*s\n", (int)topic.len, (const char *)topic.ptr, n > 0 ? (int)n : 0, text);
    fflush(stdout);
}

#endif
