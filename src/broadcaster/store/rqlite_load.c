/*
 * Loads everything from rqlite, in pages that are bounded in rows and bytes. Called by rqlite_feed.c.
 * Two threads with a connection each take ranges of ids in turn, so that the cluster reads for one
 * while the other feeds.
 *
 * A page is one string: "URL,KEY,RECOVERY:" with the lengths in bytes, then the three themselves, and
 * so on. That is much less work for rqlite and us than a value a column. JSON keeps it as it is if it
 * is UTF-8; rqlite replaces what is not by something longer, so the length of the string tells. Then
 * the page, and the rest of its range, is asked for as hexadecimal digits.
 *
 * There is no transaction over several pages. So the newest number of the change log is read first,
 * and the log is applied from there on afterwards: a row that was changed while the pages were read
 * is made right by its last change, and of one that was not there is one truth. Each page is a
 * linearizable read: an older state would hold rows whose removal the log has before that number.
 * Until the log has been applied, nobody is told that the feed is up to date.
 */
#include "rqlite_store.h"

#define PAGE_ROWS    10000
#define PAGE_BYTES   "2097152"
#define RANGES       8 /* of a table */
#define EXPIRE_MS    100
#define NUMBER_BYTES 5 /* the digits of a length */

/* ?1 and ?2: from and to this id; ?3: so many rows. */
#define ROWS_OF(key, table)                                   \
    "(SELECT id, url, " key " AS key, missed_url FROM " table \
    " WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3)"
#define LENGTH_OF(column) "length(CAST(" column " AS BLOB))"
#define URL_LENGTH        LENGTH_OF("url")
#define KEY_LENGTH        LENGTH_OF("key")
#define RECOVERY_LENGTH   LENGTH_OF("missed_url")
#define SIZE              RQ_SIZE("url") " + " RQ_SIZE("key") " + " RQ_SIZE("missed_url")
/* Nothing for a row that the protocol could not have made. */
#define IS_ROW(type)                                        \
    "typeof(url) = 'text' AND " URL_LENGTH " <= 65535 AND " \
    "typeof(key) = '" type "' AND " KEY_LENGTH " <= 65535"
#define HAS_RECOVERY "typeof(missed_url) = 'text' AND " RECOVERY_LENGTH " <= 65535"
#define RECORD(type)                                                                        \
    "CASE WHEN " IS_ROW(type) " THEN " URL_LENGTH " || ',' || " KEY_LENGTH                  \
                              " || ',' || CASE WHEN " HAS_RECOVERY " THEN " RECOVERY_LENGTH \
                              " || ':' || url || key || missed_url "                        \
                              "ELSE '0:' || url || key END ELSE '' END"
/* Their last id and number, and with ?4 0 their records, with 1 the digits of them; NULL when they are
 * too many bytes. The length is of the records. */
#define PAGE(type, rows)                                                                    \
    "WITH page AS MATERIALIZED (SELECT last, n, CASE WHEN size < " PAGE_BYTES               \
    " THEN (SELECT group_concat(" RECORD(                                                   \
        type) ", '') FROM " rows                                                            \
              ") END AS records FROM (SELECT max(id) AS last, count(*) AS n, sum(" SIZE     \
              ") AS size FROM " rows ")) SELECT last, n, CASE ?4 WHEN 0 THEN records ELSE " \
              "hex(records) END, " LENGTH_OF("records") " FROM page"

static const char *const page_sql[2] = {
    PAGE("blob", ROWS_OF("exact", RQ_EXACTS)),
    PAGE("text", ROWS_OF("glob", RQ_GLOBS)),
};

struct range {
    enum store_kind kind;
    int64_t from, to; /* ids, both included */
};

struct load {
    struct rqlite_feed *feed;
    int64_t newest;  /* of the change log, before everything else was read */
    uv_mutex_t lock; /* guards what follows; held while the feed is called */
    uv_cond_t done;
    struct range ranges[2 * RANGES];
    size_t n_ranges, next;
    bool failed;
    bool helps; /* the second thread */
};

/* --- pages ---------------------------------------------------------------------------------- */

/* Digits and `end`. false: something else. */
static bool take_length(struct lonely_span *text, char end, size_t *out)
{
    size_t at = 0;

    for (*out = 0;
         at < text->len && at < NUMBER_BYTES && text->ptr[at] >= '0' && text->ptr[at] <= '9'; at++)
        *out = *out * 10 + (size_t)(text->ptr[at] - '0');
    if (at == 0 || at == text->len || text->ptr[at] != (uint8_t)end)
        return false;
    text->ptr += at + 1;
    text->len -= at + 1;
    return true;
}

