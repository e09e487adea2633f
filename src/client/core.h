/*
 * The inside of a client, shared by the files of this folder.
 *
 * Threads: everything here runs on the client's loop ("on the loop": its own thread, or the caller's
 * with "io" = "caller"), except what public calls do before client_submit and after it. What is
 * marked `lock` is shared with the threads of callers and touched under lonely_client.lock.
 */
#ifndef CLIENT_CORE_H
#define CLIENT_CORE_H

#include <stdatomic.h>
#include <uv.h>

#include <lonely/auth.h>
#include <lonely/client.h>
#include <lonely/glob.h>

#include "clock.h"
#include "list.h"
#include "map.h"
#include "options.h"
#include "secrets.h"

struct link;

/* ---- What a caller asks of the loop ---- */

/* The asker's structure begins with it; made by command_create. */
struct command {
    struct list node; /* lock: in lonely_client.commands */
    struct lonely_client *client;
    void (*run)(struct command *cmd);  /* on the loop; ends in command_done, now or later */
    void (*free)(struct command *cmd); /* what else it owns; NULL: nothing */
    atomic_uint refs;
    bool done; /* lock */
    enum lonely_client_error err;
};

/* `size` bytes, zeroed but for its beginning; one reference. */
void *command_create(struct lonely_client *c, size_t size, void (*run)(struct command *cmd));
void command_ref(struct command *cmd);
void command_unref(struct command *cmd);
void command_done(struct command *cmd, enum lonely_client_error err);

/* Has the loop run it (at once, when called on the loop), and waits for its end. The caller's reference
 * goes. OK when `timeout_ms` is 0 and it is not done yet. */
enum lonely_client_error client_submit(struct command *cmd, int64_t timeout_ms);
/* Waits until `ready`, which is asked under lock, and again after each change of what it may look at. It is
 * not waited inside a callback of the client. */
bool client_wait(struct lonely_client *c, bool (*ready)(void *arg), void *arg, int64_t timeout_ms);

/* ---- What is wanted ---- */

enum want_kind { WANT_EXACT, WANT_GLOB };

/* How far the broadcasters know of it: the link's business. */
enum want_state { WANT_OFF, WANT_ADDING, WANT_ON, WANT_REMOVING };

/* One topic or glob, however many hold it. Freed when nobody does, it is OFF, and nobody waits. */
struct want {
    struct map_node node; /* in lonely_client.wants */
    struct list all;      /* in lonely_client.exacts or .globs */
    enum want_kind kind;
    enum want_state state;
    unsigned refs;        /* holders; 0: to be unsubscribed */
    bool busy;            /* those who wait are being told */
    struct list dirty;    /* the link's: its state is not what `refs` asks for */
    struct list waits;    /* of changes that wait until it is settled; wants.c's */
    struct list holdings; /* holding.of_want: subscriptions that hold it */
    struct lonely_glob compiled;
    struct lonely_span key;
    uint8_t id[]; /* kind, then key: what it is found by */
};

/* A subscription's hold on a want. */
struct holding {
    struct list of_want, of_subscription;
    struct want *want;
    struct lonely_subscription *subscription;
};

/* Not under lock. The holder was counted by want_hold. */
void holding_attach(struct holding *h, struct want *w, struct lonely_subscription *s);
/* Takes the hold away, and frees `h`. */
void holding_give_up(struct holding *h);

/* Is it what its holders ask for? */
static inline bool want_is_settled(const struct want *w)
{
    return w->refs > 0 ? w->state == WANT_ON : w->state == WANT_OFF;
}

/* One more, one less holder. The link is told by change_ready. NULL: no memory. */
struct want *want_hold(struct lonely_client *c, enum want_kind kind, struct lonely_span key);
void want_drop(struct lonely_client *c, struct want *w);
struct want *want_find(struct lonely_client *c, enum want_kind kind, struct lonely_span key);

/* What asks for a change begins with it; made by command_create. */
struct change {
    struct command cmd;
    size_t pending;               /* wants that are not settled, and one until change_ready */
    enum lonely_client_error err; /* the first */
    void (*undo)(struct change *change); /* takes it back, before its end with an error */
};
/* It waits for that want, too. false: no memory. */
bool change_wait(struct change *change, struct want *w);
/* Gives up the hold, and waits until that has been told. */
bool change_wait_gone(struct change *change, struct holding *h);
bool change_wait_drop(struct change *change,
                      struct want *w); /* the same for a hold without holding */
/* It waits for no more: has the link look at what is new, and ends the change when that is all settled. */
void change_ready(struct change *change);

/* From the link: the state changed. True: it is not what its holders ask for, and the link sees to it that
 * it gets settled. False: it is; who waited was told, and the want may be gone. */
