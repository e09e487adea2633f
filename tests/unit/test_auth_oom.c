/*
 * auth.h when OpenSSL has no memory: each allocation of a call is made to fail in turn. The call
 * must say LONELY_E_CRYPTO or UNAVAILABLE, leak nothing, and leave no error in OpenSSL's queue.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <lonely/auth.h>
#include <openssl/crypto.h>
#include <openssl/err.h>

#include "tables.h"

#define NOW UINT64_C(1760000000)

static struct {
    size_t until_failure; /* allocations that still succeed, when armed */
    size_t live;          /* blocks not yet freed */
    bool armed, failed;
} memory;

static bool must_fail(void)
{
    if (!memory.armed || memory.until_failure-- > 0)
        return false;
    memory.armed = false;
    memory.failed = true;
    return true;
}

static void *allocate(size_t size, const char *file, int line)
{
    void *p = must_fail() ? NULL : malloc(size);

    (void)file;
    (void)line;
    memory.live += p != NULL;
    return p;
}

static void *reallocate(void *old, size_t size, const char *file, int line)
{
    void *p = must_fail() ? NULL : realloc(old, size);

    (void)file;
    (void)line;
    memory.live += old == NULL && p != NULL;
    return p;
}

static void release(void *p, const char *file, int line)
{
    (void)file;
    (void)line;
    memory.live -= p != NULL;
    free(p);
}

/* Calls `run` with a failure at the first, second, ... allocation until it needs no more. `run`
 * tells whether it succeeded, and asserts itself how it failed. */
static void each_allocation_fails(bool (*run)(void))
{
    size_t n = 0;
    bool ok, failed;

    assert_true(run()); /* what OpenSSL keeps for good is taken now */
    do {
        size_t before;

        OPENSSL_thread_stop(); /* frees the memory of its queue of errors */
        before = memory.live;
        memory.until_failure = n++;
        memory.failed = false;
        memory.armed = true;
        ok = run();
        memory.armed = false;
        failed = memory.failed;
        assert_true(ok || failed);
        assert_int_equal(ERR_peek_error(), 0);
        OPENSSL_thread_stop();
        assert_int_equal(memory.live, before);
        assert_true(n < 1000);
    } while (failed);
    assert_true(n > 1); /* at least one allocation was there to fail */
}

static const char secret[] =
    "AwoRGB8mLTQ7QklQV15lbHN6gYiPlp2kq7K5wMfO1dzj6vH4_wYNFBsiKTA3PkVMU1phaG92fYSLkpmgp661vA";

static struct lonely_auth_key *key;
static uint8_t signature[LONELY_AUTH_HMAC_MAX_BYTES];
static size_t signature_len;

static struct lonely_auth_input sample(void)
{
    return (struct lonely_auth_input){ .op = LONELY_AUTH_CHECK_SUBSCRIPTIONS,
                                       .url = LIT("http://192.0.2.0:3002/v1/receive") };
}

static bool makes_key(enum lonely_auth_scheme scheme)
{
    struct lonely_auth_key *made;
    enum lonely_error err = lonely_auth_key_create(scheme, LIT(secret), &made);

    assert_true(err == LONELY_OK || err == LONELY_E_CRYPTO);
    assert_int_equal(made != NULL, err == LONELY_OK);
    lonely_auth_key_destroy(made);
    return err == LONELY_OK;
}

static bool make_token(void)
{
    return makes_key(LONELY_AUTH_TOKEN);
}

static bool make_hmac(void)
{
    return makes_key(LONELY_AUTH_HMAC);
}

static bool make_ctx(void)
{
    struct lonely_auth_ctx *made;
    enum lonely_error err = lonely_auth_ctx_create(&made);

    assert_true(err == LONELY_OK || err == LONELY_E_CRYPTO);
    assert_int_equal(made != NULL, err == LONELY_OK);
    lonely_auth_ctx_destroy(made);
    return err == LONELY_OK;
}

/* A context for one call, since one that was used holds a block more. Never fails. */
static struct lonely_auth_ctx *fresh_ctx(void)
{
    const bool armed = memory.armed;
    struct lonely_auth_ctx *ctx;

    memory.armed = false;
    assert_int_equal(lonely_auth_ctx_create(&ctx), LONELY_OK);
    memory.armed = armed;
    return ctx;
}

static bool sign(void)
{
    const struct lonely_auth_input in = sample();
    struct lonely_auth_ctx *ctx = fresh_ctx();
    enum lonely_error err = lonely_auth_sign(ctx, key, &in, NOW, LIT("AAAAAA"), signature,
                                             sizeof(signature), &signature_len);

    assert_true(err == LONELY_OK || err == LONELY_E_CRYPTO);
    assert_int_equal(signature_len, err == LONELY_OK ? 113 : 0);
    lonely_auth_ctx_destroy(ctx);
    return err == LONELY_OK;
}

static bool verify(void)
{
    const struct lonely_auth_input in = sample();
    const struct lonely_auth_key *const keys[] = { key };
    const struct lonely_span given = { signature, signature_len };
    struct lonely_auth_ctx *ctx = fresh_ctx();
    struct lonely_auth_verified v;
    enum lonely_auth_result r = lonely_auth_verify(ctx, keys, 1, &in, &given, NOW, &v);

    assert_true(r == LONELY_AUTH_OK || r == LONELY_AUTH_UNAVAILABLE);
    assert_int_equal(v.store, r == LONELY_AUTH_OK);
    lonely_auth_ctx_destroy(ctx);
    return r == LONELY_AUTH_OK;
}

/* A context that failed is good again. */
static bool sign_after_failing(void)
{
    const struct lonely_auth_input in = sample();
    struct lonely_auth_ctx *ctx = fresh_ctx();
    uint8_t out[LONELY_AUTH_HMAC_MAX_BYTES];
    size_t len;
    enum lonely_error err =
        lonely_auth_sign(ctx, key, &in, NOW, LIT("AAAAAA"), out, sizeof(out), &len);

    memory.armed = false;
    assert_int_equal(lonely_auth_sign(ctx, key, &in, NOW, LIT("AAAAAA"), out, sizeof(out), &len),
                     LONELY_OK);
    assert_memory_equal(out, signature, len);
    lonely_auth_ctx_destroy(ctx);
    return err == LONELY_OK;
}

static void keys_and_contexts(void **state)
{
    (void)state;
    each_allocation_fails(make_token);
    each_allocation_fails(make_hmac);
    each_allocation_fails(make_ctx);
}

static void signing_and_verifying(void **state)
{
    (void)state;
    assert_int_equal(lonely_auth_key_create(LONELY_AUTH_HMAC, LIT(secret), &key), LONELY_OK);
    each_allocation_fails(sign); /* the last of which succeeds */
    each_allocation_fails(verify);
    each_allocation_fails(sign_after_failing);
    lonely_auth_key_destroy(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_and_contexts),
        cmocka_unit_test(signing_and_verifying),
    };

    if (CRYPTO_set_mem_functions(allocate, reallocate, release) != 1 ||
        OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CRYPTO_STRINGS, NULL) != 1)
        return 1;
    /* What the first error takes for good would look like a leak of the call that failed. */
    ERR_raise(ERR_LIB_USER, ERR_R_MALLOC_FAILURE);
    OPENSSL_thread_stop();
    return cmocka_run_group_tests_name("auth_oom", tests, NULL, NULL);
}
