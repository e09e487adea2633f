/*
 * The stateful messages as data: which headers each has, in which order, of which kind and where
 * their values are kept. The parser and the serializer walk this table and know no message by
 * name, but for the rules of streams and of NOTIFY (doc/protocol/stateful.md, 5 to 7).
 */
#ifndef CORE_MESSAGE_TABLE_H
#define CORE_MESSAGE_TABLE_H

#include <lonely/message.h>

/* How a value is encoded; the codes of section 5. Says the type of the field, too. */
enum header_kind {
    HEADER_BYTES, /* struct lonely_span from here on */
    HEADER_TEXT,  /* "auth" and "text": on the wire both are strict UTF-8 */
    HEADER_ID,
    HEADER_NONCE,
    HEADER_HASH,
    HEADER_BOOL, /* bool */
    HEADER_FIX,  /* uint64_t from here on: written with all of its `limit` bytes */
    HEADER_MIN,  /* shortest form, zero is empty */
    HEADER_MINZ, /* shortest form, zero is one byte */
    HEADER_SFIX  /* int, two's complement, written with all of its `limit` bytes */
};

struct header {
    const char *name; /* lower case */
    uint8_t name_len;
    enum header_kind kind;
    uint8_t limit;   /* integers: bytes, at most */
    bool optional;   /* expanded: may be missing, and is then zero */
    uint16_t offset; /* of the field in struct lonely_message */
};

enum {
    HEADERS_MAX = 9, /* of one message */
    STREAM_PART_ID = 3,
    STREAM_HEADERS = 4 /* of a part after the first; x-part-id is the last */
};

/* What is special about a message beyond its headers. */
enum message_rules {
    RULE_BODY = 1,   /* has a body */
    RULE_NOTIFY = 2, /* the body is whole, its length and hash are announced */
    RULE_STREAM = 4  /* the headers from STREAM_HEADERS on are those of part 0 only */
};

struct message_spec {
    const char *name;
    const struct header *headers;
    uint8_t n;
    uint8_t rules; /* of enum message_rules */
};

/* NULL if the direction has no such type. */
const struct message_spec *message_spec(enum lonely_direction direction, unsigned type);

#endif
