/*
 * Sends a message and prints how many subscribers were notified:
 *
 *     notify_bytes http://127.0.0.1:3003 demo/hello 'Hello'
 *
 * Build: cc notify_bytes.c $(pkg-config --cflags --libs lonelypsc)
 */
#include "client_example.h"

int main(int argc, char **argv)
{
    struct lonely_client *client;
    struct lonely_notify notify;
    uint64_t notified;

    if (argc != 4) {
        fprintf(stderr, "usage: notify_bytes URL TOPIC MESSAGE\n");
        return 2;
    }
    client = example_open(argv[1]);
    lonely_notify_init(&notify);
    notify.topic = example_span(argv[2]);
    notify.bytes = example_span(argv[3]);
    example_check(lonely_client_notify(client, &notify, 30000, &notified), "notify");
    printf("notified %llu\n", (unsigned long long)notified);
    return lonely_client_close(client) == LONELY_CLIENT_OK ? 0 : 1;
}
