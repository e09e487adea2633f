/* The grammar of requests: request_parser.h. Each case is cut in every way into one, two, and
 * single bytes, which must not matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "request_transcript.h"

#define H        "Host: a\r\n"
#define HEAD_MAX 256

static const struct parser_case {
    const char *name, *in, *out;
} cases[] = {
    /* Requests */
    { "plain", "POST /v1/notify?x=1 HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello",
      "POST /v1/notify?x=1 5 {Host=a}{Content-Length=5}<hello>." },
    { "no body", "GET / HTTP/1.1\r\n" H "\r\n", "GET / 0 {Host=a}." },
    { "length 0", "POST / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n",
      "POST / 0 {Host=a}{Content-Length=0}." },
    { "leading zeros", "POST / HTTP/1.1\r\n" H "Content-Length: 003\r\n\r\nabc",
      "POST / 3 {Host=a}{Content-Length=003}<abc>." },
    { "no headers", "GET / HTTP/1.0\r\n\r\n", "GET / 0  close 1.0." },
    { "two at once", "GET /a HTTP/1.1\r\n" H "\r\nGET /b HTTP/1.1\r\n" H "\r\n",
      "GET /a 0 {Host=a}. GET /b 0 {Host=a}." },
    { "second incomplete", "GET /a HTTP/1.1\r\n" H "\r\nGET /b HT", "GET /a 0 {Host=a}.~9" },
    { "body incomplete", "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhel",
      "POST / 5 {Host=a}{Content-Length=5}<hel" },
    { "blanks around values", "GET / HTTP/1.1\r\nHost:\t a \t\r\nX:\r\nY: \t\r\nZ:b c\r\n\r\n",
      "GET / 0 {Host=a}{X=}{Y=}{Z=b c}." },
    { "bytes above 127 in values", "GET / HTTP/1.1\r\n" H "X: \xc3\xa4\xff\r\n\r\n",
      "GET / 0 {Host=a}{X=\xc3\xa4\xff}." },
    { "bare LF ends a line of the head", "GET / HTTP/1.1\nHost: a\nX: b\n\n",
      "GET / 0 {Host=a}{X=b}." },
    { "empty lines before a request", "\r\n\n\r\nGET / HTTP/1.1\r\n" H "\r\n",
      "GET / 0 {Host=a}." },
    { "only empty lines", "\r\n\n\r\n", "" },
    { "empty lines behind a request", "GET / HTTP/1.1\r\n" H "\r\n\n\r\n", "GET / 0 {Host=a}." },
    { "part of an empty line", "\r\n\r", "~1" },
    { "part of a method behind empty lines", "\n\nGE", "~2" },
    { "CR before a request", "\rGET / HTTP/1.1\r\n" H "\r\n", "!400" },
    { "empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / 0 {Host=}." },
    { "v6 Host", "GET / HTTP/1.1\r\nhOST: [::1]:3003\r\n\r\n", "GET / 0 {hOST=[::1]:3003}." },
    { "repeated header", "GET / HTTP/1.1\r\n" H "A: 1\r\nA: 2\r\n\r\n",
      "GET / 0 {Host=a}{A=1}{A=2}." },
    { "value like a header", "GET / HTTP/1.1\r\n" H "A: Content-Length: 5\r\n\r\n",
      "GET / 0 {Host=a}{A=Content-Length: 5}." },
    /* Methods: all reach the application */
    { "CONNECT", "CONNECT a.b:80 HTTP/1.1\r\n" H "\r\nGET / HTTP/1.1\r\n" H "\r\n",
      "CONNECT a.b:80 0 {Host=a}. GET / 0 {Host=a}." },
    { "CONNECT of v6", "CONNECT [::1]:80 HTTP/1.1\r\n" H "\r\n", "CONNECT [::1]:80 0 {Host=a}." },
    { "unknown method", "BREW /pot HTTP/1.1\r\n" H "Content-Length: 1\r\n\r\nx",
      "BREW /pot 1 {Host=a}{Content-Length=1}<x>." },
    { "lower case method", "post / HTTP/1.1\r\n" H "\r\n", "post / 0 {Host=a}." },
    { "HEAD", "HEAD / HTTP/1.1\r\n" H "\r\n", "HEAD / 0 {Host=a} HEAD." },
    { "OPTIONS of the server", "OPTIONS * HTTP/1.1\r\n" H "\r\n", "OPTIONS * 0 {Host=a}." },
    { "method of 32 bytes", "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_!#$% / HTTP/1.1\r\n" H "\r\n",
      "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_!#$% / 0 {Host=a}." },
    { "method of 33 bytes", "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_!#$%& / HTTP/1.1\r\n" H "\r\n", "!400" },
    { "blank before the method", " GET / HTTP/1.1\r\n" H "\r\n", "!400" },
    { "no method", "/ HTTP/1.1\r\n" H "\r\n", "!400" },
    { "control byte in the method", "G\x01T / HTTP/1.1\r\n" H "\r\n", "!400" },
    { "TLS", "\x16\x03\x01\x02", "!400" },
    /* Targets */
    { "absolute", "GET http://h:1/a?b HTTP/1.1\r\n" H "\r\n", "GET /a?b 0 {Host=a}." },
    { "absolute without path", "GET http://h HTTP/1.1\r\n" H "\r\n", "GET / 0 {Host=a}." },
    { "absolute, query only", "GET http://h?b HTTP/1.1\r\n" H "\r\n", "GET ?b 0 {Host=a}." },
    { "URL in a query", "GET /a?u=http://h/x HTTP/1.1\r\n" H "\r\n",
      "GET /a?u=http://h/x 0 {Host=a}." },
    { "not decoded", "GET /%64%2F//.. HTTP/1.1\r\n" H "\r\n", "GET /%64%2F//.. 0 {Host=a}." },
    { "relative", "GET a HTTP/1.1\r\n" H "\r\n", "!400" },
    { "no target", "GET HTTP/1.1\r\n" H "\r\n", "!400" },
    { "two blanks before the target", "GET  / HTTP/1.1\r\n" H "\r\n", "!400" },
    { "two blanks behind the target", "GET /  HTTP/1.1\r\n" H "\r\n", "!400" },
    { "tab behind the method", "GET\t/ HTTP/1.1\r\n" H "\r\n", "!400" },
    { "tab in the target", "GET /a\tb HTTP/1.1\r\n" H "\r\n", "!400" },
    { "byte above 127 in the target", "GET /\xe4 HTTP/1.1\r\n" H "\r\n", "!400" },
    { "control byte in the target", "GET /\x01 HTTP/1.1\r\n" H "\r\n", "!400" },
    /* Versions */
    { "HTTP/2.0", "GET / HTTP/2.0\r\n" H "\r\n", "!505" },
    { "HTTP/1.2", "GET / HTTP/1.2\r\n" H "\r\n", "!505" },
    { "HTTP/0.9 said", "GET / HTTP/0.9\r\n" H "\r\n", "!505" },
    { "HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "!505" },
    { "HTTP/0.9 meant", "GET /\r\n\r\n", "!400" },
    { "blank behind the version", "GET / HTTP/1.1 \r\n" H "\r\n", "!400" },
    { "lower case version", "GET / http/1.1\r\n" H "\r\n", "!400" },
    { "version of three digits", "GET / HTTP/1.10\r\n" H "\r\n", "!400" },
    /* Host */
    { "Host missing", "GET / HTTP/1.1\r\nX: a\r\n\r\n", "!400" },
    { "Host twice", "GET / HTTP/1.1\r\n" H H "\r\n", "!400" },
    { "Host twice in 1.0", "GET / HTTP/1.0\r\n" H H "\r\n", "!400" },
    { "Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "!400" },
    { "Host with a blank", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "!400" },
    { "Host with a user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "!400" },
    /* Header lines */
    { "blank before the colon", "GET / HTTP/1.1\r\n" H "X : a\r\n\r\n", "!400" },
    { "Content-Length with a blank", "POST / HTTP/1.1\r\n" H "Content-Length : 5\r\n\r\nhello",
      "!400" },
    { "tab before the colon", "GET / HTTP/1.1\r\n" H "X\t: a\r\n\r\n", "!400" },
    { "blank in a name", "GET / HTTP/1.1\r\n" H "X Y: a\r\n\r\n", "!400" },
    { "no name", "GET / HTTP/1.1\r\n" H ": a\r\n\r\n", "!400" },
    { "no colon", "GET / HTTP/1.1\r\n" H "X\r\n\r\n", "!400" },
    { "folded", "GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n", "!400" },
    { "folded by a tab", "GET / HTTP/1.1\r\n" H "X: a\r\n\tb\r\n\r\n", "!400" },
    { "folded into nothing", "GET / HTTP/1.1\r\n" H "X: a\r\n \r\n\r\n", "!400" },
    { "folded from nothing", "GET / HTTP/1.1\r\n" H "X:\r\n b\r\n\r\n", "!400" },
    { "folded first line", "GET / HTTP/1.1\r\n X: b\r\n" H "\r\n", "!400" },
    { "CR in a value", "GET / HTTP/1.1\r\n" H "X: a\rb\r\n\r\n", "!400" },
    { "two CR", "GET / HTTP/1.1\r\n" H "X: a\r\r\n\r\n", "!400" },
    { "CR alone ends the head", "GET / HTTP/1.1\r\n" H "\rX", "!400" },
    { "control byte in a value", "GET / HTTP/1.1\r\n" H "X: a\x01\r\n\r\n", "!400" },
    { "DEL in a value", "GET / HTTP/1.1\r\n" H "X: a\x7f\r\n\r\n", "!400" },
    /* Framing */
    { "length twice, equal",
      "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", "!400" },
    { "length twice, unequal",
      "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", "!400" },
    { "length +3", "POST / HTTP/1.1\r\n" H "Content-Length: +3\r\n\r\nabc", "!400" },
    { "length -3", "POST / HTTP/1.1\r\n" H "Content-Length: -3\r\n\r\nabc", "!400" },
    { "length 3,3", "POST / HTTP/1.1\r\n" H "Content-Length: 3,3\r\n\r\nabc", "!400" },
    { "length 0x3", "POST / HTTP/1.1\r\n" H "Content-Length: 0x3\r\n\r\nabc", "!400" },
    { "length 3 3", "POST / HTTP/1.1\r\n" H "Content-Length: 3 3\r\n\r\nabc", "!400" },
    { "length of nothing", "POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", "!400" },
    { "length beyond 64 bits",
      "POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551616\r\n\r\n", "!400" },
    { "length and chunked",
      "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "!400" },
    { "chunked and length",
      "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
      "!400" },
    { "chunked twice",
      "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
      "!400" },
    { "gzip, chunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", "!400" },
    { "chunked, identity", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, identity\r\n\r\n",
      "!400" },
    { "chunked, chunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, chunked\r\n\r\n",
      "!400" },
    { "xchunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n", "!400" },
    { "gzip", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n", "!400" },
    { "identity", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n", "!400" },
    { "coding of nothing", "POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n\r\n", "!400" },
    { "quoted coding", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: \"chunked\"\r\n\r\n", "!400" },
    { "chunked in 1.0", "POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "!400" },
    /* Connection and Expect */
    { "close", "GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n",
      "GET / 0 {Host=a}{Connection=close} close." },
    { "close among others", "GET / HTTP/1.1\r\n" H "Connection: Foo, CLOSE\r\n\r\n",
      "GET / 0 {Host=a}{Connection=Foo, CLOSE} close." },
    { "close in a second header",
      "GET / HTTP/1.1\r\n" H "Connection: keep-alive\r\nConnection: close\r\n\r\n",
      "GET / 0 {Host=a}{Connection=keep-alive}{Connection=close} close." },
    { "kept 1.0", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
      "GET / 0 {Connection=Keep-Alive} 1.0." },
    { "upgrade is an ordinary request",
      "GET / HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
      "GET / HTTP/1.1\r\n" H "\r\n",
      "GET / 0 {Host=a}{Connection=Upgrade}{Upgrade=websocket}. GET / 0 {Host=a}." },
    { "upgrade with a body",
      "POST / HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab",
      "POST / 2 {Host=a}{Connection=Upgrade}{Upgrade=h2c}{Content-Length=2}<ab>." },
    { "expects 100", "POST / HTTP/1.1\r\n" H "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
      "POST / 1 {Host=a}{Expect=100-Continue}{Content-Length=1} continue<x>." },
    { "expects else", "POST / HTTP/1.1\r\n" H "Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx",
      "!417" },
    { "expects in 1.0", "POST / HTTP/1.0\r\nExpect: x\r\nContent-Length: 1\r\n\r\nx",
      "POST / 1 {Expect=x}{Content-Length=1} close 1.0<x>." },
#define CHUNKED "POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n"
#define OUT     "POST / chunked {Host=a}{Transfer-Encoding=Chunked}"
    /* Chunks */
    { "chunks", CHUNKED "5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n", OUT "<hello0123456789>." },
    { "no chunk", CHUNKED "0\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", OUT ". GET / 0 {Host=a}." },
    { "chunk extensions", CHUNKED "5;a=b;c=\"d\"\r\nhello\r\n0 \t;x\r\n\r\n", OUT "<hello>." },
    { "blanks behind a size", CHUNKED "5 \r\nhello\r\n0\r\n\r\n", OUT "<hello>." },
    { "trailers", CHUNKED "1\r\nx\r\n000\r\nA: b\r\nContent-Length: 5\r\n\r\n", OUT "<x>." },
    { "chunk incomplete", CHUNKED "5\r\nhel", OUT "<hel" },
    { "size of 16 digits", CHUNKED "00000000000000001\r\nx\r\n0\r\n\r\n", OUT "<x>." },
    { "size beyond 64 bits", CHUNKED "10000000000000001\r\nx", OUT " !400" },
    { "size of nothing", CHUNKED "\r\n\r\n", OUT " !400" },
    { "extension of nothing", CHUNKED ";a\r\n", OUT " !400" },
    { "size in 0x", CHUNKED "0x5\r\nhello\r\n", OUT " !400" },
    { "negative size", CHUNKED "-1\r\n", OUT " !400" },
    { "blank before the size", CHUNKED " 5\r\nhello", OUT " !400" },
    { "blank within the size", CHUNKED "5 5\r\nhello", OUT " !400" },
    { "bare LF behind a size", CHUNKED "5\nhello\r\n0\r\n\r\n", OUT " !400" },
    { "bare LF in an extension", CHUNKED "5;a\nhello\r\n0\r\n\r\n", OUT " !400" },
    { "bare CR behind a size", CHUNKED "5\rhello\r\n0\r\n\r\n", OUT " !400" },
    { "no line end behind a chunk", CHUNKED "5\r\nhelloXX0\r\n\r\n", OUT "<hello> !400" },
    { "bare LF behind a chunk", CHUNKED "5\r\nhello\n0\r\n\r\n", OUT "<hello> !400" },
    { "chunk longer than said", CHUNKED "5\r\nhello!\r\n0\r\n\r\n", OUT "<hello> !400" },
    { "bare LF behind the last", CHUNKED "0\r\n\n", OUT " !400" },
    { "bare LF in a trailer", CHUNKED "0\r\nA: b\n\r\n", OUT " !400" },
    { "control byte in an extension", CHUNKED "5;\x01\r\nhello\r\n", OUT " !400" },
    { "CR CR LF at the end", CHUNKED "0\r\n\r\r\n", OUT " !400" },
};

static struct guard guard;

static void check(const char *name, const char *way, char *got, const char *want)
{
    if (strcmp(got, want) != 0)
        print_error("%s, %s:\n  got  %s\n  want %s\n", name, way, got, want);
    assert_string_equal(got, want);
    free(got);
}

static size_t one(void *arg)
{
    (void)arg;
    return 1;
}

/* First the number of bytes at arg, then all the rest. */
static size_t two_parts(void *arg)
{
    size_t n = *(size_t *)arg;

    *(size_t *)arg = SIZE_MAX;
    return n;
}

static void reads_the_table_however_it_is_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(cases); i++) {
        const struct parser_case *c = &cases[i];
        struct lonely_span in = { (const uint8_t *)c->in, strlen(c->in) };

        check(c->name, "whole", transcript_of(&guard, in, HEAD_MAX, NULL, NULL), c->out);
        check(c->name, "byte by byte", transcript_of(&guard, in, HEAD_MAX, one, NULL), c->out);
        for (size_t cut = 1; cut < in.len; cut++) {
            size_t n = cut;

            check(c->name, "in two", transcript_of(&guard, in, HEAD_MAX, two_parts, &n), c->out);
        }
    }
}

static bool in_name(uint8_t c)
{
    return c > ' ' && c < 0x7f && strchr("\"(),/:;<=>?@[\\]{}", c) == NULL;
}

static bool in_value(uint8_t c)
{
    return c == '\t' || (c >= ' ' && c != 0x7f);
}

static bool in_target(uint8_t c)
{
    return c > ' ' && c < 0x7f;
}

/* Every byte at one place of a request: `keeps` names those that must be let through. */
static void try_all_bytes(const char *before, const char *behind, const char *out_before,
                          const char *out_behind, bool (*passes)(uint8_t c))
{
    for (unsigned c = 0; c < 256; c++) {
        char in[512], want[512];
        size_t len = strlen(before);
        struct lonely_span span = { (const uint8_t *)in, len + 1 + strlen(behind) };

        if (c == ':' && passes == in_name && before[len - 1] == 'X')
            continue; /* ends the name */
        memcpy(in, before, len);
        in[len] = (char)c;
        strcpy(in + len + 1, behind);
        snprintf(want, sizeof(want), "%s%c%s", out_before, (char)c, out_behind);
        check(before, "with each byte", transcript_of(&guard, span, HEAD_MAX, NULL, NULL),
              passes((uint8_t)c) ? want : "!400");
    }
}

static void lets_through_only_the_bytes_that_may_be(void **state)
{
    (void)state;
    try_all_bytes("GET / HTTP/1.1\r\nHost: a\r\nX", "Y:b\r\n\r\n", "GET / 0 {Host=a}{X", "Y=b}.",
                  in_name);
    try_all_bytes("GET / HTTP/1.1\r\nHost: a\r\nX:a", "b\r\n\r\n", "GET / 0 {Host=a}{X=a", "b}.",
                  in_value);
    try_all_bytes("GET /a", "b HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a", "b 0 {Host=a}.", in_target);
    try_all_bytes("G", "T / HTTP/1.1\r\nHost: a\r\n\r\n", "G", "T / 0 {Host=a}.", in_name);
}

/* A head of exactly `len` bytes whose target, or else last value, is long. */
static char *long_head(size_t len, bool long_target)
{
    static const char *const parts[2][2] = {
        { "GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n" },
        { "GET /", " HTTP/1.1\r\nHost: a\r\n\r\n" },
    };
    const char *before = parts[long_target][0], *behind = parts[long_target][1];
    size_t fill = len - strlen(before) - strlen(behind);
    char *s = malloc(len + 1);

    assert_non_null(s);
    strcpy(s, before);
    memset(s + strlen(before), 'y', fill);
    strcpy(s + strlen(before) + fill, behind);
    return s;
}

static void bounds_heads(void **state)
{
    static const struct {
        size_t len;
        bool long_target;
        const char *out; /* NULL: accepted */
    } bounds[] = {
        { 256, false, NULL }, { 257, false, "!431" }, { 5000, false, "!431" },
        { 256, true, NULL },  { 5000, true, "!414" }, { 257, true, "!431" },
    };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(bounds); i++) {
        char *head = long_head(bounds[i].len, bounds[i].long_target);
        struct lonely_span in = { (const uint8_t *)head, bounds[i].len };
        char *whole = transcript_of(&guard, in, HEAD_MAX, NULL, NULL);

        if (bounds[i].out != NULL)
            assert_string_equal(whole, bounds[i].out);
        else
            assert_int_equal(whole[strlen(whole) - 1], '.');
        check("long head", "byte by byte", transcript_of(&guard, in, HEAD_MAX, one, NULL), whole);
        free(whole);
        free(head);
    }
}

/* The library has a bound of its own, which a large configuration must not turn into a hang. */
static void bounds_heads_beyond_the_library(void **state)
{
    char *head = long_head(200000, false);
    struct lonely_span in = { (const uint8_t *)head, 200000 };
    struct guard large = guard_create(200000);
    char *got;

    (void)state;
    check("huge head", "just too long", transcript_of(&large, in, 199999, NULL, NULL), "!431");
    got = transcript_of(&large, in, 200000, NULL, NULL);
    assert_ptr_equal(strstr(got, "GET / 0 {Host=a}{X=y"), got);
    free(got);
    guard_destroy(&large);
    free(head);
}

static void bounds_the_number_of_headers(void **state)
{
    for (int extra = 0; extra < 2; extra++) {
        char in[2048] = "GET / HTTP/1.1\r\nHost:\r\n", *got;

        for (int i = 1; i < REQUEST_HEADERS_MAX + extra; i++)
            strcat(in, "a:\r\n");
        strcat(in, "\r\n");
        got = transcript_of(&guard, (struct lonely_span){ (uint8_t *)in, strlen(in) }, 4096, NULL,
                            NULL);
        if (extra == 0)
            assert_int_equal(got[strlen(got) - 1], '.');
        else
            assert_string_equal(got, "!431");
        free(got);
    }
    (void)state;
}

static void bounds_what_comes_between_chunks(void **state)
{
    static const char *const beginnings[] = { "5;", "0\r\nA: ", "5 ", "0" };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(beginnings); i++) {
        char in[2048] = CHUNKED, *got;
        size_t len;

        strcat(in, beginnings[i]);
        len = strlen(in);
        memset(in + len, i == 2 ? ' ' : i == 3 ? '0' : 'x', HEAD_MAX + 1);
        in[len + HEAD_MAX + 1] = '\0';
        got = transcript_of(&guard, (struct lonely_span){ (uint8_t *)in, strlen(in) }, HEAD_MAX,
                            NULL, NULL);
        assert_string_equal(got, OUT " !400");
        free(got);
    }
}

static void counts_what_is_left_of_a_body(void **state)
{
    static const char with_length[] = "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nab";
    static const char chunked[] = CHUNKED "5\r\nab";
    struct request_pool pool;
    struct request_parser p;
    struct http_head head;
    struct request_step step;

    (void)state;
    request_pool_init(&pool);
    request_parser_init(&p, &pool, HEAD_MAX);
    step = request_parser_next(&p, LIT(with_length), &head);
    assert_int_equal(step.event, REQUEST_HEAD);
    assert_true(request_parser_left(&p) == 5);
    step = request_parser_next(&p, LIT("ab"), &head);
    assert_true(request_parser_left(&p) == 3);
    step = request_parser_next(&p, LIT("cde"), &head);
    assert_true(request_parser_left(&p) == 0);
    step = request_parser_next(&p, LIT(""), &head);
    assert_int_equal(step.event, REQUEST_END);
    step = request_parser_next(&p, LIT(chunked), &head);
    assert_int_equal(step.event, REQUEST_HEAD);
    assert_true(request_parser_left(&p) == HTTP_LENGTH_UNKNOWN);
    request_parser_fini(&p);
    request_pool_fini(&pool);
}

static void finds_headers_without_case(void **state)
{
    static const struct http_header headers[] = {
        { { (const uint8_t *)"X", 1 }, { (const uint8_t *)"0", 1 } },
        { { (const uint8_t *)"authorization", 13 }, { (const uint8_t *)"1", 1 } },
        { { (const uint8_t *)"Authorization", 13 }, { (const uint8_t *)"2", 1 } },
    };
    const struct http_head head = { .headers = headers, .header_count = 3 };

    (void)state;
    assert_ptr_equal(http_head_find(&head, "Authorization"), &headers[1]);
    assert_null(http_head_find(&head, "Authorizatio"));
    assert_null(http_head_find(&head, "Authorizations"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_the_table_however_it_is_cut),
        cmocka_unit_test(lets_through_only_the_bytes_that_may_be),
        cmocka_unit_test(bounds_heads),
        cmocka_unit_test(bounds_heads_beyond_the_library),
        cmocka_unit_test(bounds_the_number_of_headers),
        cmocka_unit_test(bounds_what_comes_between_chunks),
        cmocka_unit_test(counts_what_is_left_of_a_body),
        cmocka_unit_test(finds_headers_without_case),
    };
    int failed;

    guard = guard_create(8192);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    guard_destroy(&guard);
    return failed;
}
