/*
 * The opening handshake of a websocket: websocket_handshake.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tables.h"
#include "websocket_handshake.h"

#define GOOD_KEY "dGhlIHNhbXBsZSBub25jZQ==" /* (RFC 6455, 1.3) */
#define ACCEPT   "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define NONCE    "the sample nonce"

static const char *const listed[] = { "https://example.org", "null" };
static const struct websocket_origins some = { listed, 2, false }, any = { NULL, 0, true },
                                      nobody = { NULL, 0, false };

/* Lines "Name: value", split at '\n'. */
static const struct request_case {
    const char *name, *method, *lines;
    int status;
    const struct websocket_origins *origins; /* NULL: any */
    bool version_1_0;
    uint64_t content_length;
} cases[] = {
    { "good", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: "
      "13\nSec-WebSocket-Key: " GOOD_KEY,
      101, NULL, false, 0 },
    { "tokens in lists, without case", "GET",
      "upgrade: foo, WebSocket\nconnection: keep-alive\nconnection: x , upgrade\t\n"
      "sec-websocket-version: 13\nsec-websocket-key: " GOOD_KEY,
      101, NULL, false, 0 },
    { "offers are not taken", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n"
      "Sec-WebSocket-Extensions: permessage-deflate\nSec-WebSocket-Protocol: a, b\n"
      "Sec-WebSocket-Key: " GOOD_KEY,
      101, NULL, false, 0 },
    { "no upgrade", "GET", "Host: a", 404, NULL, false, 0 },
    { "another upgrade", "GET", "Upgrade: h2c, xwebsocket\nConnection: Upgrade", 404, NULL, false,
      0 },
    { "POST without upgrade", "POST", "Host: a", 404, NULL, false, 0 },
    { "POST", "POST",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: "
      "13\nSec-WebSocket-Key: " GOOD_KEY,
      405, NULL, false, 0 },
    { "HTTP/1.0", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: "
      "13\nSec-WebSocket-Key: " GOOD_KEY,
      400, NULL, true, 0 },
    { "a body", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: "
      "13\nSec-WebSocket-Key: " GOOD_KEY,
      400, NULL, false, 1 },
    { "a body of unknown length", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: "
      "13\nSec-WebSocket-Key: " GOOD_KEY,
      400, NULL, false, HTTP_LENGTH_UNKNOWN },
    { "no Connection", "GET",
      "Upgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: " GOOD_KEY, 400, NULL,
      false, 0 },
    { "another Connection", "GET",
      "Upgrade: websocket\nConnection: close\nSec-WebSocket-Version: "
      "13\nSec-WebSocket-Key: " GOOD_KEY,
      400, NULL, false, 0 },
    { "version 8", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: "
      "8\nSec-WebSocket-Key: " GOOD_KEY,
      426, NULL, false, 0 },
    { "no version", "GET", "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Key: " GOOD_KEY,
      426, NULL, false, 0 },
    { "two versions", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\nSec-WebSocket-Version: "
      "8\n"
      "Sec-WebSocket-Key: " GOOD_KEY,
      400, NULL, false, 0 },
    { "no key", "GET", "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13", 400,
      NULL, false, 0 },
    { "two keys", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: "
      "13\nSec-WebSocket-Key: " GOOD_KEY "\nSec-WebSocket-Key: " GOOD_KEY,
      400, NULL, false, 0 },
    { "a key of 15 bytes", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j",
      400, NULL, false, 0 },
    { "a key of 18 bytes", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWFi",
      400, NULL, false, 0 },
    { "a key that is none", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZS-ub25jZQ==",
      400, NULL, false, 0 },
    { "no page", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: "
      "13\nSec-WebSocket-Key: " GOOD_KEY,
      101, &nobody, false, 0 },
    { "a page of nobody's", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\nOrigin: "
      "https://example.org\n"
      "Sec-WebSocket-Key: " GOOD_KEY,
      403, &nobody, false, 0 },
    { "a listed page", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\nOrigin: "
      "HTTPS://example.org\n"
      "Sec-WebSocket-Key: " GOOD_KEY,
      101, &some, false, 0 },
    { "another port", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n"
      "Origin: https://example.org:8443\nSec-WebSocket-Key: " GOOD_KEY,
      403, &some, false, 0 },
    { "an empty origin", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\nOrigin:\n"
      "Sec-WebSocket-Key: " GOOD_KEY,
      403, &some, false, 0 },
    { "two origins", "GET",
      "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\nOrigin: "
      "https://example.org\n"
      "Origin: https://example.org\nSec-WebSocket-Key: " GOOD_KEY,
      400, &some, false, 0 },
};

