/*
 * Callbacks for messages and status, and subscriptions that only hold a topic or glob.
 */
#include <string.h>

#include "core.h"
#include "mem.h"

static struct handler *find(struct lonely_client *c, uint64_t id)
{
    list_foreach (&c->handlers, node, next) {
        struct handler *h = list_entry(node, struct handler, node);

        if (h->id == id)
            return h;
    }
    return NULL;
}

static struct handler *handler_create(struct lonely_client *c, uint64_t id)
{
    struct handler *h = mem_try_calloc(1, sizeof(*h));

    if (h == NULL)
        return NULL;
    h->id = id;
    list_push_back(&c->handlers, &h->node);
    return h;
}

/* One that is taken off while callbacks run is skipped, and freed after them. */
static void sweep(struct lonely_client *c)
{
    if (c->telling > 0)
        return;
    list_foreach (&c->handlers, node, next) {
        struct handler *h = list_entry(node, struct handler, node);

        if (h->off) {
            list_remove(&h->node);
            mem_free(h);
        }
    }
}

void handlers_tell_status(struct lonely_client *c, enum lonely_client_status status,
                          struct lonely_span missed)
{
    c->telling++;
    list_foreach (&c->handlers, node, next) {
        struct handler *h = list_entry(node, struct handler, node);

        if (h->on_status != NULL && !h->off)
            h->on_status(h->arg, status, missed);
    }
    c->telling--;
    sweep(c);
}

void handlers_tell_message(struct lonely_client *c, struct lonely_delivery *d)
{
    c->telling++;
    list_foreach (&c->handlers, node, next) {
        struct handler *h = list_entry(node, struct handler, node);

        if (h->on_message != NULL && !h->off)
            h->on_message(h->arg, d);
    }
    c->telling--;
    sweep(c);
}

void handlers_tell_arriving(struct lonely_client *c, struct lonely_span topic, uint64_t received,
                            uint64_t size)
{
    c->telling++;
    list_foreach (&c->handlers, node, next) {
        struct handler *h = list_entry(node, struct handler, node);

        if (h->on_arriving != NULL && !h->off)
            h->on_arriving(h->arg, topic, received, size);
    }
    c->telling--;
    sweep(c);
}

void handlers_fini(struct lonely_client *c)
{
    list_foreach (&c->handlers, node, next)
        mem_free(list_entry(node, struct handler, node));
}

/* ---- Adding and taking off ---- */

struct registration {
    struct change change; /* first */
    lonely_on_message_fn *on_message;
    lonely_on_status_fn *on_status;
    lonely_on_arriving_fn *on_arriving;
    void *arg;
    enum want_kind kind;
    struct lonely_span key; /* of a direct subscription: its copy */
    uint64_t id; /* of what is made, known before the loop makes it; or to be taken off */
    uint8_t bytes[];
};

static void run_register(struct command *cmd)
{
    struct registration *r = (struct registration *)cmd;
    struct handler *h = handler_create(cmd->client, r->id);

    if (h == NULL) {
        command_done(cmd, LONELY_CLIENT_NO_MEMORY);
        return;
    }
    h->on_message = r->on_message;
    h->on_status = r->on_status;
    h->on_arriving = r->on_arriving;
    h->arg = r->arg;
    if (h->on_status != NULL && cmd->client->status != LONELY_CLIENT_LOST)
        h->on_status(h->arg, cmd->client->status, (struct lonely_span){ 0 });
    command_done(cmd, LONELY_CLIENT_OK);
}

/* Gives it its id, and has it made. */
static enum lonely_client_error finish(struct registration *r, int64_t timeout_ms, uint64_t *id)
{
    r->id = atomic_fetch_add(&r->change.cmd.client->next_id, 1) + 1;
    *id = r->id;
    return client_submit(&r->change.cmd, timeout_ms);
}

static enum lonely_client_error add_handler(struct lonely_client *c,
                                            const struct registration *from, uint64_t *id)
{
    struct registration *r = command_create(c, sizeof(*r), run_register);

    if (r == NULL)
        return LONELY_CLIENT_NO_MEMORY;
    r->on_message = from->on_message;
    r->on_status = from->on_status;
    r->on_arriving = from->on_arriving;
    r->arg = from->arg;
    return finish(r, -1, id); /* it waits for the loop only */
}

enum lonely_client_error lonely_client_on_message(struct lonely_client *c, lonely_on_message_fn *fn,
                                                  void *arg, uint64_t *id)
{
    return add_handler(c, &(struct registration){ .on_message = fn, .arg = arg }, id);
}

