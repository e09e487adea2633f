/*
 * The `simple` tracing of RESPONSE_NOTIFY: what a broadcaster went through while it handled one
 * notification, as an opaque field for the publisher.               (doc/protocol/tracing.md, 3)
 *
 * All functions are pure: clock values are arguments, nothing is allocated.
 */
#ifndef LONELY_TRACING_H
#define LONELY_TRACING_H

#include <stdbool.h>

#include <lonely/error.h>
#include <lonely/span.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Most bytes of flag, count and entries together: at 65,519 a broadcaster cuts off. */
#define LONELY_TRACING_ENTRIES_MAX_BYTES 65518

/** Bytes of what lonely_tracing_minimal() writes. */
#define LONELY_TRACING_MINIMAL_BYTES 79

/**
 * Writes the least that reference clients can read: the entries `auth_accepted` and
 * `no_more_subscribers`. Nothing about subscribers gets out.         (doc/protocol/tracing.md, T1)
 *
 * @param accepted_s, finished_s  when the two happened, seconds since 1970
 * @param received_ns, sent_ns    when the request came and the response goes, nanoseconds
 *                                since 1970
 */
LONELY_API void lonely_tracing_minimal(double accepted_s, double finished_s, uint64_t received_ns,
                                       uint64_t sent_ns, uint8_t out[LONELY_TRACING_MINIMAL_BYTES]);

/** A writer of any entries, up to a limit. The fields are private. */
struct lonely_tracing_writer {
    uint8_t *buf;
    size_t limit; /**< of flag, count and entries */
    size_t len;
    uint16_t count;
    bool truncated;
};

/**
 * Starts in `buf`, which must stay until finish. Room beyond 65,534 bytes is not used; less than
 * that limits the entries earlier. LONELY_OK, or LONELY_E_NO_SPACE with a `cap` under 19.
 */
LONELY_API enum lonely_error lonely_tracing_writer_init(struct lonely_tracing_writer *w,
                                                        uint8_t *buf, size_t cap);

/**
 * Adds an entry. One that does not fit is left out together with all later ones, and the result
 * says so (`truncated`); that is no error.
 *
 * @param name   ASCII, by convention one of tracing.md, 3
 * @param extra  a JSON object; `{}` if there is nothing to say
 * @param occurred_s  seconds since 1970
 */
LONELY_API void lonely_tracing_writer_add(struct lonely_tracing_writer *w, struct lonely_span name,
                                          struct lonely_span extra, double occurred_s);

/**
 * Ends the field and returns its length in `buf`, 19 to 65,534. Reference clients crash on a field
 * without an entry: add one.
 */
LONELY_API size_t lonely_tracing_writer_finish(struct lonely_tracing_writer *w,
                                               uint64_t received_ns, uint64_t sent_ns);

/** A parsed field. */
struct lonely_tracing {
    bool truncated;
    uint16_t count;             /**< of entries */
    struct lonely_span entries; /**< as they are on the wire; for lonely_tracing_next */
    uint64_t received_ns, sent_ns;
};

/** An entry, as the peer sent it: neither checked to be ASCII or JSON nor safe to print. */
struct lonely_tracing_entry {
    struct lonely_span name, extra;
    double occurred_s; /**< may be any double, also NaN */
};

/**
 * Parses a whole field. A client must not fail a notification over an error here.
 *
 * @param out  filled on LONELY_OK only; views into `field`
 * @return  LONELY_OK              .at: bytes read; more may follow and mean nothing
 *          LONELY_E_TRUNCATED     .at: where the field of the format starts that is cut
 */
LONELY_API struct lonely_result lonely_tracing_parse(struct lonely_span field,
                                                     struct lonely_tracing *out);

/** Takes the next entry from a parsed field (`count` and `entries` shrink). False at the end. */
LONELY_API bool lonely_tracing_next(struct lonely_tracing *t, struct lonely_tracing_entry *out);

#ifdef __cplusplus
}
#endif

#endif
