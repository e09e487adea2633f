/*
 * Prints so many messages of the topics that match a pattern:
 *
 *     subscribe_glob http://127.0.0.1:3003 'demo/?*' 3
 *
 * Build: cc subscribe_glob.c $(pkg-config --cflags --libs lonelypsc)
 */
#include "client_example.h"

int main(int argc, char **argv)
{
    struct lonely_subscription *subscription;
    struct lonely_delivery *d;
    struct lonely_client *client;

    if (argc != 4) {
        fprintf(stderr, "usage: subscribe_glob URL PATTERN COUNT\n");
        return 2;
    }
    client = example_open(argv[1]);
    example_check(lonely_subscribe_glob(client, example_span(argv[2]), NULL, &subscription),
                  "subscribe");
    puts("subscribed");
    fflush(stdout);
    for (long left = strtol(argv[3], NULL, 10); left > 0; left--) {
        example_check(lonely_subscription_next(subscription, -1, &d), "next");
        example_print(d);
        lonely_delivery_release(d);
    }
    lonely_subscription_destroy(subscription);
    return lonely_client_close(client) == LONELY_CLIENT_OK ? 0 : 1;
}
