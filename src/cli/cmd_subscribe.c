/*
 * `lonelypsc subscribe`: prints messages, hands them to commands, or keeps them as files, until enough
 * have come, the time is over, or a signal says so.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "bar.h"
#include "commands.h"
#include "exec.h"
#include "folder.h"
#include "list.h"
#include "mem.h"
#include "print.h"
#include "waiter.h"

#define UNREADY_LOOK_MS 20
#define MAX_EVENTS      1024
#define MAX_JOBS        1024

static const struct cli_option options[] = {
    { "transport", "http|ws|tcp", "whatever the URL of --broadcaster begins with" },
    { "exact", "TOPIC", "messages on this topic; may be repeated" },
    { "exact-hex", "HEX", "the same, in hexadecimal digits" },
    { "glob", "PATTERN",
      "on topics that match: * any bytes, ? a character, [a-z]; may be repeated" },
    { "count", "N", "end after so many messages" },
    { "timeout", "SECONDS", "end after so long, counted from the start (exit code 3)" },
    { "format", "text|raw|jsonl",
      "TOPIC, tab, body; bodies alone; JSON lines. With --exec and --output: only when given" },
    { "data", "auto|always|never", "jsonl: data_base64 (auto: of up to 64 KiB)" },
    { "exec", "CMD", "run it for each message, which is its standard input; no shell" },
    { "jobs", "N", "so many commands of --exec at once (default: 1)" },
    { "output", "DIR", "keep each message as a file there" },
    { NULL, NULL, NULL },
};

/* Messages may have been missed. */
struct event {
    struct list node;
    bool has_topic;
    size_t len;
    uint8_t topic[];
};

struct subscriber {
    struct waiter waiter;
    struct printer printer;
    struct executor executor;
    struct folder folder;
    struct lonely_subscription *subscription;
    uint64_t left; /* of --count */
    enum cli_code code;
    bool over;            /* `code` is final */
    pthread_mutex_t lock; /* of what the library's thread tells: */
    struct list events;
    size_t event_count;
    bool ready, was_lost;
    uint64_t arrived, arriving; /* so much of that; 0: nothing large */
    struct bar bar;             /* shows it; not under lock */
    bool shows_bar;
};

static void end(struct subscriber *s, enum cli_code code)
{
    s->over = true;
    s->code = code;
}

/* ---- Events ---- */

/* Under lock. Those beyond the bound are one that is about any topic. */
static void add_event(struct subscriber *s, struct lonely_span topic)
{
    bool has_topic = topic.ptr != NULL && s->event_count < MAX_EVENTS;
    struct event *e;

    if (s->event_count > MAX_EVENTS)
        return;
    e = mem_alloc(sizeof(*e) + topic.len);
    e->has_topic = has_topic;
    e->len = has_topic ? topic.len : 0;
    if (e->len > 0)
        memcpy(e->topic, topic.ptr, e->len);
    list_push_back(&s->events, &e->node);
    s->event_count++;
}

static void on_status(void *arg, enum lonely_client_status status, struct lonely_span missed)
{
    struct subscriber *s = arg;

    pthread_mutex_lock(&s->lock);
    if (missed.ptr != NULL) { /* before it is ready nobody was promised anything */
        if (status == LONELY_CLIENT_CONNECTED && s->ready)
            add_event(s, missed);
    } else if (status == LONELY_CLIENT_CONNECTED) {
        if (s->was_lost)
            add_event(s, missed);
        s->was_lost = false;
    } else {
        s->was_lost = s->ready;
    }
    pthread_mutex_unlock(&s->lock);
    waiter_wake(&s->waiter);
}

static void on_arriving(void *arg, struct lonely_span topic, uint64_t received, uint64_t size)
{
    struct subscriber *s = arg;

    (void)topic;
    pthread_mutex_lock(&s->lock);
    s->arrived = received;
    s->arriving = received > 0 && received < size ? size : 0;
    pthread_mutex_unlock(&s->lock);
    waiter_wake(&s->waiter);
}

