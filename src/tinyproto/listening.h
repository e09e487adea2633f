/*
 * Listening sockets of a server, TCP and Unix.
 */
#ifndef TINYPROTO_LISTENING_H
#define TINYPROTO_LISTENING_H

#include <tinyproto/address.h>

#define LISTENING_ERROR_MAX 256

/* A socket that listens, non-blocking, close-on-exec; `bound` is the address really bound. -1: `error`
 * is a line that names the address and the reason. */
int listening_open(const struct tinyproto_address *address, char bound[TINYPROTO_ADDRESS_TEXT_MAX],
                   char error[LISTENING_ERROR_MAX]);

/* What remains when the socket is closed: the file of a Unix socket. */
void listening_remove(const struct tinyproto_address *address);

#endif
