/*
 * See macs_fixture.h.
 */
#include "macs_fixture.h"

#include <string.h>
#include <time.h>

#include "mem.h"

static void on_mac(void *arg, const struct store_mac *mac)
{
    struct fed *fed = arg;
    uint32_t n;

    memcpy(&n, mac->code, sizeof n);
    pthread_mutex_lock(&fed->lock);
    fed->seen[n % sizeof fed->seen]++;
    fed->count++;
    pthread_mutex_unlock(&fed->lock);
}

static void on_lost(void *arg)
{
    ((struct fed *)arg)->lost++;
}

struct macs_fixture *macs_fixture_create(const struct store_ops *ops,
                                         const struct macs_fixture *with)
{
    struct macs_fixture *m = mem_calloc(1, sizeof *m);

    fixture_init(&m->f, ops);
    if (with != NULL)
        fixture_share(&m->f, &with->f);
    pthread_mutex_init(&m->fed.lock, NULL);
    m->f.conf.macs = (struct store_macs){ on_mac, on_lost, &m->fed };
    return m;
}

void macs_fixture_destroy(struct macs_fixture *m)
{
    fixture_fini(&m->f);
    pthread_mutex_destroy(&m->fed.lock);
    mem_free(m);
}

int macs_fixture_setup(void **state)
{
    struct macs_fixture *m = macs_fixture_create(*state, NULL);

    fixture_open(&m->f);
    *state = m;
    return 0;
}

int macs_fixture_teardown(void **state)
{
    macs_fixture_destroy(*state);
    return 0;
}

bool macs_add(struct macs_fixture *m, uint32_t n)
{
    struct store_mac mac = { .keep_until_s = (uint64_t)time(NULL) + 121 };

    memset(mac.code, 0xa5, sizeof mac.code);
    memcpy(mac.code, &n, sizeof n);
    return m->f.ops->add_mac(m->f.client, &mac);
}

enum store_status macs_sync(struct macs_fixture *m)
{
    struct reply *r = mem_calloc(1, sizeof *r);
    enum store_status status;

    reply_expect(r);
    status = m->f.ops->sync_macs(m->f.client, on_reply, r);
    if (status == STORE_PENDING) {
        r->may_run = true;
        reply_wait(&m->f, r);
        status = r->status;
    }
    mem_free(r);
    return status;
}

bool macs_has(struct macs_fixture *m, uint32_t n)
{
    bool seen;

    pthread_mutex_lock(&m->fed.lock);
    seen = m->fed.seen[n % sizeof m->fed.seen] > 0;
    pthread_mutex_unlock(&m->fed.lock);
    return seen;
}

void macs_forget(struct macs_fixture *m)
{
    pthread_mutex_lock(&m->fed.lock);
    memset(m->fed.seen, 0, sizeof m->fed.seen);
    m->fed.count = 0;
    m->fed.lost = 0;
    pthread_mutex_unlock(&m->fed.lock);
}
