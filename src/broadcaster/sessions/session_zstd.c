/*
 * Which compressors a session has, from CONFIGURE on: the one without a dictionary, the preset that it asked
 * for, and dictionaries of its own. One is used only behind its ENABLE frame, and understood a while beyond
 * its DISABLE, since the peer's frames may be under way. Called by session.c and session_send.c; where
 * dictionaries come from is session_train.c's. (doc/protocol/session.md, 4)
 */
#include "session_private.h"

#include <openssl/evp.h>

#define NO_BOUND UINT64_MAX

/* ---- Who may compress ---- */

/* An id that is not configured counts as none. (doc/protocol/session.md, B8) */
static struct compressor *find_preset(const struct compression *shared, uint64_t id)
{
    return id < COMPRESSOR_PRESET_MIN ? NULL : compression_preset(shared, id);
}

/* A dictionary travels in one frame, which has a longest length like all. */
static bool can_announce_dictionaries(const struct session *s)
{
    return s->max_part >=
           TRAINER_HIGH_DICTIONARY_BYTES + LONELY_AUTH_MAX_BYTES + SESSION_ENABLE_HEAD_BYTES;
}

void session_negotiate(struct session *s, const struct lonely_msg_configure *c)
{
    const struct broadcaster *b = s->worker->b;
    struct session_zstd *z;

    if (b->compression == NULL || !c->enable_zstd)
        return;
    z = mem_calloc(1, sizeof(*z));
    z->session = s;
    z->preset = find_preset(b->compression, c->initial_dict);
    z->trains =
        b->conf->compression.allow_training && c->enable_training && can_announce_dictionaries(s);
    z->next_id = COMPRESSOR_CUSTOM_MIN;
    list_init(&z->customs);
    list_init(&z->waiting);
    list_init(&z->of_trainers);
    s->zstd = z;
}

static struct custom *find_custom(const struct session_zstd *z, uint64_t id)
{
    list_foreach (&z->customs, node, next) {
        struct custom *custom = list_entry(node, struct custom, node);

        if (custom->enabled && compressor_id(custom->compressor) == id)
            return custom;
    }
    return NULL;
}

struct compressor *session_find_compressor(const struct session *s, uint64_t id)
{
    const struct session_zstd *z = s->zstd;
    struct custom *custom;

    if (z == NULL)
        return NULL;
    if (id == COMPRESSOR_PLAIN)
        return compression_plain(s->worker->b->compression);
    if (z->preset != NULL && compressor_id(z->preset) == id)
        return z->preset;
    custom = find_custom(z, id);
    return custom == NULL ? NULL : custom->compressor;
}

struct compressor *session_own_compressor(const struct session *s, uint64_t size)
{
    const struct conf *conf = s->worker->b->conf;

    if (size < conf->compression.compression_min_size ||
        size >= conf->compression.compression_trained_max_size)
        return NULL;
    list_foreach (&s->zstd->customs, node, next) {
        const struct custom *custom = list_entry(node, struct custom, node);

        if (custom->enabled && !custom->retired)
            return custom->compressor;
    }
    return NULL;
}

struct compressor *session_shared_compressor(const struct session *s, uint64_t size)
{
    const struct broadcaster *b = s->worker->b;

    if (s->zstd->preset != NULL && size >= b->conf->compression.compression_min_size)
        return s->zstd->preset;
    return size >= b->conf->compression.compression_trained_max_size
               ? compression_plain(b->compression)
               : NULL;
}

/* ---- ENABLE and DISABLE ---- */

static void release_compressor(void *compressor)
{
    compressor_unref(compressor);
}

