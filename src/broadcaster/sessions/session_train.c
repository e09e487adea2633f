/*
 * Dictionaries for one session, trained out of its messages. Samples are kept as trainer.h says; a session
 * that sends or gets none costs nothing. What all sessions of a worker hold of them is bounded: so many may
 * collect at once, one that pauses makes room for another, one training runs at a time, and none begins
 * while the dictionaries that there are take their share of memory. Called with each message by
 * session_reply.c and session_send.c. (doc/protocol/session.md, 4.4)
 */
#include "session_private.h"

/* One that had no sample for so long gives its place to another. */
#define TRAINER_IDLE_MS 60000

/* On its way through the pool. The trainer is its own meanwhile, so the session may end. */
struct training {
    uv_work_t work;
    struct list node; /* of sessions.trainings */
    struct sessions *all;
    struct session *session; /* NULL: it has ended */
    struct trainer *trainer;
    uint64_t id;
    struct compressor *compressor;
    uint8_t dictionary[TRAINER_HIGH_DICTIONARY_BYTES];
};

/* ---- Places ---- */

static void leave_place(struct session *s)
{
    struct session_zstd *z = s->zstd;

    if (!list_is_linked(&z->of_trainers))
        return;
    list_remove(&z->of_trainers);
    s->all->trainer_count--;
}

/* Takes the last place, or keeps its own; false: there is none. */
static bool take_place(struct session *s, uint64_t now_ms)
{
    struct sessions *all = s->all;
    struct session_zstd *z = s->zstd, *idle;
    struct list *first = list_first(&all->trainers);

    if (!list_is_linked(&z->of_trainers) && all->trainer_count == SESSIONS_TRAINERS_MAX) {
        idle = first == NULL ? NULL : list_entry(first, struct session_zstd, of_trainers);
        if (idle == NULL || now_ms - idle->sampled_at_ms < TRAINER_IDLE_MS)
            return false;
        trainer_forget(idle->trainer);
        leave_place(idle->session);
    }
    leave_place(s);
    z->sampled_at_ms = now_ms;
    list_push_back(&all->trainers, &z->of_trainers);
    all->trainer_count++;
    return true;
}

/* ---- Training ---- */

static void train_in_pool(uv_work_t *work)
{
    struct training *t = work->data;
    int level;
    size_t len = trainer_build(t->trainer, t->dictionary, &level);

    if (len > 0)
        t->compressor =
            compressor_create_in(compression_contexts(t->all->worker->b->compression), t->id,
                                 (struct lonely_span){ t->dictionary, len }, level);
}

static void start_next(struct sessions *all);

static void training_free(struct training *t)
{
    t->all->trainer_count--;
    trainer_destroy(t->trainer);
    compressor_unref(t->compressor);
    mem_free(t);
}

/* What came of it is the session's. */
static void deliver(struct session *s, struct training *t, uint64_t now_ms)
{
    struct metrics *metrics = s->worker->metrics;
    struct session_zstd *z = s->zstd;
    struct compressor *c = t->compressor;

    z->training = NULL;
    z->trainer = t->trainer;
    t->trainer = NULL;
    t->compressor = NULL;
    trainer_done(z->trainer, now_ms);
    if (trainer_holds(
            z->trainer)) { /* goes on collecting: the place that is being left is its own */
        z->sampled_at_ms = now_ms;
        list_push_back(&s->all->trainers, &z->of_trainers);
        s->all->trainer_count++;
    }
    if (c == NULL) {
        metrics_add(&metrics->dictionaries[METRICS_DICTIONARY_FAILED], 1);
        log_info_limited(s->worker->b->log, "training_failed", LOG_STR("peer", s->name), LOG_END);
        return;
    }
    metrics_add(&metrics->dictionaries[METRICS_DICTIONARY_TRAINED], 1);
    log_debug(s->worker->b->log, "dictionary_trained", LOG_STR("peer", s->name),
              LOG_U64("id", compressor_id(c)), LOG_U64("bytes", compressor_dictionary(c).len),
              LOG_END);
    z->next_id++;
    session_add_custom(s, c);
}

static void on_trained(uv_work_t *work, int status)
{
    struct training *t = work->data;
    struct sessions *all = t->all;

    (void)status; /* never cancelled */
    all->training = NULL;
    if (t->session != NULL)
        deliver(t->session, t, uv_now(&all->worker->loop));
    training_free(t);
    start_next(all);
}

static void start_next(struct sessions *all)
{
    struct list *node;

    if (all->training != NULL || (node = list_pop_front(&all->trainings)) == NULL)
        return;
    all->training = list_entry(node, struct training, node);
    uv_queue_work(&all->worker->loop, &all->training->work, train_in_pool, on_trained);
}

/* The samples suffice: the older of two dictionaries goes now, the new one comes when it is ready. */
static void train(struct session *s)
{
    struct sessions *all = s->all;
    struct session_zstd *z = s->zstd;
    struct training *t = mem_alloc(sizeof(*t));

    t->work.data = t;
    t->all = all;
    t->session = s;
    t->trainer = z->trainer;
    t->id = z->next_id;
    t->compressor = NULL;
    z->trainer = NULL;
    z->training = t;
    list_remove(&z->of_trainers); /* its place is the training's */
    list_push_back(&all->trainings, &t->node);
    session_retire_customs(s);
    start_next(all);
}

/* ---- Samples ---- */

static struct trainer *create_trainer(const struct broadcaster *b)
{
    const struct conf *conf = b->conf;

    return trainer_create(&(struct trainer_conf){
        .min_size = (size_t)conf->compression.compression_min_size,
        .max_size = (size_t)conf->compression.compression_trained_max_size,
        .low_watermark = conf->compression.compression_training_low_watermark,
        .high_watermark = conf->compression.compression_training_high_watermark,
        .retrain_interval_ms = conf->compression.compression_retrain_interval_seconds * 1000,
        .spool_dir = conf->broadcaster.spool_dir,
    });
}

static bool is_sample(const struct session *s, const struct body *body, uint64_t now_ms)
{
    const struct conf *conf = s->worker->b->conf;
    const struct session_zstd *z = s->zstd;
    uint64_t size = body_size(body);

    return z->trains && z->training == NULL && size >= conf->compression.compression_min_size &&
           size < conf->compression.compression_trained_max_size && body_in_memory(body) &&
           (z->trainer == NULL || trainer_wants(z->trainer, size, now_ms));
}

void session_sample(struct session *s, const struct body *body)
{
    uint64_t now_ms = uv_now(&s->worker->loop);
    struct session_zstd *z = s->zstd;

    if (!is_sample(s, body, now_ms) || s->all->custom_bytes >= s->worker->max_collected_bytes ||
        !take_place(s, now_ms))
        return;
    if (z->trainer == NULL)
        z->trainer = create_trainer(s->worker->b);
    if (trainer_offer(z->trainer, body_span(body), now_ms))
        train(s);
}

/* ---- The end ---- */

void session_drop_training(struct session *s)
{
    struct session_zstd *z = s->zstd;

    leave_place(s);
    trainer_destroy(z->trainer);
    if (z->training == NULL)
        return;
    z->training->session = NULL;
    if (z->training == s->all->training)
        return; /* is in the pool */
    list_remove(&z->training->node);
    training_free(z->training);
}
