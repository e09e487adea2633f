/*
 * See store_fixture.h.
 */
#include "store_fixture.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fixture_places.h"
#include "mem.h"
#include "store_place.h"

#define WAIT_MS 60000

static void die(const char *what)
{
    fprintf(stderr, "store fixture: %s\n", what);
    abort();
}

/* --- model ---------------------------------------------------------------------------------- */

struct model_row {
    struct map_node node;
    struct store_row row; /* url, key and recovery lie in `text` behind the map's key */
    uint8_t text[];
};

/* The map's key: kind, length of the url, url, key. */
static size_t identity(uint8_t *to, const struct store_row *row)
{
    uint32_t url_len = (uint32_t)row->url.len;

    to[0] = (uint8_t)row->kind;
    memcpy(to + 1, &url_len, 4);
    if (row->url.len > 0)
        memcpy(to + 5, row->url.ptr, row->url.len);
    if (row->key.len > 0)
        memcpy(to + 5 + row->url.len, row->key.ptr, row->key.len);
    return 5 + row->url.len + row->key.len;
}

static struct model_row *find(struct map *map, const struct store_row *row)
{
    uint8_t *id = mem_alloc(5 + row->url.len + row->key.len);
    struct map_node *node = map_find(map, id, identity(id, row));

    mem_free(id);
    return node == NULL ? NULL : map_entry(node, struct model_row, node);
}

static void forget(struct map *map, const struct store_row *row)
{
    struct model_row *r = find(map, row);

    if (r == NULL)
        return;
    map_remove(map, &r->node);
    mem_free(r);
}

static void remember(struct map *map, const struct store_row *row)
{
    size_t id_len = 5 + row->url.len + row->key.len;
    struct model_row *r = mem_calloc(1, sizeof *r + id_len + row->recovery.len);

    forget(map, row);
    identity(r->text, row);
    if (row->recovery.len > 0)
        memcpy(r->text + id_len, row->recovery.ptr, row->recovery.len);
    r->row = (struct store_row){ row->kind,
                                 { r->text + 5, row->url.len },
                                 { r->text + 5 + row->url.len, row->key.len },
                                 { r->text + id_len, row->recovery.len } };
    map_insert(map, &r->node, r->text, id_len);
}

static void forget_all(struct map *map)
{
    for (struct map_node *n = map_first(map), *next; n != NULL; n = next) {
        next = map_next(map, n);
        map_remove(map, n);
        mem_free(map_entry(n, struct model_row, node));
    }
    map_fini(map);
}

static void enter(struct model *m, bool is_allowed)
{
    if (atomic_fetch_add(&m->inside, 1) != 0 || !is_allowed)
        atomic_fetch_add(&m->breaches, 1);
    pthread_mutex_lock(&m->lock);
}

static void leave(struct model *m)
{
    pthread_mutex_unlock(&m->lock);
    atomic_fetch_sub(&m->inside, 1);
}

static void on_load_begin(void *arg)
{
    struct model *m = arg;

    enter(m, !m->is_loading && !m->is_changing);
    m->is_loading = true;
    map_init(&m->loading);
    leave(m);
}

static void on_load_end(void *arg)
{
    struct model *m = arg;

    enter(m, m->is_loading);
    forget_all(&m->rows);
    m->rows = m->loading;
    m->is_loading = false;
    atomic_fetch_add(&m->loads, 1);
    leave(m);
}

static void on_load_abort(void *arg)
{
    struct model *m = arg;

    enter(m, m->is_loading);
    forget_all(&m->loading);
    m->is_loading = false;
    leave(m);
}

static void on_change_begin(void *arg)
{
    struct model *m = arg;

    enter(m, !m->is_loading && !m->is_changing);
    m->is_changing = true;
    leave(m);
}

static void on_change_end(void *arg)
{
    struct model *m = arg;

    enter(m, m->is_changing);
    m->is_changing = false;
    leave(m);
}

static void on_add(void *arg, const struct store_row *row)
{
    struct model *m = arg;

    enter(m, m->is_loading || m->is_changing);
    atomic_fetch_add(&m->changes, 1);
    remember(m->is_loading ? &m->loading : &m->rows, row);
    leave(m);
}

