/*
 * Bodies in memory and in files: sizes around every boundary, the shared budget, failing disks,
 * writers that give up. Every test ends with an empty spool_dir, no memory held and the
 * descriptors with which it began.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "body.h"

enum { CHUNK = 262144, SPOOL = 100000, LARGEST = 3 * CHUNK + 1, THREADS = 4 };
enum { PIECE = 65536, LANE = 1 << 20 };

/* Stands in for libc's, as a file system without O_TMPFILE when asked to. */
static bool no_tmpfile;
int open(const char *path, int flags, ...);
int open(const char *path, int flags, ...)
{
    va_list args;
    int mode;

    va_start(args, flags);
    mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, int) : 0;
    va_end(args);
    if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

struct fixture {
    uv_loop_t loop;
    char dir[64], spool[80];
    struct bodies *bodies;
    struct body_lane *lane;
    uint8_t *bytes;
    size_t descriptors;
};

struct outcome {
    unsigned done, ready;
    enum body_error err;
    struct body *body;
};

static size_t count_entries(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    size_t n = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void bodies_open(struct fixture *f, uint64_t max_memory)
{
    struct bodies_conf conf = { .spool_dir = f->spool,
                                .spool_size = SPOOL,
                                .max_memory = max_memory };
    char error[256];

    body_lane_destroy(f->lane);
    bodies_destroy(f->bodies);
    f->bodies = bodies_create(&conf, error);
    assert_non_null(f->bodies);
    f->lane = body_lane_create(f->bodies, &f->loop, LANE);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    f->descriptors = count_entries("/proc/self/fd");
    uv_loop_init(&f->loop);
    strcpy(f->dir, "/tmp/test_body.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->spool, sizeof f->spool, "%s/spool", f->dir);
    bodies_open(f, 1 << 20);
    f->bytes = malloc(LARGEST);
    for (size_t i = 0; i < LARGEST; i++)
        f->bytes[i] = (uint8_t)(i * 7 + (i >> 8) + (i >> 16));
    no_tmpfile = false;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    assert_int_equal(bodies_memory(f->bodies), 0);
    assert_int_equal(body_lane_memory(f->lane), 0);
    body_lane_destroy(f->lane);
    bodies_destroy(f->bodies); /* asserts that no body is left */
    if (access(f->spool, F_OK) == 0)
        assert_int_equal(count_entries(f->spool), 0);
    rmdir(f->spool);
    assert_int_equal(rmdir(f->dir), 0);
    for (int i = 0; i < 10000 && count_entries("/proc/self/fd") != f->descriptors; i++)
        usleep(1000);
    assert_int_equal(count_entries("/proc/self/fd"), f->descriptors);
    free(f->bytes);
    free(f);
    return 0;
}

static void on_ready(void *arg)
{
    ((struct outcome *)arg)->ready++;
}

static void on_done(void *arg, enum body_error err, struct body *b)
{
    struct outcome *o = arg;

    o->done++;
    o->err = err;
    o->body = b;
}

/* Adds `len` bytes in pieces, as fast as the writer takes them, until it fails. */
static void feed(uv_loop_t *loop, struct body_writer *w, const uint8_t *bytes, size_t len,
                 size_t piece)
{
    struct outcome o = { 0 };

    for (size_t at = 0; at < len; at += piece) {
        size_t n = len - at < piece ? len - at : piece;
        unsigned ready = o.ready;
        enum body_add added =
            body_writer_add(w, (struct lonely_span){ bytes + at, n }, on_ready, &o);

        if (added == BODY_ADD_FAILED)
            return;
        if (added == BODY_ADD_MORE)
            continue;
        assert_int_equal(o.ready, ready);
        while (o.ready == ready)
            uv_run(loop, UV_RUN_ONCE);
        assert_int_equal(o.ready, ready + 1);
    }
}

static struct outcome finish(uv_loop_t *loop, struct body_writer *w)
{
    struct outcome o = { 0 };

    body_writer_finish(w, on_done, &o);
    while (o.done == 0)
        uv_run(loop, UV_RUN_ONCE);
    return o;
}

static struct body *make(struct fixture *f, size_t len, uint64_t expected, size_t piece)
{
    struct body_writer *w = body_writer_create(f->lane, expected);
    struct outcome o;

    feed(&f->loop, w, f->bytes, len, piece);
    o = finish(&f->loop, w);
    assert_int_equal(o.err, BODY_OK);
    assert_non_null(o.body);
    return o.body;
}

static void assert_content(const struct body *b, const uint8_t *bytes, size_t len)
{
    uint8_t hash[64], *copy = malloc(len + 100);

    assert_int_equal(body_size(b), len);
    SHA512(bytes, len, hash);
    assert_memory_equal(body_sha512(b), hash, 64);
    if (body_in_memory(b)) {
        assert_int_equal(body_span(b).len, len);
        if (len > 0)
            assert_memory_equal(body_span(b).ptr, bytes, len);
    } else {
        assert_int_equal(body_pread(b, 0, copy, len + 100), len);
        assert_memory_equal(copy, bytes, len);
        assert_int_equal(body_pread(b, len - 1, copy, 100), 1);
        assert_int_equal(copy[0], bytes[len - 1]);
        assert_int_equal(body_pread(b, len, copy, 100), 0);
        assert_int_equal(body_pread(b, UINT64_MAX, copy, 100), 0);
    }
    free(copy);
}

static void test_sizes(void **state)
{
    static const size_t sizes[] = {
        0,         1,         200,           4095,          4096,      4097,      65535,
        65536,     65537,     SPOOL - 1,     SPOOL,         SPOOL + 1, CHUNK - 1, CHUNK,
        CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 3 * CHUNK - 1, LARGEST
    };
    static const size_t pieces[] = { 1000, 4096, 16384, 65536, SPOOL, CHUNK, LARGEST };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t j = 0; j < sizeof pieces / sizeof pieces[0]; j++) {
            uint64_t expected[] = { UINT64_MAX, sizes[i], sizes[i] / 2, sizes[i] + 1,
                                    UINT64_MAX - 1 };

            for (size_t k = 0; k < sizeof expected / sizeof expected[0]; k++) {
                bool large = sizes[i] > SPOOL || (k != 0 && expected[k] > SPOOL && sizes[i] > 0);
                struct body *b = make(f, sizes[i], expected[k], pieces[j]);

                assert_int_equal(body_in_memory(b), !large);
                assert_content(b, f->bytes, sizes[i]);
                assert_true(bodies_memory(f->bodies) <= (large ? 0 : sizes[i] + sizes[i] / 4 + 64));
                body_unref(b);
                assert_int_equal(bodies_memory(f->bodies), 0);
            }
        }
}

/* What was written is at hand until the page cache drops it, which a file system in memory never does;
 * what was read is at hand again. */
static void test_cached(void **state)
{
    struct fixture *f = *state;
    struct body *b = make(f, LARGEST, UINT64_MAX, 65536);
    uint8_t *copy = malloc(LARGEST);

    assert_true(body_is_cached(b, 0, LARGEST));
    assert_true(body_is_cached(b, LARGEST - 1, 100));
    assert_false(body_is_cached(b, LARGEST, 1));
    assert_false(body_is_cached(b, UINT64_MAX, 1));
    assert_false(body_is_cached(b, 0, 0));
    assert_int_equal(fsync(body_fd(b)), 0);
    assert_int_equal(posix_fadvise(body_fd(b), 0, 0, POSIX_FADV_DONTNEED), 0);
    if (!body_is_cached(b, 0, LARGEST)) {
        assert_int_equal(body_pread(b, 0, copy, LARGEST), LARGEST);
        assert_true(body_is_cached(b, 0, LARGEST));
        assert_memory_equal(copy, f->bytes, LARGEST);
    }
    free(copy);
    body_unref(b);
}

/* Its file is closed by a thread: the teardown waits for it. */
static void test_huge(void **state)
{
    struct fixture *f = *state;
    struct body_writer *w = body_writer_create(f->lane, UINT64_MAX);
    uint64_t rounds = 16777216 / LARGEST + 1;
    uint8_t *copy = malloc(LARGEST);
    struct outcome o;

    for (uint64_t i = 0; i < rounds; i++)
        feed(&f->loop, w, f->bytes, LARGEST, 65536);
    o = finish(&f->loop, w);
    assert_int_equal(o.err, BODY_OK);
    assert_int_equal(body_size(o.body), rounds * LARGEST);
    assert_int_equal(body_pread(o.body, (rounds - 1) * LARGEST, copy, LARGEST), LARGEST);
    assert_memory_equal(copy, f->bytes, LARGEST);
    free(copy);
    body_unref(o.body);
}

static void test_single_bytes(void **state)
{
    struct fixture *f = *state;
    struct body *b = make(f, SPOOL + 5000, UINT64_MAX, 1);

    assert_content(b, f->bytes, SPOOL + 5000);
    body_unref(b);
    b = make(f, 5000, 5000, 1);
    assert_content(b, f->bytes, 5000);
    body_ref(b);
    body_unref(b);
    assert_content(b, f->bytes, 5000);
    body_unref(b);
    body_unref(NULL);
}

/* What a peer announces takes no memory; what it sends takes two chunks at most. */
static void test_memory_follows_bytes(void **state)
{
    struct fixture *f = *state;
    struct body_writer *w = body_writer_create(f->lane, SPOOL);
    struct outcome o = { 0 };
    size_t taken = 0;

    assert_int_equal(bodies_memory(f->bodies), 0);
    assert_int_equal(body_writer_add(w, (struct lonely_span){ f->bytes, 1 }, on_ready, &o),
                     BODY_ADD_MORE);
    assert_in_range(bodies_memory(f->bodies), 1, 4096);
    body_writer_abort(w);
    assert_int_equal(bodies_memory(f->bodies), 0);

    w = body_writer_create(f->lane, UINT64_MAX - 1);
    while (body_writer_add(w, (struct lonely_span){ f->bytes, 1000 }, on_ready, &o) ==
           BODY_ADD_MORE)
        taken += 1000;
    assert_in_range(taken, 2 * (CHUNK - PIECE) - 2000, 2 * (CHUNK - PIECE) + 2000);
    assert_int_equal(bodies_memory(f->bodies), 0);
    assert_int_equal(body_lane_memory(f->lane), 2 * CHUNK);
    o = finish(&f->loop, w);
    assert_int_equal(o.err, BODY_OK);
    assert_int_equal(body_size(o.body), taken + 1000);
    body_unref(o.body);
}

static void test_budget(void **state)
{
    struct fixture *f = *state;
    struct body *first, *second, *third;

    bodies_open(f, 50000);
    first = make(f, 40000, 40000, 16384);
    assert_true(body_in_memory(first));
    second = make(f, 20000, 20000, 1000); /* begins in memory */
    assert_false(body_in_memory(second));
    assert_content(second, f->bytes, 20000);
    third = make(f, 10000, 10000, 1000);
    assert_true(body_in_memory(third));
    assert_int_equal(bodies_memory(f->bodies), 50000);
    body_unref(first);
    first = make(f, 30000, UINT64_MAX, 30000);
    assert_true(body_in_memory(first));
    assert_content(first, f->bytes, 30000);
    body_unref(first);
    body_unref(second);
    body_unref(third);
    bodies_open(f, 0);
    first = make(f, 10, 10, 10);
    assert_false(body_in_memory(first));
    assert_content(first, f->bytes, 10);
    body_unref(first);
}

static void test_bytes_with_a_known_hash(void **state)
{
    static const size_t sizes[] = { 0, 1, 4096, SPOOL };
    struct fixture *f = *state;
    uint8_t sha512[SHA512_DIGEST_LENGTH];
    struct body *b;

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        SHA512(f->bytes, sizes[i], sha512);
        b = body_create(f->bodies, (struct lonely_span){ f->bytes, sizes[i] }, sha512);
        assert_non_null(b);
        assert_int_equal(bodies_memory(f->bodies), sizes[i]);
        assert_true(body_in_memory(b));
        assert_content(b, f->bytes, sizes[i]);
        body_unref(b);
    }
    assert_null(
        body_create(f->bodies, (struct lonely_span){ f->bytes, SPOOL + 1 }, sha512)); /* a file's */
    bodies_open(f, 100);
    assert_null(body_create(f->bodies, (struct lonely_span){ f->bytes, 101 }, sha512));
}