/* Of messages that come at once, the one that moved last. */
static void draw_bar(struct subscriber *s)
{
    uint64_t arrived, arriving;

    pthread_mutex_lock(&s->lock);
    arrived = s->arrived;
    arriving = s->arriving;
    pthread_mutex_unlock(&s->lock);
    if (arriving == 0 || !s->shows_bar) {
        bar_clear(&s->bar);
        return;
    }
    if (!s->bar.shown || s->bar.size != arriving)
        bar_init(&s->bar, arriving);
    atomic_store(&s->bar.done, arrived);
    bar_draw(&s->bar);
}

static void print_events(struct subscriber *s)
{
    struct list due, *node;

    list_init(&due);
    pthread_mutex_lock(&s->lock);
    list_move_all(&due, &s->events);
    s->event_count = 0;
    pthread_mutex_unlock(&s->lock);
    while ((node = list_pop_front(&due)) != NULL) {
        struct event *e = list_entry(node, struct event, node);

        print_missed(&s->printer, (struct lonely_span){ e->has_topic ? e->topic : NULL, e->len });
        mem_free(e);
    }
}

/* ---- Messages ---- */

static void take_message(struct subscriber *s, struct lonely_delivery *d)
{
    char name[FOLDER_NAME_MAX];
    bool keeps = s->folder.path != NULL;
    bool good = !keeps || folder_add(&s->folder, d, name);

    good = good && print_message(&s->printer, d, keeps ? name : NULL);
    if (!good ||
        s->executor.words != NULL)  /* what the command says comes after what is said of it; */
        good = cli_flush() && good; /* why writing failed, now that errno says it */
    if (good && s->executor.words != NULL)
        good = executor_start(&s->executor, d);
    lonely_delivery_release(d);
    if (!good)
        end(s, CLI_FAILED);
    else if (s->left > 0 && --s->left == 0)
        end(s, CLI_GOOD);
}

/* Whatever it was that woke up: a child that ended is not told twice. */
static void hear(struct subscriber *s, int fd, int64_t at_most_ms)
{
    waiter_wait(&s->waiter, fd, at_most_ms);
    executor_reap(&s->executor);
    if (s->waiter.stopped)
        end(s, CLI_GOOD);
    else if (waiter_timed_out(&s->waiter))
        end(s, CLI_TIMED_OUT);
}

static void wait(struct subscriber *s, int64_t at_most_ms)
{
    bool has_room = s->executor.words == NULL || executor_has_room(&s->executor);

    if (!cli_flush()) {
        end(s, CLI_FAILED);
        return;
    }
    hear(s, has_room ? lonely_subscription_fd(s->subscription) : -1, at_most_ms);
}

/* One message, or a wait. */
static void step(struct subscriber *s)
{
    struct lonely_delivery *d;
    enum lonely_client_error err = LONELY_CLIENT_TIMED_OUT;

    draw_bar(s);
    print_events(s);
    if (s->executor.words == NULL || executor_has_room(&s->executor))
        err = lonely_subscription_next(s->subscription, 0, &d);
    if (err == LONELY_CLIENT_OK)
        take_message(s, d);
    else if (err == LONELY_CLIENT_TIMED_OUT)
        wait(s, -1);
    else if (err == LONELY_CLIENT_SPOOL)
        cli_complain("a message was lost: no room for it; see --spool-dir");
    else
        end(s, cli_explain(s->waiter.client, err, "subscribe"));
    if (!s->over && err == LONELY_CLIENT_OK)
        hear(s, -1, 0); /* however fast messages come */
}

/* ---- Until it is ready ---- */

static void become_ready(struct subscriber *s)
{
    pthread_mutex_lock(&s->lock);
    s->ready = true;
    pthread_mutex_unlock(&s->lock);
    print_ready(&s->printer);
    if (!cli_flush())
        end(s, CLI_FAILED);
}

/* Over HTTP a subscription that was refused is left again; a connection that was refused is tried again,
 * for which nobody waits who has only given a wrong secret. */
