/*
 * Prints the messages of one topic until one says "stop":
 *
 *     subscribe_exact ws://127.0.0.1:3003 demo/hello
 *
 * Build: cc subscribe_exact.c $(pkg-config --cflags --libs lonelypsc)
 */
#include "client_example.h"

static int says_stop(const struct lonely_delivery *d)
{
    char text[4];

    return lonely_delivery_size(d) == 4 && lonely_delivery_read(d, 0, text, 4) == 4 &&
           memcmp(text, "stop", 4) == 0;
}

int main(int argc, char **argv)
{
    struct lonely_subscription *subscription;
    struct lonely_delivery *d;
    struct lonely_client *client;
    int stopped = 0;

    if (argc != 3) {
        fprintf(stderr, "usage: subscribe_exact URL TOPIC\n");
        return 2;
    }
    client = example_open(argv[1]);
    example_check(lonely_subscribe_exact(client, example_span(argv[2]), NULL, &subscription),
                  "subscribe");
    puts("subscribed");
    fflush(stdout);
    while (!stopped) {
        example_check(lonely_subscription_next(subscription, -1, &d), "next");
        example_print(d);
        stopped = says_stop(d);
        lonely_delivery_release(d);
    }
    lonely_subscription_destroy(subscription);
    return lonely_client_close(client) == LONELY_CLIENT_OK ? 0 : 1;
}