static void test_abort(void **state)
{
    static const size_t sizes[] = { 0, 1, 70000, SPOOL, SPOOL + 1, CHUNK, 2 * CHUNK, LARGEST };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (unsigned turns = 0; turns < 4; turns++) {
            struct body_writer *w = body_writer_create(f->lane, sizes[i] / 2);
            struct outcome o = { 0 };

            body_writer_add(w, (struct lonely_span){ f->bytes, sizes[i] / 2 }, on_ready, &o);
            body_writer_add(w, (struct lonely_span){ f->bytes, sizes[i] / 2 }, on_ready, &o);
            for (unsigned turn = 0; turn < turns; turn++)
                uv_run(&f->loop, UV_RUN_NOWAIT);
            o.ready = 0;
            body_writer_abort(w);
            uv_run(&f->loop, UV_RUN_DEFAULT);
            assert_int_equal(o.ready, 0);
            assert_int_equal(bodies_memory(f->bodies), 0);
        }
}

static struct body_writer *aborted;
static void abort_when_ready(void *arg)
{
    ((struct outcome *)arg)->ready++;
    body_writer_abort(aborted);
}

static void test_abort_in_ready(void **state)
{
    struct fixture *f = *state;
    struct outcome o = { 0 };

    aborted = body_writer_create(f->lane, UINT64_MAX - 1);
    assert_int_equal(
        body_writer_add(aborted, (struct lonely_span){ f->bytes, CHUNK }, abort_when_ready, &o),
        BODY_ADD_MORE);
    assert_int_equal(
        body_writer_add(aborted, (struct lonely_span){ f->bytes, CHUNK }, abort_when_ready, &o),
        BODY_ADD_WAIT);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(o.ready, 1);
}

