/*
 * Messages that arrive in parts, acknowledged one by one; and the compressors that the broadcaster enables.
 * Called by stateful_frame.c.
 */
#define OPENSSL_API_COMPAT 0x10100000L /* the low-level SHA-512; before any OpenSSL header */
#include <openssl/sha.h>
#include <string.h>

#include "stateful.h"

#include "mem.h"

#define UNPACK_BYTES ((size_t)64 * 1024)

void stateful_receive_reset(struct stateful_link *l)
{
    struct list *node;

    incoming_abort(l->in.incoming);
    EVP_MD_CTX_free(l->in.hash);
    compress_stream_end(l->in.unpack);
    buf_fini(&l->in.topic);
    memset(&l->in, 0, sizeof(l->in));
    buf_init(&l->in.topic, LONELY_HEADER_MAX_BYTES);
    while ((node = list_pop_front(&l->enabled)) != NULL) {
        struct enabled *e = list_entry(node, struct enabled, node);

        compressor_unref(e->compressor);
        mem_free(e);
        l->n_enabled--;
    }
    while ((node = list_pop_front(&l->owed)) != NULL)
        mem_free(list_entry(node, struct owed, node));
    l->n_owed = 0;
}

/* The message is over, whatever became of it. */
static void end_message(struct inbound *in)
{
    incoming_abort(in->incoming);
    EVP_MD_CTX_free(in->hash);
    compress_stream_end(in->unpack);
    in->incoming = NULL;
    in->hash = NULL;
    in->unpack = NULL;
    in->unpacked = false;
    in->active = false;
}

/* ---- Compressors ---- */

static struct enabled *find(const struct stateful_link *l, uint64_t id)
{
    list_foreach (&l->enabled, node, next) {
        struct enabled *e = list_entry(node, struct enabled, node);

        if (compressor_id(e->compressor) == id)
            return e;
    }
    return NULL;
}

/* By the least size that it is meant for; the newest dictionary among equals. */
struct compressor *stateful_choose(const struct stateful_link *l, uint64_t length)
{
    const struct enabled *best = NULL;

    list_foreach (&l->enabled, node, next) {
        const struct enabled *e = list_entry(node, struct enabled, node);

        if (length < e->min_size || (e->max_size != 0 && length >= e->max_size))
            continue;
        if (best == NULL || e->min_size < best->min_size ||
            (e->min_size == best->min_size &&
             compressor_id(e->compressor) > compressor_id(best->compressor)))
            best = e;
    }
    return best == NULL ? NULL : best->compressor;
}

static bool is_hash_of(struct lonely_span bytes, struct lonely_span sha512)
{
    uint8_t computed[LONELY_SHA512_BYTES];

    return EVP_Digest(bytes.ptr, bytes.len, computed, NULL, EVP_sha512(), NULL) == 1 &&
           memcmp(computed, sha512.ptr, sizeof(computed)) == 0;
}

/* NULL: this end has no such compressor, or wants none. */
static struct compressor *make(struct stateful_link *l, const struct lonely_message *m)
{
    const struct lonely_msg_enable_zstd *f = &m->as.enable_zstd;
    const struct client_conf *conf = &stateful_client(l)->conf;

    if (!conf->allow_compression)
        return NULL;
    if (m->type == LONELY_B2S_ENABLE_ZSTD_CUSTOM)
        return conf->allow_training_compression && f->identifier >= COMPRESSOR_CUSTOM_MIN &&
                       is_hash_of(m->body, f->sha512)
                   ? compressor_create(f->identifier, m->body, f->compression_level)
                   : NULL;
    if (f->identifier == COMPRESSOR_PLAIN)
        return compressor_create(f->identifier, (struct lonely_span){ 0 }, f->compression_level);
    for (size_t i = 0; i < conf->dictionary_count; i++) {
        if (conf->dictionaries[i].id == f->identifier) {
            compressor_ref(l->presets[i]);
            return l->presets[i];
        }
    }
    return NULL;
}

