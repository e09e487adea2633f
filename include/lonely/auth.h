/*
 * Authorization of messages: makes and checks the string that travels in the HTTP header
 * `Authorization`, in the authorization field of a reply, or in that of a frame.
 *                                                                     (doc/protocol/auth.md)
 *
 * The three schemes differ only in the key: `none` sends nothing and accepts everything, `token`
 * sends a password, `hmac` signs the content of the message.
 *
 *     key   made at start, immutable: any number of threads may use one at the same time
 *     ctx   working memory, made at start: one for each thread, or with a lock around it
 *     input what is signed, one struct for all 21 operations; on the caller's stack
 *
 * Nothing here reads a clock, makes a random number or stores the macs that were used: the time
 * and the nonce are arguments, and lonely_auth_verify tells what to store. Nothing is allocated
 * here after set-up; OpenSSL 3.0 itself copies the state of a hash through its own allocator.
 * When OpenSSL fails (LONELY_E_CRYPTO, UNAVAILABLE) its queue of errors of this thread is cleared.
 */
#ifndef LONELY_AUTH_H
#define LONELY_AUTH_H

#include <stdbool.h>

#include <lonely/error.h>
#include <lonely/span.h>

#ifdef __cplusplus
extern "C" {
#endif

enum lonely_auth_scheme { LONELY_AUTH_NONE, LONELY_AUTH_TOKEN, LONELY_AUTH_HMAC };

/** "none", "token" or "hmac", as in a secrets file: static, never NULL. */
LONELY_API const char *lonely_auth_scheme_str(enum lonely_auth_scheme scheme);

/** The four answers of a check; what to do with each: (doc/protocol/auth.md, 1). */
enum lonely_auth_result {
    LONELY_AUTH_OK,
    LONELY_AUTH_UNAUTHORIZED, /**< nothing was given, but something is needed */
    LONELY_AUTH_FORBIDDEN,    /**< given, and not acceptable */
    LONELY_AUTH_UNAVAILABLE   /**< cannot be checked now */
};

/** "ok", "unauthorized", ...: static, never NULL. */
LONELY_API const char *lonely_auth_result_str(enum lonely_auth_result result);

/**
 * The operations; the number is the first signed byte. Those up to CONFIRM_MISSED travel to a
 * broadcaster and need its secret, the others travel to a subscriber. (doc/protocol/auth.md, 4)
 */
enum lonely_auth_op {
    LONELY_AUTH_SUBSCRIBE_EXACT = 1, /**< also for UNSUBSCRIBE, with recovery empty */
    LONELY_AUTH_SUBSCRIBE_GLOB,
    LONELY_AUTH_NOTIFY,
    LONELY_AUTH_STATEFUL_CONFIGURE,
    LONELY_AUTH_CHECK_SUBSCRIPTIONS,
    LONELY_AUTH_SET_SUBSCRIPTIONS,
    LONELY_AUTH_STATEFUL_CONTINUE_RECEIVE,
    LONELY_AUTH_CONFIRM_RECEIVE,
    LONELY_AUTH_CONFIRM_MISSED,
    LONELY_AUTH_RECEIVE,
    LONELY_AUTH_MISSED,
    LONELY_AUTH_CONFIRM_SUBSCRIBE_EXACT,
    LONELY_AUTH_CONFIRM_SUBSCRIBE_GLOB,
    LONELY_AUTH_CONFIRM_NOTIFY,
    LONELY_AUTH_CHECK_SUBSCRIPTIONS_RESPONSE,
    LONELY_AUTH_SET_SUBSCRIPTIONS_RESPONSE,
    LONELY_AUTH_STATEFUL_CONFIRM_CONFIGURE,
    LONELY_AUTH_STATEFUL_ENABLE_ZSTD_PRESET,
    LONELY_AUTH_STATEFUL_ENABLE_ZSTD_CUSTOM,
    LONELY_AUTH_STATEFUL_DISABLE_ZSTD_CUSTOM,
    LONELY_AUTH_STATEFUL_CONTINUE_NOTIFY
};

/** The name of an operation, such as "RECEIVE": static, never NULL. */
LONELY_API const char *lonely_auth_op_str(enum lonely_auth_op op);

/**
 * What is signed: the operation and its fields. Fields that the operation does not list are
 * ignored; unset ones (zero) are empty. The spans are borrowed for the call. A field that does not
 * fit its length on the wire is LONELY_E_FIELD_SIZE when signing and FORBIDDEN when verifying.
 *
 * Which url, hash and identifier a message uses: (doc/protocol/auth.md, 5). Frames sign the url of
 * their connection and counter, in `url`, or for MISSED in `recovery`.
 */
struct lonely_auth_input {
    enum lonely_auth_op op;
    /** All: of the very message that carries the authorization. */
    struct lonely_span tracing;
    /** 1 2 5 6 7 8 9 10 12 13 18 19 20: at most 65,535 bytes. */
    struct lonely_span url;
    /** 1 2 11 12 13: at most 65,535 bytes, empty for none. */
    struct lonely_span recovery;
    /** 1 3 9 10 11 12 14; for 2 and 13 the glob: at most 65,535 bytes. */
    struct lonely_span topic;
    /** 3 7 8 10 14 21: at most 255 bytes. */
    struct lonely_span identifier;
    /**
     * Always 64 bytes.
     * 3 10 14: SHA-512 of the message.
     * 6 15 16: the etag without its format byte.
     * 19: SHA-512 of the dictionary.
     */
    struct lonely_span hash;
    struct lonely_span nonce; /**< 4 17: of the connection: always 32 bytes */
    uint64_t subscribers;     /**< 8 14: at most 2^32 - 1 */
    uint64_t part_id;         /**< 21: at most 2^32 - 1; of 7 the low 8 bits are signed [A6] */
    uint64_t compressor;      /**< 18 19 20: at most 2^32 - 1 */
    int64_t level;            /**< 18 19: -2^31 to 2^32 - 1; negative only to verify [A7] */
    uint64_t min_size;        /**< 18 19 */
    uint64_t max_size;        /**< 18 19 */
    uint16_t initial_dict;    /**< 4 */
    bool enable_zstd;         /**< 4 */
    bool enable_training;     /**< 4 */
};

/* ---- Keys ---- */

/** Longest secret of the scheme token, in bytes. */
#define LONELY_AUTH_TOKEN_MAX_BYTES 4096
/** Size of the key of the scheme hmac, decoded, in bytes. */
#define LONELY_AUTH_HMAC_KEY_BYTES 64

struct lonely_auth_key; /* opaque */

/**
 * Makes a key from a secret as it stands in a secrets file. The secret is copied and may be wiped
 * after the call; of a token the text itself stays in memory until lonely_auth_key_destroy, of hmac
 * only what was made of it.                                        (doc/protocol/auth.md, 2, 3)
 *
 * @param secret  by scheme
 *                none:  ignored
 *                token: 1 to LONELY_AUTH_TOKEN_MAX_BYTES bytes of visible ASCII and spaces, the
 *                       last one no space (others do not survive an HTTP header)
 *                hmac:  base64 of exactly 64 bytes, URL-safe or standard alphabet, padding
 *                       optional; bytes outside both alphabets are skipped
 * @return        LONELY_OK, LONELY_E_SECRET (not as above), LONELY_E_CRYPTO (also out of memory),
 *                LONELY_E_ARGUMENT (no such scheme). On failure `*out` is NULL.
 */
LONELY_API enum lonely_error lonely_auth_key_create(enum lonely_auth_scheme scheme,
                                                    struct lonely_span secret,
                                                    struct lonely_auth_key **out);

/** Wipes and frees. NULL is allowed. No other thread may be using the key. */
LONELY_API void lonely_auth_key_destroy(struct lonely_auth_key *key);

LONELY_API enum lonely_auth_scheme lonely_auth_key_scheme(const struct lonely_auth_key *key);

struct lonely_auth_ctx; /* opaque */

/** Makes the working memory of a thread. LONELY_OK or LONELY_E_CRYPTO, then `*out` is NULL. */
LONELY_API enum lonely_error lonely_auth_ctx_create(struct lonely_auth_ctx **out);

/** Wipes and frees. NULL is allowed. */
LONELY_API void lonely_auth_ctx_destroy(struct lonely_auth_ctx *ctx);

/** Size of the text of a new secret. */
#define LONELY_AUTH_SECRET_BYTES 86

/**
 * Writes 64 random bytes as the text of a new secret, for hmac and token alike: URL-safe base64
 * without padding, no NUL behind.                                   (doc/protocol/auth.md, 6)
 */
LONELY_API void lonely_auth_secret_text(const uint8_t random[LONELY_AUTH_HMAC_KEY_BYTES],
                                        uint8_t out[LONELY_AUTH_SECRET_BYTES]);

/* ---- Signing ---- */

/**
 * Longest string of the scheme hmac: with a nonce of 255 bytes and a time of 20 digits. With a
 * nonce of lonely_auth_nonce_text and a time of 10 digits it has 113 bytes.
 */
#define LONELY_AUTH_HMAC_MAX_BYTES 372
/** Longest string of any scheme: a buffer of this size is always enough. */
#define LONELY_AUTH_MAX_BYTES (7 + LONELY_AUTH_TOKEN_MAX_BYTES)
/** Size of a nonce as senders make it. */
#define LONELY_AUTH_NONCE_BYTES 6

/** Writes 4 random bytes as the 6 characters of a nonce (URL-safe base64, no NUL behind). */
LONELY_API void lonely_auth_nonce_text(const uint8_t random[4],
                                       uint8_t out[LONELY_AUTH_NONCE_BYTES]);

/** Room that lonely_auth_sign needs at most with this key, in bytes; 0 for none. */
LONELY_API size_t lonely_auth_sign_max(const struct lonely_auth_key *key);

/**
 * Writes the authorization of a message.                            (doc/protocol/auth.md, 2, 3)
 *
 * Sign anew for each attempt to send: a receiver takes the same string only once [A14].
 *
 * @param ctx          hmac only: of this thread; may be NULL under none and token
 * @param in           hmac only: what is signed; may be NULL under none and token
 * @param now_epoch_s  hmac only: seconds since 1970, fraction cut off
 * @param nonce        hmac only: 1 to 255 bytes without ':', different for each message of a second
 * @param out, cap     buffer; no NUL is written behind the string. Undefined on failure
 * @param out_len      bytes written; 0 under none: send no header, or a field of length 0
 * @return LONELY_OK
 *         LONELY_E_NO_SPACE    `cap` is too small
 *         LONELY_E_FIELD_SIZE  a field of `in` does not fit
 *         LONELY_E_ARGUMENT    unknown operation, unusable nonce or a negative level
 *         LONELY_E_CRYPTO      OpenSSL failed
 *         On failure `*out_len` is 0.
 */
LONELY_API enum lonely_error lonely_auth_sign(struct lonely_auth_ctx *ctx,
                                              const struct lonely_auth_key *key,
                                              const struct lonely_auth_input *in,
                                              uint64_t now_epoch_s, struct lonely_span nonce,
                                              uint8_t *out, size_t cap, size_t *out_len);

/* ---- Verifying ---- */

/** Size of a mac, in bytes. */
#define LONELY_AUTH_MAC_BYTES 64
/** A timestamp may be this far from the clock of the verifier, either way, in seconds. */
#define LONELY_AUTH_WINDOW_S 120

/** What lonely_auth_verify found out, beside OK. */
struct lonely_auth_verified {
    size_t key; /**< index of the key that fitted; above 0 somebody still uses an older secret */
    bool store; /**< put `mac` into the store of used macs, see lonely_auth_verify */
    uint8_t mac[LONELY_AUTH_MAC_BYTES];
    uint64_t keep_until_epoch_s; /**< `mac` may be forgotten at this time or later */
};

/**
 * Checks the authorization of a received message.                   (doc/protocol/auth.md, 2, 3)
 *
 * OK is final unless `out->store` is set. Then the caller inserts `out->mac` into its store of used
 * macs, atomically, and answers FORBIDDEN if it was there already, UNAVAILABLE if the store is
 * down. `store` is false under none and token, and under hmac when the signed url (MISSED:
 * recovery) starts with `websocket:`, because such a url is good for one frame of one connection.
 * So a server must take a url of that form only from the counters of a connection, never from the
 * body of an HTTP request: refuse it there, or store the mac all the same.
 *
 * @param ctx            of this thread; may be NULL if all keys are of none and token
 * @param keys, n_keys   accepted secrets, the present one first; any of them may fit. With none
 *                       among them everything is OK. `n_keys` 0 is UNAVAILABLE
 * @param in             hmac only: what should have been signed; may be NULL under none and token
 * @param authorization  NULL: absent. In an HTTP request a header that is there but empty is not
 *                       absent; in a reply or frame length 0 is: see lonely_auth_field
 * @param now_epoch_s    clock of the verifier, seconds since 1970 with fraction
 * @param out            filled on OK; otherwise all zero
 *
 * Only the forms that senders make are accepted: see the list at the end of section 3. Safe on
 * hostile input of any length. Secrets and macs are compared in constant time. UNAVAILABLE also
 * when OpenSSL fails.
 */
LONELY_API enum lonely_auth_result
lonely_auth_verify(struct lonely_auth_ctx *ctx, const struct lonely_auth_key *const *keys,
                   size_t n_keys, const struct lonely_auth_input *in,
                   const struct lonely_span *authorization, double now_epoch_s,
                   struct lonely_auth_verified *out);

/** The authorization field of a reply or frame for lonely_auth_verify: NULL if its length is 0. */
static inline const struct lonely_span *lonely_auth_field(const struct lonely_span *field)
{
    return field->len == 0 ? NULL : field;
}

/**
 * Whether a timestamp is acceptable: at most 120 s before or after now, which is exact for 120 s.
 * Pure. False for a `now_epoch_s` that is not a number.           (doc/protocol/auth.md, 3, step 2)
 */
LONELY_API bool lonely_auth_in_window(uint64_t timestamp_epoch_s, double now_epoch_s);

/**
 * Until when a used mac with this timestamp must be remembered: a second after the end of the
 * window, so that a store may delete what expires at this second or before it [A3]. Pure; does not
 * wrap.
 */
LONELY_API uint64_t lonely_auth_keep_until(uint64_t timestamp_epoch_s);

#ifdef __cplusplus
}
#endif

#endif
