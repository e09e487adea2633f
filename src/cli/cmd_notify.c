/*
 * `lonelypsc notify`: one message to all who have subscribed to its topic.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bar.h"
#include "commands.h"
#include "mem.h"
#include "spool.h"
#include "waiter.h"

#define SLOWEST_BYTES_PER_S ((uint64_t)1 << 20)

static const struct cli_option options[] = {
    { "transport", "http|ws|tcp", "whatever the URL of --broadcaster begins with" },
    { "topic-hex", "HEX", "the topic in hexadecimal digits, instead of TOPIC" },
    { "message", "TEXT", "the message" },
    { "file", "FILE", "the message is what the file holds, of any size" },
    { "timeout", "SECONDS", "give up after so long (exit code 3)" },
    { NULL, NULL, NULL },
};

struct sending {
    struct waiter waiter;
    struct bar bar;
    struct lonely_notify notify;
    struct lonely_span topic_bytes; /* of --topic-hex */
    uint64_t size;
    /* Written on the library's thread, before `done` is: */
    enum lonely_client_error err;
    uint64_t notified;
    atomic_bool done;
};

/* ---- What to send ---- */

static bool read_topic(const struct cli_args *args, struct sending *s)
{
    const char *hex = cli_value(args, "topic-hex");

    if ((hex != NULL) == (args->operand_count > 0)) {
        cli_complain(hex != NULL ? "--topic-hex: not beside TOPIC"
                                 : "a topic is needed; see lonelypsc notify --help");
        return false;
    }
    if (hex != NULL) {
        if (!cli_hex("topic-hex", hex, &s->topic_bytes))
            return false;
        s->notify.topic = s->topic_bytes;
    } else {
        s->notify.topic.ptr = (const uint8_t *)args->operands[0];
        s->notify.topic.len = strlen(args->operands[0]);
    }
    if (s->notify.topic.len > 65535) {
        cli_complain("the topic is longer than 65,535 bytes");
        return false;
    }
    return true;
}

static int open_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        close(fd);
        fd = -1;
        errno = EISDIR;
    }
    if (fd < 0)
        cli_complain("--file: %s: %s", path, strerror(errno));
    return fd;
}

static uint64_t rest_of(int fd)
{
    off_t at = lseek(fd, 0, SEEK_CUR);
    struct stat st;

    return fstat(fd, &st) == 0 && at >= 0 && st.st_size > at ? (uint64_t)(st.st_size - at) : 0;
}

static enum cli_code read_message(const struct cli_args *args, struct sending *s)
{
    const char *text = cli_value(args, "message"), *path = cli_value(args, "file");
    int fd;

    if (text != NULL && path != NULL) {
        cli_complain("--message: not beside --file");
        return CLI_USAGE;
    }
    if (text != NULL) {
        s->notify.bytes = (struct lonely_span){ (const uint8_t *)text, strlen(text) };
        s->size = s->notify.bytes.len;
        return CLI_GOOD;
    }
    fd = path != NULL ? open_file(path) : dup(STDIN_FILENO);
    if (fd < 0 && path == NULL)
        cli_complain("standard input: %s", strerror(errno));
    if (fd < 0)
        return path != NULL ? CLI_USAGE : CLI_FAILED;
    s->notify.fd = spool_fd(args, &s->waiter, fd, path != NULL ? path : "standard input");
    s->notify.size = UINT64_MAX;
    s->size = s->notify.fd >= 0 ? rest_of(s->notify.fd) : 0;
    return s->notify.fd >= 0 ? CLI_GOOD : CLI_FAILED;
}

/* ---- Sending ---- */

/* One message is no reason to wait for a broadcaster that is away; a large one may take its time. */
static void set_defaults(struct cli_args *args, const struct sending *s)
{
    char total[32];

    snprintf(total, sizeof(total), "%" PRIu64 "s", 30 + s->size / SLOWEST_BYTES_PER_S);
    cli_default(args, "bind", "none");
    cli_default(args, "outgoing_initial_connect_retries", "0");
    cli_default(args, "outgoing_http_timeout_total", total);
}

static void on_progress(void *arg, uint64_t sent, uint64_t size)
{
    struct sending *s = arg;

    (void)size;
    atomic_store(&s->bar.done, sent);
}

static void on_done(void *arg, enum lonely_client_error err, uint64_t notified)
{
    struct sending *s = arg;

    s->err = err;
    s->notified = notified;
    atomic_store(&s->done, true);
    waiter_wake(&s->waiter);
}

static enum cli_code interrupted(const struct sending *s, bool may_be_sent)
{
    const char *sent = may_be_sent ? "it may or may not have been sent" : "nothing was sent";

    cli_complain("%s: %s", s->waiter.stopped ? "interrupted" : "--timeout is over", sent);
    return s->waiter.stopped ? CLI_FAILED : CLI_TIMED_OUT;
}

static enum cli_code wait_for_end(struct sending *s)
{
    struct waiter *w = &s->waiter;

    while (!atomic_load(&s->done) && !w->stopped && !waiter_timed_out(w)) {
        waiter_wait(w, -1, s->bar.shown ? BAR_INTERVAL_MS : -1);
        bar_draw(&s->bar);
    }
    bar_clear(&s->bar);
    if (!atomic_load(&s->done))
        return interrupted(s, true);
    if (s->err != LONELY_CLIENT_OK)
        return cli_explain(w->client, s->err, "notify");
    printf("%" PRIu64 "\n", s->notified);
    return CLI_GOOD;
}

static enum cli_code send(struct cli_args *args, struct sending *s)
{
    enum lonely_client_error err;
    struct lonely_client *c;
    enum cli_code code;

    set_defaults(args, s);
    c = cli_open(args, &code);
    if (c == NULL)
        return code;
    s->waiter.client = c;
    s->notify.progress = on_progress;
    s->notify.progress_arg = s;
    bar_init(&s->bar, s->size);
    err = lonely_client_notify_start(c, &s->notify, on_done, s);
    code = err == LONELY_CLIENT_OK ? wait_for_end(s) : cli_explain(c, err, "notify");
    lonely_client_close(c);
    return code;
}

static enum cli_code run(struct cli_args *args)
{
    struct sending s = { .waiter = { .signals = -1, .wakeup = -1 } };
    int64_t timeout_ms = -1;
    enum cli_code code;

    lonely_notify_init(&s.notify);
    if (!cli_seconds(args, "timeout", &timeout_ms) || !read_topic(args, &s))
        return CLI_USAGE;
    if (!waiter_init(&s.waiter, timeout_ms))
        code = CLI_FAILED;
    else
        code = read_message(args, &s);
    if (code == CLI_FAILED && (s.waiter.stopped || waiter_timed_out(&s.waiter)))
        code = interrupted(&s, false);
    if (code == CLI_GOOD)
        code = send(args, &s);
    if (s.notify.fd >= 0)
        close(s.notify.fd);
    mem_free((void *)(uintptr_t)s.topic_bytes.ptr);
    waiter_fini(&s.waiter);
    return code;
}

const struct cli_command cmd_notify = {
    .name = "notify",
    .usage = "--broadcaster URL... [OPTION]... TOPIC [--message TEXT | --file FILE]",
    .meaning =
        "Sends a message, or what standard input holds, to all who subscribed to a topic, and "
        "prints how many there were.",
    .options = options,
    .takes_client_options = true,
    .max_operands = 1,
    .run = run,
};
