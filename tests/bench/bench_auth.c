/*
 * Signing and verifying RECEIVE with a topic of 128 bytes, next to bare OpenSSL HMAC-SHA-512 over
 * the same bytes in the same run.
 *
 * Method: one thread; each way runs in turn for a tenth of a second, ten times round, and its best
 * turn counts, so that what else the machine does hurts all alike. The time and the nonce change
 * for each message. "Bare" has the bytes ready in memory and makes the 64 bytes of the mac, with
 * the state of the key computed before, in the two ways that OpenSSL offers:
 *   EVP_MAC  EVP_MAC_init with a NULL key, update, final
 *   copied   two SHA-512 states that have taken the padded key, copied for each message
 * The ratios are to the faster of the two. Exit code 1 if one of ours is below 80 %.
 */
#include <lonely/auth.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "auth_bytes.h"

#define ROUNDS 10
#define TURN_S 0.1
#define BATCH  1000
#define NOW    UINT64_C(1760000000)
#define BAR    0.8

static struct lonely_auth_ctx *ctx;
static struct lonely_auth_key *key;
static struct lonely_auth_input input;

/* What bare OpenSSL works on. */
static struct {
    uint8_t bytes[1024];
    size_t len;
    EVP_MAC_CTX *mac;
    EVP_MD_CTX *inner, *outer, *work;
} bare;

/* Signatures to verify, so that verifying does not see one string again and again. */
static struct {
    uint8_t text[LONELY_AUTH_HMAC_MAX_BYTES];
    size_t len;
} signatures[BATCH];

static void require(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "bench_auth: %s failed\n", what);
    exit(2);
}

static bool collect(void *arg, const uint8_t *bytes, size_t len)
{
    (void)arg;
    require(bare.len + len <= sizeof bare.bytes, "collecting");
    memcpy(bare.bytes + bare.len, bytes, len);
    bare.len += len;
    return true;
}

static struct lonely_span nonce_of(size_t i, uint8_t text[LONELY_AUTH_NONCE_BYTES])
{
    const uint8_t random[4] = { (uint8_t)i, (uint8_t)(i >> 8), (uint8_t)(i >> 16), 7 };

    lonely_auth_nonce_text(random, text);
    return (struct lonely_span){ text, LONELY_AUTH_NONCE_BYTES };
}

static void run_sign(size_t i)
{
    uint8_t text[LONELY_AUTH_NONCE_BYTES];

    require(lonely_auth_sign(ctx, key, &input, NOW, nonce_of(i, text), signatures[i].text,
                             sizeof signatures[i].text, &signatures[i].len) == LONELY_OK,
            "signing");
}

static void run_verify(size_t i)
{
    const struct lonely_span given = { signatures[i].text, signatures[i].len };
    const struct lonely_auth_key *const keys[] = { key };
    struct lonely_auth_verified v;

    require(lonely_auth_verify(ctx, keys, 1, &input, &given, NOW, &v) == LONELY_AUTH_OK,
            "verifying");
}

static void run_evp_mac(size_t i)
{
    uint8_t mac[64];
    size_t len;

    bare.bytes[10] = (uint8_t)i;
    require(EVP_MAC_init(bare.mac, NULL, 0, NULL) == 1 &&
                EVP_MAC_update(bare.mac, bare.bytes, bare.len) == 1 &&
                EVP_MAC_final(bare.mac, mac, &len, sizeof mac) == 1,
            "EVP_MAC");
}