static struct lonely_auth_input enable_fields(const struct lonely_message *m)
{
    const struct lonely_msg_enable_zstd *f = &m->as.enable_zstd;

    return (struct lonely_auth_input){
        .op = m->type == LONELY_B2S_ENABLE_ZSTD_CUSTOM ? LONELY_AUTH_STATEFUL_ENABLE_ZSTD_CUSTOM
                                                       : LONELY_AUTH_STATEFUL_ENABLE_ZSTD_PRESET,
        .tracing = f->tracing,
        .compressor = f->identifier,
        .level = f->compression_level,
        .min_size = f->min_size,
        .max_size = f->max_size,
        .hash = f->sha512,
    };
}

void stateful_enable(struct stateful_link *l, const struct lonely_message *m)
{
    const struct lonely_msg_enable_zstd *f = &m->as.enable_zstd;
    struct lonely_auth_input in = enable_fields(m);
    struct compressor *compressor;
    struct enabled *e;

    if (!stateful_verify(l, &in, true, f->authorization))
        return;
    if (f->identifier == 0)
        return; /* it means nothing, and is no fault (stateful.md, Q5) */
    compressor =
        l->n_enabled < STATEFUL_ENABLED_MAX && find(l, f->identifier) == NULL ? make(l, m) : NULL;
    if (compressor == NULL) {
        stateful_fail(l, TRANSPORT_POLICY, "a compressor that this end does not have or want");
        return;
    }
    e = mem_alloc(sizeof(*e));
    e->compressor = compressor;
    e->min_size = f->min_size;
    e->max_size = f->max_size;
    list_push_back(&l->enabled, &e->node);
    l->n_enabled++;
}

void stateful_disable(struct stateful_link *l, const struct lonely_msg_disable_zstd *m)
{
    struct lonely_auth_input in = {
        .op = LONELY_AUTH_STATEFUL_DISABLE_ZSTD_CUSTOM,
        .tracing = m->tracing,
        .compressor = m->identifier,
    };
    struct enabled *e;

    if (!stateful_verify(l, &in, true, m->authorization))
        return;
    e = find(l, m->identifier);
    if (e == NULL) {
        stateful_fail(l, TRANSPORT_MALFORMED, "a compressor that was not enabled");
        return;
    }
    list_remove(&e->node);
    compressor_unref(e->compressor);
    mem_free(e);
    l->n_enabled--;
}

/* ---- Acknowledgements ---- */

static void send_acknowledgement(struct stateful_link *l, struct lonely_span identifier,
                                 uint64_t part_id, bool last)
{
    uint8_t authorization[LONELY_AUTH_MAX_BYTES];
    struct lonely_message m = { .type = last ? LONELY_S2B_CONFIRM_RECEIVE
                                             : LONELY_S2B_CONTINUE_RECEIVE };
    struct lonely_auth_input fields = {
        .op = last ? LONELY_AUTH_CONFIRM_RECEIVE : LONELY_AUTH_STATEFUL_CONTINUE_RECEIVE,
        .identifier = identifier,
        .subscribers = 1,
        .part_id = part_id,
    };
    struct lonely_span signed_by;
    int64_t number;

    if (lonely_connection_take(&l->connection, LONELY_COUNTER_SUBSCRIBER, &number) != LONELY_OK) {
        stateful_fail(l, TRANSPORT_FAILED, "the connection's numbers are used up");
        return;
    }
    if (!stateful_sign(l, &fields, number, authorization, &signed_by))
        return;
    if (last) {
        m.as.confirm_receive.identifier = identifier;
        m.as.confirm_receive.num_subscribers = 1;
        m.as.confirm_receive.authorization = signed_by;
    } else {
        m.as.continuation.identifier = identifier;
        m.as.continuation.part_id = part_id;
        m.as.continuation.authorization = signed_by;
    }
    stateful_send(l, &m);
}

