/*
 * Clients (tinyproto/client.h). What they share with servers is in endpoint.c, connections in
 * conn.c, connecting in opening.c.                            (doc/protocol/tinyproto.md, 8)
 */
#include <tinyproto/client.h>

#include "conn_private.h"
#include "mem.h"

struct tinyproto_client {
    struct endpoint e; /* first: hooks of connections find the client by it */
    struct tinyproto_client_hooks hooks;
    bool is_over; /* stopped on the caller's loop */
};

static struct tinyproto_client *of_endpoint(struct endpoint *e)
{
    return (struct tinyproto_client *)(void *)e;
}

/* ---- Hooks ---- */

static void on_pre_loop(struct endpoint *e)
{
    struct tinyproto_client *cl = of_endpoint(e);

    if (cl->hooks.pre_loop != NULL)
        cl->hooks.pre_loop(cl);
}

static void on_loop_pass(struct endpoint *e)
{
    struct tinyproto_client *cl = of_endpoint(e);

    cl->hooks.loop_pass(cl);
}

static void on_stopping(struct endpoint *e)
{
    of_endpoint(e)->is_over = !e->owns_loop;
}

static void on_post_loop(struct endpoint *e)
{
    struct tinyproto_client *cl = of_endpoint(e);

    if (cl->hooks.post_loop != NULL)
        cl->hooks.post_loop(cl); /* may free it */
}

static void on_conn_shutdown(struct endpoint *e, struct tinyproto_conn *c,
                             const struct tinyproto_cause *why)
{
    struct tinyproto_client *cl = of_endpoint(e);

    if (cl->hooks.conn_shutdown != NULL)
        cl->hooks.conn_shutdown(cl, c, why);
}

static const struct endpoint_ops client_ops = {
    .pre_loop = on_pre_loop,
    .loop_pass = on_loop_pass,
    .stopping = on_stopping,
    .post_loop = on_post_loop,
    .conn_shutdown = on_conn_shutdown,
};

/* ---- Made ---- */

void tinyproto_client_options(struct tinyproto_options *options)
{
    *options = (struct tinyproto_options){
        .receive_max = TINYPROTO_MESSAGE_MAX,
        .send_max = TINYPROTO_MESSAGE_MAX,
        .queue_max_bytes = (size_t)64 * 1024 * 1024,
        .incoming_max_bytes = UINT64_C(4) * 1024 * 1024 * 1024,
        .open_timeout_ms = 5000,
        .stall_timeout_ms = 5000,
        .grace_ms = 2000,
        .linger_ms = 1000,
        .stop_timeout_ms = 2000,
        .interval_ms = 30,
    };
}

enum tinyproto_error tinyproto_client_new(const struct tinyproto_client_hooks *hooks,
                                          const struct tinyproto_options *options,
                                          struct uv_loop_s *loop, struct tinyproto_client **out)
{
    struct tinyproto_client *cl = mem_try_calloc(1, sizeof(*cl));
    struct tinyproto_options defaults;
    enum tinyproto_error err;

    *out = NULL;
    if (cl == NULL)
        return TINYPROTO_E_MEMORY;
    tinyproto_client_options(&defaults);
    err = endpoint_init(&cl->e, &client_ops, options != NULL ? options : &defaults, loop);
    if (err != TINYPROTO_OK) {
        mem_free(cl);
        return err;
    }
    if (hooks != NULL)
        cl->hooks = *hooks;
    cl->e.wants_passes = cl->hooks.loop_pass != NULL;
    err = endpoint_open(&cl->e);
    if (err != TINYPROTO_OK) {
        endpoint_fini(&cl->e);
        mem_free(cl);
        return err;
    }
    *out = cl;
    return TINYPROTO_OK;
}

void tinyproto_client_free(struct tinyproto_client *cl)
{
    if (cl == NULL)
        return;
    if (cl->e.is_open && cl->e.owns_loop) {
        endpoint_abort_all(&cl->e);
        endpoint_ask_stop(&cl->e);
        endpoint_run(&cl->e);
    }
    endpoint_fini(&cl->e);
    mem_free(cl);
}

void tinyproto_client_set_handler(struct tinyproto_client *cl,
                                  const struct tinyproto_handler *handler)
{
    cl->e.handler = handler;
}

void tinyproto_client_set_timeout(struct tinyproto_client *cl, uint32_t ms)
{
    cl->e.options.open_timeout_ms = ms;
    cl->e.options.stall_timeout_ms = ms;
}

enum tinyproto_error tinyproto_client_add_plugin(struct tinyproto_client *cl,
                                                 const struct tinyproto_plugin *plugin)
{
    return endpoint_add_plugin(&cl->e, plugin);
}

/* ---- Connections ---- */

static bool may_connect(const struct tinyproto_client *cl)
{
    const struct endpoint *e = &cl->e;

    return !cl->is_over && !e->is_stopping && !e->is_closing &&
           (e->options.connection_limit == 0 || e->count < e->options.connection_limit);
}

struct tinyproto_conn *tinyproto_client_connect_address(struct tinyproto_client *cl,
                                                        const struct tinyproto_address *address)
{
    char text[TINYPROTO_ADDRESS_TEXT_MAX];
    struct tinyproto_conn *c;
    enum tinyproto_error err;

    if (!may_connect(cl) || !address_is_valid(address) || (address->port == 0 && !address->is_unix))
        return NULL;
    if (!cl->e.is_open && endpoint_open(&cl->e) != TINYPROTO_OK) /* its own loop, run before */
        return NULL;
    c = conn_create(&cl->e, false, tinyproto_address_print(address, text));
    if (c == NULL)
        return NULL;
    c->is_introduced = true;
    uv_update_time(cl->e.loop); /* its time begins now, even if the loop stood still until now */
    err = conn_open_plugins(c);
    if (err != TINYPROTO_OK)
        conn_end(c, err, 0);
    else
        opening_start(c, address);
    return c;
}

struct tinyproto_conn *tinyproto_client_connect(struct tinyproto_client *cl, const char *host,
                                                int port)
{
    struct tinyproto_address address;

    if (tinyproto_address_set(&address, host, port) != TINYPROTO_OK)
        return NULL;
    return tinyproto_client_connect_address(cl, &address);
}

/* ---- Run ---- */

enum tinyproto_error tinyproto_client_run(struct tinyproto_client *cl)
{
    enum tinyproto_error err = TINYPROTO_OK;

    if (!cl->e.owns_loop)
        return TINYPROTO_E_STATE;
    if (!cl->e.is_open)
        err = endpoint_open(&cl->e);
    if (err == TINYPROTO_OK)
        endpoint_run(&cl->e);
    return err;
}

void tinyproto_client_stop(struct tinyproto_client *cl)
{
    endpoint_ask_stop(&cl->e);
}

/* ---- Asked ---- */

void *tinyproto_client_arg(const struct tinyproto_client *cl)
{
    return cl->hooks.arg;
}

size_t tinyproto_client_count(const struct tinyproto_client *cl)
{
    return cl->e.count;
}

void tinyproto_client_each(struct tinyproto_client *cl,
                           bool (*fn)(void *arg, struct tinyproto_conn *conn), void *arg)
{
    endpoint_each(&cl->e, fn, arg);
}

struct tinyproto_conn *tinyproto_client_find(const struct tinyproto_client *cl, const char *id)
{
    return endpoint_find(&cl->e, id);
}

enum tinyproto_error tinyproto_client_post_transmit(struct tinyproto_client *cl, const char *id,
                                                    const void *ptr, size_t len)
{
    return endpoint_post(&cl->e, id, ptr, len);
}
