/*
 * The secrets files: read when a program starts or rereads them, written by --setup.
 *                                                                     (doc/protocol/auth.md, 6)
 *
 * Blocking file I/O. The text of a secret is in memory only during a call, or in a struct that the
 * caller wipes; no error text holds any of it.
 */
#ifndef SECRETS_H
#define SECRETS_H

#include <stdbool.h>
#include <stddef.h>

#include <lonely/auth.h>

/* A larger file is refused. Two tokens of the greatest length fit, every character escaped. */
#define SECRETS_FILE_MAX 32768

/* Whose file it is. It matters for version 1, which is written from its owner's point of view. */
enum secrets_owner { SECRETS_BROADCASTER, SECRETS_SUBSCRIBER };

/* One line, which file and what is wrong with it, ready to be printed. */
struct secrets_error {
    char text[512];
};

/* ---- Reading ---- */

/* The keys of a file. Owned by the struct until secrets_fini. */
struct secrets {
    struct lonely_auth_key *to_broadcaster, *to_subscriber; /* never NULL after success */
    bool readable_by_others; /* group or others may read the file: warn, or refuse to start */
};

/* Reads a file of version "2" or "1". A direction that the file does not name is `none`; a key that
 * the version does not know is an error, since a misspelt direction must not turn authorization
 * off. On failure `out` is empty and `err` is filled. */
bool secrets_load(const char *path, enum secrets_owner owner, struct secrets *out,
                  struct secrets_error *err);

/* The same from memory: `len` bytes of JSON, at most SECRETS_FILE_MAX. `name` stands for the file
 * in `err`. */
bool secrets_parse(const char *json, size_t len, const char *name, enum secrets_owner owner,
                   struct secrets *out, struct secrets_error *err);

/* Destroys the keys. May be called again, and on a struct of zeros. */
void secrets_fini(struct secrets *s);

/* ---- Writing ---- */

/* What a new file will hold. Wipe it with secrets_text_wipe. */
struct secrets_text {
    struct secrets_text_part {
        enum lonely_auth_scheme scheme;
        char secret[LONELY_AUTH_TOKEN_MAX_BYTES + 1]; /* empty for none */
    } to_broadcaster, to_subscriber;
};

/* Sets one direction: with the `secret` given, or, when that is NULL, with a new one of 64 random
 * bytes. Under none a given secret is ignored. False if the scheme cannot use the secret, with
 * `name` (an option or a key) in `err`. */
bool secrets_text_set(struct secrets_text_part *part, enum lonely_auth_scheme scheme,
                      const char *secret, const char *name, struct secrets_error *err);

/* Writes a new file of version "2": mode 0600, on disk when it returns. Fails if the path exists,
 * even as a dangling link; after any other failure no file is left. */
bool secrets_write(const char *path, const struct secrets_text *text, struct secrets_error *err);

void secrets_text_wipe(struct secrets_text *text);

#endif
