/*
 * The opening handshake of a websocket (websocket_handshake.h). The broadcaster's route calls the
 * server's half, liblonelypsc the client's.
 */
#include "websocket_handshake.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define KEY_LEN           24 /* of 16 bytes in base64 */
#define ACCEPT_LEN        28 /* of 20 */
#define REPLY_HEADERS_MAX 100

static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* (RFC 6455, 1.3) */

static bool is_text(struct lonely_span s, const char *text)
{
    size_t len = strlen(text);

    return s.len == len && strncasecmp((const char *)s.ptr, text, len) == 0;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static struct lonely_span trim(struct lonely_span s)
{
    while (s.len > 0 && is_blank(s.ptr[0])) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

/* Is it in the comma separated list? */
static bool list_has(struct lonely_span list, const char *token)
{
    for (;;) {
        const uint8_t *comma = list.len == 0 ? NULL : memchr(list.ptr, ',', list.len);
        size_t len = comma == NULL ? list.len : (size_t)(comma - list.ptr);

        if (is_text(trim((struct lonely_span){ list.ptr, len }), token))
            return true;
        if (comma == NULL)
            return false;
        list.ptr += len + 1;
        list.len -= len + 1;
    }
}

/* In any header of that name. */
static bool head_has(const struct http_head *head, const char *name, const char *token)
{
    for (size_t i = 0; i < head->header_count; i++)
        if (is_text(head->headers[i].name, name) && list_has(head->headers[i].value, token))
            return true;
    return false;
}

/* The value of the one header of that name. false: there are more. `ptr` NULL: there is none. */
static bool find_one(const struct http_head *head, const char *name, struct lonely_span *value)
{
    unsigned found = 0;

    *value = (struct lonely_span){ 0 };
    for (size_t i = 0; i < head->header_count; i++) {
        if (!is_text(head->headers[i].name, name))
            continue;
        *value = head->headers[i].value;
        found++;
    }
    return found <= 1;
}

/* ---- The key ---- */

static bool is_base64_digit(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/';
}

static bool is_key(struct lonely_span key)
{
    if (key.len != KEY_LEN || memcmp(key.ptr + KEY_LEN - 2, "==", 2) != 0)
        return false;
    for (size_t i = 0; i < KEY_LEN - 2; i++)
        if (!is_base64_digit(key.ptr[i]))
            return false;
    return true;
}

/* What proves that the key was read (RFC 6455, 4.2.2). */
static void make_accept(const uint8_t key[KEY_LEN], char accept[ACCEPT_LEN + 1])
{
    char text[KEY_LEN + sizeof(magic)];
    unsigned char digest[EVP_MAX_MD_SIZE];

    memcpy(text, key, KEY_LEN);
    memcpy(text + KEY_LEN, magic, sizeof(magic));
    if (EVP_Q_digest(NULL, "SHA1", NULL, text, KEY_LEN + sizeof(magic) - 1, digest, NULL) != 1)
        abort(); /* no memory */
    EVP_EncodeBlock((unsigned char *)accept, digest, 20);
}

/* ---- The server's side ---- */

static bool is_allowed(const struct websocket_origins *origins, struct lonely_span origin)
{
    if (origin.ptr == NULL || origins->any)
        return true;
    for (size_t i = 0; i < origins->count; i++)
        if (is_text(origin, origins->list[i]))
            return true;
    return false;
}

int websocket_check_request(const struct http_head *head, const struct websocket_origins *origins,
                            char headers[WEBSOCKET_ANSWER_MAX])
{
    struct lonely_span key, version, origin;
    char accept[ACCEPT_LEN + 1];

    headers[0] = '\0';
    if (!head_has(head, "Upgrade", "websocket"))
        return 404;
    if (head->method.len != 3 || memcmp(head->method.ptr, "GET", 3) != 0) {
        snprintf(headers, WEBSOCKET_ANSWER_MAX, "Allow: GET\r\n");
        return 405;
    }
    if (head->version_1_0 || head->content_length != 0 ||
        !head_has(head, "Connection", "Upgrade") ||
        !find_one(head, "Sec-WebSocket-Version", &version) ||
        !find_one(head, "Sec-WebSocket-Key", &key) || !find_one(head, "Origin", &origin))
        return 400;
    if (!is_text(version, "13")) {
        snprintf(headers, WEBSOCKET_ANSWER_MAX,
                 "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
        return 426;
    }
    if (!is_key(key))
        return 400;
    if (!is_allowed(origins, origin))
        return 403;
    make_accept(key.ptr, accept);
    snprintf(headers, WEBSOCKET_ANSWER_MAX,
             "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n", accept);
    return 101;
}

/* ---- The client's side ---- */

static void make_key(const uint8_t nonce[WEBSOCKET_NONCE_BYTES], char key[KEY_LEN + 1])
{
    EVP_EncodeBlock((unsigned char *)key, nonce, WEBSOCKET_NONCE_BYTES);
}

bool websocket_write_request(struct buf *out, const struct websocket_request *request)
{
    char key[KEY_LEN + 1];
    const char *const parts[] = { "GET ",
                                  request->target,
                                  " HTTP/1.1\r\nHost: ",
                                  request->host,
                                  "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
                                  key,
                                  "\r\n",
                                  request->headers == NULL ? "" : request->headers,
                                  "\r\n" };

    make_key(request->nonce, key);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (!buf_append_str(out, parts[i]))
            return false;
    return true;
}

/* Takes a line of `in`, without its end. false: it has none. */
static bool take_line(struct lonely_span *in, struct lonely_span *line)
{
    const uint8_t *end = in->len == 0 ? NULL : memchr(in->ptr, '\n', in->len);
    size_t len;

    if (end == NULL)
        return false;
    len = (size_t)(end - in->ptr);
    *line = (struct lonely_span){ in->ptr, len };
    if (len > 0 && in->ptr[len - 1] == '\r')
        line->len--;
    in->ptr += len + 1;
    in->len -= len + 1;
    return true;
}

/* "HTTP/1.1 101 Switching Protocols": 101; 0: no status line. */
static int status_of(struct lonely_span line)
{
    const uint8_t *digits = line.ptr + 9;

    if (line.len < 12 || memcmp(line.ptr, "HTTP/1.1 ", 9) != 0 ||
        (line.len > 12 && line.ptr[12] != ' '))
        return 0;
    for (int i = 0; i < 3; i++)
        if (digits[i] < '0' || digits[i] > '9')
            return 0;
    return (digits[0] - '0') * 100 + (digits[1] - '0') * 10 + (digits[2] - '0');
}

static bool split_header(struct lonely_span line, struct http_header *out)
{
    const uint8_t *colon = memchr(line.ptr, ':', line.len);
    size_t len = colon == NULL ? 0 : (size_t)(colon - line.ptr);

    if (len == 0 || is_blank(line.ptr[0]) || is_blank(line.ptr[len - 1]))
        return false;
    out->name = (struct lonely_span){ line.ptr, len };
    out->value = trim((struct lonely_span){ colon + 1, line.len - len - 1 });
    return true;
}

/* Does the answer fit the request? (RFC 6455, 4.1) */
static bool opens(const struct http_head *head, const uint8_t nonce[WEBSOCKET_NONCE_BYTES])
{
    struct lonely_span accept, extensions, protocol;
    char key[KEY_LEN + 1], want[ACCEPT_LEN + 1];

    make_key(nonce, key);
    make_accept((const uint8_t *)key, want);
    return head_has(head, "Upgrade", "websocket") && head_has(head, "Connection", "Upgrade") &&
           find_one(head, "Sec-WebSocket-Accept", &accept) && accept.len == ACCEPT_LEN &&
           memcmp(accept.ptr, want, ACCEPT_LEN) == 0 &&
           find_one(head, "Sec-WebSocket-Extensions", &extensions) && extensions.len == 0 &&
           find_one(head, "Sec-WebSocket-Protocol", &protocol) && protocol.ptr == NULL;
}

struct websocket_reply_result websocket_check_reply(struct lonely_span in,
                                                    const uint8_t nonce[WEBSOCKET_NONCE_BYTES])
{
    struct http_header headers[REPLY_HEADERS_MAX];
    struct http_head head = { .headers = headers };
    struct websocket_reply_result result = { .reply = WEBSOCKET_REPLY_BAD };
    struct lonely_span rest = in, line;

    if (!take_line(&rest, &line))
        return (struct websocket_reply_result){ .reply = WEBSOCKET_REPLY_MORE };
    result.status = status_of(line);
    if (result.status == 0)
        return result;
    for (;;) {
        if (!take_line(&rest, &line))
            return (struct websocket_reply_result){ .reply = WEBSOCKET_REPLY_MORE };
        if (line.len == 0)
            break;
        if (head.header_count == REPLY_HEADERS_MAX ||
            !split_header(line, &headers[head.header_count++]))
            return result;
    }
    result.used = in.len - rest.len;
    if (result.status != 101)
        result.reply = WEBSOCKET_REPLY_REFUSED;
    else if (opens(&head, nonce))
        result.reply = WEBSOCKET_REPLY_OPEN;
    return result;
}
