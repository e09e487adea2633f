/*
 * Values of the configuration as text (conf_value.h): numbers with units, switches, choices, paths
 * and lists. Called by conf.c for the file, --set, the help and the sample alike.
 */
#include "conf_value.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cidr.h"
#include "log.h"
#include "mem.h"

#define BLANKS        " \t\r\n\v\f"
#define REAL_DECIMALS 6

/* From small to large: the last one that divides a number is the one to print it in. */
struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {
    { "", 1 }, { "K", 1 << 10 }, { "M", 1 << 20 }, { "G", 1 << 30 }, { NULL, 0 }
};
static const struct unit time_ms_units[] = {
    { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { NULL, 0 }
};
static const struct unit count_units[] = { { "", 1 }, { NULL, 0 } };

/* Per type: how it is written, what to say of it, and how its numbers work. */
static const struct kind {
    const char *name;
    const char *example;
    const struct unit *units; /* NULL: no number */
    uint64_t plain;           /* a number without unit is multiplied by it, ... */
    uint64_t divisor;         /* ... and any number divided by this is in the field's unit */
} kinds[] = {
    [CONF_COUNT] = { "COUNT", "a number", count_units, 1, 1 },
    [CONF_SIZE] = { "SIZE", "a size in bytes such as 4096, 64K, 10M or 1G", size_units, 1, 1 },
    [CONF_TIME_MS] = { "TIME", "a time such as 10, 1.5, 500ms, 30s, 2m or 1h (without a unit: s)",
                       time_ms_units, 1000, 1 },
    [CONF_TIME_S] = { "TIME",
                      "a time in whole seconds such as 10, 30s, 2m or 1h (without a unit: s)",
                      time_ms_units, 1000, 1000 },
    [CONF_REAL] = { "NUMBER", "a number such as 2 or 0.5, at most 6 decimals", count_units, 1, 1 },
    [CONF_BOOL] = { "yes|no", "yes, no, true, false, 1 or 0", NULL, 0, 0 },
    [CONF_CHOICE] = { NULL, NULL, NULL, 0, 0 },
    [CONF_PATH] = { "PATH", "a path", NULL, 0, 0 },
    [CONF_PROXY] = { "URL", "http://HOST:PORT (or https, socks4, socks4a, socks5, socks5h)", NULL,
                     0, 0 },
    [CONF_URL] = { "URL or derived", "http://HOST:PORT/PATH (or https), or derived", NULL, 0, 0 },
    [CONF_LISTEN] = { "HOST:PORT", "HOST:PORT with a port from 0 to 65535", NULL, 0, 0 },
    [CONF_PATH_LIST] = { "PATH...", "paths, white space between them", NULL, 0, 0 },
    [CONF_LISTEN_LIST] = { "HOST:PORT...", "HOST:PORT with a port from 0 to 65535", NULL, 0, 0 },
    [CONF_DATABASE_URLS] = { "URL...",
                             "postgresql://HOST/NAME, or http://HOST:PORT of each node of rqlite",
                             NULL, 0, 0 },
    [CONF_CIDR_LIST] = { "ADDRESS/BITS...", "ADDRESS/BITS such as 10.0.0.0/8 or fd00::/8", NULL, 0,
                         0 },
    [CONF_ORIGIN_LIST] = { "ORIGIN...", "origins such as https://example.org:8443, or *", NULL, 0,
                           0 },
    [CONF_DICTIONARY_LIST] = { "ID LEVEL PATH...",
                               "ID LEVEL PATH, the id from 2 to 65535, the level from 1 to 22",
                               NULL, 0, 0 },
};

bool conf_value_is_list(const struct conf_option *o)
{
    return o->type == CONF_LISTEN_LIST || o->type == CONF_CIDR_LIST || o->type == CONF_PATH_LIST ||
           o->type == CONF_DATABASE_URLS || o->type == CONF_ORIGIN_LIST ||
           o->type == CONF_DICTIONARY_LIST;
}

/* Decimal, with a fraction if the product with `factor` is whole. */
static bool parse_decimal(const char *text, size_t len, uint64_t factor, uint64_t *out)
{
    uint64_t mantissa = 0, divisor = 1, product;
    bool fraction = false;

    if (len == 0 || len > 19 || text[0] == '.' || text[len - 1] == '.') /* 19: below 2^64 */
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '.' && !fraction) {
            fraction = true;
            continue;
        }
        if (text[i] < '0' || text[i] > '9')
            return false;
        mantissa = mantissa * 10 + (uint64_t)(text[i] - '0');
        if (fraction)
            divisor *= 10;
    }
    if (__builtin_mul_overflow(mantissa, factor, &product) || product % divisor != 0)
        return false;
    *out = product / divisor;
    return true;
}

