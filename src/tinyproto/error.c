/*
 * The texts of errors. Everybody uses them; they come from the one list in tinyproto/error.h.
 */
#include <tinyproto/error.h>

#include <netdb.h>
#include <stdio.h>
#include <string.h>

const char *tinyproto_strerror(enum tinyproto_error err)
{
    switch (err) {
#define TEXT(name, text) \
    case name:           \
        return text;
        TINYPROTO_ERROR_MAP(TEXT)
#undef TEXT
    }
    return "unknown error";
}

const char *tinyproto_cause_print(const struct tinyproto_cause *cause, char *out, size_t cap)
{
    char buffer[96];
    const char *system = NULL;

    if (cause->system != 0)
        system = cause->err == TINYPROTO_E_RESOLVE
                     ? gai_strerror(cause->system)
                     : strerror_r(cause->system, buffer, sizeof(buffer));
    snprintf(out, cap, "%s%s%s", tinyproto_strerror(cause->err), system != NULL ? ": " : "",
             system != NULL ? system : "");
    return out;
}