/* Announces a compressor: `dictionary` is empty for those that the peer has. */
static bool put_enable(struct session *s, struct compressor *c, uint64_t min_size,
                       uint64_t max_size, struct lonely_span dictionary)
{
    bool custom = dictionary.len > 0;
    uint8_t sha512[LONELY_SHA512_BYTES];
    struct lonely_message m = {
        .type = custom ? LONELY_B2S_ENABLE_ZSTD_CUSTOM : LONELY_B2S_ENABLE_ZSTD_PRESET,
        .as.enable_zstd = {
            .identifier = compressor_id(c),
            .compression_level = compressor_level(c),
            .min_size = min_size,
            .max_size = max_size,
        },
        .body = dictionary,
    };
    struct lonely_auth_input in = {
        .op = custom ? LONELY_AUTH_STATEFUL_ENABLE_ZSTD_CUSTOM
                     : LONELY_AUTH_STATEFUL_ENABLE_ZSTD_PRESET,
        .compressor = compressor_id(c),
        .level = compressor_level(c),
        .min_size = min_size,
        .max_size = max_size,
    };
    int64_t number;

    if (custom &&
        EVP_Digest(dictionary.ptr, dictionary.len, sha512, NULL, EVP_sha512(), NULL) != 1) {
        session_end(s, METRICS_SESSION_FAILED, "a dictionary cannot be hashed");
        return false;
    }
    if (custom)
        in.hash = m.as.enable_zstd.sha512 = (struct lonely_span){ sha512, sizeof(sha512) };
    if (!session_take_number(s, LONELY_COUNTER_BROADCASTER, &number))
        return false;
    in.url = session_url(s, number);
    if (!session_sign(s, &in, &m.as.enable_zstd.authorization))
        return false;
    if (!custom) {
        session_put(s, &m);
        return true;
    }
    compressor_ref(c);
    session_put_with_body(s, &m, release_compressor, c);
    return true;
}

void session_announce(struct session *s)
{
    const struct broadcaster *b = s->worker->b;

    if (!s->ended)
        put_enable(s, compression_plain(b->compression),
                   b->conf->compression.compression_trained_max_size, NO_BOUND,
                   (struct lonely_span){ 0 });
    if (!s->ended && s->zstd->preset != NULL)
        put_enable(s, s->zstd->preset, b->conf->compression.compression_min_size, NO_BOUND,
                   (struct lonely_span){ 0 });
}

void session_add_custom(struct session *s, struct compressor *c)
{
    struct custom *custom = mem_calloc(1, sizeof(*custom));

    custom->session = s;
    custom->compressor = c;
    list_push_front(&s->zstd->customs, &custom->node);
    s->all->custom_bytes += compressor_memory(c);
    *ring_push(&s->pending) = (union ring_slot){ .send = { SEND_ENABLE, custom } };
    session_pump(s);
}

void session_send_enable(struct session *s, struct custom *custom)
{
    const struct conf *conf = s->worker->b->conf;

    custom->enabled = put_enable(s, custom->compressor, conf->compression.compression_min_size,
                                 conf->compression.compression_trained_max_size,
                                 compressor_dictionary(custom->compressor));
}

void session_retire_customs(struct session *s)
{
    struct list *newest = list_first(&s->zstd->customs);

    list_foreach (&s->zstd->customs, node, next) {
        struct custom *custom = list_entry(node, struct custom, node);

        if (node == newest || custom->retired)
            continue;
        custom->retired = true;
        *ring_push(&s->pending) = (union ring_slot){ .send = { SEND_DISABLE, custom } };
    }
}

void session_send_disable(struct session *s, struct custom *custom)
{
    struct lonely_auth_input in = { .op = LONELY_AUTH_STATEFUL_DISABLE_ZSTD_CUSTOM,
                                    .compressor = compressor_id(custom->compressor) };
    struct lonely_message m = { .type = LONELY_B2S_DISABLE_ZSTD_CUSTOM,
                                .as.disable_zstd.identifier = in.compressor };
    int64_t number;

    if (!session_take_number(s, LONELY_COUNTER_BROADCASTER, &number))
        return;
    in.url = session_url(s, number);
    if (!session_sign(s, &in, &m.as.disable_zstd.authorization))
        return;
    session_put(s, &m);
    deadline_set(&s->all->deadlines, DEADLINE_RETIRED, &custom->forget, SESSION_RETIRED_MS);
}

/* ---- The end ---- */

void session_forget_custom(struct custom *custom)
{
    custom->session->all->custom_bytes -= compressor_memory(custom->compressor);
    deadline_clear(&custom->forget);
    list_remove(&custom->node);
    compressor_unref(custom->compressor);
    mem_free(custom);
}

void session_drop_compression(struct session *s)
{
    struct session_zstd *z = s->zstd;

    session_drop_unpacking(s);
    session_drop_training(s);
    list_foreach (&z->customs, node, next)
        session_forget_custom(list_entry(node, struct custom, node));
    s->zstd = NULL;
    mem_free(z);
}
