/*
 * The formats (print.h). Called by cmd_subscribe.c.
 */
#include "print.h"

#include <inttypes.h>
#include <string.h>

#include "mem.h"
#include "text.h"

#define AUTO_DATA_BYTES 65536
#define PIECE_BYTES     ((size_t)192 * 1024) /* a multiple of 3, for base64 */

/* Fills the buffer as far as the message goes. */
static ptrdiff_t fill(const struct lonely_delivery *d, uint64_t at, uint8_t *to)
{
    size_t held = 0;
    ptrdiff_t n = 1;

    while (held < PIECE_BYTES && n > 0) {
        n = lonely_delivery_read(d, at + held, to + held, PIECE_BYTES - held);
        held += n > 0 ? (size_t)n : 0;
    }
    return n < 0 ? -1 : (ptrdiff_t)held;
}

bool delivery_each_piece(const struct lonely_delivery *d,
                         bool (*take)(void *arg, struct lonely_span piece, bool more), void *arg)
{
    struct lonely_span whole = lonely_delivery_span(d);
    uint64_t size = lonely_delivery_size(d), at = 0;
    uint8_t *buffer;
    bool good = true;

    if (whole.ptr != NULL)
        return take(arg, whole, false);
    buffer = mem_alloc(PIECE_BYTES);
    while (good && at < size) {
        ptrdiff_t n = fill(d, at, buffer);

        if (n <= 0) {
            cli_complain("a message cannot be read from the spool folder; see --spool-dir");
            good = false;
            break;
        }
        at += (uint64_t)n;
        good = take(arg, (struct lonely_span){ buffer, (size_t)n }, at < size);
    }
    mem_free(buffer);
    return good;
}

/* ---- Bodies ---- */

static bool take_raw(void *arg, struct lonely_span piece, bool more)
{
    (void)more;
    if (piece.len > 0)
        fwrite(piece.ptr, 1, piece.len, arg);
    return !ferror((FILE *)arg);
}

static bool take_base64(void *arg, struct lonely_span piece, bool more)
{
    (void)more; /* only the last is no multiple of 3 */
    text_print_base64(arg, piece);
    return !ferror((FILE *)arg);
}

/* The beginning of a character that the next piece ends. */
struct cut {
    uint8_t bytes[TEXT_CUT_MAX_BYTES + TEXT_CUT_MAX_BYTES];
    size_t len;
};

static bool take_text(void *arg, struct lonely_span piece, bool more)
{
    struct cut *cut = arg;

    if (cut->len > 0) {
        size_t held = cut->len, n = piece.len < TEXT_CUT_MAX_BYTES ? piece.len : TEXT_CUT_MAX_BYTES;
        size_t used;

        memcpy(cut->bytes + held, piece.ptr, n);
        used =
            text_print(stdout, (struct lonely_span){ cut->bytes, held + n }, more || n < piece.len);
        piece.ptr += used - held;
        piece.len -= used - held;
    }
    cut->len = piece.len - text_print(stdout, piece, more);
    if (cut->len > 0)
        memcpy(cut->bytes, piece.ptr + piece.len - cut->len, cut->len);
    return !ferror(stdout);
}

/* ---- Messages ---- */

static bool has_data(const struct printer *p, const struct lonely_delivery *d)
{
    return p->data == PRINT_DATA_ALWAYS ||
           (p->data == PRINT_DATA_AUTO && lonely_delivery_size(d) <= AUTO_DATA_BYTES);
}

static bool print_jsonl(const struct printer *p, const struct lonely_delivery *d, const char *file)
{
    struct lonely_span topic = lonely_delivery_topic(d);

    fputs("{\"topic\": ", stdout);
    text_print_json(stdout, topic);
    fputs(", \"topic_hex\": \"", stdout);
    text_print_hex(stdout, topic);
    printf("\", \"size\": %" PRIu64 ", \"sha512\": \"", lonely_delivery_size(d));
    text_print_hex(stdout, (struct lonely_span){ lonely_delivery_sha512(d), 64 });
    fputc('"', stdout);
    if (file != NULL) {
        fputs(", \"file\": ", stdout);
        text_print_json(stdout, (struct lonely_span){ (const uint8_t *)file, strlen(file) });
    }
    if (has_data(p, d)) {
        fputs(", \"data_base64\": \"", stdout);
        if (!delivery_each_piece(d, take_base64, stdout))
            return false; /* a line that does not parse, rather than one that is cut */
        fputc('"', stdout);
    }
    fputs("}\n", stdout);
    return true;
}

static bool print_text(const struct lonely_delivery *d)
{
    struct cut cut = { .len = 0 };
    bool good;

    text_print(stdout, lonely_delivery_topic(d), false);
    fputc('\t', stdout);
    good = delivery_each_piece(d, take_text, &cut);
    fputc('\n', stdout);
    return good;
}

bool print_message(const struct printer *p, const struct lonely_delivery *d, const char *file)
{
    if (!p->messages)
        return true;
    switch (p->format) {
    case PRINT_RAW:
        return delivery_each_piece(d, take_raw, stdout);
    case PRINT_JSONL:
        return print_jsonl(p, d, file);
    case PRINT_TEXT:
        break;
    }
    return print_text(d);
}

/* ---- Events ---- */

void print_ready(const struct printer *p)
{
    if (p->format == PRINT_JSONL)
        fputs("{\"event\":\"ready\"}\n", stdout);
}

void print_missed(const struct printer *p, struct lonely_span topic)
{
    if (p->format == PRINT_JSONL) {
        fputs("{\"event\":\"missed\",\"topic_hex\":", stdout);
        fputs(topic.ptr != NULL ? "\"" : "null", stdout);
        text_print_hex(stdout, topic);
        fputs(topic.ptr != NULL ? "\"}\n" : "}\n", stdout);
        return;
    }
    if (topic.ptr == NULL) {
        cli_complain("messages may have been missed while the connection was lost");
        return;
    }
    fputs("lonelypsc: messages may have been missed on ", stderr);
    text_print(stderr, topic, false);
    fputc('\n', stderr);
}
