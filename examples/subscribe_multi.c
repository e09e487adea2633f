/*
 * One subscription to several topics and patterns, which change while it runs: each topic is given up after its first
 * message, and the program ends when none is left. Patterns are words with a '*'.
 *
 *     subscribe_multi tcp://127.0.0.1:3004 demo/a demo/b 'other/x'
 *
 * Build: cc subscribe_multi.c $(pkg-config --cflags --libs lonelypsc)
 */
#include "client_example.h"

int main(int argc, char **argv)
{
    struct lonely_subscription *subscription;
    struct lonely_delivery *d;
    struct lonely_client *client;
    int left = 0;

    if (argc < 3) {
        fprintf(stderr, "usage: subscribe_multi URL TOPIC...\n");
        return 2;
    }
    client = example_open(argv[1]);
    example_check(lonely_subscription_create(client, NULL, &subscription), "create");
    for (int i = 2; i < argc; i++) { /* before it is entered, nothing is sent: 0 */
        struct lonely_span key = example_span(argv[i]);

        if (strchr(argv[i], '*') != NULL)
            example_check(lonely_subscription_add_glob(subscription, key, 0), "glob");
        else
            example_check(lonely_subscription_add_exact(subscription, key, 0), "topic");
        left += strchr(argv[i], '*') == NULL;
    }
    example_check(lonely_subscription_enter(subscription, -1), "subscribe");
    puts("subscribed");
    fflush(stdout);
    while (left > 0) {
        example_check(lonely_subscription_next(subscription, -1, &d), "next");
        example_print(d);
        if (lonely_subscription_remove_exact(subscription, lonely_delivery_topic(d), -1) ==
            LONELY_CLIENT_OK)
            left--; /* else it came by a pattern */
        lonely_delivery_release(d);
    }
    lonely_subscription_destroy(subscription);
    return lonely_client_close(client) == LONELY_CLIENT_OK ? 0 : 1;
}