static void on_remove(void *arg, const struct store_row *row)
{
    struct model *m = arg;

    enter(m, m->is_changing);
    atomic_fetch_add(&m->changes, 1);
    forget(&m->rows, row);
    leave(m);
}

void model_init(struct model *m)
{
    memset(m, 0, sizeof *m);
    pthread_mutex_init(&m->lock, NULL);
    map_init(&m->rows);
}

void model_fini(struct model *m)
{
    forget_all(&m->rows);
    pthread_mutex_destroy(&m->lock);
}

struct store_feed model_feed(struct model *m)
{
    return (struct store_feed){ .load_begin = on_load_begin,
                                .load_end = on_load_end,
                                .load_abort = on_load_abort,
                                .change_begin = on_change_begin,
                                .change_end = on_change_end,
                                .add = on_add,
                                .remove = on_remove,
                                .arg = m };
}

size_t model_count(struct model *m)
{
    size_t count;

    pthread_mutex_lock(&m->lock);
    count = m->rows.count;
    pthread_mutex_unlock(&m->lock);
    return count;
}

bool model_has(struct model *m, const struct store_row *row)
{
    struct model_row *r;
    bool has;

    pthread_mutex_lock(&m->lock);
    r = find(&m->rows, row);
    has = r != NULL && store_span_compare(r->row.recovery, row->recovery) == 0;
    pthread_mutex_unlock(&m->lock);
    return has;
}

bool model_has_key(struct model *m, const struct store_row *row)
{
    bool has;

    pthread_mutex_lock(&m->lock);
    has = find(&m->rows, row) != NULL;
    pthread_mutex_unlock(&m->lock);
    return has;
}

static int by_order(const void *a, const void *b)
{
    return store_row_compare(*(const struct store_row *const *)a,
                             *(const struct store_row *const *)b);
}

void model_etag(struct model *m, struct lonely_span url, uint8_t etag[64])
{
    struct lonely_etag *e = mem_alloc(sizeof *e);
    const struct store_row **rows;
    size_t n = 0;

    pthread_mutex_lock(&m->lock);
    rows = mem_calloc(m->rows.count + 1, sizeof(struct store_row *));
    for (struct map_node *node = map_first(&m->rows); node != NULL;
         node = map_next(&m->rows, node)) {
        const struct store_row *row = &map_entry(node, struct model_row, node)->row;

        if (store_span_compare(row->url, url) == 0)
            rows[n++] = row;
    }
    qsort((void *)rows, n, sizeof rows[0], by_order);
    if (lonely_etag_init(e, url) != LONELY_OK)
        die("etag");
    for (size_t i = 0; i < n; i++)
        if ((rows[i]->kind == STORE_EXACT ? lonely_etag_add_topic : lonely_etag_add_glob)(
                e, rows[i]->key, rows[i]->recovery) != LONELY_OK)
            die("etag");
    if (lonely_etag_final(e, etag) != LONELY_OK)
        die("etag");
    pthread_mutex_unlock(&m->lock);
    mem_free((void *)rows);
    mem_free(e);
}

/* --- fixture -------------------------------------------------------------------------------- */

/* How to get an empty place in the server of a backend. */
static const struct place {
    const char *backend;
    void (*make)(const char *server, char url[FIXTURE_URL_MAX]);
    void (*unmake)(const char *server, const char *url);
} places[] = {
    { "postgres", place_postgres_make, place_postgres_unmake },
    { "rqlite", place_rqlite_make, place_rqlite_unmake },
};

static const char *server_url(void)
{
    const char *url = getenv("LONELY_STORE_URL");

    if (url == NULL)
        die("LONELY_STORE_URL is not set");
    return url;
}

static const struct place *place_of(const struct store_ops *ops)
{
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (strcmp(places[i].backend, ops->name) == 0)
            return &places[i];
    return NULL;
}

size_t fixture_backends(const struct store_ops *out[4])
{
    const char *name = getenv("LONELY_STORE");

    if (name == NULL) {
        out[0] = &store_sqlite;
        out[1] = &store_memory;
        return 2;
    }
    out[0] = store_find(name);
    if (out[0] == NULL)
        die("LONELY_STORE is no backend");
    return 1;
}

