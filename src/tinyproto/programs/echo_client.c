/*
 * tinyproto-echo-client(1): standard input as one message, one message to standard output.
 *                                                             (doc/protocol/tinyproto.md, 13)
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "program.h"

#define OPEN_MS  5000
#define STALL_MS 10000
#define REPLY_MS 60000

static const struct program program = {
    .name = "tinyproto-echo-client",
    .usage = "--connect HOST:PORT [--quit | --srvquit]",
    .help =
        "Reads standard input to its end, transmits it as one message, receives one message and\n"
        "writes it to standard output.\n\n"
        "  --connect HOST:PORT  the server, also [IPV6]:PORT and unix:PATH\n"
        "  --quit               transmit QUIT instead of standard input, and no message is\n"
        "                       received: the server ends the connection\n"
        "  --srvquit            the same with SRVQUIT: the server ends\n"
        "  --help, --version\n\n"
        "Exit status: 0 good, 1 failed, 2 wrong usage, 3 timed out, 5 no server reached.\n",
    .takes = TAKES_CONNECT | TAKES_QUIT,
};

struct echo {
    struct tinyproto_client *client;
    bool wants_reply;
    bool is_sent, has_reply;
    bool is_file; /* transmitted from the descriptor, not from memory */
    int64_t offset;
    uint8_t *input, *reply; /* malloc'ed */
    size_t input_len, reply_len;
    uint64_t file_size;
    int code;
};

/* ---- Standard input ---- */

static bool read_all(struct echo *echo)
{
    size_t cap = 0;

    for (;;) {
        ssize_t n;

        if (echo->input_len == cap) {
            uint8_t *grown = realloc(echo->input, cap = cap == 0 ? 65536 : cap * 2);

            if (grown == NULL)
                return false;
            echo->input = grown;
        }
        n = read(STDIN_FILENO, echo->input + echo->input_len, cap - echo->input_len);
        if (n == 0)
            return true;
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            echo->input_len += (size_t)n;
        if (echo->input_len > TINYPROTO_MESSAGE_MAX) {
            errno = EFBIG;
            return false;
        }
    }
}

/* A file need not be in memory. */
static bool take_input(struct echo *echo, const struct program_args *args)
{
    struct stat st;

    if (args->quit || args->srvquit) {
        echo->input = (uint8_t *)strdup(args->quit ? "QUIT" : "SRVQUIT");
        echo->input_len = args->quit ? 4 : 7;
        return echo->input != NULL;
    }
    if (fstat(STDIN_FILENO, &st) != 0 || !S_ISREG(st.st_mode))
        return read_all(echo);
    echo->offset = lseek(STDIN_FILENO, 0, SEEK_CUR);
    if (echo->offset < 0)
        return read_all(echo);
    echo->is_file = true;
    echo->file_size = st.st_size > echo->offset ? (uint64_t)(st.st_size - echo->offset) : 0;
    return true;
}

/* ---- The connection ---- */

static struct echo *of_conn(const struct tinyproto_conn *conn)
{
    return tinyproto_conn_arg(conn);
}

static void close_when_done(struct tinyproto_conn *conn)
{
    const struct echo *echo = of_conn(conn);

    if (echo->is_sent && echo->has_reply)
        tinyproto_close(conn);
}

static void on_sent(void *arg, struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    struct echo *echo = arg;

    echo->is_sent = why->err == TINYPROTO_OK;
    close_when_done(conn);
}

static void on_ready(struct tinyproto_conn *conn)
{
    struct echo *echo = of_conn(conn);
    enum tinyproto_error err;

    if (echo->is_file)
        err =
            tinyproto_transmit_fd(conn, STDIN_FILENO, echo->offset, echo->file_size, on_sent, echo);
    else
        err = tinyproto_transmit_take(conn, echo->input, echo->input_len, on_sent, echo);
    if (err == TINYPROTO_OK) {
        echo->input = NULL;
        return;
    }
    program_complain(&program, "cannot transmit: %s", tinyproto_strerror(err));
    echo->code = EXIT_FAILED;
    tinyproto_abort(conn);
}

static void on_message(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    struct echo *echo = of_conn(conn);

    if (!echo->wants_reply || echo->has_reply)
        return;
    echo->reply_len = message->len;
    echo->reply = tinyproto_message_take(message);
    if (echo->reply == NULL) {
        program_complain(&program, "out of memory for the reply");
        echo->code = EXIT_FAILED;
        tinyproto_abort(conn);
        return;
    }
    echo->has_reply = true;
    close_when_done(conn);
}

static void on_shutdown(struct tinyproto_client *client, struct tinyproto_conn *conn,
                        const struct tinyproto_cause *why)
{
    struct echo *echo = tinyproto_client_arg(client);
    bool is_good =
        echo->is_sent && (echo->has_reply || (!echo->wants_reply && why->err == TINYPROTO_OK));
    struct tinyproto_cause cause = *why;
    char text[TINYPROTO_CAUSE_MAX];

    if (!is_good && echo->code == EXIT_GOOD) {
        if (cause.err == TINYPROTO_OK)
            cause.err = TINYPROTO_E_CLOSED;
        program_complain(&program, "%.200s: %s", tinyproto_conn_peer(conn),
                         tinyproto_cause_print(&cause, text, sizeof(text)));
        echo->code = program_exit_of(cause.err);
    }
    tinyproto_client_stop(client);
}

/* ---- main ---- */

static bool write_all(const uint8_t *ptr, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDOUT_FILENO, ptr, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        ptr += n;
        len -= (size_t)n;
    }
    return true;
}

static int converse(struct echo *echo, const struct tinyproto_address *address)
{
    const struct tinyproto_client_hooks hooks = { .arg = echo, .conn_shutdown = on_shutdown };
    const struct tinyproto_handler handler = { .arg = echo,
                                               .pre_loop = on_ready,
                                               .transmission_received = on_message };
    struct tinyproto_options options;

    tinyproto_client_options(&options);
    options.open_timeout_ms = OPEN_MS;
    options.stall_timeout_ms = STALL_MS;
    options.idle_timeout_ms = REPLY_MS;
    if (tinyproto_client_new(&hooks, &options, NULL, &echo->client) != TINYPROTO_OK) {
        program_complain(&program, "cannot make a client");
        return EXIT_FAILED;
    }
    tinyproto_client_set_handler(echo->client, &handler);
    if (tinyproto_client_connect_address(echo->client, address) == NULL) {
        program_complain(&program, "cannot connect to port 0");
        echo->code = EXIT_USAGE;
    } else {
        (void)tinyproto_client_run(echo->client);
    }
    tinyproto_client_free(echo->client);
    if (echo->code == EXIT_GOOD && echo->has_reply && !write_all(echo->reply, echo->reply_len)) {
        program_complain(&program, "cannot write the reply: %s", strerror(errno));
        echo->code = EXIT_FAILED;
    }
    return echo->code;
}

int main(int argc, char **argv)
{
    struct echo echo = { .code = EXIT_GOOD };
    struct program_args args;
    int code = program_parse(&program, argc, argv, &args);

    if (code >= 0)
        return code;
    (void)signal(SIGPIPE, SIG_IGN);
    echo.wants_reply = !args.quit && !args.srvquit;
    if (!take_input(&echo, &args)) {
        program_complain(&program, "cannot read standard input: %s", strerror(errno));
        free(echo.input);
        return EXIT_FAILED;
    }
    code = converse(&echo, &args.addresses[0]);
    free(echo.input);
    free(echo.reply);
    return code;
}
