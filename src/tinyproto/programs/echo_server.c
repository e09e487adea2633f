/*
 * tinyproto-echo-server(1): transmits every message back unchanged.
 *                                                             (doc/protocol/tinyproto.md, 13)
 */
#include <stdlib.h>
#include <string.h>

#include "program.h"

static const struct program program = {
    .name = "tinyproto-echo-server",
    .usage = "--listen HOST:PORT... [--max-connections N] [--commands]",
    .help =
        "Transmits every message back unchanged, until SIGINT or SIGTERM.\n"
        "No authentication, no encryption: listen where you trust everybody.\n\n"
        "  --listen HOST:PORT   address to listen on, also [IPV6]:PORT and unix:PATH; port 0\n"
        "                       is any free one. May be repeated. Prints `ready tcp HOST:PORT`\n"
        "  --max-connections N  refuse more than so many connections at a time\n"
        "  --commands           the message QUIT ends its connection, SRVQUIT the server\n"
        "  --help, --version\n",
    .takes = TAKES_LISTEN | TAKES_LIMIT | TAKES_COMMANDS,
};

static bool is_text(const struct tinyproto_message *message, const char *text)
{
    return message->len == strlen(text) && memcmp(message->ptr, text, message->len) == 0;
}

static bool is_command(struct tinyproto_conn *conn, const struct tinyproto_message *message)
{
    const struct program_args *args = tinyproto_conn_arg(conn);

    if (!args->commands)
        return false;
    if (is_text(message, "QUIT"))
        tinyproto_close(conn);
    else if (is_text(message, "SRVQUIT"))
        tinyproto_server_stop(tinyproto_conn_server(conn));
    else
        return false;
    return true;
}

static void on_message(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    size_t len = message->len;
    enum tinyproto_error err;
    void *ptr;

    if (is_command(conn, message))
        return;
    if (len <= 4096) { /* as good as it gets: one small block */
        err = tinyproto_transmit(conn, message->ptr, len);
    } else {
        ptr = tinyproto_message_take(message);
        err =
            ptr != NULL ? tinyproto_transmit_take(conn, ptr, len, NULL, NULL) : TINYPROTO_E_MEMORY;
        if (err != TINYPROTO_OK)
            free(ptr);
    }
    if (err != TINYPROTO_OK)
        tinyproto_abort(conn); /* a peer that waits for its echo must learn that none comes */
}

int main(int argc, char **argv)
{
    struct program_args args;
    struct tinyproto_handler handler = { .arg = &args, .transmission_received = on_message };
    struct tinyproto_options options;
    int code = program_parse(&program, argc, argv, &args);

    if (code >= 0)
        return code;
    tinyproto_server_options(&options);
    return program_serve(&program, &args, NULL, &handler, &options);
}
