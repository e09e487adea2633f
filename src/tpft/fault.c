/*
 * The texts of fault.h. No text names a path: the one who asked knows it, others need not.
 */
#include "fault.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct fault fault_errno(void)
{
    switch (errno) {
    case ELOOP:
        return fault_of(FAULT_PATH_LINK);
    case EXDEV:
        return fault_of(FAULT_PATH_OUTSIDE);
    default:
        return (struct fault){ .kind = FAULT_SYSTEM, .system = errno };
    }
}

const char *fault_text(struct fault fault, char *out, size_t cap)
{
    static const char *const texts[] = {
#define X(name, text) [name] = text,
        FAULT_MAP(X)
#undef X
    };
    char system[FAULT_TEXT_MAX];
    const char *text = texts[fault.kind];

    if (fault.kind == FAULT_SYSTEM)
        text = strerror_r(fault.system, system, sizeof(system));
    (void)snprintf(out, cap, "%s", text);
    return out;
}