static bool take_bytes(struct lonely_span *text, size_t len, struct lonely_span *out)
{
    if (len > text->len)
        return false;
    *out = (struct lonely_span){ text->ptr, len };
    text->ptr += len;
    text->len -= len;
    return true;
}

static bool take_row(struct lonely_span *text, struct store_row *row)
{
    size_t url, key, recovery;

    return take_length(text, ',', &url) && take_length(text, ',', &key) &&
           take_length(text, ':', &recovery) && take_bytes(text, url, &row->url) &&
           take_bytes(text, key, &row->key) && take_bytes(text, recovery, &row->recovery);
}

/* false: these are no records. */
static bool feed_records(struct load *l, enum store_kind kind, struct lonely_span records)
{
    const struct store_feed *to = &l->feed->to;
    struct store_row row = { .kind = kind };
    bool good = true;

    uv_mutex_lock(&l->lock);
    while (records.len > 0 && (good = take_row(&records, &row)))
        to->add(to->arg, &row);
    uv_mutex_unlock(&l->lock);
    return good;
}

/* How the pages of a range are asked for. */
struct reading {
    struct rqlite_conn *conn;
    int64_t rows;
    bool digits;
};

enum page { PAGE_FED, PAGE_OTHERWISE, PAGE_FAILED };

/* Feeds the records of a page. PAGE_OTHERWISE: they must be asked for in another way. */
static enum page feed_page(struct load *l, enum store_kind kind, struct reading *r, json_t *row)
{
    json_t *value = json_array_get(row, 2);
    struct lonely_span records = { (const uint8_t *)json_string_value(value),
                                   json_string_length(value) };
    struct buf decoded;
    int64_t len;
    bool good;

    if (!rqlite_int(row, 3, &len)) { /* too many bytes */
        r->rows /= 8;
        return r->rows > 0 ? PAGE_OTHERWISE : PAGE_FAILED;
    }
    if (!r->digits && records.len != (uint64_t)len) {
        r->digits = true;
        return PAGE_OTHERWISE;
    }
    if (!r->digits)
        return feed_records(l, kind, records) ? PAGE_FED : PAGE_FAILED;
    buf_init(&decoded, records.len + 1); /* never 0 */
    good = rqlite_digits_decode(records, &decoded) && decoded.len == (uint64_t)len &&
           feed_records(l, kind, (struct lonely_span){ decoded.ptr, decoded.len });
    buf_fini(&decoded);
    return good ? PAGE_FED : PAGE_FAILED;
}

static json_t *read_page(const struct reading *r, const struct range *range)
{
    uint64_t until_ms = rqlite_now_ms() + r->conn->cluster->timeout_ms;
    struct rqlite_body body;
    json_t *results;

    rqlite_body_init(&body, 8192);
    rqlite_body_statement(&body, page_sql[range->kind]);
    rqlite_body_int(&body, range->from);
    rqlite_body_int(&body, range->to);
    rqlite_body_int(&body, r->rows);
    rqlite_body_int(&body, r->digits);
    (void)rqlite_body_end(&body);
    (void)rqlite_read(r->conn, RQLITE_READ, &body, until_ms, &results);
    rqlite_body_fini(&body);
    return results;
}

/* Feeds a page at the beginning of the range, which is cut off. false: it cannot be read. */
static bool load_page(struct load *l, struct reading *r, struct range *range, bool *ended)
{
    json_t *results = read_page(r, range);
    json_t *row = rqlite_row(results, 0, 0);
    enum page page = PAGE_FED;
    int64_t last = 0, count;
    bool good = rqlite_int(row, 1, &count);

    if (good && count > 0) {
        good = rqlite_int(row, 0, &last) && last >= range->from && last <= range->to;
        page = good ? feed_page(l, range->kind, r, row) : PAGE_FAILED;
    }
    json_decref(results);
    if (page == PAGE_FED) {
        *ended = count < r->rows || last == range->to;
        range->from = *ended ? range->from : last + 1;
    }
    return good && page != PAGE_FAILED;
}

/* --- ranges --------------------------------------------------------------------------------- */

static bool take_range(struct load *l, struct range *out)
{
    bool taken;

    uv_mutex_lock(&l->lock);
    taken = !l->failed && l->next < l->n_ranges;
    if (taken)
        *out = l->ranges[l->next++];
    uv_mutex_unlock(&l->lock);
    return taken;
}

