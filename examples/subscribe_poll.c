/*
 * Waits for messages and for lines of standard input in one poll(2), and prints both; for a time of any rule, here so
 * many milliseconds without either. Ends then, or with standard input.
 *
 *     subscribe_poll ws://127.0.0.1:3003 demo/hello 10000
 *
 * Build: cc subscribe_poll.c $(pkg-config --cflags --libs lonelypsc)
 */
#include <poll.h>
#include <unistd.h>

#include "client_example.h"

/* All that has come. */
static void print_messages(struct lonely_subscription *s)
{
    struct lonely_delivery *d;
    enum lonely_client_error err;

    while ((err = lonely_subscription_next(s, 0, &d)) == LONELY_CLIENT_OK) {
        example_print(d);
        lonely_delivery_release(d);
    }
    if (err != LONELY_CLIENT_TIMED_OUT)
        example_check(err, "next");
}

int main(int argc, char **argv)
{
    struct pollfd fds[2] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .events = POLLIN } };
    struct lonely_subscription *subscription;
    struct lonely_client *client;
    char line[256];
    ssize_t n = 1;

    if (argc != 4) {
        fprintf(stderr, "usage: subscribe_poll URL TOPIC MILLISECONDS\n");
        return 2;
    }
    client = example_open(argv[1]);
    example_check(lonely_subscribe_exact(client, example_span(argv[2]), NULL, &subscription),
                  "subscribe");
    fds[1].fd = lonely_subscription_fd(subscription);
    puts("subscribed");
    fflush(stdout);
    while (n > 0 && poll(fds, 2, (int)strtol(argv[3], NULL, 10)) > 0) {
        if (fds[1].revents != 0)
            print_messages(subscription);
        if (fds[0].revents != 0 && (n = read(STDIN_FILENO, line, sizeof(line))) > 0) {
            printf("typed\t%.*s", (int)n, line);
            fflush(stdout);
        }
    }
    lonely_subscription_destroy(subscription);
    return lonely_client_close(client) == LONELY_CLIENT_OK ? 0 : 1;
}
