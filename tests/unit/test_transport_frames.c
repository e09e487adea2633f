/*
 * What a peer may send over a websocket, and what not, as raw frames in the groups of the Autobahn
 * suite: framing, pings, reserved bits, opcodes, fragmentation, UTF-8, close handling, limits. Each
 * case runs through a transport, whole, in two pieces cut at every byte, and byte by byte.
 *
 * The peer is a client whose mask is 0 where a case does not care, and the user closes with 1000 when
 * it is told of the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "transport_fake.h"
#include "transport_private.h"

#define MAX_BYTES 1000 /* of a frame */

static const struct frames_case {
    const char *name, *hex; /* what comes */
    const char *log;        /* what the user is told */
    const char *out;        /* what the peer is told */
    bool text;              /* text is accepted */
} cases[] = {
    /* Framing. */
    { "empty", "8280 00000000", "[]", "", false },
    { "one byte, masked", "8281 a1b2c3d4 c0", "[61]", "", false },
    { "all of a mask", "8285 01020304 60606060 64", "[6162636465]", "", false },
    { "125 is the largest short length",
      "82fd 00000000 "
      "00000000000000000000 00000000000000000000 00000000000000000000 00000000000000000000 "
      "00000000000000000000 00000000000000000000 00000000000000000000 00000000000000000000 "
      "00000000000000000000 00000000000000000000 00000000000000000000 00000000000000000000 "
      "0000000000",
      "[0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
      "0"
      "00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
      "00"
      "0000000000000000000000000000000000000000000000000000000000000000]",
      "", false },
    { "125 in 16 bits", "82fe 007d 00000000", "end 1002;", "8802 03ea", false },
    { "65535 in 64 bits", "82ff 000000000000ffff 00000000", "end 1002;", "8802 03ea", false },
    { "a length of 2^63", "82ff 8000000000000000 00000000", "end 1002;", "8802 03ea", false },
    { "not masked", "8201 61", "end 1002;", "8802 03ea", false },
    { "not masked, empty", "8200", "end 1002;", "8802 03ea", false },
    /* Pings. */
    { "ping", "8980 00000000", "", "8a00", false },
    { "ping with a payload", "8983 01020304 606060 8280 00000000", "[]", "8a03 616263", false },
    { "two pings", "8981 00000000 61 8981 00000000 62", "", "8a01 61 8a01 62", false },
    { "ping of any bytes", "8984 00000000 00ff80fe", "", "8a04 00ff80fe", false },
    { "ping of 125 bytes and one", "89fe 007e", "end 1002;", "8802 03ea", false },
    { "ping in two fragments", "0980", "end 1002;", "8802 03ea", false },
    { "pong that nobody asked for", "8a83 00000000 616263 8281 00000000 61", "[61]", "", false },
    /* Reserved bits. */
    { "first bit", "c281 00000000 61", "end 1002;", "8802 03ea", false },
    { "second bit", "a281 00000000 61", "end 1002;", "8802 03ea", false },
    { "third bit", "9281 00000000 61", "end 1002;", "8802 03ea", false },
    { "of a ping", "c980 00000000", "end 1002;", "8802 03ea", false },
    { "of a close frame", "f880 00000000", "end 1002;", "8802 03ea", false },
    { "of the second frame", "8281 00000000 61 c281 00000000 61", "[61]end 1002;", "8802 03ea",
      false },
    /* Opcodes. */
    { "opcode 3", "8380 00000000", "end 1002;", "8802 03ea", false },
    { "opcode 7", "8780 00000000", "end 1002;", "8802 03ea", false },
    { "opcode 11", "8b80 00000000", "end 1002;", "8802 03ea", false },
    { "opcode 15", "8f80 00000000", "end 1002;", "8802 03ea", false },
    { "opcode 4 behind a ping", "8980 00000000 8480 00000000", "end 1002;", "8a00 8802 03ea",
      false },
    { "text", "8181 00000000 61", "end 1003;", "8802 03eb", false },
    { "text in fragments", "0181 00000000 61", "end 1003;", "8802 03eb", false },
    /* Fragmentation. */
    { "two", "0281 00000000 61 8081 00000000 62", "[6162]", "", false },
    { "empty ones", "0280 00000000 0080 00000000 8080 00000000", "[]", "", false },
    { "an empty first and last", "0280 00000000 0081 00000000 61 8080 00000000", "[61]", "",
      false },
    { "a mask each", "0283 01020304 606060 0081 ffffffff 9b 8081 01000000 64", "[61626364 65]", "",
      false },
    { "ping between", "0281 00000000 61 8981 00000000 7a 8081 00000000 62", "[6162]", "8a01 7a",
      false },
    { "pong between", "0281 00000000 61 8a80 00000000 8081 00000000 62", "[6162]", "", false },
    { "close between", "0281 00000000 61 8882 00000000 03e8", "end 1000;", "8802 03e8", false },
    { "continuation of nothing", "8081 00000000 61", "end 1002;", "8802 03ea", false },
    { "open continuation of nothing", "0081 00000000 61", "end 1002;", "8802 03ea", false },
    { "continuation of what was complete", "8281 00000000 61 8081 00000000 61", "[61]end 1002;",
      "8802 03ea", false },
    { "a message within another", "0281 00000000 61 8281 00000000 61", "end 1002;", "8802 03ea",
      false },
    { "text within", "0281 00000000 61 8181 00000000 61", "end 1002;", "8802 03ea", true },
    /* UTF-8. */
    { "text where it is accepted", "8185 00000000 6bceb1c3a9", "[6bceb1c3a9]", "", true },
    { "a character in three fragments", "0181 00000000 e2 0081 00000000 82 8081 00000000 ac",
      "[e282ac]", "", true },
    { "each length", "8189 00000000 7f dfbf efbfbf f48f 8981 00000000 61 8182 00000000 bfbf",
      "end 1007;", "8802 03ef", true },
    { "the last character", "8184 00000000 f48fbfbf", "[f48fbfbf]", "", true },
    { "beyond the last", "8184 00000000 f4908080", "end 1007;", "8802 03ef", true },
    { "overlong of 2", "8182 00000000 c0af", "end 1007;", "8802 03ef", true },
    { "overlong of 3", "8183 00000000 e08080", "end 1007;", "8802 03ef", true },
    { "overlong of 4", "8184 00000000 f0808080", "end 1007;", "8802 03ef", true },
    { "a surrogate", "8183 00000000 eda080", "end 1007;", "8802 03ef", true },
    { "a lone continuation", "8181 00000000 80", "end 1007;", "8802 03ef", true },
    { "fe", "8181 00000000 fe", "end 1007;", "8802 03ef", true },
    { "cut at the end", "8182 00000000 e282", "end 1007;", "8802 03ef", true },
    { "cut before an empty last fragment", "0182 00000000 e282 8080 00000000", "end 1007;",
      "8802 03ef", true },
    { "a character goes on in the next message", "8181 00000000 e2", "end 1007;", "8802 03ef",
      true },
    { "binary need not be", "8282 00000000 c0af", "[c0af]", "", true },
    /* Close handling. */
    { "no code", "8880 00000000", "end 1005;", "8800", false },
    { "1000", "8882 00000000 03e8", "end 1000;", "8802 03e8", false },
    { "masked", "8882 01020304 02ea", "end 1000;", "8802 03e8", false },
    { "a reason", "8885 00000000 03e8 627965", "end 1000;", "8802 03e8", false },
    { "4999", "8882 00000000 1387", "end 4999;", "8802 1387", false },
    { "3000", "8882 00000000 0bb8", "end 3000;", "8802 0bb8", false },
    { "1011", "8882 00000000 03f3", "end 1011;", "8802 03f3", false },
    { "half a code", "8881 00000000 03", "end 1002;", "8802 03ea", false },
    { "0", "8882 00000000 0000", "end 1002;", "8802 03ea", false },
    { "999", "8882 00000000 03e7", "end 1002;", "8802 03ea", false },
    { "1004", "8882 00000000 03ec", "end 1002;", "8802 03ea", false },
    { "1005", "8882 00000000 03ed", "end 1002;", "8802 03ea", false },
    { "1006", "8882 00000000 03ee", "end 1002;", "8802 03ea", false },
    { "1015", "8882 00000000 03f7", "end 1002;", "8802 03ea", false },
    { "2999", "8882 00000000 0bb7", "end 1002;", "8802 03ea", false },
    { "5000", "8882 00000000 1388", "end 1002;", "8802 03ea", false },
    { "65535", "8882 00000000 ffff", "end 1002;", "8802 03ea", false },
    { "a reason in Greek", "8884 00000000 03e8 ceba", "end 1000;", "8802 03e8", false },
    { "a reason that is cut", "8884 00000000 03e8 61ce", "end 1007;", "8802 03ef", false },
    { "126 bytes", "88fe 007e", "end 1002;", "8802 03ea", false },
    { "frames behind it", "8281 00000000 61 8880 00000000 8281 00000000 62 8980 00000000",
      "[61]end 1005;", "8800", false },
    { "nonsense behind it", "8882 00000000 03e8 ffffffffffff", "end 1000;", "8802 03e8", false },
    { "a ping before it", "8981 00000000 61 8880 00000000", "end 1005;", "8a01 61 8800", false },
    /* Limits. */
    { "a byte too many", "82fe 03e9 00000000", "end 1009;", "8802 03f1", false },
    { "2^63 - 1 bytes", "82ff 7fffffffffffffff 00000000", "end 1009;", "8802 03f1", false },
    { "a byte too many in all", "0281 00000000 61 80fe 03e8 00000000", "end 1009;", "8802 03f1",
      false },
    { "a sum that wraps", "0281 00000000 61 80ff 7fffffffffffffff 00000000", "end 1009;",
      "8802 03f1", false },
    { "the limit is a message's", "0281 00000000 61 8080 00000000 0281 00000000 61", "[61]", "",
      false },
};

