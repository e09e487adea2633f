/*
 * Writes the frame that subscribes to a topic, as a TCP connection carries it: four bytes of
 * length, then the frame. Prints both in hexadecimal.
 *
 *     serialize_subscribe TOPIC
 *
 * Build: cc serialize_subscribe.c $(pkg-config --cflags --libs lonelypsp)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lonely/framing.h>
#include <lonely/message.h>

static void print_hex(const char *name, const uint8_t *bytes, size_t len)
{
    printf("%s: ", name);
    for (size_t i = 0; i < len; i++)
        printf("%02x", (unsigned)bytes[i]);
    printf("\n");
}

/* Asks for the size first, so that any topic fits. On LONELY_OK the caller frees `*frame`. */
static enum lonely_error write_frame(const struct lonely_message *m, uint8_t **frame, size_t *len)
{
    enum lonely_error err = lonely_message_serialize(m, NULL, 0, len);

    if (err != LONELY_OK)
        return err;
    *frame = malloc(*len);
    if (*frame == NULL)
        abort();
    return lonely_message_serialize(m, *frame, *len, len);
}

int main(int argc, char **argv)
{
    struct lonely_message m = {
        .direction = LONELY_S2B,
        .type = LONELY_S2B_SUBSCRIBE_EXACT,
        .minimal = true,
    };
    uint8_t length[LONELY_FRAMING_LENGTH_BYTES], *frame = NULL;
    enum lonely_error err;
    size_t len;

    if (argc != 2) {
        fprintf(stderr, "usage: serialize_subscribe TOPIC\n");
        return 2;
    }
    /* No authorization and no tracing: what is zero is empty, and empty is absent. */
    m.as.subscription.topic = (struct lonely_span){ (const uint8_t *)argv[1], strlen(argv[1]) };
    err = write_frame(&m, &frame, &len);
    if (err == LONELY_OK)
        err = lonely_framing_announce(len, LONELY_FRAME_LIMIT_DEFAULT_BYTES, length);
    if (err == LONELY_OK) {
        print_hex("length", length, sizeof(length));
        print_hex("frame", frame, len);
    } else {
        fprintf(stderr, "serialize_subscribe: %s\n", lonely_error_str(err));
    }
    free(frame);
    return err == LONELY_OK ? 0 : 1;
}
