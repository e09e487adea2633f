/*
 * A broadcaster inside a program, with a listener of its own: subscriptions in memory, no authorization.
 * Prints where it listens, and runs until Ctrl-C or SIGTERM; its log goes through the program.
 *
 * Build: cc embed_broadcaster.c -o embed_broadcaster $(pkg-config --cflags --libs lonelypss)
 * Run:   ./embed_broadcaster 127.0.0.1:3003
 */
#include <signal.h>
#include <stdio.h>

#include <lonely/broadcaster.h>

static void on_log(void *arg, enum lonely_broadcaster_level level, const char *line)
{
    if (level <= LONELY_BROADCASTER_LOG_INFO)
        fprintf(arg, "broadcaster: %s", line);
}

static struct lonely_broadcaster *start(const char *address, struct lonely_broadcaster_why *why)
{
    const char *const settings[][2] = {
        { "broadcaster.listen", address },
        { "database.type", "memory" },
        { "auth.secrets", "none" },
        { "broadcaster.spool_dir", "/tmp" }, /* for long messages */
    };
    struct lonely_broadcaster_options *o = lonely_broadcaster_options_create();
    struct lonely_broadcaster *b = NULL;
    enum lonely_broadcaster_error err = LONELY_BROADCASTER_OK;

    lonely_broadcaster_options_set_log(o, on_log, stderr);
    for (size_t i = 0; err == LONELY_BROADCASTER_OK && i < 4; i++)
        err = lonely_broadcaster_options_set(o, settings[i][0], settings[i][1], why);
    if (err == LONELY_BROADCASTER_OK)
        err = lonely_broadcaster_open(o, &b, why);
    if (err == LONELY_BROADCASTER_OK)
        err = lonely_broadcaster_start(b, why);
    lonely_broadcaster_options_destroy(o);
    if (err == LONELY_BROADCASTER_OK)
        return b;
    lonely_broadcaster_close(b);
    return NULL;
}

int main(int argc, char **argv)
{
    struct lonely_broadcaster_why why;
    struct lonely_broadcaster *b;
    sigset_t ends;
    int number;

    if (argc != 2) {
        fprintf(stderr, "usage: embed_broadcaster HOST:PORT\n");
        return 2;
    }
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    b = start(argv[1], &why);
    if (b == NULL) {
        fprintf(stderr, "embed_broadcaster: %s\n", why.text);
        return 1;
    }
    printf("listening on %s\n", lonely_broadcaster_address(b, 0)->bound);
    fflush(stdout);
    sigwait(&ends, &number);
    lonely_broadcaster_drain(b); /* finishes what was taken */
    lonely_broadcaster_join(b);
    lonely_broadcaster_close(b);
    return 0;
}
