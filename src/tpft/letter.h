/*
 * Letters: the control messages of tpft, between JSON and a struct. (doc/protocol/tinyproto.md, 14.2)
 *
 * Members that the reference does not know (checksum, resume, offset, sha256) are sent only to a peer
 * that asked for them, or by a client whose user did; others ignore them. They work so:
 *
 *     upload      request {..., checksum, resume}    confirmed {checksum, offset, sha256}
 *                 confirmed {offset}                 of a resumed upload: how much is right
 *                 chunks from there, confirmed {sha256 of the whole}    confirmed | rejected
 *     download    request {..., checksum, offset, sha256}
 *                 download-confirmation {..., checksum, offset: how much is right}    confirmed
 *                 chunks from there, confirmed {sha256 of the whole}    confirmed | rejected
 *
 * `offset` says how much the receiver has of an earlier transfer, `sha256` with it what the sum of that
 * is. Who is answered without `checksum` goes on as if it had not asked.
 *
 * Pure: no allocation, no I/O.
 */
#ifndef TPFT_LETTER_H
#define TPFT_LETTER_H

#include "json.h"

#define LETTER_MAX       65536
#define LETTER_SUM_BYTES 32

enum letter_type {
    LETTER_UNKNOWN,
    LETTER_UPLOAD_REQUEST,
    LETTER_DOWNLOAD_REQUEST,
    LETTER_CONFIRMED,
    LETTER_DOWNLOAD_CONFIRMATION,
    LETTER_REJECTED,
    LETTER_CLOSE
};

/* Bits of `given`. */
enum letter_member {
    LETTER_FILE_SIZE = 1,
    LETTER_DESTINATION = 2,
    LETTER_DOWNLOAD = 4,
    LETTER_REASON = 8,
    LETTER_CHECKSUM = 16, /* "checksum":"sha256" */
    LETTER_RESUME = 32,   /* "resume":true */
    LETTER_OFFSET = 64,
    LETTER_SUM = 128 /* 64 hexadecimal digits */
};

struct letter {
    enum letter_type type;
    unsigned given; /* members that are there, with a value of the right type */
    uint64_t file_size, offset;
    struct json_text destination, download, reason;
    uint8_t sum[LETTER_SUM_BYTES];
};

/*
 * Reads a letter. Unknown members are ignored, of members that are there twice the last counts.
 *
 * @param text  room for `len` bytes, in which the texts of `out` are; both must outlive it
 * @return      false: not JSON, or not {"type": string, "letter": object}
 */
bool letter_parse(const void *ptr, size_t len, char *text, struct letter *out);

/* Writes what is `given`, byte for byte as the reference. Returns the length; 0: it does not fit `cap`. */
size_t letter_print(const struct letter *letter, char *out, size_t cap);

#endif