static void look(struct subscriber *s)
{
    struct lonely_client *c = s->waiter.client;
    struct lonely_delivery *d;
    enum lonely_client_status status = lonely_client_status(c);
    enum lonely_client_error err, last = lonely_client_last_error(c, NULL);

    if (status == LONELY_CLIENT_LOST) {
        if (last == LONELY_CLIENT_FORBIDDEN)
            end(s, cli_explain(c, last, "subscribe"));
        return;
    }
    err = lonely_subscription_next(s->subscription, 0, &d);
    if (err == LONELY_CLIENT_STATE)
        end(s, cli_explain(c, last != LONELY_CLIENT_OK ? last : err, "subscribe"));
    else if (err == LONELY_CLIENT_OK || err == LONELY_CLIENT_TIMED_OUT)
        become_ready(s);
    else if (err != LONELY_CLIENT_SPOOL)
        end(s, cli_explain(c, err, "subscribe"));
    if (err == LONELY_CLIENT_OK && s->over)
        lonely_delivery_release(d);
    else if (err == LONELY_CLIENT_OK)
        take_message(s, d);
}

/* ---- Subscribing ---- */

static enum lonely_client_error add(struct subscriber *s, bool glob, struct lonely_span key)
{
    return glob ? lonely_subscription_add_glob(s->subscription, key, 0)
                : lonely_subscription_add_exact(s->subscription, key, 0);
}

static struct lonely_span span_of(const char *text)
{
    return (struct lonely_span){ (const uint8_t *)text, strlen(text) };
}

/* False: complained, of an argument. */
static bool add_all(struct subscriber *s, const struct cli_args *args)
{
    static const char *const names[] = { "exact", "exact-hex", "glob" };

    for (size_t i = 0; i < 3; i++) {
        const char *text;

        for (size_t at = 0; (text = cli_next_value(args, names[i], &at)) != NULL;) {
            struct lonely_span key = span_of(text), bytes = { NULL, 0 };
            enum lonely_client_error err;

            if (i == 1 && !cli_hex(names[i], text, &bytes))
                return false;
            err = add(s, i == 2, i == 1 ? bytes : key);
            mem_free((void *)(uintptr_t)bytes.ptr);
            if (err != LONELY_CLIENT_OK) {
                cli_complain("--%s: %.64s: %s", names[i], text,
                             i == 2 ? "expected a pattern in UTF-8 of at most 65,535 bytes"
                                    : "expected at most 65,535 bytes");
                return false;
            }
        }
    }
    return true;
}

/* Asks for everything, and returns when the library has begun to. */
static enum lonely_client_error enter(struct subscriber *s)
{
    enum lonely_client_error err = lonely_subscription_enter(s->subscription, 0);
    enum lonely_client_error barrier;

    if (err != LONELY_CLIENT_OK)
        return err;
    /* Taking away what cannot be there is done after what was asked before, and does nothing. */
    barrier = lonely_subscription_remove_glob(s->subscription, span_of("\x7f nobody"), -1);
    return barrier == LONELY_CLIENT_NOT_SUBSCRIBED ? LONELY_CLIENT_OK : barrier;
}

static void run_subscription(struct subscriber *s)
{
    enum lonely_client_error err = enter(s);

    if (err != LONELY_CLIENT_OK)
        end(s, cli_explain(s->waiter.client, err, "subscribe"));
    while (!s->over && !s->ready) {
        look(s);
        if (!s->over && !s->ready)
            wait(s, UNREADY_LOOK_MS);
    }
    while (!s->over)
        step(s);
}

/* Commands under way come to their end, unless a signal comes again. */
static void wait_for_commands(struct subscriber *s)
{
    s->waiter.stopped = false;
    s->waiter.until_ms = UINT64_MAX;
    while (s->executor.running > 0 && !s->waiter.stopped) {
        waiter_wait(&s->waiter, -1, -1);
        executor_reap(&s->executor);
    }
}

