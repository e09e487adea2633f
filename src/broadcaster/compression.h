/*
 * What all sessions of the process share of compression: the compressor without a dictionary, the
 * dictionaries of [compression], and the contexts of every compressor. (doc/protocol/session.md, 4)
 *
 * Immutable once it is made: any thread.
 */
#ifndef COMPRESSION_H
#define COMPRESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "compressor.h"
#include "conf.h"

struct compression;

/* Reads the dictionaries. NULL: `error` says in one line which file is wrong, and why. */
struct compression *compression_create(const struct conf *conf, char error[256]);
void compression_destroy(struct compression *c); /* NULL is allowed */

/* Borrowed, as long as the compression lives. */
struct compressor *compression_plain(const struct compression *c);
/* NULL: there is none of that id. */
struct compressor *compression_preset(const struct compression *c, uint64_t id);
struct compressor_contexts *compression_contexts(const struct compression *c);

#endif
