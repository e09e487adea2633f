/*
 * tpft -l: listening, signals, the end.
 */
#include "serve.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "program.h"
#include "show.h"
#include "visit.h"

struct serving {
    struct shop shop;
    struct tinyproto_server *server;
    uv_signal_t signals[2];
};

static void on_signal(uv_signal_t *handle, int number)
{
    struct serving *s = handle->data;

    (void)number;
    atomic_store(&s->shop.is_stopping, true);
    tinyproto_server_stop(s->server);
}

static void watch_signals(struct serving *s)
{
    static const int numbers[] = { SIGINT, SIGTERM };

    for (size_t i = 0; i < 2; i++) {
        (void)uv_signal_init(&s->shop.loop, &s->signals[i]);
        s->signals[i].data = s;
        (void)uv_signal_start(&s->signals[i], on_signal, numbers[i]);
        uv_unref((uv_handle_t *)&s->signals[i]); /* the server and its jobs keep the loop going */
    }
}

static bool is_loopback(const char *address)
{
    return strncmp(address, "127.", 4) == 0 || strncmp(address, "[::1]", 5) == 0;
}

static bool say_ready(const struct options *o, const struct serving *s)
{
    for (size_t i = 0; i < o->n_listen; i++) {
        const char *address = tinyproto_server_addr(s->server, i);

        (void)printf("ready tcp %s\n", address);
        if (!is_loopback(address))
            show_line("%s: whoever reaches this address can %s, and all can be read on the way: "
                      "no authentication, no encryption",
                      address, o->is_read_only ? "read files" : "read and replace files");
    }
    return fflush(stdout) == 0;
}

static int run(const struct options *o, struct serving *s)
{
    struct tinyproto_cause why;

    for (size_t i = 0; i < o->n_listen; i++)
        (void)tinyproto_server_add_addr(s->server, o->listen[i].host, o->listen[i].port);
    why = tinyproto_server_start(s->server);
    if (why.err != TINYPROTO_OK) {
        show_line("%s", tinyproto_server_error(s->server));
        return EXIT_FAILED;
    }
    watch_signals(s);
    if (!say_ready(o, s))
        tinyproto_server_stop(s->server); /* nobody will learn where it listens */
    (void)uv_run(&s->shop.loop, UV_RUN_DEFAULT);
    for (size_t i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&s->signals[i], NULL);
    (void)uv_run(&s->shop.loop, UV_RUN_DEFAULT);
    return EXIT_GOOD;
}

static int run_server(const struct options *o, struct serving *s)
{
    const struct tinyproto_server_hooks hooks = { .arg = &s->shop,
                                                  .conn_init = visit_begin,
                                                  .conn_shutdown = visit_end };
    struct tinyproto_options options;
    int code;

    tinyproto_server_options(&options);
    options.connection_limit = o->max_connections;
    options.stall_timeout_ms = s->shop.idle_ms;
    if (tinyproto_server_new(&hooks, &options, &s->shop.loop, &s->server) != TINYPROTO_OK) {
        show_line("cannot make a server");
        return EXIT_FAILED;
    }
    tinyproto_server_set_handler(s->server, &visit_handler);
    code = run(o, s);
    tinyproto_server_free(s->server);
    return code;
}

int serve(const struct options *o, mode_t mode)
{
    struct serving s = { .shop = { .mode = mode,
                                   .chunk_bytes = o->chunk_bytes,
                                   .idle_ms = o->timeout_s * 1000,
                                   .is_read_only = o->is_read_only,
                                   .is_verbose = o->is_verbose } };
    struct fault fault = root_open(&s.shop.root, o->root);
    char text[FAULT_TEXT_MAX];
    int code = EXIT_FAILED;

    if (is_fault(fault)) {
        show_line("--root %.200s: %s", o->root, fault_text(fault, text, sizeof(text)));
        return EXIT_USAGE;
    }
    if (uv_loop_init(&s.shop.loop) == 0) {
        code = run_server(o, &s);
        (void)uv_loop_close(&s.shop.loop);
    } else {
        show_line("cannot make an event loop");
    }
    root_close(&s.shop.root);
    return code;
}
