/*
 * tinyproto-chat-client(1): lines in, messages out, in one loop.
 *                                                             (doc/protocol/tinyproto.md, 13)
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "program.h"
#include "text.h"

#define LINE_MAX_BYTES (1024u * 1024)
#define READ_BYTES     4096

static const struct program program = {
    .name = "tinyproto-chat-client",
    .usage = "--connect HOST:PORT",
    .help = "Transmits each line of standard input and prints what others say. The line `quit`, or "
            "the\n"
            "end of input, ends it.\n\n"
            "  --connect HOST:PORT  the server, also [IPV6]:PORT and unix:PATH\n"
            "  --help, --version\n\n"
            "Exit status: 0 good, 1 connection lost, 2 wrong usage, 3 timed out, 5 no server "
            "reached.\n",
    .takes = TAKES_CONNECT,
};

struct chat {
    uv_loop_t loop;
    uv_poll_t poll; /* standard input, if it can be waited for */
    uv_idle_t idle; /* else: a file */
    bool polls;
    int input_flags; /* to be restored: libuv makes the terminal non-blocking */
    struct tinyproto_client *client;
    struct tinyproto_conn *conn; /* NULL: over */
    bool is_leaving;
    char *line; /* the one that is being read */
    size_t len;
    int code;
};

/* ---- Input ---- */

static void on_input(uv_poll_t *poll, int status, int events);

static void stop_input(struct chat *chat)
{
    if (chat->polls)
        (void)uv_poll_stop(&chat->poll);
    else
        (void)uv_idle_stop(&chat->idle);
}

static void leave(struct chat *chat)
{
    chat->is_leaving = true;
    stop_input(chat);
    if (chat->conn != NULL)
        tinyproto_close(chat->conn);
}

static void fail(struct chat *chat, const char *why)
{
    program_complain(&program, "%s", why);
    chat->code = EXIT_FAILED;
    leave(chat);
}

/* Goes on reading what waits (on_input) until there is less to send. */
static void on_said(void *arg, struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    struct chat *chat = arg;

    if (why->err == TINYPROTO_OK && !chat->is_leaving && chat->polls &&
        tinyproto_conn_queued(conn) < LINE_MAX_BYTES)
        (void)uv_poll_start(&chat->poll, UV_READABLE, on_input);
}

static void say(struct chat *chat)
{
    enum tinyproto_error err;

    if (chat->len == 4 && memcmp(chat->line, "quit", 4) == 0) {
        leave(chat);
        return;
    }
    err = tinyproto_transmit_then(chat->conn, chat->line, chat->len, on_said, chat);
    chat->len = 0;
    if (err != TINYPROTO_OK)
        fail(chat, tinyproto_strerror(err));
}

static void take_input(struct chat *chat, const char *ptr, size_t n)
{
    for (size_t i = 0; i < n && !chat->is_leaving; i++) {
        if (ptr[i] == '\n')
            say(chat);
        else if (chat->len < LINE_MAX_BYTES)
            chat->line[chat->len++] = ptr[i];
        else
            fail(chat, "a line is longer than 1 MiB");
    }
}

static void read_input(struct chat *chat)
{
    char bytes[READ_BYTES];
    ssize_t n;

    if (chat->is_leaving || chat->conn == NULL)
        return;
    n = read(STDIN_FILENO, bytes, sizeof(bytes));
    if (n > 0) {
        take_input(chat, bytes, (size_t)n);
    } else if (n == 0) {
        if (chat->len > 0)
            say(chat); /* a last line without its newline */
        if (!chat->is_leaving)
            leave(chat);
    } else if (errno != EINTR && errno != EAGAIN) {
        fail(chat, "cannot read standard input");
    }
}

static void on_input(uv_poll_t *poll, int status, int events)
{
    struct chat *chat = poll->data;

    (void)status;
    (void)events;
    if (chat->conn != NULL && tinyproto_conn_queued(chat->conn) >= LINE_MAX_BYTES)
        stop_input(chat);
    else
        read_input(chat);
}

static void on_idle(uv_idle_t *idle)
{
    struct chat *chat = idle->data;

    if (chat->conn != NULL && tinyproto_conn_queued(chat->conn) < LINE_MAX_BYTES)
        read_input(chat);
}

