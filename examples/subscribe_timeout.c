/*
 * Prints messages; each time that none comes for a second, a line of its own. After three of those it ends.
 *
 *     subscribe_timeout ws://127.0.0.1:3003 demo/hello
 *
 * Build: cc subscribe_timeout.c $(pkg-config --cflags --libs lonelypsc)
 */
#include "client_example.h"

int main(int argc, char **argv)
{
    struct lonely_subscription *subscription;
    struct lonely_delivery *d;
    struct lonely_client *client;
    enum lonely_client_error err;
    int silent = 0;

    if (argc != 3) {
        fprintf(stderr, "usage: subscribe_timeout URL TOPIC\n");
        return 2;
    }
    client = example_open(argv[1]);
    example_check(lonely_subscribe_exact(client, example_span(argv[2]), NULL, &subscription),
                  "subscribe");
    puts("subscribed");
    fflush(stdout);
    while (silent < 3) {
        err = lonely_subscription_next(subscription, 1000, &d);
        if (err == LONELY_CLIENT_TIMED_OUT) {
            puts("nothing");
            fflush(stdout);
            silent++;
            continue;
        }
        example_check(err, "next");
        example_print(d);
        lonely_delivery_release(d);
    }
    lonely_subscription_destroy(subscription);
    return lonely_client_close(client) == LONELY_CLIENT_OK ? 0 : 1;
}
