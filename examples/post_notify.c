/*
 * Posts a message to a topic and prints how many subscribers were notified:
 *
 *     post_notify 127.0.0.1:3003 demo/hello 'Hello'
 *
 * For a broadcaster whose authorization is none; sign_request.c shows what others ask for.
 * Build: cc post_notify.c $(pkg-config --cflags --libs lonelypsp libcrypto)
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem in blocking_http.h */
#endif

#include <lonely/stateless.h>
#include <openssl/sha.h>

#include "blocking_http.h"

static struct lonely_span span(const void *ptr, size_t len)
{
    return (struct lonely_span){ ptr, len };
}

int main(int argc, char **argv)
{
    uint8_t hash[LONELY_SHA512_BYTES];
    struct lonely_stateless notify = { 0 }, answer;
    char reply[4096];
    const char *body = NULL;
    size_t message_len, head_len, body_len = 0;
    uint8_t *request;
    int status;

    if (argc != 4) {
        fprintf(stderr, "usage: post_notify HOST:PORT TOPIC MESSAGE\n");
        return 2;
    }
    message_len = strlen(argv[3]);
    notify.topic = span(argv[2], strlen(argv[2]));
    notify.hash = span(SHA512((const uint8_t *)argv[3], message_len, hash), sizeof(hash));
    notify.identifier = span("\1\2\3\4", 4);
    notify.message_len = message_len;

    /* The head first, of which a call without a buffer tells the length; then the message. */
    head_len = lonely_stateless_write(LONELY_STATELESS_NOTIFY, &notify, NULL, 0).at;
    request = malloc(head_len + message_len);
    if (request == NULL ||
        lonely_stateless_write(LONELY_STATELESS_NOTIFY, &notify, request, head_len).err !=
            LONELY_OK) {
        fprintf(stderr, "post_notify: the topic is too long\n");
        free(request);
        return 2;
    }
    memcpy(request + head_len, argv[3], message_len);

    status = http_post(argv[1], "/v1/notify", request, head_len + message_len, reply, sizeof(reply),
                       &body, &body_len);
    free(request);
    if (status != 200 ||
        lonely_stateless_parse(LONELY_STATELESS_RESPONSE_NOTIFY, span(body, body_len), &answer)
                .err != LONELY_OK) {
        fprintf(stderr, "post_notify: no good answer from http://%s (status %d)\n", argv[1],
                status);
        return 1;
    }
    printf("notified %u\n", answer.count);
    return 0;
}
