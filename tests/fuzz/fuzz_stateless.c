/*
 * Bodies of the stateless API from a peer. Properties: the parser consumes no more than there is
 * and asks for more than there is; with fewer bytes it never says anything else than "more" or the
 * same error; what it accepts is written to the bytes that it read. The value of Repr-Digest: what
 * is read and written again reads the same.
 *
 * Input: one byte chooses the body (beyond the bodies: Repr-Digest), the rest is what arrives.
 */
#include <stdlib.h>
#include <string.h>

#include <lonely/stateless.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void round_trip(enum lonely_stateless_type type, struct lonely_span bytes,
                       const struct lonely_stateless *m)
{
    uint8_t *written = malloc(bytes.len + 1);
    struct lonely_result r;

    require(written != NULL);
    r = lonely_stateless_write(type, m, written, bytes.len);
    require(r.err == LONELY_OK && r.at == bytes.len);
    require(memcmp(written, bytes.ptr, bytes.len) == 0);
    r = lonely_stateless_write(type, m, written, bytes.len - 1);
    require(r.err == LONELY_E_NO_SPACE && r.at == bytes.len);
    free(written);
}

static void body(enum lonely_stateless_type type, struct lonely_span bytes)
{
    struct lonely_stateless m, part;
    struct lonely_result whole = lonely_stateless_parse(type, bytes, &m);

    if (whole.err == LONELY_E_TRUNCATED) {
        require(whole.at > bytes.len && whole.at <= lonely_stateless_max(type));
        return;
    }
    require(whole.at <= bytes.len);
    if (whole.err == LONELY_OK)
        round_trip(type, (struct lonely_span){ bytes.ptr, whole.at }, &m);
    for (size_t n = 0; n < bytes.len; n = n * 2 + 1) {
        struct lonely_result r =
            lonely_stateless_parse(type, (struct lonely_span){ bytes.ptr, n }, &part);

        require(r.err == LONELY_E_TRUNCATED ? r.at > n : r.err == whole.err && r.at == whole.at);
    }
}

static void digest(struct lonely_span value)
{
    uint8_t first[LONELY_SHA512_BYTES], second[LONELY_SHA512_BYTES];
    char text[LONELY_REPR_DIGEST_BYTES];

    if (lonely_repr_digest_parse(value, first) != LONELY_OK)
        return;
    lonely_repr_digest_write(first, text);
    value = (struct lonely_span){ (const uint8_t *)text, strlen(text) };
    require(value.len == sizeof text - 1);
    require(lonely_repr_digest_parse(value, second) == LONELY_OK);
    require(memcmp(first, second, sizeof first) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned type;

    if (size == 0)
        return 0;
    type = data[0] % 32;
    if (type < 24)
        body((enum lonely_stateless_type)type, (struct lonely_span){ data + 1, size - 1 });
    else
        digest((struct lonely_span){ data + 1, size - 1 });
    return 0;
}