void fixture_init(struct fixture *f, const struct store_ops *ops)
{
    const char *tmp = getenv("TMPDIR");
    const struct place *place = place_of(ops);

    memset(f, 0, sizeof *f);
    f->ops = ops;
    snprintf(f->dir, sizeof f->dir, "%s/lonely-store-XXXXXX", tmp == NULL ? "/tmp" : tmp);
    if (mkdtemp(f->dir) == NULL)
        die("mkdtemp");
    snprintf(f->path, sizeof f->path, "%s/test.db", f->dir);
    f->conf = (struct store_conf){
        .path = f->path, .timeout_ms = 20000, .missed_lock_time_s = 30, .max_queued = 100000
    };
    if (place != NULL) {
        place->make(server_url(), f->url);
        f->urls[0] = f->url;
        f->conf.urls = f->urls;
        f->conf.n_urls = 1;
    }
    model_init(&f->model);
    if (uv_loop_init(&f->loop) != 0)
        die("uv_loop_init");
}

void fixture_share(struct fixture *f, const struct fixture *with)
{
    f->conf.path = with->conf.path;
    f->conf.urls = with->conf.urls;
    f->conf.n_urls = with->conf.n_urls;
}

void fixture_open(struct fixture *f)
{
    struct store_feed feed = model_feed(&f->model);
    char error[256];

    if (!f->ops->open(&f->conf, &feed, &f->store, error) ||
        !f->ops->client_open(f->store, &f->loop, &f->client, error))
        die(error);
}

static void on_closed(void *arg)
{
    *(bool *)arg = true;
}

void fixture_close(struct fixture *f)
{
    bool closed = false;

    if (f->store == NULL)
        return;
    f->ops->client_close(f->client, on_closed, &closed);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    if (!closed)
        die("client_close did not end");
    f->ops->close(f->store);
    f->store = NULL;
    f->client = NULL;
}

static void remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *entry;

    if (d == NULL)
        return;
    while ((entry = readdir(d)) != NULL) {
        char path[600];

        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            remove(path);
    }
    closedir(d);
    rmdir(dir);
}

void fixture_fini(struct fixture *f)
{
    const struct place *place = place_of(f->ops);

    fixture_close(f);
    if (uv_loop_close(&f->loop) != 0)
        die("handles are left in the loop");
    if (atomic_load(&f->model.breaches) != 0)
        die("calls of the feed were nested, unordered or at the same time");
    model_fini(&f->model);
    if (place != NULL)
        place->unmake(server_url(), f->url);
    remove_dir(f->dir);
}

/* --- calls that wait ------------------------------------------------------------------------ */

void reply_expect(struct reply *r)
{
    r->may_run = false;
    r->calls = 0;
    r->status = STORE_PENDING;
}

static void on_wait_over(uv_timer_t *timer)
{
    (void)timer;
    die("no callback within a minute");
}

void reply_wait(struct fixture *f, struct reply *r)
{
    uv_timer_t timer;

    r->may_run = true;
    uv_timer_init(&f->loop, &timer);
    uv_timer_start(&timer, on_wait_over, WAIT_MS, 0);
    while (r->calls == 0)
        uv_run(&f->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&f->loop, UV_RUN_NOWAIT);
    if (r->calls != 1)
        die("a callback ran twice");
}

void on_reply(void *arg, enum store_status status)
{
    struct reply *r = arg;

    if (!r->may_run)
        die("a callback ran before its call had returned");
    r->calls++;
    r->status = status;
}

void on_etag_reply(void *arg, enum store_status status, const uint8_t etag[64])
{
    memcpy(((struct reply *)arg)->etag, etag, 64);
    on_reply(arg, status);
}

static struct lonely_span keep(uint8_t **to, struct lonely_span from)
{
    struct lonely_span kept = { *to, from.len };

    if (from.len > 0)
        memcpy(*to, from.ptr, from.len);
    *to += from.len;
    return kept;
}

void on_missed_reply(void *arg, enum store_status status, const struct store_missed *item)
{
    struct reply *r = arg;
    uint8_t *to = r->text;

    if ((item != NULL) != (status == STORE_OK))
        die("an item comes with STORE_OK and only then");
    if (item != NULL) {
        r->item = *item;
        r->item.url = keep(&to, item->url);
        r->item.key = keep(&to, item->key);
        r->item.recovery = keep(&to, item->recovery);
        r->item.topic = keep(&to, item->topic);
    }
    on_reply(arg, status);
}