/* Until there is none left. */
static void load_ranges(struct load *l, struct rqlite_conn *conn)
{
    struct range range;

    while (take_range(l, &range)) {
        struct reading r = { .conn = conn, .rows = PAGE_ROWS };
        bool good = true, ended = false;

        while (good && !ended) {
            good = load_page(l, &r, &range, &ended);
            if (conn == &l->feed->conn)
                rqlite_feed_expire(l->feed);
        }
        uv_mutex_lock(&l->lock);
        l->failed = l->failed || !good;
        uv_mutex_unlock(&l->lock);
    }
}

/* The second thread. Without a connection of its own it leaves everything to the first one. */
static void help(void *arg)
{
    struct load *l = arg;
    struct rqlite_conn conn;
    char error[256];

    if (rqlite_conn_open(&conn, l->feed->conn.cluster, error)) {
        load_ranges(l, &conn);
        rqlite_conn_close(&conn);
    }
    uv_mutex_lock(&l->lock);
    l->helps = false;
    uv_cond_signal(&l->done);
    uv_mutex_unlock(&l->lock);
}

static void await_help(struct load *l)
{
    uv_mutex_lock(&l->lock);
    while (l->helps) {
        (void)uv_cond_timedwait(&l->done, &l->lock, EXPIRE_MS * 1000000u);
        rqlite_feed_expire(l->feed);
    }
    uv_mutex_unlock(&l->lock);
}

static void load_all(struct load *l)
{
    uv_thread_t thread;

    l->helps = l->n_ranges > 2;
    l->helps = l->helps && uv_thread_create(&thread, help, l) == 0;
    if (!l->helps) {
        load_ranges(l, &l->feed->conn);
        return;
    }
    load_ranges(l, &l->feed->conn);
    await_help(l);
    uv_thread_join(&thread);
}

/* [min, max] of a table, in parts of equal width. */
static void add_ranges(struct load *l, enum store_kind kind, int64_t min, int64_t max)
{
    uint64_t left = (uint64_t)max - (uint64_t)min;
    uint64_t width = left / RANGES + 1;

    width = width < PAGE_ROWS ? PAGE_ROWS : width;
    for (; left >= width; left -= width) {
        int64_t to = (int64_t)((uint64_t)min + width - 1);

        l->ranges[l->n_ranges++] = (struct range){ kind, min, to };
        min = to + 1;
    }
    l->ranges[l->n_ranges++] = (struct range){ kind, min, max };
}

static bool read_extent(struct load *l)
{
    uint64_t until_ms = rqlite_now_ms() + l->feed->conn.cluster->timeout_ms;
    struct rqlite_body body;
    json_t *results;
    bool found;

    rqlite_body_init(&body, 1024);
    rqlite_body_statement(&body, "SELECT max(seq) FROM " RQ_CHANGES);
    rqlite_body_statement(&body, "SELECT min(id), max(id) FROM " RQ_EXACTS);
    rqlite_body_statement(&body, "SELECT min(id), max(id) FROM " RQ_GLOBS);
    (void)rqlite_body_end(&body);
    found = rqlite_read(&l->feed->conn, RQLITE_READ, &body, until_ms, &results) == RQLITE_OK &&
            rqlite_int(rqlite_row(results, 0, 0), 0, &l->newest);
    for (int kind = STORE_EXACT; found && kind <= STORE_GLOB; kind++) {
        json_t *row = rqlite_row(results, (size_t)kind + 1, 0);
        int64_t min, max;

        if (rqlite_int(row, 0, &min) && rqlite_int(row, 1, &max) && min <= max)
            add_ranges(l, (enum store_kind)kind, min, max);
    }
    json_decref(results);
    rqlite_body_fini(&body);
    return found;
}

bool rqlite_load(struct rqlite_feed *f)
{
    struct load l = { .feed = f };

    if (!read_extent(&l))
        return false;
    uv_mutex_init(&l.lock);
    uv_cond_init(&l.done);
    f->to.load_begin(f->to.arg);
    load_all(&l);
    if (l.failed)
        f->to.load_abort(f->to.arg);
    else
        f->to.load_end(f->to.arg);
    uv_cond_destroy(&l.done);
    uv_mutex_destroy(&l.lock);
    if (!l.failed)
        f->applied = l.newest;
    return !l.failed;
}
