/*
 * The secrets files: JSON to keys, and new secrets to JSON. Called by the programs when they start,
 * reread their secrets, or set up a broadcaster.                      (doc/protocol/auth.md, 6)
 *
 * Messages of the JSON library are not passed on: they quote the text near an error, and that may
 * be a secret.
 */
#include "secrets.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"

/* The names of the two directions in a version, from the point of view of the file's owner. */
struct naming {
    const char *version;
    enum secrets_owner owner;
    const char *to_broadcaster, *to_subscriber;
};

static const struct naming namings[] = {
    { "2", SECRETS_BROADCASTER, "to-broadcaster", "to-subscriber" },
    { "2", SECRETS_SUBSCRIBER, "to-broadcaster", "to-subscriber" },
    { "1", SECRETS_BROADCASTER, "incoming", "outgoing" },
    { "1", SECRETS_SUBSCRIBER, "outgoing", "incoming" },
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const enum lonely_auth_scheme schemes[] = { LONELY_AUTH_NONE, LONELY_AUTH_TOKEN,
                                                   LONELY_AUTH_HMAC };

/* Always false, so that it can be returned. */
__attribute__((format(printf, 3, 4))) static bool fail(struct secrets_error *err, const char *name,
                                                       const char *format, ...)
{
    /* A long path must leave room for the reason. */
    const int len = snprintf(err->text, sizeof err->text, "%.300s: ", name);
    va_list args;

    if (len > 0 && (size_t)len < sizeof err->text) {
        va_start(args, format);
        vsnprintf(err->text + len, sizeof err->text - (size_t)len, format, args);
        va_end(args);
    }
    return false;
}

static const char *secret_problem(enum lonely_auth_scheme scheme, enum lonely_error err)
{
    if (err != LONELY_E_SECRET)
        return lonely_error_str(err);
    if (scheme == LONELY_AUTH_HMAC)
        return "a secret for hmac must be base64 of exactly 64 bytes";
    return "a secret for token must be 1 to 4096 visible ASCII characters";
}

/* ---- Reading ---- */

static bool scheme_of(const char *text, enum lonely_auth_scheme *out)
{
    for (size_t i = 0; i < COUNT(schemes); i++) {
        if (strcmp(text, lonely_auth_scheme_str(schemes[i])) == 0) {
            *out = schemes[i];
            return true;
        }
    }
    return false;
}

/* One direction; `part` is NULL when the file does not name it. */
static bool direction_read(const json_t *part, const char *key, const char *name,
                           struct lonely_auth_key **out, struct secrets_error *err)
{
    const json_t *type = json_object_get(part, "type"), *text = json_object_get(part, "secret");
    enum lonely_auth_scheme scheme = LONELY_AUTH_NONE;
    struct lonely_span secret = { 0 };
    enum lonely_error created;

    if (part != NULL && !json_is_object(part))
        return fail(err, name, "\"%s\" is not an object", key);
    if (part != NULL && (!json_is_string(type) || !scheme_of(json_string_value(type), &scheme)))
        return fail(err, name, "\"type\" of \"%s\" must be \"hmac\", \"token\" or \"none\"", key);
    if (scheme != LONELY_AUTH_NONE) {
        if (!json_is_string(text))
            return fail(err, name, "\"secret\" of \"%s\" is not a string", key);
        secret.ptr = (const uint8_t *)json_string_value(text);
        secret.len = json_string_length(text);
    }
    created = lonely_auth_key_create(scheme, secret, out);
    if (created != LONELY_OK)
        return fail(err, name, "\"%s\": %s", key, secret_problem(scheme, created));
    return true;
}

static const struct naming *naming_of(const json_t *root, enum secrets_owner owner)
{
    const char *version = json_string_value(json_object_get(root, "version"));

    for (size_t i = 0; i < COUNT(namings) && version != NULL; i++) {
        if (strcmp(namings[i].version, version) == 0 && namings[i].owner == owner)
            return &namings[i];
    }
    return NULL;
}

/* The name of an unknown key is not shown: it may be a secret in the wrong place. */
static bool keys_are_known(json_t *root, const struct naming *n)
{
    const char *key;
    json_t *value;

    json_object_foreach(root, key, value)
    {
        if (strcmp(key, "version") != 0 && strcmp(key, n->to_broadcaster) != 0 &&
            strcmp(key, n->to_subscriber) != 0)
            return false;
    }
    return true;
}

static bool root_read(json_t *root, const char *name, enum secrets_owner owner, struct secrets *out,
                      struct secrets_error *err)
{
    const struct naming *n = naming_of(root, owner);

    if (!json_is_object(root))
        return fail(err, name, "not a JSON object");
    if (n == NULL)
        return fail(err, name, "\"version\" must be the string \"2\" or \"1\"");
    if (!keys_are_known(root, n))
        return fail(err, name, "a key other than \"version\", \"%s\" and \"%s\" in version %s",
                    n->to_broadcaster, n->to_subscriber, n->version);
    return direction_read(json_object_get(root, n->to_broadcaster), n->to_broadcaster, name,
                          &out->to_broadcaster, err) &&
           direction_read(json_object_get(root, n->to_subscriber), n->to_subscriber, name,
                          &out->to_subscriber, err);
}

/* Every string of the document, since any may be a secret: the library frees without wiping. What
 * its parser left in freed buffers is beyond reach. */
static void json_wipe(json_t *value)
{
    union {
        const char *given;
        char *ours;
    } text = { .given = json_string_value(value) };
    const char *key;
    json_t *member;
    size_t i;

    if (text.given != NULL)
        explicit_bzero(text.ours, json_string_length(value));
    json_object_foreach(value, key, member) json_wipe(member);
    json_array_foreach(value, i, member) json_wipe(member);
}

bool secrets_parse(const char *json, size_t len, const char *name, enum secrets_owner owner,
                   struct secrets *out, struct secrets_error *err)
{
    json_error_t where;
    json_t *root;
    bool ok;

    *out = (struct secrets){ 0 };
    if (len > SECRETS_FILE_MAX)
        return fail(err, name, "larger than %d bytes", SECRETS_FILE_MAX);
    root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &where);
    if (root == NULL)
        return fail(err, name, "line %d, column %d: not valid JSON, or a key twice", where.line,
                    where.column);
    ok = root_read(root, name, owner, out, err);
    json_wipe(root);
    json_decref(root);
    if (!ok)
        secrets_fini(out);
    return ok;
}

