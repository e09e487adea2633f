/*
 * A run on bare sockets: what bench_load.c, which moves bytes and keeps counts, and a wire, which knows what
 * they mean, are to each other. bench_stateful.c has the wires of our protocol.
 */
#ifndef CLI_BENCH_WIRE_H
#define CLI_BENCH_WIRE_H

#include <lonely/auth.h>
#include <lonely/connection.h>

#include "bench.h"
#include "secrets.h"

enum bench_role { BENCH_PUBLISHER, BENCH_SUBSCRIBER, BENCH_IDLE };

/* Bytes [at, len) of an allocation. */
struct bench_bytes {
    uint8_t *ptr;
    size_t at, len, cap;
};

#define BENCH_BATCHES 256 /* a power of two */

/* One connection. */
struct bench_peer {
    struct bench_load *load;
    enum bench_role role;
    int fd;
    unsigned stage; /* of its opening, as the wire counts */
    bool ready;
    bool waits_to_write;
    uint64_t delivered; /* to this subscriber */
    struct bench_bytes in, out;
    uint64_t sent;     /* a message in parts: bytes of it that were put; 0: none is under way */
    uint64_t sent_id;  /* its identifier */
    uint64_t part_id;  /* of its next part */
    uint64_t received; /* the same of a message that is coming */
    uint64_t announced;
    struct lonely_connection connection;
    uint8_t nonce[LONELY_NONCE_BYTES];
    uint8_t mask[4];
    uint32_t batches[BENCH_BATCHES]; /* for wires that confirm by the write: messages in each */
    unsigned first_batch, batch_count;
};

struct bench_load {
    const struct bench_settings *set;
    struct bench_results *results;
    struct bench_peer *peers;
    size_t count, opened, ready;
    int poll;
    uint64_t under_way; /* messages: not confirmed, or not delivered to every subscriber */
    uint64_t began_ns, stop_ns, quiet_ns;
    bool running, stopping;
    struct bench_bytes spare; /* the input of whoever reads next */
    uint8_t
        *payload; /* a message, or the part that it repeats; its first bytes say when it was sent */
    size_t payload_len;
    uint8_t hash[64]; /* of a message in parts */
    uint32_t next_id;
    struct secrets secrets;
    struct lonely_auth_ctx *auth; /* NULL: nothing is signed */
    uint64_t epoch_s;
};

struct bench_wire {
    const char *name;
    /* Puts the first bytes of a connection. */
    void (*open)(struct bench_peer *p);
    /* Looks at `len` bytes of the peer, in place, and returns how many are done with: as many messages as are
     * whole. `*wanted`: of which size the input must be for the next. */
    size_t (*take)(struct bench_peer *p, uint8_t *in, size_t len, size_t *wanted);
    /* Puts a message, or its next part. Calls bench_published for the last. */
    void (*publish)(struct bench_peer *p);
    /* Behind the messages of one write. */
    void (*end_write)(struct bench_peer *p, unsigned messages);
};

/* ---- For the wires ---- */

/* Room for `len` bytes of output; then bench_put_done. */
uint8_t *bench_put_room(struct bench_peer *p, size_t len);
void bench_put_done(struct bench_peer *p, size_t len);
void bench_put(struct bench_peer *p, const void *bytes, size_t len);

/* The connection stands; a subscriber's is confirmed. */
void bench_peer_ready(struct bench_peer *p);
void bench_confirmed(struct bench_load *l, uint64_t messages, uint64_t notified);
/* A message has come, of which `head` are the first bytes. */
void bench_delivered(struct bench_peer *p, struct lonely_span head, uint64_t size);
/* Ends the run. */
void bench_failed(struct bench_load *l, const char *why);

#endif
