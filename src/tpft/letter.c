/*
 * Letters (letter.h): a table of types, a table of members; both directions walk them.
 */
#include "letter.h"

#include <string.h>

static const char *const type_names[] = {
    [LETTER_UPLOAD_REQUEST] = "upload-request",
    [LETTER_DOWNLOAD_REQUEST] = "download-request",
    [LETTER_CONFIRMED] = "confirmed",
    [LETTER_DOWNLOAD_CONFIRMATION] = "download-confirmation",
    [LETTER_REJECTED] = "rejected",
    [LETTER_CLOSE] = "close",
};

enum member_kind { INTEGER, TEXT, IS_SHA256, IS_TRUE, SUM };

#define MEMBER(name, kind, bit, field)                  \
    {                                                   \
        name, kind, bit, offsetof(struct letter, field) \
    }
static const struct member {
    const char *name;
    enum member_kind kind;
    unsigned bit;
    size_t field;
} members[] = {
    MEMBER("file_size", INTEGER, LETTER_FILE_SIZE, file_size),
    MEMBER("destination_path", TEXT, LETTER_DESTINATION, destination),
    MEMBER("download_path", TEXT, LETTER_DOWNLOAD, download),
    MEMBER("reason", TEXT, LETTER_REASON, reason),
    MEMBER("checksum", IS_SHA256, LETTER_CHECKSUM, given),
    MEMBER("resume", IS_TRUE, LETTER_RESUME, given),
    MEMBER("offset", INTEGER, LETTER_OFFSET, offset),
    MEMBER("sha256", SUM, LETTER_SUM, sum),
};
#define N_MEMBERS (sizeof(members) / sizeof(members[0]))

static bool is_text(struct json_text text, const char *literal)
{
    return text.len == strlen(literal) && memcmp(text.ptr, literal, text.len) == 0;
}

/* ---- Reading ---- */

static enum letter_type type_of(struct json_text name)
{
    for (size_t t = LETTER_UNKNOWN + 1; t < sizeof(type_names) / sizeof(type_names[0]); t++) {
        if (is_text(name, type_names[t]))
            return (enum letter_type)t;
    }
    return LETTER_UNKNOWN;
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_sum(struct json_text text, uint8_t *out)
{
    if (text.len != (size_t)2 * LETTER_SUM_BYTES)
        return false;
    for (size_t i = 0; i < LETTER_SUM_BYTES; i++) {
        int high = nibble(text.ptr[2 * i]), low = nibble(text.ptr[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool read_string(struct json *j, const struct member *m, void *field)
{
    struct json_text text;

    json_string(j, &text);
    if (m->kind == IS_SHA256)
        return is_text(text, "sha256");
    if (m->kind == SUM)
        return read_sum(text, field);
    if (m->kind != TEXT)
        return false;
    memcpy(field, &text, sizeof(text));
    return true;
}

/* false: the value, which is consumed, has another type. */
static bool read_member(struct json *j, const struct member *m, struct letter *out)
{
    char *field = (char *)out + m->field;
    uint64_t number;

    switch (json_peek(j)) {
    case '"':
        return read_string(j, m, field);
    case '0':
        if (!json_integer(j, &number) || m->kind != INTEGER)
            return false;
        memcpy(field, &number, sizeof(number));
        return true;
    case 't':
        json_skip(j);
        return m->kind == IS_TRUE;
    default:
        json_skip(j);
        return false;
    }
}

static void read_members(struct json *j, struct letter *out)
{
    struct json_text key;
    bool is_first = true;

    out->given = 0;
    json_object_begin(j);
    while (json_object_next(j, &is_first, &key)) {
        const struct member *m = NULL;

        for (size_t i = 0; i < N_MEMBERS && m == NULL; i++) {
            if (is_text(key, members[i].name))
                m = &members[i];
        }
        if (m == NULL)
            json_skip(j);
        else if (read_member(j, m, out))
            out->given |= m->bit;
        else
            out->given &= ~m->bit;
    }
}

bool letter_parse(const void *ptr, size_t len, char *text, struct letter *out)
{
    struct json j = { .ptr = ptr, .len = len, .text = text };
    struct json_text key, type;
    bool is_first = true, has_type = false, has_letter = false;

    memset(out, 0, sizeof(*out));
    json_object_begin(&j);
    while (json_object_next(&j, &is_first, &key)) {
        if (is_text(key, "type") && json_peek(&j) == '"') {
            json_string(&j, &type);
            out->type = type_of(type);
            has_type = true;
        } else if (is_text(key, "letter") && json_peek(&j) == '{') {
            read_members(&j, out);
            has_letter = true;
        } else {
            has_type = has_type && !is_text(key, "type");
            has_letter = has_letter && !is_text(key, "letter");
            json_skip(&j);
        }
    }
    return json_is_done(&j) && has_type && has_letter;
}

/* ---- Writing ---- */

static void put_sum(struct json_out *o, const uint8_t *sum)
{
    char hex[2 * LETTER_SUM_BYTES];

    for (size_t i = 0; i < sizeof(hex); i++)
        hex[i] = "0123456789abcdef"[i % 2 == 0 ? sum[i / 2] >> 4 : sum[i / 2] & 15];
    json_put_string(o, (struct json_text){ hex, sizeof(hex) });
}

static void put_member(struct json_out *o, const struct member *m, const struct letter *letter)
{
    const char *field = (const char *)letter + m->field;
    struct json_text text;
    uint64_t number;

    switch (m->kind) {
    case INTEGER:
        memcpy(&number, field, sizeof(number));
        json_put_integer(o, number);
        break;
    case TEXT:
        memcpy(&text, field, sizeof(text));
        json_put_string(o, text);
        break;
    case IS_SHA256:
        json_put(o, "\"sha256\"");
        break;
    case IS_TRUE:
        json_put(o, "true");
        break;
    case SUM:
        put_sum(o, (const uint8_t *)field);
        break;
    }
}

size_t letter_print(const struct letter *letter, char *out, size_t cap)
{
    struct json_out o = { .ptr = out, .cap = cap };
    const char *separator = "\"";

    json_put(&o, "{\"type\":\"");
    json_put(&o, type_names[letter->type]);
    json_put(&o, "\",\"letter\":{");
    for (size_t i = 0; i < N_MEMBERS; i++) {
        if ((letter->given & members[i].bit) == 0)
            continue;
        json_put(&o, separator);
        json_put(&o, members[i].name);
        json_put(&o, "\":");
        put_member(&o, &members[i], letter);
        separator = ",\"";
    }
    json_put(&o, "}}");
    return o.is_full ? 0 : o.len;
}
