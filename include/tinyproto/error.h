/*
 * Every error of libtinyproto, once, and the attribute that exports a function. Included by every
 * other header.
 */
#ifndef TINYPROTO_ERROR_H
#define TINYPROTO_ERROR_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TINYPROTO_API __attribute__((visibility("default")))
#else
#define TINYPROTO_API
#endif

/** Append only: the numbers are ABI. */
#define TINYPROTO_ERROR_MAP(X)                                                                \
    X(TINYPROTO_OK, "success")                                                                \
    X(TINYPROTO_E_ARGUMENT, "an argument is outside its documented range")                    \
    X(TINYPROTO_E_STATE, "not allowed in this state")                                         \
    X(TINYPROTO_E_TOO_LARGE, "message is larger than the limit")                              \
    X(TINYPROTO_E_QUEUE_FULL, "queue is full")                                                \
    X(TINYPROTO_E_MEMORY, "out of memory")                                                    \
    X(TINYPROTO_E_SYSTEM, "system call failed")                                               \
    X(TINYPROTO_E_RESOLVE, "cannot resolve the host name")                                    \
    X(TINYPROTO_E_CONNECT, "cannot connect")                                                  \
    X(TINYPROTO_E_TIMEOUT, "timed out")                                                       \
    X(TINYPROTO_E_LIMIT, "connection limit reached")                                          \
    X(TINYPROTO_E_REFUSED, "refused by the peer")                                             \
    X(TINYPROTO_E_NOT_TINYPROTO, "not a tinyproto peer")                                      \
    X(TINYPROTO_E_CONFLICT, "conflict: both sides announced a message at once")               \
    X(TINYPROTO_E_CLOSED, "closed by the peer")                                               \
    X(TINYPROTO_E_CLOSED_HANDSHAKE, "closed during the handshake")                            \
    X(TINYPROTO_E_CLOSED_INSIDE, "closed inside a transmission")                              \
    X(TINYPROTO_E_PLUGIN, "a plugin failed")                                                  \
    X(TINYPROTO_E_SOURCE, "the source of a message ended before the size that was announced") \
    X(TINYPROTO_E_STOPPED, "stopped")

enum tinyproto_error {
#define TINYPROTO_X_(name, text) name,
    TINYPROTO_ERROR_MAP(TINYPROTO_X_)
#undef TINYPROTO_X_
};

/** An error, and what the system said with it. */
struct tinyproto_cause {
    enum tinyproto_error err;
    int system; /**< an errno value, of TINYPROTO_E_RESOLVE an EAI_* value; 0: none */
};

/** Room that tinyproto_cause_print never needs more of, its NUL included. */
#define TINYPROTO_CAUSE_MAX 192

/** The text of an error: static, one line, never NULL, also for values outside the list. */
TINYPROTO_API const char *tinyproto_strerror(enum tinyproto_error err);

/** Writes "cannot connect: Connection refused" and the like into `out`, with a NUL, cut where `cap`
 * (at least 1) is too small. Returns `out`. */
TINYPROTO_API const char *tinyproto_cause_print(const struct tinyproto_cause *cause, char *out,
                                                size_t cap);

#ifdef __cplusplus
}
#endif

#endif