static void test_small_is_done_at_once(void **state)
{
    struct fixture *f = *state;
    struct body_writer *w = body_writer_create(f->lane, 100);
    struct outcome o = { 0 };

    body_writer_add(w, (struct lonely_span){ f->bytes, 100 }, on_ready, &o);
    body_writer_finish(w, on_done, &o);
    assert_int_equal(o.done, 1);
    assert_content(o.body, f->bytes, 100);
    body_unref(o.body);
}

static void test_without_tmpfile(void **state)
{
    struct fixture *f = *state;
    struct body *b;

    no_tmpfile = true;
    bodies_open(f, 1 << 20);
    b = make(f, LARGEST, LARGEST, 65536);
    assert_false(body_in_memory(b));
    assert_int_equal(count_entries(f->spool), 0);
    assert_content(b, f->bytes, LARGEST);
    body_unref(b);
}

/* A limit on the size of files stands for a full disk. */
static void test_no_room(void **state)
{
    static const rlim_t limits[] = { 0, 1000, SPOOL, CHUNK + 1 };
    struct fixture *f = *state;
    struct rlimit was, now;

    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &was);
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        struct body_writer *w = body_writer_create(f->lane, UINT64_MAX);
        struct outcome o;

        now = (struct rlimit){ .rlim_cur = limits[i], .rlim_max = was.rlim_max };
        setrlimit(RLIMIT_FSIZE, &now);
        feed(&f->loop, w, f->bytes, LARGEST, 50000);
        o = finish(&f->loop, w);
        setrlimit(RLIMIT_FSIZE, &was);
        assert_int_equal(o.err, BODY_NO_ROOM);
        assert_null(o.body);
        assert_int_equal(o.done, 1);
    }
    body_unref(make(f, LARGEST, UINT64_MAX, 50000));
}