enum lonely_client_error lonely_client_on_status(struct lonely_client *c, lonely_on_status_fn *fn,
                                                 void *arg, uint64_t *id)
{
    return add_handler(c, &(struct registration){ .on_status = fn, .arg = arg }, id);
}

enum lonely_client_error lonely_client_on_arriving(struct lonely_client *c,
                                                   lonely_on_arriving_fn *fn, void *arg,
                                                   uint64_t *id)
{
    return add_handler(c, &(struct registration){ .on_arriving = fn, .arg = arg }, id);
}

static void run_off(struct command *cmd)
{
    struct handler *h = find(cmd->client, ((struct registration *)cmd)->id);

    if (h != NULL && h->want == NULL)
        h->off = true;
    sweep(cmd->client);
    command_done(cmd, LONELY_CLIENT_OK);
}

void lonely_client_off(struct lonely_client *c, uint64_t id)
{
    struct registration *r = command_create(c, sizeof(*r), run_off);

    if (r == NULL)
        return;
    r->id = id;
    client_submit(&r->change.cmd, -1);
}

/* ---- Direct subscriptions ---- */

static void undo_subscribe(struct change *change)
{
    struct registration *r = (struct registration *)change;
    struct lonely_client *c = change->cmd.client;
    struct handler *h = find(c, r->id);

    if (h == NULL)
        return;
    h->off = true;
    want_drop(c, h->want);
    h->want = NULL;
    sweep(c);
}

static void run_subscribe(struct command *cmd)
{
    struct registration *r = (struct registration *)cmd;
    struct handler *h = handler_create(cmd->client, r->id);

    r->change.pending = 1;
    if (h != NULL)
        h->want = want_hold(cmd->client, r->kind, r->key);
    if (h == NULL || h->want == NULL) {
        if (h != NULL)
            h->off = true;
        r->change.err = LONELY_CLIENT_NO_MEMORY;
    } else {
        r->change.undo = undo_subscribe;
        if (!change_wait(&r->change, h->want))
            r->change.err = LONELY_CLIENT_NO_MEMORY;
    }
    change_ready(&r->change);
}

static enum lonely_client_error direct_subscribe(struct lonely_client *c, enum want_kind kind,
                                                 struct lonely_span key, int64_t timeout_ms,
                                                 uint64_t *id)
{
    struct lonely_glob compiled;
    struct registration *r;

    if (key.len > 65535 || (kind == WANT_GLOB && lonely_glob_compile(key, &compiled) != LONELY_OK))
        return LONELY_CLIENT_ARGUMENT;
    r = command_create(c, sizeof(*r) + key.len, run_subscribe);
    if (r == NULL)
        return LONELY_CLIENT_NO_MEMORY;
    r->kind = kind;
    if (key.len > 0)
        memcpy(r->bytes, key.ptr, key.len);
    r->key = (struct lonely_span){ r->bytes, key.len };
    return finish(r, timeout_ms, id);
}

enum lonely_client_error lonely_client_direct_subscribe_exact(struct lonely_client *c,
                                                              struct lonely_span topic,
                                                              int64_t timeout_ms, uint64_t *id)
{
    return direct_subscribe(c, WANT_EXACT, topic, timeout_ms, id);
}

enum lonely_client_error lonely_client_direct_subscribe_glob(struct lonely_client *c,
                                                             struct lonely_span glob,
                                                             int64_t timeout_ms, uint64_t *id)
{
    return direct_subscribe(c, WANT_GLOB, glob, timeout_ms, id);
}

static void run_unsubscribe(struct command *cmd)
{
    struct registration *r = (struct registration *)cmd;
    struct lonely_client *c = cmd->client;
    struct handler *h = find(c, r->id);

    r->change.pending = 1;
    if (h != NULL && h->want != NULL) {
        struct want *w = h->want;

        h->off = true;
        h->want = NULL;
        sweep(c);
        if (!change_wait_drop(&r->change, w))
            r->change.err = LONELY_CLIENT_NO_MEMORY;
    }
    change_ready(&r->change);
}

enum lonely_client_error lonely_client_direct_unsubscribe(struct lonely_client *c, uint64_t id,
                                                          int64_t timeout_ms)
{
    struct registration *r = command_create(c, sizeof(*r), run_unsubscribe);

    if (r == NULL)
        return LONELY_CLIENT_NO_MEMORY;
    r->id = id;
    return client_submit(&r->change.cmd, timeout_ms);
}
