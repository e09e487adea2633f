/*
 * A fixture (store_fixture.h) that also takes what the store feeds of used macs, which tests number.
 */
#ifndef MACS_FIXTURE_H
#define MACS_FIXTURE_H

#include "store_fixture.h"

struct fed {
    pthread_mutex_t lock;
    uint8_t seen[65536]; /* how often, by the number */
    size_t count;
    int lost; /* how often `lost` was called */
};

struct macs_fixture {
    struct fixture f; /* first */
    struct fed fed;
};

/* Opens nothing yet. `with`: one where it has its rows, too, or NULL. */
struct macs_fixture *macs_fixture_create(const struct store_ops *ops,
                                         const struct macs_fixture *with);
void macs_fixture_destroy(struct macs_fixture *m);
/* For cmocka: `*state` is the store_ops, then the fixture, which is open. */
int macs_fixture_setup(void **state);
int macs_fixture_teardown(void **state);

bool macs_add(struct macs_fixture *m, uint32_t n); /* as used just now */
enum store_status macs_sync(struct macs_fixture *m);
bool macs_has(struct macs_fixture *m, uint32_t n); /* was it fed? */
void macs_forget(struct macs_fixture *m);          /* what was fed */

#endif
