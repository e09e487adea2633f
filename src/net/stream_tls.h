/*
 * TLS on TCP as a stream. An idle stream holds no buffer of ours.
 *
 * Beyond stream.h: the handshake happens while the user reads; on_open tells its end, and until then
 * nothing is sent (stream_try_send takes 0 bytes). A peer may close without close_notify: on_end
 * comes all the same, unless the handshake or a record is incomplete (on_lost), so the user's
 * messages must tell their own length. stream_close sends a close_notify, unless something that was
 * to be sent has not left: what was cut off does not look complete.
 *
 * Threads: everything on the thread of the loop.
 */
#ifndef NET_STREAM_TLS_H
#define NET_STREAM_TLS_H

#include "log.h"
#include "stream_tcp.h"
#include "tls.h"

/* What the TLS streams of a loop share: memory for the bytes of the moment. */
struct tls_loop;

/* `log` may be NULL and must outlive it; failed handshakes are told at level debug. */
struct tls_loop *tls_loop_create(uv_loop_t *loop, struct log *log);

/* Frees it once its streams are closed, which is the caller's to see to; `on_closed` runs then. */
void tls_loop_close(struct tls_loop *shared, void (*on_closed)(void *arg), void *arg);

/*
 * A stream on the connected, non-blocking socket `fd`, the server's side, which owns `fd` from now
 * on, also when it fails. NULL: no memory or descriptors. `buffer` must outlive the stream.
 */
struct stream *stream_tls_open(struct tls_loop *shared, struct tls_server *server, int fd,
                               struct stream_buffer *buffer, const struct stream_events *events,
                               void *arg);

#endif