static bool parse_number(const struct conf_option *o, const char *text, uint64_t *out)
{
    const struct kind *kind = &kinds[o->type];
    size_t digits = strspn(text, "0123456789.");
    uint64_t factor = text[digits] == '\0' ? kind->plain : 0, value;

    for (const struct unit *u = kind->units; factor == 0 && u->name != NULL; u++)
        if (strcmp(text + digits, u->name) == 0)
            factor = u->factor;
    if (factor == 0 || !parse_decimal(text, digits, factor, &value) || value % kind->divisor != 0)
        return false;
    value /= kind->divisor;
    if (value < o->min || value > o->max)
        return false;
    *out = value;
    return true;
}

/* At most REAL_DECIMALS, so that what is read can be printed and read again. */
static bool parse_real(const struct conf_option *o, const char *text, double *out)
{
    size_t len = strspn(text, "0123456789.");
    const char *dot = strchr(text, '.');
    char *end;
    double value;

    if (len == 0 || text[len] != '\0') /* no sign, exponent, hexadecimal, inf or nan */
        return false;
    if (dot != NULL && strlen(dot + 1) > REAL_DECIMALS)
        return false;
    value = strtod(text, &end);
    if (*end != '\0' || value < (double)o->min || value > (double)o->max)
        return false;
    *out = value;
    return true;
}

static void print_real(FILE *out, double value)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%.*f", REAL_DECIMALS, value);

    while (text[len - 1] == '0')
        len--;
    len -= text[len - 1] == '.';
    fprintf(out, "%.*s", len, text);
}

/* The number with its unit, as short as it goes. */
static void format_number(const struct conf_option *o, uint64_t value, char out[32])
{
    const struct kind *kind = &kinds[o->type];
    const struct unit *best = &kind->units[0];

    value *= kind->divisor;
    for (const struct unit *u = kind->units; u->name != NULL; u++)
        if (value % u->factor == 0 && value != 0)
            best = u;
    snprintf(out, 32, "%" PRIu64 "%s", value / best->factor, value == 0 ? "" : best->name);
}

static bool parse_bool(const char *text, bool *out)
{
    static const char *const words[] = { "no", "yes", "false", "true", "0", "1" };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(text, words[i]) == 0) {
            *out = i % 2 == 1;
            return true;
        }
    return false;
}

static bool is_proxy(const char *text)
{
    static const char *const schemes[] = { "http://",    "https://",  "socks4://",
                                           "socks4a://", "socks5://", "socks5h://" };

    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t len = strlen(schemes[i]);

        if (strncmp(text, schemes[i], len) == 0 && text[len] != '\0')
            return strpbrk(text, BLANKS) == NULL;
    }
    return false;
}

/* With a host and a path, and nothing that a request line cannot carry as it is. */
static bool is_url(const char *text)
{
    const char *host = strncmp(text, "http://", 7) == 0    ? text + 7
                       : strncmp(text, "https://", 8) == 0 ? text + 8
                                                           : NULL;

    if (host == NULL || *host == '/' || strchr(host, '/') == NULL ||
        strcspn(host, "?") < strcspn(host, "/"))
        return false;
    for (const char *at = text; *at != '\0'; at++) {
        if (*at <= ' ' || *at > '~' || *at == '#' || *at == '@')
            return false;
    }
    return true;
}

/* NAME:PORT, 1.2.3.4:PORT or [::1]:PORT. Whether the name is one is left to the listener. */
static bool is_host_port(const char *text, size_t len)
{
    const char *colon = memrchr(text, ':', len);
    size_t host = colon == NULL ? 0 : (size_t)(colon - text), port = len - host - 1;
    unsigned number = 0;

    if (host == 0 || port == 0 || port > 5)
        return false;
    for (size_t i = host + 1; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        number = number * 10 + (unsigned)(text[i] - '0');
    }
    for (size_t i = 0; i < host; i++)
        if (text[i] < 0x21 || text[i] > 0x7e)
            return false;
    if (text[0] == '[')
        return number <= 65535 && host > 2 && text[host - 1] == ']';
    return number <= 65535 && memchr(text, ':', host) == NULL;
}

/* The next word and its length; *at moves behind it. NULL: none is left. */
static const char *next_word(const char **at, size_t *len)
{
    const char *word = *at + strspn(*at, BLANKS);

    *len = strcspn(word, BLANKS);
    *at = word + *len;
    return *len > 0 ? word : NULL;
}

static bool is_choice(const char *choices, const char *text)
{
    const char *at = choices, *word;
    size_t len;

    while ((word = next_word(&at, &len)) != NULL)
        if (strlen(text) == len && memcmp(word, text, len) == 0)
            return true;
    return false;
}