/* It is known long before the peer has sent everything. */
static void test_fails_early(void **state)
{
    struct fixture *f = *state;
    struct body_writer *w = body_writer_create(f->lane, UINT64_MAX);
    struct rlimit was, now;
    unsigned rounds = 0;

    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &was);
    now = (struct rlimit){ .rlim_cur = CHUNK, .rlim_max = was.rlim_max };
    setrlimit(RLIMIT_FSIZE, &now);
    while (body_writer_error(w) == BODY_OK && rounds++ < 100)
        feed(&f->loop, w, f->bytes, LARGEST, PIECE);
    setrlimit(RLIMIT_FSIZE, &was);
    assert_in_range(rounds, 1, 2);
    assert_int_equal(body_writer_error(w), BODY_NO_ROOM);
    assert_int_equal(body_lane_memory(f->lane), 0);
    body_writer_abort(w);
}

/* ---- many at once ---- */

enum { UPLOADS = 60, PIECES = 20, UPLOAD_PIECE = 30000 };

struct upload {
    struct body_writer *w;
    size_t pieces; /* that were taken */
    bool waits;
};

static void on_upload_ready(void *arg)
{
    ((struct upload *)arg)->waits = false;
}

/* Gives a piece to each that takes one; all begin with the same bytes again and again. */
static void upload_round(struct fixture *f, struct upload *all)
{
    for (size_t i = 0; i < UPLOADS; i++) {
        struct upload *u = &all[i];

        if (u->waits || u->pieces == PIECES)
            continue;
        switch (body_writer_add(u->w, (struct lonely_span){ f->bytes, UPLOAD_PIECE },
                                on_upload_ready, u)) {
        case BODY_ADD_MORE:
            break;
        case BODY_ADD_WAIT:
            u->waits = true;
            break;
        case BODY_ADD_FAILED:
            fail();
        }
        u->pieces++;
        assert_true(body_lane_memory(f->lane) <= LANE + CHUNK + UPLOADS * PIECE / 2);
    }
}

