/*
 * One value of a configuration: text to field and back, as the option's row in a table says. The
 * tables are the programs' (conf.c of the broadcaster, options.c of the subscriber).
 */
#ifndef CONF_VALUE_H
#define CONF_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct conf_list {
    char **items;
    size_t count;
    bool by_set; /* not from a file: the next one grows it */
};

#define CONF_NONE UINT64_MAX /* a size, time or count whose value is `none` */

enum conf_type {
    CONF_COUNT,       /* uint64_t */
    CONF_SIZE,        /* uint64_t, bytes; K M G */
    CONF_TIME_MS,     /* uint64_t, milliseconds; a plain number is in seconds; ms s m h */
    CONF_TIME_S,      /* uint64_t, seconds; written like the one above */
    CONF_REAL,        /* double */
    CONF_BOOL,        /* bool */
    CONF_CHOICE,      /* char *, one of `choices` */
    CONF_PATH,        /* char *, NULL: none */
    CONF_PROXY,       /* char *, NULL: none; SCHEME://HOST... */
    CONF_URL,         /* char *, NULL: none; http(s)://HOST/..., or one of `choices` */
    CONF_LISTEN,      /* char *, NULL: none; HOST:PORT */
    CONF_LISTEN_LIST, /* struct conf_list of HOST:PORT; none: empty */
    CONF_CIDR_LIST,   /* struct conf_list of ADDRESS/BITS */
    CONF_PATH_LIST,   /* struct conf_list of paths; empty: none */
    CONF_DATABASE_URLS, /* struct conf_list of URLs of databases, perhaps with a password; empty: none */
    CONF_ORIGIN_LIST,    /* struct conf_list of SCHEME://HOST..., or * */
    CONF_DICTIONARY_LIST /* struct conf_list of "ID LEVEL PATH", one blank between; empty: none */
};

struct conf_option {
    const char *section, *key;
    enum conf_type type;
    size_t field;        /* offset in the program's struct */
    const char *def;     /* as one writes it in the file */
    uint64_t min, max;   /* of numbers, in the unit of the field */
    bool none;           /* may be `none` */
    const char *choices; /* between spaces */
    const char *meaning;
};

/*
 * Reads `text` into `field`, which holds a value already (its strings are freed). A list grows;
 * `none` empties it.
 * false: the field is as before and `why` says what would be right.
 */
bool conf_value_set(void *field, const struct conf_option *o, const char *text, char why[256]);

/* Takes an item of a CONF_DICTIONARY_LIST apart; `path` points into it. false: it is none. */
struct conf_dictionary {
    uint64_t id; /* 2 to 65535 */
    int level;   /* 1 to 22 */
    const char *path;
};
bool conf_dictionary_parse(const char *item, struct conf_dictionary *out);

/* Is the field a struct conf_list? */
bool conf_value_is_list(const struct conf_option *o);

/* Frees what the field owns; it is none, or an empty list, afterwards. */
void conf_value_clear(void *field, const struct conf_option *o);

/* The value as conf_value_set reads it, in the largest unit that divides it. */
void conf_value_print(FILE *out, const void *field, const struct conf_option *o);

/* What the value is: "SIZE", "TIME or none", "error|warn|info|debug". */
void conf_value_print_kind(FILE *out, const struct conf_option *o);

#endif
