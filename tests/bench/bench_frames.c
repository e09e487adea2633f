/*
 * How many frames a second one core parses and writes. Each row is one message with a topic of 128
 * bytes and, where it has one, a body of 128 bytes; identifier of 4 bytes, no authorization, no
 * tracing. A measurement repeats the call for a fifth of a second; the best of five is shown.
 * "unhashed" leaves the SHA-512 of a NOTIFY's body to the caller, "head" writes all but the body.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <lonely/message.h>
#include <openssl/sha.h>

enum { PAYLOAD_BYTES = 128, ROUNDS = 5, BATCH = 1000 };

#define ROUND_S 0.2

static uint8_t topic[PAYLOAD_BYTES], body[PAYLOAD_BYTES], hash[LONELY_SHA512_BYTES];
static uint8_t frame[4096];
static size_t frame_len;
static struct lonely_message message, scratch;
static volatile size_t sink; /* keeps the work from being optimized away */

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct lonely_span frame_span(void)
{
    return (struct lonely_span){ frame, frame_len };
}

static void parse(void)
{
    sink += lonely_message_parse(message.direction, frame_span(), &scratch).at;
}

static void parse_unhashed(void)
{
    sink +=
        lonely_message_parse_with(message.direction, frame_span(), LONELY_PARSE_NO_HASH, &scratch)
            .at;
}

static void serialize(void)
{
    static uint8_t out[4096];
    size_t len;

    lonely_message_serialize(&message, out, sizeof(out), &len);
    sink += len;
}

static void serialize_head(void)
{
    static uint8_t out[4096];
    size_t len;

    lonely_message_serialize_head(&message, out, sizeof(out), &len);
    sink += len;
}

/* Calls a second, the best round. */
static double rate(void (*call)(void))
{
    double best = 0;

    for (int round = 0; round < ROUNDS; round++) {
        double start = now_s(), spent;
        size_t calls = 0;

        do {
            for (int i = 0; i < BATCH; i++)
                call();
            calls += BATCH;
            spent = now_s() - start;
        } while (spent < ROUND_S);
        if ((double)calls / spent > best)
            best = (double)calls / spent;
    }
    return best;
}

static void row(const char *what, void (*call)(void))
{
    double r = rate(call);

    printf("%-16s %-9s %-15s %6zu %12.0f %8.0f\n",
           lonely_message_name(message.direction, message.type),
           message.minimal ? "minimal" : "expanded", what, frame_len, r, 1e9 / r);
}

static int measure(struct lonely_message m)
{
    for (int minimal = 1; minimal >= 0; minimal--) {
        message = m;
        message.minimal = minimal != 0;
        if (lonely_message_serialize(&message, frame, sizeof(frame), &frame_len) != LONELY_OK ||
            lonely_message_parse(message.direction, frame_span(), &scratch).err != LONELY_OK) {
            fprintf(stderr, "bench_frames: a message is not valid\n");
            return 1;
        }
        row("parse", parse);
        if (m.direction == LONELY_S2B && m.type == LONELY_S2B_NOTIFY)
            row("parse unhashed", parse_unhashed);
        row("serialize", serialize);
        if (m.body.len > 0)
            row("serialize head", serialize_head);
    }
    return 0;
}

int main(void)
{
    static const uint8_t id[4] = { 1, 2, 3, 4 };
    const struct lonely_span identifier = { id, sizeof(id) };
    const struct lonely_span payload = { body, sizeof(body) };
    const struct lonely_span sha512 = { hash, sizeof(hash) };
    struct lonely_message notify = {
        .direction = LONELY_S2B,
        .type = LONELY_S2B_NOTIFY,
        .as.notify = { .identifier = identifier,
                       .topic = { topic, sizeof(topic) },
                       .compressed_length = PAYLOAD_BYTES,
                       .decompressed_length = PAYLOAD_BYTES,
                       .compressed_sha512 = sha512 },
        .body = payload,
    };
    struct lonely_message receive = {
        .direction = LONELY_B2S,
        .type = LONELY_B2S_RECEIVE_STREAM,
        .as.stream = { .identifier = identifier,
                       .topic = { topic, sizeof(topic) },
                       .compressed_length = PAYLOAD_BYTES,
                       .decompressed_length = PAYLOAD_BYTES,
                       .compressed_sha512 = sha512 },
        .body = payload,
    };
    struct lonely_message confirm = {
        .direction = LONELY_S2B,
        .type = LONELY_S2B_CONFIRM_RECEIVE,
        .as.confirm_receive = { .identifier = identifier, .num_subscribers = 1 },
    };

    memset(topic, 't', sizeof(topic));
    memset(body, 'b', sizeof(body));
    SHA512(body, sizeof(body), hash);
    printf("%-16s %-9s %-15s %6s %12s %8s\n", "message", "mode", "call", "bytes", "frames/s",
           "ns each");
    return measure(notify) | measure(receive) | measure(confirm);
}
