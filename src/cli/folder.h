/*
 * `--output`: a file a message.
 */
#ifndef FOLDER_H
#define FOLDER_H

#include "cli.h"

#define FOLDER_NAME_MAX 192

struct folder {
    const char *path; /* NULL: there is no --output */
    int fd;
    uint64_t count;
};

/* Makes the folder if it is not there. False: complained. */
bool folder_open(struct folder *f, const char *path);
void folder_close(struct folder *f);

/* A file with the message, there as a whole or not at all, that replaces no other:
 * YYYYMMDDTHHMMSS.NNNNNNNNNZ-COUNT-TOPIC, where characters of the topic other than letters, digits, `.`,
 * `_` and `-` are `_`. False: complained. */
bool folder_add(struct folder *f, const struct lonely_delivery *d, char name[FOLDER_NAME_MAX]);

#endif
