/*
 * liblonelypsc on a leash, for the integration tests (client_peer.py starts it):
 *
 *     client_peer NAME=VALUE...       options of the client
 *
 * It reads a command a line, and answers each with a line in their order; what comes from the broadcaster
 * is printed whenever it comes. Topics, globs and bodies are hexadecimal, "-" is an empty one.
 *
 *     exact KEY | glob KEY            -> ok ID        | failed TEXT
 *     drop ID                         -> ok 0         | failed TEXT
 *     notify TOPIC BODY               -> ok NOTIFIED  | failed TEXT
 *
 *     message TOPIC BODY      status lost|connected|dead      missed TOPIC
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lonely/client.h>

#define TIMEOUT_MS 30000

static int digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *found = c != '\0' ? strchr(digits, c) : NULL;

    return found != NULL ? (int)(found - digits) : 0;
}

/* In place. */
static struct lonely_span unhex(char *text)
{
    size_t len = strcmp(text, "-") == 0 ? 0 : strlen(text) / 2;
    uint8_t *out = (uint8_t *)text;

    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(digit(text[2 * i]) * 16 + digit(text[2 * i + 1]));
    return (struct lonely_span){ out, len };
}

static void print_hex(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        putchar('-');
    for (size_t i = 0; i < len; i++)
        printf("%02x", bytes[i]);
}

/* On the thread of the client; lines must not mix. */
static void on_message(void *arg, struct lonely_delivery *d)
{
    struct lonely_span topic = lonely_delivery_topic(d);
    uint8_t piece[4096];
    uint64_t at = 0;
    ptrdiff_t n;

    (void)arg;
    flockfile(stdout);
    fputs("message ", stdout);
    print_hex(topic.ptr, topic.len);
    putchar(' ');
    if (lonely_delivery_size(d) == 0)
        putchar('-');
    while ((n = lonely_delivery_read(d, at, piece, sizeof(piece))) > 0) {
        print_hex(piece, (size_t)n);
        at += (uint64_t)n;
    }
    puts(n < 0 ? "?" : "");
    fflush(stdout);
    funlockfile(stdout);
}

static void on_status(void *arg, enum lonely_client_status status, struct lonely_span missed)
{
    static const char *const names[] = { "lost", "connected", "dead" };

    (void)arg;
    flockfile(stdout);
    if (missed.ptr != NULL) {
        fputs("missed ", stdout);
        print_hex(missed.ptr, missed.len);
        puts("");
    } else {
        printf("status %s\n", names[status]);
    }
    fflush(stdout);
    funlockfile(stdout);
}

static enum lonely_client_error do_notify(struct lonely_client *c, char *topic, char *body,
                                          uint64_t *out)
{
    struct lonely_notify n;

    lonely_notify_init(&n);
    n.topic = unhex(topic);
    n.bytes = unhex(body);
    return lonely_client_notify(c, &n, TIMEOUT_MS, out);
}

static enum lonely_client_error obey(struct lonely_client *c, char *line, uint64_t *out)
{
    const char *command = strtok(line, " \n");
    char *first = strtok(NULL, " \n"), *second = strtok(NULL, " \n");

    *out = 0;
    if (command == NULL || first == NULL)
        return LONELY_CLIENT_ARGUMENT;
    if (strcmp(command, "exact") == 0)
        return lonely_client_direct_subscribe_exact(c, unhex(first), TIMEOUT_MS, out);
    if (strcmp(command, "glob") == 0)
        return lonely_client_direct_subscribe_glob(c, unhex(first), TIMEOUT_MS, out);
    if (strcmp(command, "drop") == 0)
        return lonely_client_direct_unsubscribe(c, strtoull(first, NULL, 10), TIMEOUT_MS);
    if (strcmp(command, "notify") == 0 && second != NULL)
        return do_notify(c, first, second, out);
    return LONELY_CLIENT_ARGUMENT;
}

static void serve(struct lonely_client *c)
{
    char *line = NULL;
    size_t cap = 0;

    while (getline(&line, &cap, stdin) > 0) {
        uint64_t out;
        enum lonely_client_error err = obey(c, line, &out);

        if (err == LONELY_CLIENT_OK)
            printf("ok %llu\n", (unsigned long long)out);
        else
            printf("failed %s\n", lonely_client_error_str(err));
        fflush(stdout);
    }
    free(line);
}

static enum lonely_client_error open_client(int argc, char **argv, struct lonely_client **out,
                                            struct lonely_client_why *why)
{
    struct lonely_client_options *o = lonely_client_options_create();
    enum lonely_client_error err = LONELY_CLIENT_OK;

    for (int i = 1; i < argc && err == LONELY_CLIENT_OK; i++) {
        const char *name = strtok(argv[i], "="), *value = strtok(NULL, "");

        err = name == NULL || value == NULL ? LONELY_CLIENT_ARGUMENT
                                            : lonely_client_options_set(o, name, value, why);
    }
    if (err == LONELY_CLIENT_OK)
        err = lonely_client_open(o, out, why);
    lonely_client_options_destroy(o);
    return err;
}

int main(int argc, char **argv)
{
    struct lonely_client_why why = { "" };
    struct lonely_client *c = NULL;
    uint64_t message_id, status_id;

    if (open_client(argc, argv, &c, &why) != LONELY_CLIENT_OK ||
        lonely_client_on_message(c, on_message, NULL, &message_id) != LONELY_CLIENT_OK ||
        lonely_client_on_status(c, on_status, NULL, &status_id) != LONELY_CLIENT_OK) {
        fprintf(stderr, "client_peer: %s\n", why.text);
        return 1;
    }
    puts("ready");
    fflush(stdout);
    serve(c);
    lonely_client_off(c, message_id);
    lonely_client_off(c, status_id);
    return lonely_client_close(c) != LONELY_CLIENT_OK;
}
