/*
 * What the files of a session share: session.c (life and states), session_frame.c (frames out of
 * pieces), session_notify.c (messages coming in), session_reply.c (what is owed to the peer),
 * session_send.c (messages going out); and with compression session_zstd.c (which compressors there
 * are), session_train.c (dictionaries of its own), session_unpack.c and session_pack.c (messages
 * coming in and going out).
 */
#ifndef SESSION_PRIVATE_H
#define SESSION_PRIVATE_H

#include <lonely/connection.h>
#include <lonely/message.h>

#include "body.h"
#include "buf.h"
#include "compression.h"
#include "deadline.h"
#include "forwarding.h"
#include "gate.h"
#include "list.h"
#include "log.h"
#include "mem.h"
#include "metrics.h"
#include "peer.h"
#include "receivers.h"
#include "recode.h"
#include "ring.h"
#include "session.h"
#include "stream_listener.h"
#include "trainer.h"
#include "transport.h"
#include "worker.h"

/* Frames in one piece up to this are hashed at once: about 0.1 ms. */
#define SESSION_INLINE_BYTES 65536

/* More is not put into a transport before it has sent what it holds. */
#define SESSION_HIGH_BYTES 393216
#define SESSION_LOW_BYTES  131072

/* For the peer's part of the end, and for what it has not read until then. */
#define SESSION_CLOSE_TIMEOUT_MS 2000

/* Frames that were made before the peer saw DISABLE_ZSTD_CUSTOM are still understood so long after it. */
#define SESSION_RETIRED_MS 10000

/* Of ENABLE_ZSTD_CUSTOM: all but authorization and dictionary, in either encoding. */
#define SESSION_ENABLE_HEAD_BYTES 512

/* Of sessions.deadlines. */
enum { DEADLINE_CONFIGURE, DEADLINE_RETIRED };

struct sessions;
struct session;

/* What a state does with a frame. `whole` false: of a NOTIFY or NOTIFY_STREAM only the head has come; its
 * body follows through session_take_body. Else m->body is all of it. */
typedef void session_state_fn(struct session *s, const struct lonely_message *m, bool whole);

/* ---- What is owed to the peer (session_reply.c) ---- */

enum reply_state {
    REPLY_WAITING, /* a change of a subscription that waits for what is in front of it */
    REPLY_RUNNING,
    REPLY_READY
};

#define REPLY_TOPIC_BYTES 64 /* longer topics take memory of their own */

/* One answer, in the order of the requests. */
struct reply {
    struct list node;
    struct session *session;
    enum lonely_b2s type;
    enum reply_state state;
    uint8_t identifier[LONELY_IDENTIFIER_MAX_BYTES];
    size_t identifier_len;
    uint8_t sha512[LONELY_SHA512_BYTES];
    uint64_t part_id;
    uint64_t subscribers;
    int64_t number;           /* of the request, among the subscriber's */
    struct lonely_span topic; /* or glob; in topic_own, or allocated */
    uint8_t topic_own[REPLY_TOPIC_BYTES];
};

struct reply *reply_create(struct session *s, enum lonely_b2s type, struct lonely_span identifier,
                           struct lonely_span topic);
void reply_free(struct reply *r);

/* Owes `r` from now on. */
void session_owe(struct session *s, struct reply *r);
/* CONFIRM_NOTIFY for a message that is whole; takes the reply over. */
void session_notify(struct session *s, struct reply *r, struct body *body);
/* Is a change of a subscription under way? Nothing behind it is read. */
bool session_is_changing(const struct session *s);
/* Goes on with what is owed: begins what may begin, sends what is ready and may be sent. */
void session_answer(struct session *s);
/* Is an answer ready, which goes before any message? */
bool session_has_answer(const struct session *s);
/* (UN)SUBSCRIBE_*. */
session_state_fn session_on_subscription;
/* Sends CONFIRM_CONFIGURE. */
void session_confirm_configure(struct session *s);
void session_drop_replies(struct session *s);
void sessions_free_replies(struct sessions *all);

