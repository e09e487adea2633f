/*
 * A cache that several processes keep in front of one source (here the files of a folder): whoever changes a key
 * tells "cache/KEY", and all forget what they know of it. When messages may have been missed, everything is
 * forgotten. Commands on standard input:
 *
 *     get KEY           prints "hit VALUE" or "miss VALUE"
 *     set KEY VALUE     writes it to the source, and tells the others
 *
 *     cache_invalidator ws://127.0.0.1:3003 /srv/values
 *
 * Build: cc cache_invalidator.c $(pkg-config --cflags --libs lonelypsc)
 */
#include "client_example.h"

enum { ENTRIES = 256, LINE = 512 };

static struct entry {
    char key[64], value[256];
} cache[ENTRIES];
static const char *folder;

static struct entry *entry_of(const char *key)
{
    unsigned hash = 0;

    for (const char *at = key; *at != '\0'; at++)
        hash = hash * 31 + (unsigned char)*at;
    return &cache[hash % ENTRIES];
}

static bool forget_everything(void *arg)
{
    (void)arg;
    memset(cache, 0, sizeof(cache));
    return true;
}

/* Before each look at the cache: what others have told by now. */
static void forget_what_changed(struct lonely_subscription *changes)
{
    struct lonely_delivery *d;

    while (lonely_subscription_next(changes, 0, &d) == LONELY_CLIENT_OK) {
        struct lonely_span topic = lonely_delivery_topic(d);
        char key[64] = "";

        if (topic.len - 6 < sizeof(key)) /* behind "cache/" */
            memcpy(key, topic.ptr + 6, topic.len - 6);
        entry_of(key)->key[0] = '\0';
        lonely_delivery_release(d);
    }
}

static FILE *open_source(const char *key, const char *mode)
{
    char path[LINE * 2];

    snprintf(path, sizeof(path), "%s/%s", folder, key);
    return strchr(key, '/') == NULL ? fopen(path, mode) : NULL;
}

static void get(struct lonely_client *client, const char *key)
{
    struct entry *e = entry_of(key);
    FILE *source;

    /* While it is not sure that changes are heard of, nothing is kept. */
    if (lonely_client_status(client) == LONELY_CLIENT_CONNECTED && strcmp(e->key, key) == 0) {
        printf("hit %s\n", e->value);
        return;
    }
    memset(e, 0, sizeof(*e));
    source = open_source(key, "r");
    if (source != NULL && fgets(e->value, sizeof(e->value), source) != NULL)
        snprintf(e->key, sizeof(e->key), "%s", key);
    if (source != NULL)
        fclose(source);
    printf("miss %s\n", e->value);
}

static void set(struct lonely_client *client, const char *key, const char *value)
{
    FILE *source = open_source(key, "w");
    char topic[LINE];
    struct lonely_notify notify;
    uint64_t notified = 0;

    if (source == NULL || fputs(value, source) < 0 || fclose(source) != 0) {
        printf("failed\n");
        return;
    }
    lonely_notify_init(&notify);
    snprintf(topic, sizeof(topic), "cache/%s", key);
    notify.topic = example_span(topic);
    example_check(lonely_client_notify(client, &notify, 30000, &notified), "notify");
    printf("told %llu\n", (unsigned long long)notified);
}

int main(int argc, char **argv)
{
    const struct lonely_on_receiving on_receiving = { forget_everything, NULL };
    struct lonely_subscription *changes;
    struct lonely_client *client;
    char line[LINE], key[64], value[256];

    if (argc != 3) {
        fprintf(stderr, "usage: cache_invalidator URL FOLDER\n");
        return 2;
    }
    folder = argv[2];
    client = example_open(argv[1]);
    example_check(lonely_subscribe_glob(client, example_span("cache/*"), &on_receiving, &changes),
                  "subscribe");
    puts("subscribed");
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        forget_what_changed(changes);
        if (sscanf(line, "get %63s", key) == 1)
            get(client, key);
        else if (sscanf(line, "set %63s %255[^\n]", key, value) == 2)
            set(client, key, value);
        fflush(stdout);
    }
    lonely_subscription_destroy(changes);
    return lonely_client_close(client) == LONELY_CLIENT_OK ? 0 : 1;
}