bool want_enter(struct lonely_client *c, struct want *w, enum want_state state);
/* It will not be tried again now: who waits for it is told, and may give it up. */
void want_failed(struct lonely_client *c, struct want *w, enum lonely_client_error err);
/* Between the two no want is freed: for walks over them in which holders may come and go. */
void wants_keep(struct lonely_client *c);
void wants_let_go(struct lonely_client *c);
/* All of them are OFF: the connection is gone. */
void wants_reset(struct lonely_client *c);
/* Nothing is settled any more: everybody who waits is told. */
void wants_abandon(struct lonely_client *c, enum lonely_client_error err);

/* ---- Subscriptions ---- */

struct lonely_subscription {
    struct lonely_client *client;
    struct list node; /* in lonely_client.subscriptions once entered */
    struct list
        holdings;      /* of its topics and globs; before it is entered their wants have no hold */
    struct list plans; /* struct plan: topics and globs before it is entered */
    atomic_uint refs;  /* its owner's, and of edits under way */
    bool entered;      /* lock */
    bool left;         /* its owner has destroyed it */
    struct lonely_on_receiving on_receiving;
    uint64_t stamp; /* of the last message that was offered */
    /* lock: */
    size_t unsettled;               /* of its wants */
    bool gap;                       /* messages may have been missed since `next` last said so */
    struct lonely_delivery **queue; /* a ring */
    size_t queue_cap, queue_first, queue_len;
    bool lost_one; /* for want of disk */
    int fd;        /* an eventfd, -1: never asked for */
    bool fd_set;
};

/* Hands the message to everybody who wants it. Takes no reference. */
void client_deliver(struct lonely_client *c, struct lonely_delivery *d);
/* May the link take more messages? After false client_room_again of the link is called. */
bool client_has_room(struct lonely_client *c);
/* Messages on `topic` may have been missed. */
void client_missed(struct lonely_client *c, struct lonely_span topic);
/* A message was lost for want of disk. */
void client_lost_one(struct lonely_client *c, struct lonely_span topic);

/* subscription.c, for the others; under lock */
void subscription_signal(struct lonely_subscription *s); /* its descriptor; who waits is woken */

/* ---- Messages ---- */

/* Small ones are recycled: no allocation for each. */
#define DELIVERY_INLINE_BYTES 1024
#define DELIVERY_SPARES       256

struct lonely_delivery {
    atomic_uint refs;
    struct lonely_client *client;
    struct lonely_delivery *next_spare;
    uint64_t size;
    int fd; /* -1: in memory */
    uint8_t sha512[LONELY_SHA512_BYTES];
    struct lonely_span topic;
    uint8_t *bytes; /* of `inlined`, or allocated */
    uint8_t *allocated;
    uint8_t inlined[DELIVERY_INLINE_BYTES]; /* topic and message when they fit */
};

/* A whole message at hand. NULL: no memory. */
struct lonely_delivery *delivery_create(struct lonely_client *c, struct lonely_span topic,
                                        struct lonely_span bytes,
                                        const uint8_t sha512[LONELY_SHA512_BYTES]);
void delivery_pool_fini(struct lonely_client *c);

/* A message that arrives in pieces: in memory, beyond a threshold or the client's budget in a file. */
struct incoming;
/* `size`: announced; never allocated from. NULL: no memory. */
struct incoming *incoming_begin(struct lonely_client *c, struct lonely_span topic, uint64_t size);
bool incoming_add(struct incoming *in, struct lonely_span bytes); /* false: no disk or no memory */
uint64_t incoming_size(const struct incoming *in);
/* Its hash is computed; frees `in`. NULL: OpenSSL failed or a write did. */
struct lonely_delivery *incoming_finish(struct incoming *in);
void incoming_abort(struct incoming *in); /* NULL is allowed */

/* ---- Notifies ---- */

struct notify {
    struct command cmd; /* first; its end is the notify's */
    struct list node;   /* the link's */
    struct lonely_span topic;
    uint64_t size;
    uint8_t sha512[LONELY_SHA512_BYTES];
    uint64_t notified;
    uint64_t trace_id;
    struct lonely_notify source; /* bytes: of the copy */
    uint64_t fd_offset;
    uint8_t *copy; /* topic, and bytes */
    uv_work_t work;
    lonely_notify_done_fn *done_fn; /* NULL: somebody waits */
    void *done_arg;
    void *link_data; /* the link's */
};

/* Reads `len` bytes at `at`; how many (fewer only at the end of a changed source), or -1. */
ptrdiff_t notify_read(const struct notify *n, uint64_t at, uint8_t *to, size_t len);
/* In memory: all of it; else ptr NULL. */
struct lonely_span notify_span(const struct notify *n);
/* The end of it: by the link, once. */
void notify_done(struct notify *n, enum lonely_client_error err, uint64_t notified);
void notify_progress(const struct notify *n, uint64_t sent);