/* Reads up to `cap` bytes. Negative with errno on failure. */
static ssize_t read_all(int fd, char *buf, size_t cap)
{
    size_t len = 0;

    while (len < cap) {
        const ssize_t n = read(fd, buf + len, cap - len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    return (ssize_t)len;
}

static bool fd_load(int fd, const char *path, enum secrets_owner owner, struct secrets *out,
                    struct secrets_error *err)
{
    char buf[SECRETS_FILE_MAX + 1]; /* one more, to see that a file is too large */
    struct stat st;
    ssize_t len;
    bool ok;

    if (fstat(fd, &st) != 0)
        return fail(err, path, "cannot be read: %s", strerror(errno));
    if (!S_ISREG(st.st_mode))
        return fail(err, path, "not a regular file");
    len = read_all(fd, buf, sizeof buf);
    if (len < 0)
        return fail(err, path, "cannot be read: %s", strerror(errno));
    ok = secrets_parse(buf, (size_t)len, path, owner, out, err);
    explicit_bzero(buf, sizeof buf);
    if (ok)
        out->readable_by_others = (st.st_mode & (S_IRGRP | S_IROTH)) != 0;
    return ok;
}

bool secrets_load(const char *path, enum secrets_owner owner, struct secrets *out,
                  struct secrets_error *err)
{
    /* FIFOs must not hang. */
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    bool ok;

    *out = (struct secrets){ 0 };
    if (fd < 0)
        return fail(err, path, "cannot be opened: %s", strerror(errno));
    ok = fd_load(fd, path, owner, out, err);
    close(fd);
    return ok;
}

void secrets_fini(struct secrets *s)
{
    lonely_auth_key_destroy(s->to_broadcaster);
    lonely_auth_key_destroy(s->to_subscriber);
    *s = (struct secrets){ 0 };
}

/* ---- Writing ---- */

static bool generate(char secret[LONELY_AUTH_SECRET_BYTES + 1])
{
    uint8_t random[LONELY_AUTH_HMAC_KEY_BYTES];

    if (getentropy(random, sizeof random) != 0)
        return false;
    lonely_auth_secret_text(random, (uint8_t *)secret);
    secret[LONELY_AUTH_SECRET_BYTES] = '\0';
    explicit_bzero(random, sizeof random);
    return true;
}

/* Base64 of hmac may hold bytes that are skipped; a file of ours does not. */
static bool is_visible(const char *secret)
{
    for (; *secret != '\0'; secret++) {
        if (*secret < 0x20 || *secret > 0x7e)
            return false;
    }
    return true;
}

bool secrets_text_set(struct secrets_text_part *part, enum lonely_auth_scheme scheme,
                      const char *secret, const char *name, struct secrets_error *err)
{
    struct lonely_auth_key *key;
    enum lonely_error created = LONELY_E_SECRET;

    *part = (struct secrets_text_part){ .scheme = scheme };
    if (scheme == LONELY_AUTH_NONE)
        return true;
    if (secret == NULL)
        return generate(part->secret) || fail(err, name, "no random bytes: %s", strerror(errno));
    if (strlen(secret) < sizeof part->secret && is_visible(secret))
        created = lonely_auth_key_create(
            scheme, (struct lonely_span){ (const uint8_t *)secret, strlen(secret) }, &key);
    if (created != LONELY_OK)
        return fail(err, name, "%s", secret_problem(scheme, created));
    lonely_auth_key_destroy(key);
    memcpy(part->secret, secret, strlen(secret));
    return true;
}

static char *append(char *p, const char *text)
{
    const size_t len = strlen(text);

    memcpy(p, text, len);
    return p + len;
}

static char *append_part(char *p, const char *key, const struct secrets_text_part *part)
{
    p = append(p, ",\n  \"");
    p = append(p, key);
    p = append(p, "\": { \"type\": \"");
    p = append(p, lonely_auth_scheme_str(part->scheme));
    if (part->scheme != LONELY_AUTH_NONE) {
        p = append(p, "\", \"secret\": \"");
        for (const char *c = part->secret; *c != '\0'; c++) {
            if (*c == '"' || *c == '\\')
                *p++ = '\\';
            *p++ = *c;
        }
    }
    return append(p, "\" }");
}

/* Makes the name of a new file last. */
static bool sync_folder_of(const char *path)
{
    char copy[PATH_MAX];
    int fd, rc;

    if (strlen(path) >= sizeof copy) /* open() refused it before */
        return false;
    memcpy(copy, path, strlen(path) + 1);
    fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    rc = fsync(fd);
    close(fd);
    return rc == 0;
}

bool secrets_write(const char *path, const struct secrets_text *text, struct secrets_error *err)
{
    char buf[SECRETS_FILE_MAX]; /* both secrets escaped, and less than 200 bytes around them */
    char *p = append(buf, "{\n  \"version\": \"2\"");
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool ok;

    if (fd < 0)
        return fail(err, path, "cannot be made: %s", strerror(errno));
    p = append_part(p, "to-broadcaster", &text->to_broadcaster);
    p = append_part(p, "to-subscriber", &text->to_subscriber);
    p = append(p, "\n}\n");
    ok = fd_write_all(fd, buf, (size_t)(p - buf)) && fsync(fd) == 0 && sync_folder_of(path);
    if (!ok) {
        fail(err, path, "cannot be written: %s", strerror(errno));
        unlink(path);
    }
    explicit_bzero(buf, sizeof buf);
    close(fd);
    return ok;
}

void secrets_text_wipe(struct secrets_text *text)
{
    explicit_bzero(text, sizeof *text);
}
