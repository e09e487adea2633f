/*
 * How fast the stores are: durable subscribes a second with 1, 64 and 1,000 of them pending, a sync
 * with nothing new, SET, CHECK and the load at start. A table on standard output. The files are
 * made in $TMPDIR, so that the disk can be chosen.
 *
 *     TMPDIR=/srv bench_store [rows]
 */
#include <stdio.h>
#include <stdlib.h>

#include "mem.h"
#include "store_fixture.h"

static const struct lonely_span url = { (const uint8_t *)"http://bench.example/v1/receive", 31 };
static const struct lonely_span recovery = { (const uint8_t *)"http://bench.example/v1/recover",
                                             31 };

static double seconds(void)
{
    return (double)uv_hrtime() / 1e9;
}

static void require(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "bench_store: %s failed\n", what);
    exit(1);
}

/* --- subscribes ------------------------------------------------------------------------------ */

struct load {
    struct fixture *f;
    size_t next, done, total;
    const char *prefix;
};

static void on_subscribed(void *arg, enum store_status status);

static void subscribe_next(struct load *l)
{
    char key[40];
    struct store_row row = { STORE_EXACT, url, { NULL, 0 }, recovery };

    snprintf(key, sizeof key, "%s/%zu", l->prefix, l->next++);
    row.key = span_of(key);
    l->f->ops->subscribe(l->f->client, &row, on_subscribed, l);
}

static void on_subscribed(void *arg, enum store_status status)
{
    struct load *l = arg;

    require(status == STORE_OK, "subscribe");
    l->done++;
    if (l->next < l->total)
        subscribe_next(l);
}

static void bench_subscribe(struct fixture *f, size_t pending, size_t total)
{
    char prefix[24];
    struct load l = { .f = f, .total = total, .prefix = prefix };
    double began = seconds(), took;

    snprintf(prefix, sizeof prefix, "p%zu", pending);
    for (size_t i = 0; i < pending; i++)
        subscribe_next(&l);
    while (l.done < l.total)
        uv_run(&f->loop, UV_RUN_ONCE);
    took = seconds() - began;
    printf("%-8s subscribe, %4zu pending  %12.0f /s   %9.3f ms each\n", f->ops->name, pending,
           (double)total / took, took * 1e3 * (double)pending / (double)total);
}

/* --- reading and long operations -------------------------------------------------------------- */

static void bench_sync(struct fixture *f)
{
    enum { N = 200000 };
    struct reply *r = mem_calloc(1, sizeof *r);
    double began;

    require(do_sync(f) == STORE_OK, "sync");
    began = seconds();
    for (int i = 0; i < N; i++)
        require(f->ops->sync(f->client, on_reply, r) == STORE_OK, "sync");
    printf("%-8s sync, nothing new        %12.3f us\n", f->ops->name,
           (seconds() - began) * 1e6 / N);
    mem_free(r);
}

static void print_rows(struct fixture *f, const char *what, size_t rows, double took)
{
    printf("%-8s %-24s %12.0f rows/s   %7.3f s\n", f->ops->name, what, (double)rows / took, took);
}

static void bench_set(struct fixture *f, const char *what, size_t rows, size_t listed)
{
    struct number_list list;
    double began = seconds();

    number_list_init(&list, listed, 1, recovery);
    require(do_set(f, SPAN("http://set.example/"), &list.list) == STORE_OK, "set");
    print_rows(f, what, rows, seconds() - began);
}

static void bench_check(struct fixture *f, size_t rows)
{
    uint8_t etag[64];
    double began = seconds();

    require(do_check(f, SPAN("http://set.example/"), etag) == STORE_OK, "check");
    print_rows(f, "check", rows, seconds() - began);
}

/* The model of the fixture is the feed: about the price of a hash table. */
static void bench_news(struct fixture *f, size_t rows)
{
    double began = seconds();

    require(do_sync(f) == STORE_OK, "sync");
    print_rows(f, "sync, that many new", rows, seconds() - began);
}

static void bench_open(struct fixture *f)
{
    double began;

    fixture_close(f);
    began = seconds();
    fixture_open(f);
    print_rows(f, "load at start", model_count(&f->model), seconds() - began);
}

static void bench(const struct store_ops *ops, size_t rows)
{
    struct fixture *f = mem_alloc(sizeof *f);

    fixture_init(f, ops);
    f->conf.timeout_ms = 600000;
    fixture_open(f);
    bench_subscribe(f, 1, 5000);
    bench_subscribe(f, 64, 50000);
    bench_subscribe(f, 1000, 100000);
    bench_sync(f);
    bench_set(f, "set, all inserted", rows, rows);
    bench_news(f, rows);
    bench_check(f, rows);
    bench_set(f, "set, all there", rows, rows);
    bench_open(f);
    if (ops == &store_memory)
        bench_set(f, "set, all inserted", rows, rows); /* nothing survived */
    bench_set(f, "set, all deleted", rows, 0);
    fixture_fini(f);
    mem_free(f);
}

int main(int argc, char **argv)
{
    size_t rows = argc > 1 ? strtoul(argv[1], NULL, 10) : 200000;

    setvbuf(stdout, NULL, _IOLBF, 0);
    require(rows > 0 && rows < 100000000, "reading the number of rows");
    bench(&store_sqlite, rows);
    bench(&store_memory, rows);
    return 0;
}