static size_t count_waiting(const struct upload *all)
{
    size_t waiting = 0;

    for (size_t i = 0; i < UPLOADS; i++)
        waiting += all[i].waits;
    return waiting;
}

/* Their chunks together stay bounded, nobody is left waiting, and all arrive as they were sent. */
static void test_many_uploads(void **state)
{
    struct fixture *f = *state;
    struct upload all[UPLOADS] = { 0 };
    uint8_t *whole = malloc((size_t)PIECES * UPLOAD_PIECE);
    size_t most = 0;

    for (size_t i = 0; i < PIECES; i++)
        memcpy(whole + i * UPLOAD_PIECE, f->bytes, UPLOAD_PIECE);
    for (size_t i = 0; i < UPLOADS; i++)
        all[i].w = body_writer_create(f->lane, UINT64_MAX - 1);
    for (size_t pieces = 0; pieces < (size_t)PIECES * UPLOADS;) {
        size_t waiting;

        upload_round(f, all);
        waiting = count_waiting(all);
        most = waiting > most ? waiting : most;
        uv_run(&f->loop, waiting > 0 ? UV_RUN_ONCE : UV_RUN_NOWAIT);
        pieces = 0;
        for (size_t i = 0; i < UPLOADS; i++)
            pieces += all[i].pieces;
    }
    assert_true(most > UPLOADS / 2); /* or this test shows nothing */
    for (size_t i = 0; i < UPLOADS; i++) {
        struct outcome o = finish(&f->loop, all[i].w);

        assert_int_equal(o.err, BODY_OK);
        assert_content(o.body, whole, (size_t)PIECES * UPLOAD_PIECE);
        body_unref(o.body);
    }
    free(whole);
}

/* Before any of them could be written; later there is room again. */
static void test_too_many_begin(void **state)
{
    struct fixture *f = *state;
    struct body_writer *writers[3 * LANE / PIECE];
    size_t n = sizeof writers / sizeof writers[0], busy = 0;
    struct outcome o = { 0 };

    for (size_t i = 0; i < n; i++) {
        writers[i] = body_writer_create(f->lane, UINT64_MAX - 1);
        if (body_writer_add(writers[i], (struct lonely_span){ f->bytes, PIECE }, on_ready, &o) !=
            BODY_ADD_FAILED)
            continue;
        assert_int_equal(body_writer_error(writers[i]), BODY_BUSY);
        busy++;
    }
    assert_in_range(busy, n / 3 - 1, n / 3 + 1);
    assert_true(body_lane_memory(f->lane) <= 2 * LANE);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_true(o.ready > 0);
    for (size_t i = 0; i < n; i++)
        body_writer_abort(writers[i]);
    body_unref(make(f, LARGEST, UINT64_MAX, PIECE));
}

static void test_spool_dir_vanishes(void **state)
{
    struct fixture *f = *state;
    struct body_writer *w = body_writer_create(f->lane, UINT64_MAX);
    struct outcome o;

    assert_int_equal(rmdir(f->spool), 0);
    feed(&f->loop, w, f->bytes, LARGEST, 50000);
    o = finish(&f->loop, w);
    assert_int_equal(o.err, BODY_IO);
    assert_null(o.body);
}

