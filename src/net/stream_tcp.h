/*
 * Plain TCP as a stream.
 */
#ifndef NET_STREAM_TCP_H
#define NET_STREAM_TCP_H

#include <uv.h>

#include "stream.h"

/* Bytes are read into memory that all streams of a loop share, so an idle one holds none. */
struct stream_buffer {
    char bytes[64 * 1024];
};

/*
 * A stream on the connected, non-blocking socket `fd`, which it owns from now on, also when it
 * fails. NULL: no memory or descriptors. `buffer` must outlive the stream. Turns TCP_NODELAY on.
 */
struct stream *stream_tcp_open(uv_loop_t *loop, int fd, struct stream_buffer *buffer,
                               const struct stream_events *events, void *arg);

#endif