/* ---- Messages coming in (session_notify.c) ---- */

/* A message whose bytes are coming: of one NOTIFY, or of the parts of a NOTIFY_STREAM. */
struct intake {
    struct reply *reply; /* that it will get; has topic, identifier and hash */
    struct body_writer *writer;
    uint64_t announced, received;
    uint64_t part_id; /* of the present part */
    bool is_stream;
    uint8_t *tracing; /* of the first part */
    size_t tracing_len;
    struct compressor *compressor; /* NULL: it comes plain */
    uint64_t plain_size;           /* that was announced */
    struct recoding *recoding;     /* while it is decompressed in the pool */
};

session_state_fn session_on_notify, session_on_notify_stream;
void session_take_body(struct session *s, struct lonely_span bytes);
/* The frame of the body is complete. */
void session_end_body(struct session *s);
void session_drop_intakes(struct session *s);
void session_free_intake(struct intake *i); /* NULL is allowed */
/* A message could not be kept. */
void session_end_for(struct session *s, enum body_error err);

/* ---- Messages that come compressed (session_unpack.c) ---- */

/* Decompresses what is in memory and short. NULL: it is not, or the session has ended. */
struct body *session_unpack_now(struct session *s, struct compressor *c, struct lonely_span packed,
                                uint64_t plain_size);
/* The message is here as it was sent: has it decompressed, and notifies. Takes both over. */
void session_unpack(struct session *s, struct intake *i, struct body *packed);
void session_drop_unpacking(struct session *s);

/* ---- Frames (session_frame.c) ---- */

void session_on_piece(struct session *s, const struct transport_piece *piece);
void session_drop_assembly(struct session *s);

/* ---- Messages going out (session_send.c) ---- */

enum send_kind {
    SEND_MESSAGE, /* struct parcel */
    SEND_MISSED,  /* struct missed_topic */
    SEND_ENABLE,  /* struct custom, which stays the session's, and the next */
    SEND_DISABLE
};

/* A message in one form, as the sessions of one worker share it. */
struct parcel {
    unsigned refs;
    struct outgoing *message;
    struct body *body;         /* what is sent: the message's own, or one that was made of it */
    uint64_t compressor;       /* 0: plain */
    struct recoding *recoding; /* NULL, or it is being made: then there is nothing to send yet */
    struct list waiters;       /* session_zstd.waiting: whose next it is */
    struct list node;          /* of sessions.packed */
    struct sessions *all;      /* of those there, and */
    uint64_t made_with;        /* the compressor that it was meant to have */
    uint8_t *bytes; /* its frame, if it is one, or the head of the first, without authorization */
    size_t len, head_len;
};

struct chunk;

/* A message that is on its way in parts, or out of a file. */
struct sending {
    struct parcel *parcel;
    uint64_t sent;       /* bytes of the body in frames that are complete, or begun */
    uint64_t frame_left; /* of those: not put yet */
    uint64_t part_id;    /* of the next part */
    int64_t number;      /* of part 0 */
    bool reading;        /* the pool is */
};

bool session_on_message(struct session *s, struct outgoing *m);
bool session_on_missed(struct session *s, struct lonely_span topic);
session_state_fn session_on_acknowledgement; /* CONTINUE_RECEIVE, CONFIRM_RECEIVE */
/* Does a message that is half sent wait for acknowledgements? Only reading more can end that. */
bool session_is_stuck(const struct session *s);
/* May a frame be begun that is no part of the message being sent? */
bool session_may_put(const struct session *s);
/* Sends what may be sent: answers, then messages. */
void session_pump(struct session *s);
void session_drop_sends(struct session *s);
/* One of `m` with nothing but the message in it, and one reference. */
struct parcel *session_parcel_create(struct outgoing *m);
/* Makes it ready: of `body`, which it takes over, NULL: of the message's own. */
void session_parcel_fill(struct sessions *all, struct parcel *p, struct body *body);
void session_parcel_unref(struct parcel *p);
void sessions_drop_parcel(struct sessions *all);
void sessions_free_chunks(struct sessions *all);

