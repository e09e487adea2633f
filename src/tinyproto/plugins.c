/*
 * What transforms messages on their way: incoming.c and outgoing.c hand them through.
 *                                                              (doc/protocol/tinyproto.md, 10)
 */
#include "conn_private.h"
#include "mem.h"

static void plugin_close(const struct plugin_use *use)
{
    if (use->plugin.open != NULL && use->plugin.close != NULL)
        use->plugin.close(use->state);
}

enum tinyproto_error plugins_add(struct tinyproto_conn *c, const struct tinyproto_plugin *p)
{
    struct plugin_use use = { .plugin = *p, .state = p->arg }, *grown;

    if (p->open != NULL && !p->open(p->arg, c, &use.state)) /* which may add others */
        return TINYPROTO_E_PLUGIN;
    grown = mem_try_realloc(c->plugins, (c->n_plugins + 1) * sizeof(*c->plugins));
    if (grown == NULL) {
        plugin_close(&use);
        return TINYPROTO_E_MEMORY;
    }
    c->plugins = grown;
    c->plugins[c->n_plugins++] = use;
    return TINYPROTO_OK;
}

bool plugins_have_transmit(const struct tinyproto_conn *c)
{
    for (size_t i = 0; i < c->n_plugins; i++)
        if (c->plugins[i].plugin.transmit != NULL)
            return true;
    return false;
}

bool plugins_transmit(const struct tinyproto_conn *c, uint8_t **ptr, size_t *len)
{
    for (size_t i = 0; i < c->n_plugins; i++) {
        const struct plugin_use *use = &c->plugins[i];

        if (use->plugin.transmit != NULL && !use->plugin.transmit(use->state, ptr, len))
            return false;
    }
    return true;
}

bool plugins_receive(const struct tinyproto_conn *c, size_t n, uint8_t **ptr, size_t *len)
{
    while (n-- > 0) {
        const struct plugin_use *use = &c->plugins[n];

        if (use->plugin.receive != NULL && !use->plugin.receive(use->state, ptr, len))
            return false;
    }
    return true;
}

void plugins_close(struct tinyproto_conn *c)
{
    while (c->n_plugins > 0)
        plugin_close(&c->plugins[--c->n_plugins]);
    mem_free(c->plugins);
}