static enum cli_code run_client(struct cli_args *args, struct subscriber *s)
{
    struct lonely_client *c;
    enum cli_code code;
    uint64_t id;

    cli_default(args, "outgoing_initial_connect_retries", "1");
    c = cli_open(args, &code);
    if (c == NULL)
        return code;
    s->waiter.client = c;
    if (lonely_client_on_status(c, on_status, s, &id) != LONELY_CLIENT_OK ||
        lonely_client_on_arriving(c, on_arriving, s, &id) != LONELY_CLIENT_OK ||
        lonely_subscription_create(c, NULL, &s->subscription) != LONELY_CLIENT_OK)
        end(s, cli_explain(c, LONELY_CLIENT_NO_MEMORY, "subscribe"));
    else if (!add_all(s, args))
        end(s, CLI_USAGE);
    else
        run_subscription(s);
    bar_clear(&s->bar);
    wait_for_commands(s);
    lonely_subscription_destroy(s->subscription);
    lonely_client_close(c);
    print_events(s);
    return s->code == CLI_GOOD && s->executor.failed ? CLI_FAILED : s->code;
}

/* ---- Arguments ---- */

static bool has_no_receiver(const struct cli_args *args)
{
    const char *bind = cli_value(args, "bind");
    size_t at = 0;
    char *url = cli_next_broadcaster(args, &at);
    bool http = strncmp(url, "http", 4) == 0;

    mem_free(url);
    return http && bind != NULL && strcmp(bind, "none") == 0;
}

static bool read_options(const struct cli_args *args, struct subscriber *s, int64_t *timeout_ms)
{
    const char *exec = cli_value(args, "exec"), *output = cli_value(args, "output");
    int format = cli_choice(args, "format", "text|raw|jsonl", PRINT_TEXT);
    int data = cli_choice(args, "data", "auto|always|never", PRINT_DATA_AUTO);
    uint64_t jobs = 1;

    if (format < 0 || data < 0 || !cli_number(args, "count", 1, UINT64_MAX / 2, &s->left) ||
        !cli_number(args, "jobs", 1, MAX_JOBS, &jobs) || !cli_seconds(args, "timeout", timeout_ms))
        return false;
    if (cli_value(args, "exact") == NULL && cli_value(args, "exact-hex") == NULL &&
        cli_value(args, "glob") == NULL) {
        cli_complain("--exact or --glob: at least one is needed");
        return false;
    }
    if (has_no_receiver(args)) {
        cli_complain("--bind: none: over http messages come to where it listens");
        return false;
    }
    s->printer = (struct printer){
        .format = (enum print_format)format,
        .data = (enum print_data)data,
        .messages = cli_value(args, "format") != NULL || (exec == NULL && output == NULL),
    };
    s->shows_bar = !s->printer.messages || !isatty(STDOUT_FILENO); /* else it would mix with them */
    return executor_init(&s->executor, exec, (size_t)jobs) && folder_open(&s->folder, output);
}

static enum cli_code run(struct cli_args *args)
{
    struct subscriber s = { .waiter = { .signals = -1, .wakeup = -1 }, .folder = { .fd = -1 } };
    int64_t timeout_ms = -1;
    enum cli_code code = CLI_USAGE;

    list_init(&s.events);
    pthread_mutex_init(&s.lock, NULL);
    if (read_options(args, &s, &timeout_ms))
        code = waiter_init(&s.waiter, timeout_ms) ? run_client(args, &s) : CLI_FAILED;
    executor_fini(&s.executor);
    folder_close(&s.folder);
    waiter_fini(&s.waiter);
    pthread_mutex_destroy(&s.lock);
    return code;
}

const struct cli_command cmd_subscribe = {
    .name = "subscribe",
    .usage = "--broadcaster URL... [--exact TOPIC]... [--glob PATTERN]... [OPTION]...",
    .meaning = "Prints the messages of topics, or hands them to commands.",
    .options = options,
    .takes_client_options = true,
    .run = run,
};