static struct lonely_span span(const char *begin, const char *end)
{
    while (begin < end && *begin == ' ')
        begin++;
    return (struct lonely_span){ (const uint8_t *)begin, (size_t)(end - begin) };
}

static size_t split(const char *lines, struct http_header *headers)
{
    size_t n = 0;

    while (*lines != '\0') {
        const char *colon = strchr(lines, ':'), *end = strchrnul(lines, '\n');

        table_require(colon != NULL && n < 10, "header lines");
        headers[n].name = span(lines, colon);
        headers[n++].value = span(colon + 1, end);
        lines = *end == '\0' ? end : end + 1;
    }
    return n;
}

static void judges_requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        struct http_header headers[10];
        struct http_head head = { .method = { (const uint8_t *)cases[i].method,
                                              strlen(cases[i].method) },
                                  .headers = headers,
                                  .version_1_0 = cases[i].version_1_0,
                                  .content_length = cases[i].content_length };
        char answer[WEBSOCKET_ANSWER_MAX];

        fprintf(stderr, "%s\n", cases[i].name);
        head.header_count = split(cases[i].lines, headers);
        assert_int_equal(websocket_check_request(
                             &head, cases[i].origins == NULL ? &any : cases[i].origins, answer),
                         cases[i].status);
        if (cases[i].status == 101)
            assert_string_equal(answer, "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                                        "Sec-WebSocket-Accept: " ACCEPT "\r\n");
        else if (cases[i].status == 426)
            assert_string_equal(answer, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
        else
            assert_string_equal(answer, cases[i].status == 405 ? "Allow: GET\r\n" : "");
    }
}

static void asks_as_a_client(void **state)
{
    struct websocket_request request = { .host = "a:1", .target = "/v1/websocket" };
    struct buf out;

    (void)state;
    memcpy(request.nonce, NONCE, sizeof request.nonce);
    buf_init(&out, 1000);
    assert_true(websocket_write_request(&out, &request));
    assert_true(buf_append_byte(&out, 0));
    assert_string_equal((char *)out.ptr, "GET /v1/websocket HTTP/1.1\r\nHost: a:1\r\n"
                                         "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                                         "Sec-WebSocket-Version: 13\r\n"
                                         "Sec-WebSocket-Key: " GOOD_KEY "\r\n\r\n");
    buf_fini(&out);
    request.headers = "Authorization: x\r\n";
    assert_true(websocket_write_request(&out, &request));
    assert_memory_equal(out.ptr + out.len - 22, "\r\nAuthorization: x\r\n\r\n", 22);
    buf_fini(&out);
    buf_init(&out, 100);
    assert_false(websocket_write_request(&out, &request));
    buf_fini(&out);
}

#define SWITCH "HTTP/1.1 101 Switching Protocols\r\n"
#define TOKENS "Connection: upgrade\r\nUpgrade: WebSocket\r\n"
#define PROOF  "Sec-WebSocket-Accept: " ACCEPT "\r\n"