static struct reply *new_reply(void)
{
    struct reply *r = mem_alloc(sizeof *r);

    reply_expect(r);
    return r;
}

static enum store_status finish(struct fixture *f, struct reply *r)
{
    enum store_status status;

    reply_wait(f, r);
    status = r->status;
    mem_free(r);
    return status;
}

enum store_status do_subscribe(struct fixture *f, const struct store_row *row)
{
    struct reply *r = new_reply();

    f->ops->subscribe(f->client, row, on_reply, r);
    return finish(f, r);
}

enum store_status do_unsubscribe(struct fixture *f, const struct store_row *row)
{
    struct reply *r = new_reply();

    f->ops->unsubscribe(f->client, row, on_reply, r);
    return finish(f, r);
}

enum store_status do_set(struct fixture *f, struct lonely_span url, const struct store_list *list)
{
    struct reply *r = new_reply();

    f->ops->set(f->client, url, list, on_reply, r);
    return finish(f, r);
}

enum store_status do_check(struct fixture *f, struct lonely_span url, uint8_t etag[64])
{
    struct reply *r = new_reply();
    enum store_status status;

    f->ops->check(f->client, url, on_etag_reply, r);
    reply_wait(f, r);
    status = r->status;
    memcpy(etag, r->etag, 64);
    mem_free(r);
    return status;
}

enum store_status do_sync(struct fixture *f)
{
    struct reply *r = new_reply();
    enum store_status status = f->ops->sync(f->client, on_reply, r);

    if (status == STORE_PENDING)
        return finish(f, r);
    mem_free(r);
    return status;
}

enum store_status do_missed_upsert(struct fixture *f, const struct store_row *row,
                                   struct lonely_span topic, uint32_t attempts, double at)
{
    struct reply *r = new_reply();

    f->ops->missed_upsert(f->client, row, topic, attempts, at, on_reply, r);
    return finish(f, r);
}

enum store_status do_missed_lock(struct fixture *f, double now, struct reply *out)
{
    reply_expect(out);
    f->ops->missed_lock(f->client, now, on_missed_reply, out);
    reply_wait(f, out);
    return out->status;
}

enum store_status do_missed_clear(struct fixture *f, const struct store_missed *item)
{
    struct reply *r = new_reply();

    f->ops->missed_clear(f->client, item, on_reply, r);
    return finish(f, r);
}

enum store_status do_missed_retry(struct fixture *f, const struct store_missed *item,
                                  uint32_t attempts, double at)
{
    struct reply *r = new_reply();

    f->ops->missed_retry(f->client, item, attempts, at, on_reply, r);
    return finish(f, r);
}

/* --- lists ---------------------------------------------------------------------------------- */

void gate_init(struct gate *g)
{
    if (uv_sem_init(&g->reached, 0) != 0 || uv_sem_init(&g->open, 0) != 0)
        die("uv_sem_init");
}

void gate_fini(struct gate *g)
{
    uv_sem_destroy(&g->reached);
    uv_sem_destroy(&g->open);
}

static int array_next(void *arg, struct store_row *row)
{
    struct array_list *l = arg;

    if (l->at == 0 && l->hold != NULL) {
        uv_sem_post(&l->hold->reached);
        uv_sem_wait(&l->hold->open);
        l->hold = NULL;
    }
    if ((long)l->at == l->fail_at)
        return -1;
    if (l->at == l->n)
        return 0;
    *row = l->rows[l->at++];
    return 1;
}

void array_list_init(struct array_list *l, const struct store_row *rows, size_t n)
{
    *l = (struct array_list){ .list = { array_next, l }, .rows = rows, .n = n, .fail_at = -1 };
}

static int number_next(void *arg, struct store_row *row)
{
    struct number_list *l = arg;

    if (l->at >= l->n)
        return 0;
    snprintf(l->key, sizeof l->key, "%08zu", l->at);
    *row = (struct store_row){ .kind = STORE_EXACT,
                               .key = { (const uint8_t *)l->key, strlen(l->key) },
                               .recovery = l->recovery };
    l->at += l->step;
    return 1;
}

void number_list_init(struct number_list *l, size_t n, size_t step, struct lonely_span recovery)
{
    *l = (struct number_list){
        .list = { number_next, l }, .n = n, .step = step, .recovery = recovery
    };
}