/* Not while the application's queues are full: then the broadcaster's window closes, though answers still come
 * through. Its window bounds what comes all the same; ours who ignores it. */
static void acknowledge(struct stateful_link *l, bool last)
{
    const struct inbound *in = &l->in;
    struct owed *o;

    if (l->n_owed == 0 && client_has_room(stateful_client(l))) {
        send_acknowledgement(l, (struct lonely_span){ in->identifier, in->identifier_len },
                             in->part_id, last);
        return;
    }
    if (l->n_owed >= stateful_client(l)->conf.max_unsent_acks) {
        stateful_fail(l, TRANSPORT_OVERLOAD, "more messages than are taken");
        return;
    }
    o = mem_alloc(sizeof(*o));
    o->last = last;
    o->part_id = in->part_id;
    o->identifier_len = in->identifier_len;
    memcpy(o->identifier, in->identifier, sizeof(o->identifier));
    list_push_back(&l->owed, &o->node);
    l->n_owed++;
}

void stateful_acknowledge_owed(struct stateful_link *l)
{
    struct list *node;

    while (l->state == STATEFUL_OPEN && (node = list_pop_front(&l->owed)) != NULL) {
        struct owed *o = list_entry(node, struct owed, node);

        l->n_owed--;
        send_acknowledgement(l, (struct lonely_span){ o->identifier, o->identifier_len },
                             o->part_id, o->last);
        mem_free(o);
    }
}

/* ---- Parts ---- */

/* A message begins. False: the connection is failing. */
static bool begin_message(struct stateful_link *l, const struct lonely_msg_stream *m)
{
    struct inbound *in = &l->in;
    struct enabled *e = m->compressor == 0 ? NULL : find(l, m->compressor);
    uint64_t window = stateful_client(l)->conf.decompression_max_window_size;

    if (in->active || (m->compressor != 0 && e == NULL)) {
        stateful_fail(l, TRANSPORT_MALFORMED,
                      in->active ? "a message inside another"
                                 : "a message of a compressor that is not enabled");
        return false;
    }
    in->active = true;
    in->received = 0;
    in->length = m->compressed_length;
    in->plain_length = m->decompressed_length;
    in->identifier_len = m->identifier.len;
    if (m->identifier.len > 0)
        memcpy(in->identifier, m->identifier.ptr, m->identifier.len);
    memcpy(in->sha512, m->compressed_sha512.ptr, sizeof(in->sha512));
    buf_clear(&in->topic);
    buf_append(&in->topic, m->topic.ptr, m->topic.len);
    in->incoming = incoming_begin(stateful_client(l), m->topic, m->decompressed_length);
    if (e == NULL)
        return true;
    in->unpack = decompress_stream_begin(e->compressor, in->plain_length, window);
    in->hash = EVP_MD_CTX_new();
    if (in->unpack != NULL && in->hash != NULL &&
        EVP_DigestInit_ex(in->hash, EVP_sha512(), NULL) == 1)
        return true;
    stateful_fail(l, TRANSPORT_FAILED, "no memory to decompress");
    return false;
}

static bool is_next_part(const struct inbound *in, const struct lonely_msg_stream *m)
{
    return in->active && m->part_id == in->part_id + 1 && m->identifier.len == in->identifier_len &&
           (in->identifier_len == 0 ||
            memcmp(m->identifier.ptr, in->identifier, in->identifier_len) == 0);
}

bool stateful_part_begin(struct stateful_link *l, const struct lonely_msg_stream *m)
{
    struct inbound *in = &l->in;
    struct lonely_auth_input fields = {
        .op = LONELY_AUTH_RECEIVE,
        .tracing = m->tracing,
        .identifier = m->identifier,
    };

    if (m->part_id > 0 && !is_next_part(in, m)) {
        stateful_fail(l, TRANSPORT_MALFORMED, "a part that does not follow the last");
        return false;
    }
    if (m->part_id == 0 && !begin_message(l, m))
        return false;
    in->part_id = m->part_id;
    fields.topic = (struct lonely_span){ in->topic.ptr, in->topic.len };
    fields.hash = (struct lonely_span){ in->sha512, sizeof(in->sha512) };
    return stateful_verify(l, &fields, true, m->authorization);
}