/* ---- The client ---- */

struct handler {
    struct list node; /* in lonely_client.handlers */
    uint64_t id;
    lonely_on_message_fn *on_message; /* one of the three, or a direct subscription: */
    lonely_on_status_fn *on_status;
    lonely_on_arriving_fn *on_arriving;
    struct want *want;
    void *arg;
    bool off; /* taken off while callbacks run */
};

struct lonely_client {
    struct client_conf conf;
    uv_loop_t loop;
    uv_thread_t thread;
    uv_thread_t loop_thread; /* the same, once it runs */
    bool own_thread, running;
    uv_async_t wakeup;
    uv_timer_t deadline; /* of a call that waits in "io" = "caller" */
    bool deadline_passed;
    bool working; /* the loop runs inside a call of the caller */
    const struct clock *clock;
    struct secrets secrets;
    struct lonely_auth_ctx *auth;
    struct replay *used_macs;
    struct trace_file *trace_file; /* NULL: the option `tracing` is none */
    uint8_t random[4096];          /* left over from the system's generator */
    size_t random_left;
    struct link *link;
    bool link_up, dead;
    bool closing;
    struct map wants;
    struct list exacts, globs; /* want.all */
    struct list dirty;         /* want.dirty: for link_ops.flush */
    unsigned wants_kept;       /* see wants_keep */
    size_t wanted, unsettled;  /* wants with holders; those of them that are not ON */
    struct list subscriptions;
    struct list handlers;
    unsigned telling; /* handlers are being called */
    atomic_uint_least64_t next_id;
    atomic_bool ending; /* what runs in the pool is to stop */
    uint64_t stamp;
    /* lock: */
    uv_mutex_t lock;
    uv_cond_t changed;
    struct list commands;
    unsigned callers; /* threads inside calls that wait; the client stays for them */
    enum lonely_client_status status;
    enum lonely_client_error final_error, last_error;
    struct lonely_client_why why;
    bool standing;         /* link_up */
    bool full;             /* a queue has reached its bound, and none was told that it has shrunk */
    uint64_t queued_bytes; /* in memory, of messages not released */
    struct lonely_delivery *spares;
    size_t spare_count;
};

/* From the link: the connection stands, or is gone (with what is told of it), or there will be none any
 * more. */
void client_link_up(struct lonely_client *c);
void client_link_down(struct lonely_client *c, enum lonely_client_error err, const char *why);
void client_link_dead(struct lonely_client *c, enum lonely_client_error err, const char *why);
/* Messages may have been missed, though the connection stands. */
void client_gap(struct lonely_client *c);
/* What went wrong, without a change of state. */
void client_tell(struct lonely_client *c, enum lonely_client_error err, const char *why);
/* After anything on which the status depends. */
void client_update_status(struct lonely_client *c);

bool client_on_loop(const struct lonely_client *c);
void client_random(struct lonely_client *c, uint8_t *to, size_t len);

/* direct.c */
void handlers_tell_status(struct lonely_client *c, enum lonely_client_status status,
                          struct lonely_span missed);
void handlers_tell_message(struct lonely_client *c, struct lonely_delivery *d);
void handlers_tell_arriving(struct lonely_client *c, struct lonely_span topic, uint64_t received,
                            uint64_t size);
void handlers_fini(struct lonely_client *c);
/* wants.c */
void wants_fini(struct lonely_client *c);

/* ---- Authorization ---- (guard.c) */

/* Reads the secrets. */
enum lonely_client_error guard_init(struct lonely_client *c, struct lonely_client_why *why);
void guard_fini(struct lonely_client *c);

/* Is anything signed, in this direction? What would be need not be made else. */
static inline bool client_signs(const struct lonely_client *c)
{
    return lonely_auth_key_scheme(c->secrets.to_broadcaster) != LONELY_AUTH_NONE;
}

static inline bool client_asks(const struct lonely_client *c)
{
    return lonely_auth_key_scheme(c->secrets.to_subscriber) != LONELY_AUTH_NONE;
}

/* What goes with a message to a broadcaster: `out` has room for LONELY_AUTH_MAX_BYTES bytes, into which the
 * span points; empty under none. false: OpenSSL failed, or a field does not fit. */
bool client_sign(struct lonely_client *c, const struct lonely_auth_input *in, uint8_t *out,
                 struct lonely_span *authorization);
/* What came with one from a broadcaster; `authorization` NULL: absent. A mac that is bound to no
 * connection is good once. */
enum lonely_auth_result client_verify(struct lonely_client *c, const struct lonely_auth_input *in,
                                      const struct lonely_span *authorization);

#endif
