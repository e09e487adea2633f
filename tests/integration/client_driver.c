/*
 * A client of the library under the command of a test: options as arguments (NAME=VALUE), a command a line on
 * standard input, an answer a line on standard output. (tests/integration/test_client_library.py)
 *
 *     subscribe exact|glob KEY     -> ok N
 *     add N exact|glob KEY MS      -> ok
 *     next N MS                    -> message TOPIC SIZE SHA512, its body read and hashed
 *     poll poll|epoll N MS         -> the same, waiting in a loop of the caller's own
 *     destroy N                    -> ok
 *     notify bytes|file|read TOPIC SIZE|PATH MS   -> ok NOTIFIED
 *     start TOPIC SIZE             -> ok; its end is counted
 *     ended                        -> ok GOOD FAILED PENDING
 *     wait MS, status, last, rss, gaps N, events, close
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>

#include <lonely/client.h>

enum { SUBSCRIPTIONS = 64, ARGS = 8 };

static struct lonely_client *client;
static struct lonely_subscription *subscriptions[SUBSCRIPTIONS];
static atomic_uint gaps[SUBSCRIPTIONS];
static int n_subscriptions;
static atomic_uint good, failed, pending, lost, established, dead;

static const char *name_of(enum lonely_client_error err)
{
    switch (err) {
#define X(name, text) \
    case name:        \
        return &#name[sizeof("LONELY_CLIENT_") - 1];
        LONELY_CLIENT_ERROR_MAP(X)
#undef X
    }
    return "unknown";
}

static void answer(enum lonely_client_error err)
{
    printf("%s%s\n", err == LONELY_CLIENT_OK ? "" : "err ",
           err == LONELY_CLIENT_OK ? "ok" : name_of(err));
}

static struct lonely_span span(const char *text)
{
    return (struct lonely_span){ (const uint8_t *)text, strlen(text) };
}

static bool on_receiving(void *arg)
{
    atomic_fetch_add((atomic_uint *)arg, 1);
    return true;
}

static void on_status(void *arg, enum lonely_client_status status, struct lonely_span missed)
{
    (void)arg, (void)missed;
    atomic_fetch_add(status == LONELY_CLIENT_LOST        ? &lost
                     : status == LONELY_CLIENT_CONNECTED ? &established
                                                         : &dead,
                     1);
}

static void do_subscribe(char **args)
{
    int n = n_subscriptions++;
    struct lonely_on_receiving callback = { on_receiving, &gaps[n] };
    enum lonely_client_error err =
        strcmp(args[0], "glob") == 0
            ? lonely_subscribe_glob(client, span(args[1]), &callback, &subscriptions[n])
            : lonely_subscribe_exact(client, span(args[1]), &callback, &subscriptions[n]);

    if (err == LONELY_CLIENT_OK)
        printf("ok %d\n", n);
    else
        answer(err);
}

static void do_add(char **args)
{
    struct lonely_subscription *s = subscriptions[atoi(args[0])];

    answer(strcmp(args[1], "glob") == 0
               ? lonely_subscription_add_glob(s, span(args[2]), atoi(args[3]))
               : lonely_subscription_add_exact(s, span(args[2]), atoi(args[3])));
}

/* Reads it whole: the hash that it says must be that of what is read. */
static void print_message(struct lonely_delivery *d)
{
    static uint8_t chunk[1 << 18];
    uint8_t sha512[64];
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    uint64_t at = 0;
    ptrdiff_t n;

    EVP_DigestInit_ex(hash, EVP_sha512(), NULL);
    while ((n = lonely_delivery_read(d, at, chunk, sizeof(chunk))) > 0) {
        EVP_DigestUpdate(hash, chunk, (size_t)n);
        at += (uint64_t)n;
    }
    EVP_DigestFinal_ex(hash, sha512, NULL);
    EVP_MD_CTX_free(hash);
    if (n < 0 || at != lonely_delivery_size(d) ||
        memcmp(sha512, lonely_delivery_sha512(d), sizeof(sha512)) != 0) {
        printf("err body\n");
    } else {
        struct lonely_span topic = lonely_delivery_topic(d);

        printf("message %.*s %llu ", (int)topic.len, (const char *)topic.ptr,
               (unsigned long long)at);
        for (size_t i = 0; i < sizeof(sha512); i++)
            printf("%02x", sha512[i]);
        printf("\n");
    }
    lonely_delivery_release(d);
}