static void run_copied(size_t i)
{
    uint8_t mac[64];

    bare.bytes[10] = (uint8_t)i;
    require(EVP_MD_CTX_copy_ex(bare.work, bare.inner) == 1 &&
                EVP_DigestUpdate(bare.work, bare.bytes, bare.len) == 1 &&
                EVP_DigestFinal_ex(bare.work, mac, NULL) == 1 &&
                EVP_MD_CTX_copy_ex(bare.work, bare.outer) == 1 &&
                EVP_DigestUpdate(bare.work, mac, sizeof mac) == 1 &&
                EVP_DigestFinal_ex(bare.work, mac, NULL) == 1,
            "EVP_MD");
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Operations a second. */
static double turn(void (*run)(size_t i))
{
    const double start = seconds();
    size_t n = 0;

    do {
        for (size_t i = 0; i < BATCH; i++)
            run(i);
        n += BATCH;
    } while (seconds() - start < TURN_S);
    return (double)n / (seconds() - start);
}

static EVP_MD_CTX *padded(const EVP_MD *sha512, const uint8_t raw[64], uint8_t pad)
{
    EVP_MD_CTX *state = EVP_MD_CTX_new();
    uint8_t block[128];

    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (uint8_t)((i < 64 ? raw[i] : 0) ^ pad);
    require(state != NULL && EVP_DigestInit_ex2(state, sha512, NULL) == 1 &&
                EVP_DigestUpdate(state, block, sizeof block) == 1,
            "EVP_MD set-up");
    return state;
}

static void set_up_bare(const uint8_t raw[64])
{
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){ "SHA512" }, 0),
        OSSL_PARAM_construct_end(),
    };
    EVP_MD *sha512 = EVP_MD_fetch(NULL, "SHA512", NULL);
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    uint8_t text[LONELY_AUTH_NONCE_BYTES];

    require(sha512 != NULL && hmac != NULL, "fetching");
    bare.mac = EVP_MAC_CTX_new(hmac);
    require(bare.mac != NULL && EVP_MAC_init(bare.mac, raw, 64, params) == 1, "EVP_MAC set-up");
    bare.inner = padded(sha512, raw, 0x36);
    bare.outer = padded(sha512, raw, 0x5c);
    bare.work = EVP_MD_CTX_new();
    EVP_MD_free(sha512);
    EVP_MAC_free(hmac);
    require(auth_bytes(&input, NOW, nonce_of(0, text), collect, NULL) == LONELY_OK, "bytes");
}

static void set_up(void)
{
    static const uint8_t raw[64] =
        "sixty-four bytes of a key that nobody has to guess, for a bench";
    static uint8_t topic[128], hash[64];
    static const char url[] = "http://192.0.2.0:3002/v1/receive";
    uint8_t secret[LONELY_AUTH_SECRET_BYTES];

    memset(topic, 't', sizeof topic);
    memset(hash, 0x5a, sizeof hash);
    input = (struct lonely_auth_input){
        .op = LONELY_AUTH_RECEIVE,
        .url = { (const uint8_t *)url, sizeof url - 1 },
        .topic = { topic, sizeof topic },
        .identifier = { hash, 8 },
        .hash = { hash, sizeof hash },
    };
    lonely_auth_secret_text(raw, secret);
    require(lonely_auth_ctx_create(&ctx) == LONELY_OK &&
                lonely_auth_key_create(LONELY_AUTH_HMAC,
                                       (struct lonely_span){ secret, sizeof secret },
                                       &key) == LONELY_OK,
            "set-up");
    set_up_bare(raw);
}

static void tear_down(void)
{
    lonely_auth_key_destroy(key);
    lonely_auth_ctx_destroy(ctx);
    EVP_MAC_CTX_free(bare.mac);
    EVP_MD_CTX_free(bare.inner);
    EVP_MD_CTX_free(bare.outer);
    EVP_MD_CTX_free(bare.work);
}

int main(void)
{
    static const struct {
        const char *name;
        void (*run)(size_t i);
    } ways[] = {
        { "bare EVP_MAC", run_evp_mac },
        { "bare copied", run_copied },
        { "sign", run_sign }, /* before verify, which needs its signatures */
        { "verify", run_verify },
    };
    enum { WAYS = sizeof ways / sizeof ways[0] };
    double best[WAYS] = { 0 }, fastest;
    int status = 0;

    set_up();
    for (int round = 0; round < ROUNDS; round++) {
        for (int w = 0; w < WAYS; w++) {
            const double rate = turn(ways[w].run);

            best[w] = rate > best[w] ? rate : best[w];
        }
    }
    fastest = best[0] > best[1] ? best[0] : best[1];
    printf("RECEIVE, topic of 128 bytes, %zu signed bytes, one thread\n", bare.len);
    for (int w = 0; w < WAYS; w++) {
        printf("%-13s %9.0f/s  %6.3f us  %4.0f %%\n", ways[w].name, best[w], 1e6 / best[w],
               100 * best[w] / fastest);
        if (w >= 2 && best[w] < BAR * fastest)
            status = 1;
    }
    tear_down();
    return status;
}