/* Puts a whole frame; `m` as lonely_message_serialize_head has it, without a body. */
void session_put(struct session *s, const struct lonely_message *m);
/* The same with its body, which lives until `release` runs. */
void session_put_with_body(struct session *s, const struct lonely_message *m,
                           void (*release)(void *arg), void *arg);

/* ---- Compressed messages going out (session_pack.c) ---- */

/* The form of `m` that the session gets; of those that many share, so it may not be ready yet. */
struct parcel *session_shared_parcel(struct session *s, struct outgoing *m, struct parcel *plain);
/* The form made with a dictionary of the session's own; NULL: it gets `p`. */
struct parcel *session_own_parcel(struct session *s, const struct parcel *p);
/* The session's next message is not ready: it goes on when it is. */
void session_await(struct session *s, struct parcel *p);
void sessions_drop_packed(struct sessions *all);

/* ---- Compressors (session_zstd.c) ---- */

/* A dictionary that was trained for one session. */
struct custom {
    struct list node; /* of session_zstd.customs */
    struct session *session;
    struct compressor *compressor;
    bool enabled; /* its ENABLE was put: it may be used */
    bool retired; /* not used any more for what goes out */
    struct deadline forget;
};

/* What a session has that may compress; others have none of it. */
struct session_zstd {
    struct compressor *preset; /* that the peer asked for; NULL: none. Borrowed */
    struct list customs;       /* the newest first */
    struct list waiting;       /* of parcel.waiters */
    struct intake *unpacking;  /* the message that is being decompressed in the pool */
    bool trains;
    struct trainer *trainer; /* NULL: no sample yet, or the training has it */
    struct training *training;
    struct list of_trainers; /* of sessions.trainers, while it holds samples and is not training */
    uint64_t sampled_at_ms;
    uint64_t next_id;
    struct session *session;
};

/* What CONFIGURE asks for, as far as it is allowed. */
void session_negotiate(struct session *s, const struct lonely_msg_configure *c);
/* Behind CONFIRM_CONFIGURE: ENABLE_ZSTD_PRESET for what it got. */
void session_announce(struct session *s);
/* NULL: the peer may not use that id. Borrowed. */
struct compressor *session_find_compressor(const struct session *s, uint64_t id);
/* The dictionary of its own that a message of that size is made with; NULL: none. Borrowed. */
struct compressor *session_own_compressor(const struct session *s, uint64_t size);
/* The same among those that are shared. */
struct compressor *session_shared_compressor(const struct session *s, uint64_t size);
/* A dictionary is there: has it announced. */
void session_add_custom(struct session *s, struct compressor *c);
/* Leaves only the newest, and has the others disabled. */
void session_retire_customs(struct session *s);
/* They are next to be sent. */
void session_send_enable(struct session *s, struct custom *custom);
void session_send_disable(struct session *s, struct custom *custom);
void session_forget_custom(struct custom *custom);
void session_drop_compression(struct session *s);

/* ---- Training (session_train.c) ---- */

/* A message that came, or is being sent: perhaps a sample. Only with compression. */
void session_sample(struct session *s, const struct body *body);
void session_drop_training(struct session *s);

/* ---- The session (session.c) ---- */

struct session {
    struct sessions *all;
    struct worker *worker;
    struct transport *transport;
    session_state_fn *state;
    struct list node;  /* of sessions.open, .ended or .leaving */
    size_t holds;      /* calls under way that will come back */
    uint64_t max_part; /* longest frame to be sent */
    struct receiver receiver;
    struct lonely_connection connection;
    struct deadline deadline; /* for CONFIGURE */
    struct session_peer peer;

    bool reads;        /* pieces may come */
    bool ended;        /* nothing more is taken or sent */
    bool joined;       /* a receiver */
    bool detached;     /* has left the receivers */
    bool transported;  /* the transport is gone */
    bool hashed;       /* the hash of the present frame's body was compared */
    bool checking;     /* an authorization is being checked */
    bool body_ended;   /* the frame whose authorization is being checked is complete */
    bool body_writing; /* a writer has its fill */
    bool finishing;    /* a body is being completed */