static void do_next(char **args)
{
    struct lonely_delivery *d;
    enum lonely_client_error err =
        lonely_subscription_next(subscriptions[atoi(args[0])], atoi(args[1]), &d);

    if (err == LONELY_CLIENT_OK)
        print_message(d);
    else
        answer(err);
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits as a program with a loop of its own does. */
static void watch(bool with_epoll, int epoll, int most_ms)
{
    struct pollfd fd = { .fd = lonely_client_fd(client), .events = POLLIN };
    struct epoll_event event;
    int ms = lonely_client_timeout_ms(client);

    if (ms < 0 || ms > most_ms)
        ms = most_ms;
    if (with_epoll)
        epoll_wait(epoll, &event, 1, ms);
    else
        poll(&fd, 1, ms);
    lonely_client_process(client);
}

static void do_poll(char **args)
{
    bool with_epoll = strcmp(args[0], "epoll") == 0;
    struct lonely_subscription *s = subscriptions[atoi(args[1])];
    int64_t until_ms = now_ms() + atoi(args[2]);
    struct epoll_event event = { .events = EPOLLIN };
    struct lonely_delivery *d = NULL;
    enum lonely_client_error err = LONELY_CLIENT_TIMED_OUT;
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    epoll_ctl(epoll, EPOLL_CTL_ADD, lonely_client_fd(client), &event);
    while (err == LONELY_CLIENT_TIMED_OUT && now_ms() < until_ms) {
        err = lonely_subscription_next(s, 0, &d);
        if (err == LONELY_CLIENT_TIMED_OUT)
            watch(with_epoll, epoll, (int)(until_ms - now_ms()) + 1);
    }
    close(epoll);
    if (err == LONELY_CLIENT_OK)
        print_message(d);
    else
        answer(err);
}

static void do_destroy(char **args)
{
    lonely_subscription_destroy(subscriptions[atoi(args[0])]);
    subscriptions[atoi(args[0])] = NULL;
    answer(LONELY_CLIENT_OK);
}

static ptrdiff_t read_zeros(void *arg, uint64_t at, void *to, size_t cap)
{
    (void)arg, (void)at;
    memset(to, 0, cap);
    return (ptrdiff_t)cap;
}

static void do_notify(char **args)
{
    struct lonely_notify n;
    uint64_t notified = 0;
    uint8_t *bytes = NULL;
    enum lonely_client_error err;

    lonely_notify_init(&n);
    n.topic = span(args[1]);
    if (strcmp(args[0], "file") == 0) {
        n.fd = open(args[2], O_RDONLY | O_CLOEXEC);
        n.size = UINT64_MAX;
    } else if (strcmp(args[0], "read") == 0) {
        n.read = read_zeros;
        n.size = strtoull(args[2], NULL, 10);
    } else {
        n.bytes.len = strtoull(args[2], NULL, 10);
        bytes = calloc(1, n.bytes.len + 1);
        n.bytes.ptr = bytes;
    }
    err = lonely_client_notify(client, &n, atoi(args[3]), &notified);
    if (n.fd >= 0)
        close(n.fd);
    free(bytes);
    if (err == LONELY_CLIENT_OK)
        printf("ok %llu\n", (unsigned long long)notified);
    else
        answer(err);
}

static void on_end(void *arg, enum lonely_client_error err, uint64_t notified)
{
    (void)arg, (void)notified;
    atomic_fetch_add(err == LONELY_CLIENT_OK ? &good : &failed, 1);
    atomic_fetch_sub(&pending, 1);
}

static void do_start(char **args)
{
    struct lonely_notify n;
    uint8_t *bytes = calloc(1, strtoull(args[1], NULL, 10) + 1);
    enum lonely_client_error err;

    lonely_notify_init(&n);
    n.topic = span(args[0]);
    n.bytes = (struct lonely_span){ bytes, strtoull(args[1], NULL, 10) };
    atomic_fetch_add(&pending, 1);
    err = lonely_client_notify_start(client, &n, on_end, NULL);
    if (err != LONELY_CLIENT_OK)
        atomic_fetch_sub(&pending, 1);
    free(bytes);
    answer(err);
}

static void do_ended(char **args)
{
    (void)args;
    printf("ok %u %u %u\n", atomic_load(&good), atomic_load(&failed), atomic_load(&pending));
}

static void do_wait(char **args)
{
    answer(lonely_client_wait_connected(client, atoi(args[0])));
}

static void do_status(char **args)
{
    static const char *const names[] = { "lost", "connected", "dead" };

    (void)args;
    printf("ok %s\n", names[lonely_client_status(client)]);
}

static void do_last(char **args)
{
    struct lonely_client_why why;
    enum lonely_client_error err = lonely_client_last_error(client, &why);

    (void)args;
    printf("ok %s %s\n", name_of(err), why.text);
}

static void do_rss(char **args)
{
    char line[256];
    FILE *file = fopen("/proc/self/status", "re");
    long kib = 0;

    (void)args;
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        (void)sscanf(line, "VmHWM: %ld", &kib);
    if (file != NULL)
        fclose(file);
    printf("ok %ld\n", kib);
}

static void do_gaps(char **args)
{
    printf("ok %u\n", atomic_load(&gaps[atoi(args[0])]));
}

static void do_events(char **args)
{
    (void)args;
    printf("ok %u %u %u\n", atomic_load(&lost), atomic_load(&established), atomic_load(&dead));
}

static void do_close(char **args)
{
    enum lonely_client_error err;

    (void)args;
    for (int i = 0; i < n_subscriptions; i++)
        lonely_subscription_destroy(subscriptions[i]);
    err = lonely_client_close(client);
    client = NULL;
    answer(err);
}

static const struct command {
    const char *name;
    int args;
    void (*run)(char **args);
} commands[] = {
    { "subscribe", 2, do_subscribe }, { "add", 4, do_add },         { "next", 2, do_next },
    { "poll", 3, do_poll },           { "destroy", 1, do_destroy }, { "notify", 4, do_notify },
    { "start", 2, do_start },         { "ended", 0, do_ended },     { "wait", 1, do_wait },
    { "status", 0, do_status },       { "last", 0, do_last },       { "rss", 0, do_rss },
    { "gaps", 1, do_gaps },           { "events", 0, do_events },   { "close", 0, do_close },
};

static void run_line(char *line)
{
    char *args[ARGS] = { 0 };
    int count = 0;

    for (char *at = strtok(line, " \n"); at != NULL && count < ARGS; at = strtok(NULL, " \n"))
        args[count++] = at;
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (count > 0 && strcmp(args[0], commands[i].name) == 0 && count == 1 + commands[i].args) {
            commands[i].run(args + 1);
            return;
        }
    }
    printf("err command\n");
}

static enum lonely_client_error open_client(int argc, char **argv, struct lonely_client_why *why)
{
    struct lonely_client_options *o = lonely_client_options_create();
    enum lonely_client_error err = LONELY_CLIENT_OK;
    uint64_t id;

    for (int i = 1; i < argc && err == LONELY_CLIENT_OK; i++) {
        char *value = strchr(argv[i], '=');

        *value = '\0';
        err = lonely_client_options_set(o, argv[i], value + 1, why);
    }
    if (err == LONELY_CLIENT_OK)
        err = lonely_client_open(o, &client, why);
    lonely_client_options_destroy(o);
    if (err == LONELY_CLIENT_OK)
        lonely_client_on_status(client, on_status, NULL, &id);
    return err;
}

int main(int argc, char **argv)
{
    struct lonely_client_why why = { "" };
    enum lonely_client_error err = open_client(argc, argv, &why);
    char line[65536];

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (err != LONELY_CLIENT_OK) {
        printf("err %s %s\n", name_of(err), why.text);
        return 0;
    }
    printf("ok\n");
    while (client != NULL && fgets(line, sizeof(line), stdin) != NULL)
        run_line(line);
    if (client != NULL)
        do_close(NULL);
    return 0;
}