static const struct reply_case {
    const char *name, *text;
    enum websocket_reply reply;
    int status;
} replies[] = {
    { "good", SWITCH TOKENS PROOF "\r\n", WEBSOCKET_REPLY_OPEN, 101 },
    { "no reason, bare line ends", "HTTP/1.1 101\n" TOKENS PROOF "\n", WEBSOCKET_REPLY_OPEN, 101 },
    { "no extension", SWITCH TOKENS PROOF "Sec-WebSocket-Extensions: \r\n\r\n",
      WEBSOCKET_REPLY_OPEN, 101 },
    { "refused", "HTTP/1.1 403 Forbidden\r\nX: y\r\n\r\n", WEBSOCKET_REPLY_REFUSED, 403 },
    { "elsewhere", "HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n", WEBSOCKET_REPLY_REFUSED, 302 },
    { "not asked for", "HTTP/1.1 200 OK\r\n" TOKENS PROOF "\r\n", WEBSOCKET_REPLY_REFUSED, 200 },
    { "no proof", SWITCH TOKENS "\r\n", WEBSOCKET_REPLY_BAD, 101 },
    { "another proof", SWITCH TOKENS "Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
      WEBSOCKET_REPLY_BAD, 101 },
    { "two proofs", SWITCH TOKENS PROOF PROOF "\r\n", WEBSOCKET_REPLY_BAD, 101 },
    { "no tokens", SWITCH PROOF "\r\n", WEBSOCKET_REPLY_BAD, 101 },
    { "an extension that was not offered",
      SWITCH TOKENS PROOF "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
      WEBSOCKET_REPLY_BAD, 101 },
    { "a protocol that was not offered", SWITCH TOKENS PROOF "Sec-WebSocket-Protocol: a\r\n\r\n",
      WEBSOCKET_REPLY_BAD, 101 },
    { "HTTP/1.0", "HTTP/1.0 101 X\r\n" TOKENS PROOF "\r\n", WEBSOCKET_REPLY_BAD, 0 },
    { "no number", "HTTP/1.1 1o1 X\r\n" TOKENS PROOF "\r\n", WEBSOCKET_REPLY_BAD, 0 },
    { "four digits", "HTTP/1.1 1011 X\r\n" TOKENS PROOF "\r\n", WEBSOCKET_REPLY_BAD, 0 },
    { "empty", "\r\n", WEBSOCKET_REPLY_BAD, 0 },
    { "a folded line", SWITCH TOKENS " X: y\r\n" PROOF "\r\n", WEBSOCKET_REPLY_BAD, 101 },
    { "no colon", SWITCH TOKENS "X\r\n" PROOF "\r\n", WEBSOCKET_REPLY_BAD, 101 },
    { "a blank name", SWITCH TOKENS "X : y\r\n" PROOF "\r\n", WEBSOCKET_REPLY_BAD, 101 },
};

static void is_not_open(struct lonely_span prefix, void *arg)
{
    const struct reply_case *c = arg;
    enum websocket_reply reply = websocket_check_reply(prefix, (const uint8_t *)NONCE).reply;

    assert_true(reply == WEBSOCKET_REPLY_MORE ||
                (reply == WEBSOCKET_REPLY_BAD && c->reply == WEBSOCKET_REPLY_BAD));
}

static void judges_replies(void **state)
{
    struct guard g = guard_create(1000);

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(replies); i++) {
        const struct reply_case *c = &replies[i];
        struct lonely_span text = { (const uint8_t *)c->text, strlen(c->text) };
        struct reply_case copy = *c;
        struct websocket_reply_result r;

        fprintf(stderr, "%s\n", c->name);
        r = websocket_check_reply(guard_lay(&g, text), (const uint8_t *)NONCE);
        assert_int_equal(r.reply, c->reply);
        assert_int_equal(r.status, c->status);
        if (r.reply == WEBSOCKET_REPLY_OPEN)
            assert_int_equal(r.used, text.len);
        guard_each_prefix(&g, text, is_not_open, &copy);
    }
    guard_destroy(&g);
}

static void leaves_what_follows_a_reply(void **state)
{
    (void)state;
    assert_int_equal(
        websocket_check_reply(LIT(SWITCH TOKENS PROOF "\r\n\x82\0\n\n"), (const uint8_t *)NONCE)
            .used,
        sizeof(SWITCH TOKENS PROOF "\r\n") - 1);
}

static void bounds_the_headers_of_a_reply(void **state)
{
    char text[2000] = SWITCH;

    (void)state;
    for (int i = 0; i < 101; i++)
        strcat(text, "X: y\r\n");
    strcat(text, "\r\n");
    assert_int_equal(
        websocket_check_reply((struct lonely_span){ (const uint8_t *)text, strlen(text) },
                              (const uint8_t *)NONCE)
            .reply,
        WEBSOCKET_REPLY_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judges_requests),
        cmocka_unit_test(asks_as_a_client),
        cmocka_unit_test(judges_replies),
        cmocka_unit_test(leaves_what_follows_a_reply),
        cmocka_unit_test(bounds_the_headers_of_a_reply),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