/* Names the item that is wrong; a list may hold many. */
static bool is_cidr(const char *text, size_t len, char why[256])
{
    struct cidr range;
    char shown[64];
    const char *wrong;

    if (cidr_parse(text, len, &range, &wrong))
        return true;
    log_escape(text, len, shown, sizeof shown);
    snprintf(why, 256, "%s: %s", shown, wrong);
    return false;
}

/* `none` among others would be a mistake. */
static bool is_path(const char *text, size_t len)
{
    return len != 4 || memcmp(text, "none", 4) != 0;
}

static bool is_database_url(const char *text, size_t len)
{
    static const char *const schemes[] = { "postgresql://", "postgres://", "http://", "https://" };

    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t n = strlen(schemes[i]);

        if (len >= n && memcmp(text, schemes[i], n) == 0)
            return true;
    }
    return false;
}

/* As browsers write it: a scheme, a host, and a port that is not the usual one; `null` is one, too. */
static bool is_origin(const char *text, size_t len)
{
    const char *host = memmem(text, len, "://", 3);

    if ((len == 1 && text[0] == '*') || (len == 4 && memcmp(text, "null", 4) == 0))
        return true;
    return host != NULL && host > text && host + 3 < text + len &&
           memchr(host + 3, '/', len - (size_t)(host + 3 - text)) == NULL;
}

/* A decimal number between two others, and a blank behind it; *at moves behind that. */
static bool take_number(const char **at, uint64_t min, uint64_t max, uint64_t *out)
{
    size_t len = strspn(*at, "0123456789");

    if (len > 9 || (*at)[len] != ' ' || !parse_decimal(*at, len, 1, out))
        return false;
    *at += len + 1;
    return *out >= min && *out <= max;
}

bool conf_dictionary_parse(const char *item, struct conf_dictionary *out)
{
    uint64_t level;

    if (!take_number(&item, 2, 65535, &out->id) || !take_number(&item, 1, 22, &level))
        return false;
    out->level = (int)level;
    out->path = item;
    return *item != '\0';
}

static bool is_item(const struct conf_option *o, const char *text, size_t len, char why[256])
{
    struct conf_dictionary dictionary;

    if (o->type == CONF_DICTIONARY_LIST)
        return conf_dictionary_parse(text, &dictionary);
    if (o->type == CONF_DATABASE_URLS)
        return is_database_url(text, len);
    if (o->type == CONF_PATH_LIST)
        return is_path(text, len);
    if (o->type == CONF_ORIGIN_LIST)
        return is_origin(text, len);
    return o->type == CONF_CIDR_LIST ? is_cidr(text, len, why) : is_host_port(text, len);
}

/* The next item, which is as many words as its type has, with one blank between; the caller frees it. NULL:
 * none is left. */
static char *next_item(const struct conf_option *o, const char **at)
{
    size_t words = o->type == CONF_DICTIONARY_LIST ? 3 : 1, len, used = 0;
    char *item = mem_alloc(strlen(*at) + 1);
    const char *word;

    for (; words > 0 && (word = next_word(at, &len)) != NULL; words--) {
        if (used > 0)
            item[used++] = ' ';
        memcpy(item + used, word, len);
        used += len;
    }
    item[used] = '\0';
    if (used > 0)
        return item;
    mem_free(item);
    return NULL;
}

static void clear_list(struct conf_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        mem_free(list->items[i]);
    mem_free(list->items);
    *list = (struct conf_list){ 0 };
}

/* All items or none: a bad one must leave the list as it was. */
static bool add_items(struct conf_list *list, const struct conf_option *o, const char *text,
                      char why[256])
{
    struct conf_list fresh = { 0 };
    const char *at = text;
    bool good = true;
    char *item;

    while (good && (item = next_item(o, &at)) != NULL) {
        fresh.items = mem_realloc(fresh.items, (fresh.count + 1) * sizeof *fresh.items);
        fresh.items[fresh.count++] = item;
        good = is_item(o, item, strlen(item), why);
    }
    if (!good || fresh.count == 0) {
        clear_list(&fresh);
        return false;
    }
    list->items = mem_realloc(list->items, (list->count + fresh.count) * sizeof *list->items);
    memcpy(list->items + list->count, fresh.items, fresh.count * sizeof *fresh.items);
    list->count += fresh.count;
    mem_free(fresh.items);
    return true;
}

static void set_string(char **field, const char *text)
{
    char *copy = text == NULL ? NULL : mem_strdup(text);

    mem_free(*field);
    *field = copy;
}