static const struct transport_conf conf = { .max_frame_bytes = MAX_BYTES,
                                            .ping_interval_ms = 60000,
                                            .ping_timeout_ms = 60000,
                                            .close_timeout_ms = 60000,
                                            .low_water_bytes = 1000 };

static void check(struct user *u, const struct frames_case *c)
{
    uint8_t want[256];
    char hex[1024], log[2 * LOG_FRAME_MAX + 64];
    size_t len = table_unhex(c->out, want, sizeof want), at = 0;

    for (const char *p = c->log; *p != '\0'; p++) /* blanks are for the reader, but in "end N" */
        if (*p != ' ' || strncmp(p - (p - c->log < 3 ? p - c->log : 3), "end", 3) == 0)
            log[at++] = *p;
    log[at] = '\0';
    assert_string_equal(u->log, log);
    table_hex((struct lonely_span){ u->fake.out, u->fake.len }, hex);
    if (u->fake.len != len || (len > 0 && memcmp(u->fake.out, want, len) != 0))
        fail_msg("%s: sent %s, not %s", c->name, hex, c->out);
    assert_int_equal(u->ends, strstr(c->log, "end") != NULL);
    assert_int_equal(u->t->queued, 0);
}

static void begin(struct user *u, const struct frames_case *c)
{
    user_open(u, &conf, TRANSPORT_WEBSOCKET, TRANSPORT_SERVER);
    u->t->in.websocket.accepts_text = c->text;
    u->close_at_end = true;
    u->close_code = TRANSPORT_NORMAL;
}

/* `step` bytes each time, the first time `first`. */
static void run(const struct frames_case *c, size_t first, size_t step)
{
    uint8_t in[512];
    size_t len = table_unhex(c->hex, in, sizeof in), at = 0;
    struct user u;

    begin(&u, c);
    while (at < len && !u.fake.closed) {
        size_t n = at == 0 ? first : step;

        n = n < len - at ? n : len - at;
        user_come(&u, in + at, n);
        at += n;
    }
    user_turn(&u);
    check(&u, c);
    user_close(&u);
}

static void says_what_is_right_and_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        size_t len = strlen(cases[i].hex) / 2;

        fprintf(stderr, "%s\n", cases[i].name); /* which one, if it fails */
        run(&cases[i], 512, 512);
        run(&cases[i], 1, 1);
        for (size_t cut = 1; cut < len; cut++)
            run(&cases[i], cut, 512);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(says_what_is_right_and_wrong) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
