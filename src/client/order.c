/*
 * The order of broadcasters (order.h). Both links use it.
 */
#include "order.h"

#include <stdlib.h>

#include "mem.h"

static int compare(const void *a, const void *b)
{
    int64_t x = (*(const struct client_broadcaster *const *)a)->priority;
    int64_t y = (*(const struct client_broadcaster *const *)b)->priority;

    return (x > y) - (x < y);
}

void order_init(struct order *o, const struct client_conf *conf)
{
    o->items = mem_calloc(conf->broadcaster_count, sizeof(*o->items));
    o->count = conf->broadcaster_count;
    o->next = o->count;
    for (size_t i = 0; i < o->count; i++)
        o->items[i] = &conf->broadcasters[i];
    qsort(o->items, o->count, sizeof(*o->items), compare);
}

void order_fini(struct order *o)
{
    mem_free(o->items);
    *o = (struct order){ 0 };
}

void order_shuffle(struct order *o, void (*random)(void *arg, uint8_t *to, size_t len), void *arg)
{
    o->next = 0;
    for (size_t i = o->count; i > 1; i--) {
        const struct client_broadcaster *last = o->items[i - 1];
        size_t first = i - 1, pick;
        uint32_t number;

        while (first > 0 && o->items[first - 1]->priority == last->priority)
            first--;
        random(arg, (uint8_t *)&number, sizeof(number));
        pick = first + number % (i - first);
        o->items[i - 1] = o->items[pick];
        o->items[pick] = last;
    }
}

const struct client_broadcaster *order_next(struct order *o)
{
    return o->next < o->count ? o->items[o->next++] : NULL;
}

uint64_t order_delay_ms(unsigned n, double random)
{
    unsigned doubled = n > 16 ? 15 : n - 1; /* beyond some hours it makes no difference */

    return (UINT64_C(1000) << doubled) + (uint64_t)(random * 1000);
}