    struct gate_wait *wait;
    void (*checked)(struct session *s);

    struct assembly *assembly;
    struct intake *intake; /* what the present frame's body goes to */
    struct intake *stream; /* the NOTIFY_STREAM that is open */

    struct list replies;
    uint64_t reply_count;
    uint64_t running;       /* of those, so many REPLY_RUNNING */
    struct reply *changing; /* the change of a subscription that is waiting or running */

    struct session_zstd *zstd; /* NULL: nothing is compressed */

    struct ring expected; /* acknowledgements, in order */
    struct ring pending;  /* sends, in order */
    struct sending *sending;

    uint8_t broadcaster_nonce[LONELY_NONCE_BYTES];
    char name[PEER_TEXT_MAX];
};

struct sessions {
    struct worker *worker;
    struct transport_group *groups[2]; /* by enum transport_kind */
    struct stream_listener *listener;  /* of raw TCP; NULL: there is none */
    struct deadlines deadlines;
    uv_timer_t later; /* runs once what calls us has returned */
    bool later_set;
    struct list open, ended, leaving; /* sessions: at work, to be detached, to be freed */
    size_t count;
    uint64_t opened[2]; /* by enum transport_kind: sessions now */
    bool draining;
    bool closing;
    unsigned handles; /* groups, timer, deadlines that are not closed yet */
    void (*on_drained)(void *arg);
    void *drained_arg;
    void (*on_closed)(void *arg);
    void *closed_arg;

    uint64_t max_unacknowledged, max_pending, max_unprocessed; /* UINT64_MAX: none */
    bool minimal;

    struct list free_replies;
    size_t free_reply_count;
    struct parcel *parcel; /* of the last message */
    struct list packed;    /* its other forms */
    struct list free_chunks;
    size_t free_chunk_count;
    struct recoder *recoder;
    uint8_t *unpacked, *repacked; /* SESSION_INLINE_BYTES and their bound; NULL: not needed yet */
    struct list trainers;         /* sessions that hold samples, the longest idle first */
    size_t trainer_count;         /* and those whose samples are being trained with */
    struct list trainings;        /* that wait for the one in the pool */
    struct training *training;    /* which this is */
    uint64_t custom_bytes;        /* what dictionaries of sessions take */
    uint8_t *scratch;             /* LONELY_MESSAGE_HEAD_MAX_BYTES */
    uint8_t authorization[LONELY_AUTH_MAX_BYTES];
    char url[LONELY_CONNECTION_URL_MAX_BYTES];
};

/* Ends it for that reason: the peer is told, everything pending is dropped, soon. `why` is for the log. */
void session_end(struct session *s, enum metrics_session_end reason, const char *why);
/* Reads, or does not, as things are now. */
void session_update_reading(struct session *s);
/* Something that will come back is under way; the session lives until it has. */
void session_hold(struct session *s);
void session_release(struct session *s);

enum session_verdict { SESSION_PASSED, SESSION_LATER, SESSION_REFUSED };

/* Checks the authorization of a frame. LATER: `checked` runs, or the session ends. REFUSED: it has ended. */
enum session_verdict session_check(struct session *s, const struct lonely_auth_input *in,
                                   struct lonely_span authorization,
                                   void (*checked)(struct session *s));
/* Takes the next number of a counter. false: the session has ended. */
bool session_take_number(struct session *s, enum lonely_counter counter, int64_t *number);
/* The url of that number, in sessions.url. */
struct lonely_span session_url(struct session *s, int64_t number);
/* Authorization of a frame, in sessions.authorization. false: the session has ended. */
bool session_sign(struct session *s, const struct lonely_auth_input *in,
                  struct lonely_span *authorization);

/* Runs `on_later` in the next turn of the loop: for ends, and for what is kept only that long. */
void sessions_later(struct sessions *all);

static inline struct session *session_of(struct receiver *r)
{
    return list_entry(r, struct session, receiver);
}

#endif
