/*
 * tinyproto-chat-server(1): what one says, all others get.    (doc/protocol/tinyproto.md, 13)
 */
#include <stdlib.h>
#include <string.h>

#include "program.h"

#define LINE_MAX_BYTES (1024u * 1024)

static const struct program program = {
    .name = "tinyproto-chat-server",
    .usage = "--listen HOST:PORT... [--max-connections N]",
    .help =
        "Transmits each message of a connection to all others as `[ID] MESSAGE`, until SIGINT or\n"
        "SIGTERM. No authentication, no encryption: listen where you trust everybody.\n\n"
        "  --listen HOST:PORT   address to listen on, also [IPV6]:PORT and unix:PATH; port 0\n"
        "                       is any free one. May be repeated. Prints `ready tcp HOST:PORT`\n"
        "  --max-connections N  refuse more than so many connections at a time\n"
        "  --help, --version\n",
    .takes = TAKES_LISTEN | TAKES_LIMIT,
};

struct line {
    const struct tinyproto_conn *from;
    const char *ptr;
    size_t len;
};

static bool tell_one(void *arg, struct tinyproto_conn *conn)
{
    const struct line *line = arg;

    /* Who reads too slowly for the conversation leaves it: nobody gets a part of it. */
    if (conn != line->from && tinyproto_conn_state(conn) == TINYPROTO_OPEN &&
        tinyproto_transmit(conn, line->ptr, line->len) != TINYPROTO_OK)
        tinyproto_abort(conn);
    return true;
}

static void tell_others(struct tinyproto_conn *conn, const void *text, size_t len)
{
    const char *id = tinyproto_conn_id(conn);
    size_t id_len = strlen(id);
    struct line line = { .from = conn, .len = id_len + 3 + len };
    char *ptr = malloc(line.len);

    if (ptr == NULL) {
        tinyproto_abort(conn);
        return;
    }
    ptr[0] = '[';
    memcpy(ptr + 1, id, id_len);
    memcpy(ptr + 1 + id_len, "] ", 2);
    if (len > 0)
        memcpy(ptr + 3 + id_len, text, len);
    line.ptr = ptr;
    tinyproto_server_each(tinyproto_conn_server(conn), tell_one, &line);
    free(ptr);
}

static void on_message(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    tell_others(conn, message->ptr, message->len);
}

static void on_join(struct tinyproto_conn *conn)
{
    static const char text[] = "**joined the chat";

    tell_others(conn, text, sizeof(text) - 1);
}

static void on_leave(struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    static const char text[] = "**left the chat";

    (void)why;
    tell_others(conn, text, sizeof(text) - 1);
}

int main(int argc, char **argv)
{
    const struct tinyproto_handler handler = { .pre_loop = on_join,
                                               .transmission_received = on_message,
                                               .post_loop = on_leave };
    struct tinyproto_options options;
    struct program_args args;
    int code = program_parse(&program, argc, argv, &args);

    if (code >= 0)
        return code;
    tinyproto_server_options(&options);
    options.receive_max = LINE_MAX_BYTES;
    return program_serve(&program, &args, NULL, &handler, &options);
}