/* A terminal or a pipe is waited for; a file can always be read. */
static void start_input(struct chat *chat)
{
    chat->input_flags = fcntl(STDIN_FILENO, F_GETFL);
    chat->polls = uv_poll_init(&chat->loop, &chat->poll, STDIN_FILENO) == 0;
    chat->poll.data = chat;
    if (chat->polls) {
        (void)uv_poll_start(&chat->poll, UV_READABLE, on_input);
        return;
    }
    (void)uv_idle_init(&chat->loop, &chat->idle);
    chat->idle.data = chat;
    (void)uv_idle_start(&chat->idle, on_idle);
}

static void end_input(struct chat *chat)
{
    uv_close(chat->polls ? (uv_handle_t *)&chat->poll : (uv_handle_t *)&chat->idle, NULL);
    if (chat->input_flags >= 0)
        (void)fcntl(STDIN_FILENO, F_SETFL, chat->input_flags);
}

/* ---- The connection ---- */

static void on_message(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    struct chat *chat = tinyproto_conn_arg(conn);
    char *shown = malloc(message->len + 2);
    size_t len;

    if (shown == NULL) {
        fail(chat, "out of memory");
        return;
    }
    len = text_make_printable(message->ptr, message->len, shown);
    shown[len++] = '\n';
    if (fwrite(shown, 1, len, stdout) != len || fflush(stdout) != 0)
        fail(chat, "cannot write to standard output");
    free(shown);
}

static void on_shutdown(struct tinyproto_client *client, struct tinyproto_conn *conn,
                        const struct tinyproto_cause *why)
{
    struct chat *chat = tinyproto_client_arg(client);
    struct tinyproto_cause cause = *why;
    char text[TINYPROTO_CAUSE_MAX];

    chat->conn = NULL;
    stop_input(chat);
    tinyproto_client_stop(client);
    if (cause.err == TINYPROTO_OK && !chat->is_leaving)
        cause.err = TINYPROTO_E_CLOSED;
    if (cause.err == TINYPROTO_OK || chat->code != EXIT_GOOD)
        return;
    program_complain(&program, "%.200s: %s", tinyproto_conn_peer(conn),
                     tinyproto_cause_print(&cause, text, sizeof(text)));
    chat->code = program_exit_of(cause.err);
}

static void on_over(struct tinyproto_client *client)
{
    end_input(tinyproto_client_arg(client));
}

static int converse(struct chat *chat, const struct tinyproto_address *address)
{
    const struct tinyproto_client_hooks hooks = { .arg = chat,
                                                  .post_loop = on_over,
                                                  .conn_shutdown = on_shutdown };
    const struct tinyproto_handler handler = { .arg = chat, .transmission_received = on_message };
    struct tinyproto_options options;

    tinyproto_client_options(&options);
    options.receive_max = LINE_MAX_BYTES + 64; /* with the sender's id before it */
    if (tinyproto_client_new(&hooks, &options, &chat->loop, &chat->client) != TINYPROTO_OK) {
        program_complain(&program, "cannot make a client");
        return EXIT_FAILED;
    }
    tinyproto_client_set_handler(chat->client, &handler);
    start_input(chat);
    chat->conn = tinyproto_client_connect_address(chat->client, address);
    if (chat->conn == NULL) {
        program_complain(&program, "cannot connect to port 0");
        chat->code = EXIT_USAGE;
        stop_input(chat);
        tinyproto_client_stop(chat->client);
    }
    (void)uv_run(&chat->loop, UV_RUN_DEFAULT);
    tinyproto_client_free(chat->client);
    return chat->code;
}

int main(int argc, char **argv)
{
    struct chat chat = { .code = EXIT_GOOD };
    struct program_args args;
    int code = program_parse(&program, argc, argv, &args);

    if (code >= 0)
        return code;
    (void)signal(SIGPIPE, SIG_IGN);
    chat.line = malloc(LINE_MAX_BYTES);
    if (chat.line == NULL || uv_loop_init(&chat.loop) != 0) {
        program_complain(&program, "cannot make an event loop");
        free(chat.line);
        return EXIT_FAILED;
    }
    code = converse(&chat, &args.addresses[0]);
    (void)uv_loop_close(&chat.loop);
    free(chat.line);
    return code;
}