static void keep(struct inbound *in, struct lonely_span bytes)
{
    if (in->incoming == NULL || incoming_add(in->incoming, bytes))
        return;
    incoming_abort(
        in->incoming); /* no disk: it is received to its end all the same, and told as lost */
    in->incoming = NULL;
}

static bool unpack(struct stateful_link *l, struct lonely_span bytes, bool last)
{
    struct inbound *in = &l->in;
    uint8_t plain[UNPACK_BYTES];
    enum decompress_status status = DECOMPRESS_MORE;
    size_t len, before;

    do {
        before = bytes.len;
        status = compress_stream_step(in->unpack, &bytes, last, plain, sizeof(plain), &len);
        if (len > 0)
            keep(in, (struct lonely_span){ plain, len });
    } while (status == DECOMPRESS_MORE && (len > 0 || bytes.len < before));
    in->unpacked = status == DECOMPRESS_OK;
    if (status == DECOMPRESS_OK || (status == DECOMPRESS_MORE && !last))
        return true;
    stateful_fail(l, TRANSPORT_BAD_PAYLOAD,
                  decompress_status_str(status == DECOMPRESS_MORE ? DECOMPRESS_MALFORMED : status));
    return false;
}

bool stateful_part_add(struct stateful_link *l, struct lonely_span bytes)
{
    struct inbound *in = &l->in;

    if (bytes.len > in->length - in->received) {
        stateful_fail(l, TRANSPORT_MALFORMED, "a message longer than announced");
        return false;
    }
    in->received += bytes.len;
    if (bytes.len == 0)
        return true;
    if (in->unpack == NULL) {
        keep(in, bytes);
        return true;
    }
    EVP_DigestUpdate(in->hash, bytes.ptr, bytes.len);
    if (in->incoming == NULL)
        return true; /* lost already: only its hash is of interest */
    return unpack(l, bytes, in->received == in->length);
}

/* The whole message is there; `delivery` NULL: it was lost for want of disk. */
static bool is_intact(struct stateful_link *l, const struct lonely_delivery *delivery)
{
    struct inbound *in = &l->in;
    uint8_t sha512[LONELY_SHA512_BYTES];

    if (in->unpack != NULL)
        return (in->unpacked || delivery == NULL) &&
               EVP_DigestFinal_ex(in->hash, sha512, NULL) == 1 &&
               memcmp(sha512, in->sha512, sizeof(sha512)) == 0;
    return delivery == NULL || memcmp(delivery->sha512, in->sha512, sizeof(in->sha512)) == 0;
}

static void finish_message(struct stateful_link *l)
{
    struct lonely_client *c = stateful_client(l);
    struct inbound *in = &l->in;
    struct lonely_delivery *d = in->incoming != NULL ? incoming_finish(in->incoming) : NULL;

    in->incoming = NULL;
    if (!is_intact(l, d)) {
        lonely_delivery_release(d);
        stateful_fail(l, TRANSPORT_BAD_PAYLOAD, "a message that does not fit its hash");
        return;
    }
    acknowledge(l, true);
    end_message(in);
    if (d == NULL)
        client_lost_one(c, (struct lonely_span){ in->topic.ptr, in->topic.len });
    else
        client_deliver(c, d);
    lonely_delivery_release(d);
}

/* What is read brings acknowledgements: no more than the broadcaster takes. */
static void rest_when_full(struct stateful_link *l)
{
    if (l->state != STATEFUL_OPEN || !l->reading ||
        transport_queued(l->transport) <= STATEFUL_HIGH_WATER)
        return;
    l->reading = false;
    transport_read_stop(l->transport);
}