static void explain(const struct conf_option *o, char why[256])
{
    const struct kind *kind = &kinds[o->type];
    const char *or_none = o->none ? ", or none" : "";
    char min[32], max[32];

    if (o->type == CONF_CHOICE) {
        snprintf(why, 256, "expected one of: %s%s", o->choices, or_none);
    } else if (kind->units != NULL) {
        format_number(o, o->min, min);
        format_number(o, o->max, max);
        snprintf(why, 256, "expected %s, from %s to %s%s", kind->example, min, max, or_none);
    } else {
        snprintf(why, 256, "expected %s%s", kind->example, or_none);
    }
}

bool conf_value_set(void *field, const struct conf_option *o, const char *text, char why[256])
{
    bool none = o->none && strcmp(text, "none") == 0, good = false;

    why[0] = '\0';
    switch (o->type) {
    case CONF_COUNT:
    case CONF_SIZE:
    case CONF_TIME_MS:
    case CONF_TIME_S:
        if (none)
            *(uint64_t *)field = CONF_NONE;
        good = none || parse_number(o, text, field);
        break;
    case CONF_REAL:
        good = parse_real(o, text, field);
        break;
    case CONF_BOOL:
        good = parse_bool(text, field);
        break;
    case CONF_CHOICE:
    case CONF_PATH:
    case CONF_PROXY:
    case CONF_URL:
    case CONF_LISTEN:
        good = none || (*text != '\0' && (o->type != CONF_CHOICE || is_choice(o->choices, text)) &&
                        (o->type != CONF_PROXY || is_proxy(text)) &&
                        (o->type != CONF_URL || is_choice(o->choices, text) || is_url(text)) &&
                        (o->type != CONF_LISTEN || is_host_port(text, strlen(text))));
        if (good)
            set_string(field, none ? NULL : text);
        break;
    case CONF_LISTEN_LIST:
    case CONF_CIDR_LIST:
    case CONF_PATH_LIST:
    case CONF_DATABASE_URLS:
    case CONF_ORIGIN_LIST:
    case CONF_DICTIONARY_LIST:
        if (none)
            conf_value_clear(field, o);
        good = none || add_items(field, o, text, why);
        break;
    }
    if (!good && why[0] == '\0')
        explain(o, why);
    return good;
}

void conf_value_clear(void *field, const struct conf_option *o)
{
    switch (o->type) {
    case CONF_CHOICE:
    case CONF_PATH:
    case CONF_PROXY:
    case CONF_URL:
    case CONF_LISTEN:
        set_string(field, NULL);
        break;
    case CONF_LISTEN_LIST:
    case CONF_CIDR_LIST:
    case CONF_PATH_LIST:
    case CONF_DATABASE_URLS:
    case CONF_ORIGIN_LIST:
    case CONF_DICTIONARY_LIST:
        clear_list(field);
        break;
    case CONF_COUNT:
    case CONF_SIZE:
    case CONF_TIME_MS:
    case CONF_TIME_S:
    case CONF_REAL:
    case CONF_BOOL:
        break;
    }
}

static void print_number(FILE *out, const struct conf_option *o, uint64_t value)
{
    char text[32];

    if (value == CONF_NONE) {
        fputs("none", out);
        return;
    }
    format_number(o, value, text);
    fputs(text, out);
}

static void print_string(FILE *out, const char *s)
{
    fputs(s == NULL ? "none" : s, out);
}

void conf_value_print(FILE *out, const void *field, const struct conf_option *o)
{
    const struct conf_list *list;

    switch (o->type) {
    case CONF_COUNT:
    case CONF_SIZE:
    case CONF_TIME_MS:
    case CONF_TIME_S:
        print_number(out, o, *(const uint64_t *)field);
        break;
    case CONF_REAL:
        print_real(out, *(const double *)field);
        break;
    case CONF_BOOL:
        fputs(*(const bool *)field ? "yes" : "no", out);
        break;
    case CONF_CHOICE:
    case CONF_PATH:
    case CONF_PROXY:
    case CONF_URL:
    case CONF_LISTEN:
        print_string(out, *(char *const *)field);
        break;
    case CONF_LISTEN_LIST:
    case CONF_CIDR_LIST:
    case CONF_PATH_LIST:
    case CONF_DATABASE_URLS:
    case CONF_ORIGIN_LIST:
    case CONF_DICTIONARY_LIST:
        list = field;
        if (list->count == 0)
            fputs("none", out);
        for (size_t i = 0; i < list->count; i++)
            fprintf(out, "%s%s", i > 0 ? " " : "", list->items[i]);
        break;
    }
}

void conf_value_print_kind(FILE *out, const struct conf_option *o)
{
    if (o->type == CONF_CHOICE)
        for (const char *at = o->choices; *at != '\0'; at++)
            fputc(*at == ' ' ? '|' : *at, out);
    else
        fputs(kinds[o->type].name, out);
    if (o->none)
        fputs(" or none", out);
}
