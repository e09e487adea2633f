/*
 * Takes a frame apart and prints what it says.
 *
 *     parse_frame s2b|b2s HEX
 *
 * s2b: it was sent by a subscriber, b2s: by a broadcaster. Prints the message and what may differ
 * from one frame of it to the next; of a frame that is not valid, what is wrong and at which byte.
 * Build: cc parse_frame.c $(pkg-config --cflags --libs lonelypsp)
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lonely/message.h>

/* A span is no C string: any byte may stand in it, also a NUL, and none follows. */
static void print_span(const char *name, struct lonely_span s)
{
    printf("%s: ", name);
    for (size_t i = 0; i < s.len; i++) {
        int c = s.ptr[i];

        if (c >= 0x20 && c < 0x7f && c != '\\')
            putchar(c);
        else
            printf("\\x%02x", (unsigned)c);
    }
    printf("\n");
}

static void print_stream(const struct lonely_message *m)
{
    const struct lonely_msg_stream *part = &m->as.stream;

    print_span("identifier", part->identifier);
    printf("part: %" PRIu64 "\n", part->part_id);
    if (part->part_id == 0) { /* the other parts have no start headers */
        print_span("topic", part->topic);
        printf("compressor: %" PRIu64 "\n", part->compressor);
        printf("length of all parts: %" PRIu64 "\n", part->compressed_length);
    }
}

/* The type says which member of `as` counts; the two directions have numbers of their own. */
static void print_message(const struct lonely_message *m)
{
    printf("%s, %s headers\n", lonely_message_name(m->direction, m->type),
           m->minimal ? "minimal" : "expanded");
    if (m->direction == LONELY_S2B && m->type == LONELY_S2B_NOTIFY) {
        print_span("identifier", m->as.notify.identifier);
        print_span("topic", m->as.notify.topic);
    } else if (m->direction == LONELY_S2B && m->type >= LONELY_S2B_SUBSCRIBE_EXACT &&
               m->type <= LONELY_S2B_UNSUBSCRIBE_GLOB) {
        print_span("topic or glob", m->as.subscription.topic);
    } else if (m->direction == LONELY_B2S && m->type == LONELY_B2S_RECEIVE_STREAM) {
        print_stream(m);
    }
    if (lonely_message_has_body(m->direction, m->type))
        print_span("body", m->body);
}

static size_t unhex(const char *hex, uint8_t *out)
{
    size_t n = 0;
    unsigned byte;

    for (; sscanf(hex, "%2x", &byte) == 1; hex += 2) {
        out[n++] = (uint8_t)byte;
        if (hex[1] == '\0')
            break;
    }
    return n;
}

int main(int argc, char **argv)
{
    struct lonely_message m;
    struct lonely_result r;
    uint8_t *frame;
    int b2s;

    if (argc != 3 || (strcmp(argv[1], "s2b") != 0 && strcmp(argv[1], "b2s") != 0)) {
        fprintf(stderr, "usage: parse_frame s2b|b2s HEX\n");
        return 2;
    }
    b2s = strcmp(argv[1], "b2s") == 0;
    frame = malloc(strlen(argv[2]) / 2 + 1);
    if (frame == NULL)
        return 1;
    /* The spans of `m` point into `frame`, which therefore lives as long. */
    r = lonely_message_parse(b2s ? LONELY_B2S : LONELY_S2B,
                             (struct lonely_span){ frame, unhex(argv[2], frame) }, &m);
    if (r.err == LONELY_OK)
        print_message(&m);
    else
        printf("not valid: %s, at byte %zu\n", lonely_error_str(r.err), r.at);
    free(frame);
    return r.err == LONELY_OK ? 0 : 1;
}