void stateful_part_end(struct stateful_link *l)
{
    if (l->state != STATEFUL_OPEN)
        return;
    if (l->in.received < l->in.length)
        acknowledge(l, false);
    else
        finish_message(l);
    rest_when_full(l);
}

/* ---- Small ones ---- */

static bool is_small(const struct stateful_link *l, const struct lonely_message *m,
                     const struct enabled *by)
{
    const struct lonely_msg_stream *p = &m->as.stream;

    return !l->in.active && p->part_id == 0 && m->body.len == p->compressed_length &&
           m->body.len <= DELIVERY_INLINE_BYTES &&
           p->decompressed_length <= DELIVERY_INLINE_BYTES &&
           p->topic.len + p->decompressed_length <= DELIVERY_INLINE_BYTES &&
           (p->compressor == 0 || by != NULL);
}

/* On the stack: EVP would allocate its state. */
static bool hash_small(struct lonely_span bytes, uint8_t sha512[LONELY_SHA512_BYTES])
{
    SHA512_CTX hash;

    return SHA512_Init(&hash) == 1 && SHA512_Update(&hash, bytes.ptr, bytes.len) == 1 &&
           SHA512_Final(sha512, &hash) == 1;
}

static void note_identifier(struct inbound *in, struct lonely_span identifier)
{
    in->identifier_len = identifier.len;
    if (identifier.len > 0)
        memcpy(in->identifier, identifier.ptr, identifier.len);
}

static void deliver_small(struct stateful_link *l, struct lonely_span topic,
                          struct lonely_span body, const uint8_t sha512[LONELY_SHA512_BYTES])
{
    struct lonely_client *c = stateful_client(l);
    struct lonely_delivery *d = delivery_create(c, topic, body, sha512);

    acknowledge(l, true);
    if (d == NULL)
        client_lost_one(c, topic);
    else
        client_deliver(c, d);
    lonely_delivery_release(d);
    rest_when_full(l);
}

static void unpack_small(struct stateful_link *l, const struct enabled *by,
                         const struct lonely_msg_stream *p, struct lonely_span body)
{
    uint64_t window = stateful_client(l)->conf.decompression_max_window_size;
    uint8_t plain[DELIVERY_INLINE_BYTES], sha512[LONELY_SHA512_BYTES];
    struct lonely_span bytes = { plain, (size_t)p->decompressed_length };
    enum decompress_status status =
        compressor_decompress(by->compressor, body, window, plain, bytes.len);

    if (status != DECOMPRESS_OK)
        stateful_fail(l, TRANSPORT_BAD_PAYLOAD, decompress_status_str(status));
    else if (!hash_small(bytes, sha512))
        stateful_fail(l, TRANSPORT_FAILED, "OpenSSL failed");
    else
        deliver_small(l, p->topic, bytes, sha512);
}

bool stateful_take_small(struct stateful_link *l, const struct lonely_message *m)
{
    const struct lonely_msg_stream *p = &m->as.stream;
    struct lonely_auth_input fields = { .op = LONELY_AUTH_RECEIVE,
                                        .tracing = p->tracing,
                                        .identifier = p->identifier,
                                        .topic = p->topic,
                                        .hash = p->compressed_sha512 };
    const struct enabled *by = p->compressor != 0 ? find(l, p->compressor) : NULL;
    uint8_t sha512[LONELY_SHA512_BYTES];

    if (!is_small(l, m, by))
        return false;
    note_identifier(&l->in, p->identifier);
    l->in.part_id = 0;
    if (!stateful_verify(l, &fields, true, p->authorization))
        return true;
    if (!hash_small(m->body, sha512) ||
        memcmp(sha512, p->compressed_sha512.ptr, sizeof(sha512)) != 0)
        stateful_fail(l, TRANSPORT_BAD_PAYLOAD, "a message that does not fit its hash");
    else if (by != NULL)
        unpack_small(l, by, p, m->body);
    else
        deliver_small(l, p->topic, m->body, sha512);
    return true;
}
