/*
 * A subscriber whose receiver is served by the program's own HTTP server, libmicrohttpd's here
 * (mhd_mount.h). Prints TOPIC, a tab and the message for each that comes; ends at Ctrl-C or SIGTERM.
 *
 * Build: cc mount_subscriber.c -o mount_subscriber $(pkg-config --cflags --libs lonelypsc libmicrohttpd)
 * Run:   ./mount_subscriber http://127.0.0.1:3003 8081 news-*
 */
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>

#include <lonely/client.h>

#include "mhd_mount.h"

#define PREFIX "/hooks"

static struct lonely_client *open_client(const char *broadcaster, unsigned port,
                                         struct lonely_client_why *why)
{
    struct lonely_client_options *o = lonely_client_options_create();
    struct lonely_client *client = NULL;
    char host[128];

    snprintf(host, sizeof(host), "http://127.0.0.1:%u" PREFIX, port);
    if (lonely_client_options_set(o, "broadcaster", broadcaster, why) == LONELY_CLIENT_OK &&
        lonely_client_options_set(o, "bind", "none", why) == LONELY_CLIENT_OK &&
        lonely_client_options_set(o, "host", host, why) == LONELY_CLIENT_OK)
        lonely_client_open(o, &client, why);
    lonely_client_options_destroy(o);
    return client;
}

static void print_messages(struct lonely_subscription *sub)
{
    struct lonely_delivery *d;

    while (lonely_subscription_next(sub, 0, &d) == LONELY_CLIENT_OK) {
        struct lonely_span topic = lonely_delivery_topic(d);
        uint64_t at = 0;
        char part[4096];
        ptrdiff_t n;

        printf("%.*s\t", (int)topic.len, (const char *)topic.ptr);
        for (; (n = lonely_delivery_read(d, at, part, sizeof(part))) > 0; at += (uint64_t)n)
            fwrite(part, 1, (size_t)n, stdout);
        printf("\n");
        fflush(stdout);
        lonely_delivery_release(d);
    }
}

/* Until a signal comes. */
static void run(struct lonely_client *client, const char *glob, int signals)
{
    struct lonely_subscription *sub;
    enum lonely_client_error err = lonely_subscribe_glob(client, mhd_span(glob), NULL, &sub);
    struct pollfd fds[2] = { { .fd = signals, .events = POLLIN }, { .events = POLLIN } };

    if (err != LONELY_CLIENT_OK) {
        fprintf(stderr, "mount_subscriber: %s\n", lonely_client_error_str(err));
        return;
    }
    printf("subscribed %s\n", lonely_client_url(client));
    fflush(stdout);
    fds[1].fd = lonely_subscription_fd(sub);
    while (poll(fds, 2, -1) > 0 && fds[0].revents == 0)
        print_messages(sub);
    lonely_subscription_destroy(sub);
}

int main(int argc, char **argv)
{
    struct mhd_mount server = { 0 };
    struct lonely_client_why why;
    struct lonely_client *client;
    unsigned port;
    sigset_t ends;

    if (argc != 4) {
        fprintf(stderr, "usage: mount_subscriber BROADCASTER-URL PORT GLOB\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    port = mhd_mount_start(&server, PREFIX, (unsigned)strtoul(argv[2], NULL, 10));
    if (port == 0) {
        fprintf(stderr, "mount_subscriber: cannot listen on port %s\n", argv[2]);
        return 1;
    }
    client = open_client(argv[1], port, &why);
    if (client == NULL) {
        fprintf(stderr, "mount_subscriber: %s\n", why.text);
        mhd_mount_stop(&server);
        return 1;
    }
    mhd_mount_set(&server, lonely_client_mount(client));
    run(client, argv[3], signalfd(-1, &ends, SFD_CLOEXEC));
    mhd_mount_set(&server,
                  NULL); /* the mount goes with the client, which answers what still waits */
    lonely_client_close(client);
    mhd_mount_stop(&server);
    return 0;
}