static void test_bad_spool_dir(void **state)
{
    static const struct {
        const char *below, *error;
    } cases[] = {
        { "file", "cannot be written: Not a directory" },
        { "file/spool", "cannot be made: Not a directory" },
        { "absent/spool", "cannot be made: No such file or directory" },
    };
    struct fixture *f = *state;
    char path[128], file[128], error[256];

    snprintf(file, sizeof file, "%s/file", f->dir);
    fclose(fopen(file, "w"));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bodies_conf conf = { .spool_dir = path, .spool_size = 1, .max_memory = 1 };

        snprintf(path, sizeof path, "%s/%s", f->dir, cases[i].below);
        assert_null(bodies_create(&conf, error));
        assert_non_null(strstr(error, cases[i].error));
        assert_non_null(strstr(error, path));
        assert_null(strchr(error, '\n'));
    }
    unlink(file);
    bodies_destroy(NULL);
}

/* ---- threads ---- */

struct reader {
    pthread_t thread;
    struct body *body;
    struct fixture *f;
    bool good;
};

static void *read_body(void *arg)
{
    struct reader *r = arg;
    uint8_t piece[10000];
    uint64_t at = 0;
    ptrdiff_t n = 1;

    r->good = true;
    while (n > 0) {
        n = body_pread(r->body, at, piece, sizeof piece);
        if (n < 0 || memcmp(piece, r->f->bytes + at, (size_t)n) != 0)
            r->good = false;
        at += n > 0 ? (uint64_t)n : 0;
    }
    r->good = r->good && at == body_size(r->body);
    body_unref(r->body);
    return NULL;
}

static void test_concurrent_readers(void **state)
{
    struct fixture *f = *state;
    struct reader readers[THREADS];
    struct body *b = make(f, LARGEST, LARGEST, 65536);

    for (int i = 0; i < THREADS; i++) {
        readers[i] = (struct reader){ .body = b, .f = f };
        body_ref(b);
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_body, &readers[i]), 0);
    }
    body_unref(b);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_true(readers[i].good);
    }
}

/* A loop of its own; asserts nothing, since cmocka jumps only in the main thread. */
static void *write_bodies(void *arg)
{
    static const size_t sizes[] = { 200, 30000, 70000, SPOOL + 1, LARGEST };
    struct reader *r = arg;
    uint8_t hash[64];
    struct body_lane *lane;
    uv_loop_t loop;

    uv_loop_init(&loop);
    lane = body_lane_create(r->f->bodies, &loop, LANE / 4);
    r->good = true;
    for (size_t i = 0; i < 100; i++) {
        size_t size = sizes[i % 5];
        struct body_writer *w = body_writer_create(lane, UINT64_MAX);
        struct outcome o;

        feed(&loop, w, r->f->bytes, size, 32768);
        if (i % 7 == 0) {
            body_writer_abort(w);
            continue;
        }
        o = finish(&loop, w);
        SHA512(r->f->bytes, size, hash);
        if (o.err != BODY_OK || memcmp(body_sha512(o.body), hash, 64) != 0)
            r->good = false;
        body_unref(o.body);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    if (body_lane_memory(lane) != 0)
        r->good = false;
    body_lane_destroy(lane);
    uv_loop_close(&loop);
    return NULL;
}

static void test_several_loops(void **state)
{
    struct fixture *f = *state;
    struct reader writers[THREADS];

    bodies_open(f, 150000);
    for (int i = 0; i < THREADS; i++) {
        writers[i] = (struct reader){ .f = f };
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_bodies, &writers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(writers[i].thread, NULL);
        assert_true(writers[i].good);
    }
    assert_int_equal(bodies_memory(f->bodies), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sizes),
        TEST(test_cached),
        TEST(test_huge),
        TEST(test_single_bytes),
        TEST(test_memory_follows_bytes),
        TEST(test_budget),
        TEST(test_bytes_with_a_known_hash),
        TEST(test_abort),
        TEST(test_abort_in_ready),
        TEST(test_small_is_done_at_once),
        TEST(test_without_tmpfile),
        TEST(test_no_room),
        TEST(test_fails_early),
        TEST(test_many_uploads),
        TEST(test_too_many_begin),
        TEST(test_spool_dir_vanishes),
        TEST(test_bad_spool_dir),
        TEST(test_concurrent_readers),
        TEST(test_several_loops),
    };
    uv_loop_t first; /* takes the descriptors that libuv keeps for the whole process */

    uv_loop_init(&first);
    uv_loop_close(&first);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
