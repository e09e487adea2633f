/*
 * Why something of tpft failed: one list makes the enum and the texts, which people read, here and at
 * the other end.
 */
#ifndef TPFT_FAULT_H
#define TPFT_FAULT_H

#include <stdbool.h>
#include <stddef.h>

#define FAULT_MAP(X)                                                                \
    X(FAULT_NONE, "success")                                                        \
    X(FAULT_SYSTEM, "system call failed")                                           \
    X(FAULT_PATH_EMPTY, "the path is empty")                                        \
    X(FAULT_PATH_LONG, "the path, or a name in it, is too long")                    \
    X(FAULT_PATH_NUL, "the path contains a NUL")                                    \
    X(FAULT_PATH_OUTSIDE, "the path leads out of the folder that is served")        \
    X(FAULT_PATH_LINK, "a symbolic link is on the path")                            \
    X(FAULT_PATH_RESERVED, "names that begin with .tpft- are for unfinished files") \
    X(FAULT_NOT_REGULAR, "not a regular file")                                      \
    X(FAULT_BUSY, "another transfer of this file is under way")                     \
    X(FAULT_CHANGED, "the file changed while it was being sent")                    \
    X(FAULT_CHECKSUM, "the checksum does not match")                                \
    X(FAULT_READ_ONLY, "this server is read-only")                                  \
    X(FAULT_LETTER, "malformed letter")                                             \
    X(FAULT_REQUEST, "unknown request")                                             \
    X(FAULT_UNEXPECTED, "unexpected letter")                                        \
    X(FAULT_MEMBER, "a member of the request is missing or of the wrong type")      \
    X(FAULT_STOPPED, "stopped")                                                     \
    X(FAULT_MEMORY, "out of memory")

enum fault_kind {
#define X(name, text) name,
    FAULT_MAP(X)
#undef X
};

struct fault {
    enum fault_kind kind;
    int system; /* errno of FAULT_SYSTEM */
};

static inline struct fault fault_of(enum fault_kind kind)
{
    return (struct fault){ .kind = kind };
}

static inline bool is_fault(struct fault fault)
{
    return fault.kind != FAULT_NONE;
}

/* From errno; links and escapes that the kernel found get their own kind. */
struct fault fault_errno(void);

#define FAULT_TEXT_MAX 128

/* One line, cut at `cap`. Returns `out`. */
const char *fault_text(struct fault fault, char *out, size_t cap);

#endif
