/*
 * Sends a file of any size, in constant memory, and says how far it is:
 *
 *     notify_file tcp://127.0.0.1:3004 demo/file /etc/services
 *
 * Build: cc notify_file.c $(pkg-config --cflags --libs lonelypsc)
 */
#include <fcntl.h>
#include <unistd.h>

#include "client_example.h"

static void on_progress(void *arg, uint64_t sent, uint64_t size)
{
    (void)arg;
    fprintf(stderr, "\r%3u %%", size > 0 ? (unsigned)(100 * sent / size) : 100);
}

int main(int argc, char **argv)
{
    struct lonely_client *client;
    struct lonely_notify notify;
    uint64_t notified;

    if (argc != 4) {
        fprintf(stderr, "usage: notify_file URL TOPIC FILE\n");
        return 2;
    }
    lonely_notify_init(&notify);
    notify.topic = example_span(argv[2]);
    notify.fd = open(argv[3], O_RDONLY);
    notify.size = UINT64_MAX; /* from its present offset to its end */
    notify.progress = on_progress;
    if (notify.fd < 0) {
        perror(argv[3]);
        return 1;
    }
    client = example_open(argv[1]);
    example_check(lonely_client_notify(client, &notify, -1, &notified), "notify");
    printf("notified %llu\n", (unsigned long long)notified);
    close(notify.fd);
    return lonely_client_close(client) == LONELY_CLIENT_OK ? 0 : 1;
}
