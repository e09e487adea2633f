/*
 * The used macs of this process: each is good once. One set, shared by all workers and fed by the
 * store with the macs that other broadcasters used. (doc/protocol/auth.md, 3)
 *
 * Kept in buckets of time: the same mac always has the same time of expiry (it is signed), so it is
 * looked for in one bucket only, and what has expired goes with its bucket, all at once.
 *
 * Threads: any. A lock is held for one lookup.
 */
#ifndef REPLAY_H
#define REPLAY_H

#include <stddef.h>
#include <stdint.h>

/* A used mac: enough of its bytes to know it again, and when it may be forgotten (seconds since 1970).
 * (doc/protocol/auth.md, 3) */
#define STORE_MAC_SIZE 16
struct store_mac {
    uint8_t code[STORE_MAC_SIZE]; /* the first bytes of the mac */
    uint64_t keep_until_s;
};

struct replay;

enum replay_verdict {
    REPLAY_NEW,      /* it was not there and is now */
    REPLAY_USED,     /* it was there, or may have been: what has its time was forgotten already */
    REPLAY_NOT_KNOWN /* no room, or in the second of a start whose past is unknown */
};

/* Keeps at most `max` macs, about 32 bytes each. */
struct replay *replay_create(size_t max);
void replay_destroy(struct replay *r); /* NULL is allowed */

/* Takes the mac if it is new. `now_epoch_s` is only used to forget what has expired. */
enum replay_verdict replay_take(struct replay *r, const struct store_mac *mac, double now_epoch_s);

/* Macs before `start_epoch_s` may have been used without a trace: refuses what was stamped earlier.
 * Before the first replay_take. */
void replay_forget_past(struct replay *r, double start_epoch_s);

/* Macs that are kept, expired ones that were not dropped yet included. */
size_t replay_count(struct replay *r);

#endif
