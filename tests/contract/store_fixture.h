/*
 * Common ground of the tests and the benchmark of the stores: a store in a folder of its own, a
 * model of what it fed, and calls that wait for their callback.
 */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <lonely/etag.h>

#include "map.h"
#include "store.h"

/* A literal as a span; NULs inside count. */
#define SPAN(literal) ((struct lonely_span){ (const uint8_t *)(literal), sizeof(literal) - 1 })

static inline struct lonely_span span_of(const char *text)
{
    return (struct lonely_span){ (const uint8_t *)text, text == NULL ? 0 : strlen(text) };
}

/* What the store has fed: the rows by identity. Counts breaches of the contract of store_feed. */
struct model {
    pthread_mutex_t lock; /* guards the maps against readers; the store serialises the writers */
    struct map rows, loading;
    bool is_loading, is_changing;
    atomic_int inside; /* calls running at this moment */
    atomic_int breaches;
    atomic_int loads, changes;
};

void model_init(struct model *m);
void model_fini(struct model *m);
struct store_feed model_feed(struct model *m);
size_t model_count(struct model *m);
/* Is it there, with just this recovery url? */
bool model_has(struct model *m, const struct store_row *row);
bool model_has_key(struct model *m, const struct store_row *row); /* with whatever recovery url */
/* The etag of the rows of `url`. */
void model_etag(struct model *m, struct lonely_span url, uint8_t etag[64]);

#define FIXTURE_URL_MAX 700

/*
 * The backends that this run is for: the one that the environment variable LONELY_STORE names, whose
 * server LONELY_STORE_URL names (tests/integration/databases.py sets both), else those without one.
 */
size_t fixture_backends(const struct store_ops *out[4]);

/* One answer. */
struct reply {
    bool may_run; /* the call has returned */
    int calls;
    enum store_status status;
    uint8_t etag[64];
    struct store_missed item; /* spans point into `text` */
    uint8_t text[4 * 65536];
};

struct fixture {
    const struct store_ops *ops;
    char dir[256], path[300];
    char url[FIXTURE_URL_MAX], *urls[1]; /* empty: the backend has none */
    struct store_conf conf;
    struct model model;
    uv_loop_t loop;
    struct store *store;
    struct store_client *client;
};

/* Makes the folder, an empty place in the server if the backend has one, and the conf; fixture_open opens store and client. All die with a message when
 * something fails that no test expects to. */
void fixture_init(struct fixture *f, const struct store_ops *ops);
void fixture_open(struct fixture *f);
void fixture_close(struct fixture *f); /* client and store; the folder stays */
void fixture_fini(struct fixture *f);  /* closes what is open, removes folder and place */
/* Opens it where another one has its rows. After init. */
void fixture_share(struct fixture *f, const struct fixture *with);

void reply_expect(struct reply *r);
void reply_wait(struct fixture *f, struct reply *r); /* runs the loop; dies after a minute */
void on_reply(void *arg, enum store_status status);
void on_etag_reply(void *arg, enum store_status status, const uint8_t etag[64]);
void on_missed_reply(void *arg, enum store_status status, const struct store_missed *item);

/* Calls that wait. */
enum store_status do_subscribe(struct fixture *f, const struct store_row *row);
enum store_status do_unsubscribe(struct fixture *f, const struct store_row *row);
enum store_status do_set(struct fixture *f, struct lonely_span url, const struct store_list *list);
enum store_status do_check(struct fixture *f, struct lonely_span url, uint8_t etag[64]);
enum store_status do_sync(struct fixture *f);
enum store_status do_missed_upsert(struct fixture *f, const struct store_row *row,
                                   struct lonely_span topic, uint32_t attempts, double at);
enum store_status do_missed_lock(struct fixture *f, double now, struct reply *out);
enum store_status do_missed_clear(struct fixture *f, const struct store_missed *item);
enum store_status do_missed_retry(struct fixture *f, const struct store_missed *item,
                                  uint32_t attempts, double at);

/* A list from an array; `fail_at`: the entry that cannot be read, or a negative number. `hold`: a
 * gate at which the store's thread waits before it reads the first entry; NULL: none. */
struct gate {
    uv_sem_t reached, open;
};
void gate_init(struct gate *g);
void gate_fini(struct gate *g);

struct array_list {
    struct store_list list;
    const struct store_row *rows;
    size_t n, at;
    long fail_at;
    struct gate *hold;
};
void array_list_init(struct array_list *l, const struct store_row *rows, size_t n);

/* A list that makes its rows as it goes: exact topics "%08zu" from 0 to n, step by step. */
struct number_list {
    struct store_list list;
    size_t n, at, step;
    struct lonely_span recovery;
    char key[24];
};
void number_list_init(struct number_list *l, size_t n, size_t step, struct lonely_span recovery);

#endif
