/*
 * A client of the library whose clock and random bytes are those of a recording. Header only; one client at a
 * time; its program is linked with --wrap=client_random.
 */
#ifndef TESTS_CLIENT_FIXTURE_H
#define TESTS_CLIENT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "core.h"
#include "tables.h"
#include "vectors.h"

static struct {
    struct lonely_client *client;
    char secrets[64];
    atomic_llong now_ns;
    atomic_llong slow_ns;   /* by so much our clock is wrong */
    _Atomic uint32_t nonce; /* of the next signature, as drawn */
} cf;

void __real_client_random(struct lonely_client *c, uint8_t *to, size_t len);

static int64_t cf_wall_ns(void *arg)
{
    (void)arg;
    return atomic_load(&cf.now_ns) - atomic_load(&cf.slow_ns);
}

static uint64_t cf_mono_ms(void *arg)
{
    (void)arg;
    return clock_mono_ms(&clock_system);
}

static uint64_t cf_mono_ns(void *arg)
{
    (void)arg;
    return clock_mono_ns(&clock_system);
}

static const struct clock cf_clock = { cf_wall_ns, cf_mono_ms, cf_mono_ns, NULL };

/* "X-HMAC 1795253839:WOGD_w:..." somewhere in the bytes: the next signature will be as old, and of that nonce. */
static inline void cf_expect_hmac(struct lonely_span bytes)
{
    static const char prefix[] = "X-HMAC ", alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijkl"
                                                         "mnopqrstuvwxyz0123456789-_";
    const char *at = memmem(bytes.ptr, bytes.len, prefix, sizeof(prefix) - 1);
    uint64_t bits = 0;

    if (at == NULL)
        return;
    atomic_store(&cf.now_ns, strtoll(at + sizeof(prefix) - 1, NULL, 10) * 1000000000);
    at = strchr(at, ':') + 1;
    for (int i = 0; i < 6; i++)
        bits = bits << 6 | (uint64_t)(strchr(alphabet, at[i]) - alphabet);
    atomic_store(&cf.nonce, (uint32_t)(bits >> 4));
}

static inline void cf_write_secrets(const json_t *auth)
{
    json_t *file =
        json_pack("{s:s, s:O, s:O}", "version", "2", "to-broadcaster",
                  vec_get(auth, "to_broadcaster"), "to-subscriber", vec_get(auth, "to_subscriber"));
    int fd;

    strcpy(cf.secrets, "/tmp/lonely-secrets-XXXXXX");
    fd = mkstemp(cf.secrets);
    table_require(fd >= 0 && json_dumpfd(file, fd, 0) == 0, "a secrets file");
    close(fd);
    json_decref(file);
}

/* `options`: name, value, ..., NULL. `auth`: an object with both directions; else none. */
static inline void cf_open(const json_t *auth, double now_s, const char *const *options)
{
    struct lonely_client_options *o = lonely_client_options_create();
    struct lonely_client_why why = { "" };

    for (; *options != NULL; options += 2)
        if (lonely_client_options_set(o, options[0], options[1], &why) != LONELY_CLIENT_OK)
            fail_msg("%s", why.text);
    cf.secrets[0] = '\0';
    if (json_is_object(auth)) {
        cf_write_secrets(auth);
        lonely_client_options_set(o, "secrets", cf.secrets, &why);
    }
    atomic_store(&cf.now_ns, (int64_t)(now_s * 1e9));
    if (lonely_client_open(o, &cf.client, &why) != LONELY_CLIENT_OK)
        fail_msg("%s", why.text);
    lonely_client_options_destroy(o);
}

static inline void cf_close(void)
{
    assert_int_equal(lonely_client_close(cf.client), LONELY_CLIENT_OK);
    if (cf.secrets[0] != '\0')
        unlink(cf.secrets);
}

#endif
