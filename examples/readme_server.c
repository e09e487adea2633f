/*
 * readme-server --listen HOST:PORT
 *
 * The example of the README of the Python package tinyproto: answers X with "Echo back: X"; QUIT ends the
 * connection, SRVQUIT the server.
 *
 * Build: cc readme_server.c $(pkg-config --cflags --libs tinyproto)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tinyproto/server.h>

static int is(const struct tinyproto_message *message, const char *text)
{
    return message->len == strlen(text) && memcmp(message->ptr, text, message->len) == 0;
}

static void answer(struct tinyproto_conn *conn, const struct tinyproto_message *message)
{
    static const char prefix[] = "Echo back: ";
    size_t len = sizeof(prefix) - 1 + message->len;
    char *text = malloc(len);

    if (text != NULL) {
        memcpy(text, prefix, sizeof(prefix) - 1);
        memcpy(text + sizeof(prefix) - 1, message->ptr, message->len);
    }
    if (text == NULL || tinyproto_transmit_take(conn, text, len, NULL, NULL) != TINYPROTO_OK) {
        free(text);
        tinyproto_abort(conn);
    }
}

static void on_message(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    if (is(message, "QUIT"))
        tinyproto_close(conn);
    else if (is(message, "SRVQUIT"))
        tinyproto_server_stop(tinyproto_conn_server(conn));
    else
        answer(conn, message);
}

static void on_start(struct tinyproto_server *server)
{
    printf("ready tcp %s\n", tinyproto_server_addr(server, 0));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const struct tinyproto_server_hooks hooks = { .pre_loop = on_start };
    const struct tinyproto_handler handler = { .transmission_received = on_message };
    struct tinyproto_address address;
    struct tinyproto_server *server;
    struct tinyproto_cause why;

    if (argc != 3 || strcmp(argv[1], "--listen") != 0 ||
        tinyproto_address_parse(argv[2], &address) != TINYPROTO_OK) {
        fprintf(stderr, "usage: readme-server --listen HOST:PORT\n");
        return 2;
    }
    if (tinyproto_server_new(&hooks, NULL, NULL, &server) != TINYPROTO_OK ||
        tinyproto_server_add_address(server, &address) != TINYPROTO_OK)
        return 1;
    tinyproto_server_set_handler(server, &handler);
    why = tinyproto_server_run(server);
    if (why.err != TINYPROTO_OK)
        fprintf(stderr, "readme-server: %s\n", tinyproto_server_error(server));
    tinyproto_server_free(server);
    return why.err == TINYPROTO_OK ? 0 : 1;
}
