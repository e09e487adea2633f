/*
 * A client's connection, in calls that wait: letters, and chunks into a sink or out of a source. Under
 * it is a loop, so that time limits, signals and progress go on meanwhile.
 */
#ifndef TPFT_PEER_H
#define TPFT_PEER_H

#include <stdatomic.h>

#include <uv.h>

#include <tinyproto/tinyproto.h>

#include "file.h"
#include "letter.h"
#include "progress.h"

#define PEER_LETTERS 4 /* that came and were not asked for yet */

struct peer {
    uv_loop_t loop;
    uv_signal_t signals[2];
    uv_timer_t tick;
    uv_work_t work;
    struct tinyproto_client *client;
    struct tinyproto_handler handler;
    struct tinyproto_conn *conn; /* NULL: none */
    struct tinyproto_cause cause;
    bool is_ready, is_client_over;
    uint32_t patience_ms; /* without progress */
    uint64_t leave_by_ms;
    atomic_bool is_stopped; /* by a signal */

    struct tinyproto_message kept[PEER_LETTERS]; /* malloc'ed */
    size_t n_kept;
    char said[LETTER_MAX];
    char text[LETTER_MAX]; /* of the letter that was heard last */

    struct sink *sink; /* of chunks that are expected; NULL: letters are */
    struct fault sink_fault;

    bool is_sent, is_sending;
    uint64_t sent, acked_before; /* bytes of the source; of the connection, when the chunk began */

    void (*job)(void *arg);
    void *job_arg;
    bool is_working;
    struct progress progress;
};

/* false: said. Ended by peer_fini() in any case. */
bool peer_init(struct peer *p, uint32_t patience_ms);
void peer_fini(struct peer *p);

/* All of these give false when the connection is over; `cause` says how. */
bool peer_connect(struct peer *p, const char *host, int port);
bool peer_say(struct peer *p, const struct letter *letter);
/* The next letter; its texts last until the one after. `bytes`: the peer may take its time in
 * proportion. */
bool peer_hear(struct peer *p, struct letter *out, uint64_t bytes);
/* One chunk of a file. */
bool peer_send(struct peer *p, const struct source *source, uint64_t offset, uint64_t len);
/* All that the sink wants. false too when it cannot be written: `sink_fault`. */
bool peer_receive(struct peer *p, struct sink *sink);

/* Says `close` and waits a little for the end, whatever the peer does. */
void peer_leave(struct peer *p);
/* Ends the connection at once: after it there is none. */
void peer_abort(struct peer *p);

/* Runs something that blocks, in a thread; signals are heard, and the connection stays. */
void peer_work(struct peer *p, void (*job)(void *arg), void *arg);

uint64_t peer_now_ms(const struct peer *p);

#endif
