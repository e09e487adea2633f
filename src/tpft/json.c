/*
 * JSON (json.h). letter.c calls it.
 */
#include "json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- UTF-8 ---- */

/* Length of the character at `ptr`, strictly: shortest form, no surrogates. 0: there is none. */
static size_t utf8_decode(const uint8_t *ptr, size_t len, uint32_t *out)
{
    static const struct {
        uint8_t mask, lead, n;
        uint32_t least;
    } forms[] = { { 0x80, 0x00, 1, 0 },
                  { 0xe0, 0xc0, 2, 0x80 },
                  { 0xf0, 0xe0, 3, 0x800 },
                  { 0xf8, 0xf0, 4, 0x10000 } };

    for (size_t f = 0; f < sizeof(forms) / sizeof(forms[0]); f++) {
        uint32_t c;

        if (len < forms[f].n || (ptr[0] & forms[f].mask) != forms[f].lead)
            continue;
        c = ptr[0] & (uint8_t)~forms[f].mask;
        for (size_t i = 1; i < forms[f].n; i++) {
            if ((ptr[i] & 0xc0) != 0x80)
                return 0;
            c = c << 6 | (ptr[i] & 0x3f);
        }
        *out = c;
        return c < forms[f].least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : forms[f].n;
    }
    return 0;
}

static void keep_byte(struct json *j, uint32_t byte)
{
    j->text[j->text_len++] = (char)byte;
}

static void keep_char(struct json *j, uint32_t c)
{
    if (c < 0x80) {
        keep_byte(j, c);
        return;
    }
    if (c < 0x800) {
        keep_byte(j, 0xc0 | c >> 6);
    } else {
        if (c < 0x10000) {
            keep_byte(j, 0xe0 | c >> 12);
        } else {
            keep_byte(j, 0xf0 | c >> 18);
            keep_byte(j, 0x80 | (c >> 12 & 0x3f));
        }
        keep_byte(j, 0x80 | (c >> 6 & 0x3f));
    }
    keep_byte(j, 0x80 | (c & 0x3f));
}

/* ---- Reading ---- */

static int at(const struct json *j) /* -1: the end */
{
    return j->is_bad || j->at == j->len ? -1 : j->ptr[j->at];
}

static bool take(struct json *j, char c)
{
    if (at(j) != c)
        return false;
    j->at++;
    return true;
}

static void need(struct json *j, char c)
{
    if (!take(j, c))
        j->is_bad = true;
}

