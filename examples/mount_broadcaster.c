/*
 * A broadcaster in the program's own HTTP server, below a path of it, websockets included. The server is
 * libmicrohttpd's (mhd_mount.h); what is not below the path the program answers itself. Configuration and
 * secrets as `lonelypss --setup` makes them; ends at Ctrl-C or SIGTERM.
 *
 * Build: cc mount_broadcaster.c -o mount_broadcaster $(pkg-config --cflags --libs lonelypss libmicrohttpd)
 * Run:   ./mount_broadcaster lonelypss.ini /pubsub 8080
 */
#include <signal.h>

#include <lonely/broadcaster.h>

#include "mhd_mount.h"

static struct lonely_broadcaster *start(const char *config, const char *url, const char *prefix,
                                        struct lonely_broadcaster_why *why)
{
    struct lonely_broadcaster_options *o = lonely_broadcaster_options_create();
    struct lonely_broadcaster *b = NULL;
    char receiver_url[256];

    /* What other broadcasters send for the websockets here comes to the same server. */
    snprintf(receiver_url, sizeof(receiver_url), "%s/v1/receive_for_websockets", url);
    lonely_broadcaster_options_set_file(o, config);
    if (lonely_broadcaster_options_set_mount(o, prefix, why) != LONELY_BROADCASTER_OK ||
        lonely_broadcaster_options_set(o, "broadcaster.listen", "none", why) !=
            LONELY_BROADCASTER_OK ||
        lonely_broadcaster_options_set(o, "broadcaster.receiver_url", receiver_url, why) !=
            LONELY_BROADCASTER_OK ||
        lonely_broadcaster_open(o, &b, why) != LONELY_BROADCASTER_OK ||
        lonely_broadcaster_start(b, why) != LONELY_BROADCASTER_OK) {
        lonely_broadcaster_close(b);
        b = NULL;
    }
    lonely_broadcaster_options_destroy(o);
    return b;
}

int main(int argc, char **argv)
{
    struct mhd_mount server = { 0 };
    struct lonely_broadcaster_why why;
    struct lonely_broadcaster *b;
    unsigned port;
    char url[128];
    sigset_t ends;
    int number;

    if (argc != 4) {
        fprintf(stderr, "usage: mount_broadcaster lonelypss.ini /PREFIX PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* libmicrohttpd wants that */
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    port = mhd_mount_start(&server, argv[2], (unsigned)strtoul(argv[3], NULL, 10));
    if (port == 0) {
        fprintf(stderr, "mount_broadcaster: cannot listen on port %s\n", argv[3]);
        return 1;
    }
    snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", port, argv[2]);
    b = start(argv[1], url, argv[2], &why);
    if (b == NULL) {
        fprintf(stderr, "mount_broadcaster: %s\n", why.text);
        mhd_mount_stop(&server);
        return 1;
    }
    mhd_mount_set(&server, lonely_broadcaster_mount(b));
    printf("ready %s\n", url);
    fflush(stdout);
    sigwait(&ends, &number);
    lonely_broadcaster_drain(b);
    lonely_broadcaster_join(b);
    mhd_mount_stop(&server); /* before the mount goes */
    lonely_broadcaster_close(b);
    return 0;
}