static void skip_space(struct json *j)
{
    while (at(j) == ' ' || at(j) == '\t' || at(j) == '\n' || at(j) == '\r')
        j->at++;
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

char json_peek(struct json *j)
{
    int c;

    skip_space(j);
    c = at(j);
    if (c == '-' || is_digit(c))
        return '0';
    return c > 0 && strchr("{[\"tfn", c) != NULL ? (char)c : '\0';
}

static uint32_t hex4(struct json *j)
{
    uint32_t value = 0;

    for (int i = 0; i < 4; i++) {
        int c = at(j);

        if (is_digit(c))
            value = value << 4 | (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            value = value << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
        else
            j->is_bad = true;
        if (j->is_bad)
            return 0;
        j->at++;
    }
    return value;
}

/* After "\u". */
static void take_unicode(struct json *j)
{
    uint32_t c = hex4(j), low;

    if (j->is_bad)
        return;
    if (c >= 0xdc80 && c <= 0xdcff) {
        keep_byte(j, c & 0xff); /* a byte that is not UTF-8 */
        return;
    }
    if (c >= 0xdc00 && c < 0xe000) {
        j->is_bad = true;
        return;
    }
    if (c >= 0xd800 && c < 0xdc00) {
        need(j, '\\');
        need(j, 'u');
        low = hex4(j);
        if (low < 0xdc00 || low >= 0xe000)
            j->is_bad = true;
        if (j->is_bad)
            return;
        c = 0x10000 + ((c - 0xd800) << 10 | (low - 0xdc00));
    }
    keep_char(j, c);
}

static const char short_names[] = "\"\\/bfnrt", short_bytes[] = "\"\\/\b\f\n\r\t";

static void take_escape(struct json *j)
{
    int c = at(j);
    const char *found = c > 0 ? strchr(short_names, c) : NULL;

    if (found != NULL) {
        j->at++;
        keep_byte(j, (uint8_t)short_bytes[found - short_names]);
    } else if (take(j, 'u')) {
        take_unicode(j);
    } else {
        j->is_bad = true;
    }
}

void json_string(struct json *j, struct json_text *out)
{
    size_t begin = j->text_len, n;
    uint32_t c;

    skip_space(j);
    need(j, '"');
    while (!j->is_bad && !take(j, '"')) {
        if (take(j, '\\')) {
            take_escape(j);
            continue;
        }
        n = at(j) >= 0x20 ? utf8_decode(j->ptr + j->at, j->len - j->at, &c) : 0;
        if (n == 0) {
            j->is_bad = true;
            break;
        }
        memcpy(j->text + j->text_len, j->ptr + j->at, n);
        j->text_len += n;
        j->at += n;
    }
    *out = j->is_bad ? (struct json_text){ "", 0 }
                     : (struct json_text){ j->text + begin, j->text_len - begin };
}

static void skip_digits(struct json *j)
{
    if (!is_digit(at(j)))
        j->is_bad = true;
    while (is_digit(at(j)))
        j->at++;
}

bool json_integer(struct json *j, uint64_t *out)
{
    bool is_good = true;
    uint64_t value = 0;

    skip_space(j);
    if (take(j, '-'))
        is_good = false;
    if (!take(j, '0')) {
        size_t begin = j->at;

        skip_digits(j);
        for (size_t i = begin; i < j->at; i++) {
            unsigned digit = j->ptr[i] - (unsigned)'0';

            if (value > ((uint64_t)INT64_MAX - digit) / 10)
                is_good = false;
            else
                value = value * 10 + digit;
        }
    }
    if (take(j, '.')) {
        is_good = false;
        skip_digits(j);
    }
    if (at(j) == 'e' || at(j) == 'E') {
        is_good = false;
        j->at++;
        if (!take(j, '+'))
            (void)take(j, '-');
        skip_digits(j);
    }
    *out = value;
    return is_good && !j->is_bad;
}

static void skip_word(struct json *j)
{
    static const char *const words[] = { "true", "false", "null" };

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t n = strlen(words[i]);

        if (j->len - j->at >= n && memcmp(j->ptr + j->at, words[i], n) == 0) {
            j->at += n;
            return;
        }
    }
    j->is_bad = true;
}

static void skip_array(struct json *j)
{
    need(j, '[');
    if (++j->depth > JSON_DEPTH_MAX)
        j->is_bad = true;
    skip_space(j);
    if (!take(j, ']')) {
        do {
            json_skip(j);
            skip_space(j);
        } while (!j->is_bad && take(j, ','));
        need(j, ']');
    }
    j->depth--;
}

void json_skip(struct json *j) // NOLINT(misc-no-recursion): JSON_DEPTH_MAX bounds it
{
    struct json_text text;
    uint64_t number;
    bool is_first;

    switch (json_peek(j)) {
    case '{':
        json_object_begin(j);
        is_first = true;
        while (json_object_next(j, &is_first, &text))
            json_skip(j);
        break;
    case '[':
        skip_array(j);
        break;
    case '"':
        json_string(j, &text);
        break;
    case '0':
        (void)json_integer(j, &number);
        break;
    case '\0':
        j->is_bad = true;
        break;
    default:
        skip_word(j);
        break;
    }
}

void json_object_begin(struct json *j)
{
    skip_space(j);
    need(j, '{');
    if (++j->depth > JSON_DEPTH_MAX)
        j->is_bad = true;
}

bool json_object_next(struct json *j, bool *is_first, struct json_text *key)
{
    skip_space(j);
    if (take(j, '}')) {
        j->depth--;
        return false;
    }
    if (!*is_first)
        need(j, ',');
    *is_first = false;
    json_string(j, key);
    skip_space(j);
    need(j, ':');
    return !j->is_bad;
}

bool json_is_done(struct json *j)
{
    skip_space(j);
    return !j->is_bad && j->at == j->len;
}

/* ---- Writing ---- */

static void put_bytes(struct json_out *o, const char *ptr, size_t len)
{
    if (o->is_full || len > o->cap - o->len) {
        o->is_full = true;
        return;
    }
    memcpy(o->ptr + o->len, ptr, len);
    o->len += len;
}

void json_put(struct json_out *o, const char *raw)
{
    put_bytes(o, raw, strlen(raw));
}

static void put_unit(struct json_out *o, uint32_t unit)
{
    char text[8];

    (void)snprintf(text, sizeof(text), "\\u%04" PRIx32, unit & 0xffff);
    put_bytes(o, text, 6);
}

static void put_char(struct json_out *o, uint32_t c)
{
    const char *found = c != 0 && c < 0x80 && c != '/' ? strchr(short_bytes, (int)c) : NULL;
    char raw = (char)c;

    if (found != NULL) {
        const char escape[2] = { '\\', short_names[found - short_bytes] };

        put_bytes(o, escape, 2);
    } else if (c >= 0x20 && c < 0x80) {
        put_bytes(o, &raw, 1);
    } else if (c < 0x10000) {
        put_unit(o, c);
    } else {
        put_unit(o, 0xd800 + ((c - 0x10000) >> 10));
        put_unit(o, 0xdc00 + (c & 0x3ff));
    }
}

void json_put_string(struct json_out *o, struct json_text text)
{
    const uint8_t *ptr = (const uint8_t *)text.ptr;
    size_t n;
    uint32_t c;

    put_bytes(o, "\"", 1);
    for (size_t i = 0; i < text.len && !o->is_full; i += n) {
        n = utf8_decode(ptr + i, text.len - i, &c);
        if (n > 0) {
            put_char(o, c);
        } else {
            put_unit(o, 0xdc00 + ptr[i]);
            n = 1;
        }
    }
    put_bytes(o, "\"", 1);
}

void json_put_integer(struct json_out *o, uint64_t value)
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%" PRIu64, value);
    json_put(o, text);
}
