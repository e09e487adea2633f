/* Names and texts of the errors, from the one list in lonely/error.h. */
#include <lonely/error.h>

const char *lonely_error_str(enum lonely_error err)
{
    switch (err) {
#define LONELY_X_(name, text) \
    case name:                \
        return text;
        LONELY_ERROR_MAP(LONELY_X_)
#undef LONELY_X_
    }
    return "unknown error";
}

const char *lonely_error_name(enum lonely_error err)
{
    switch (err) {
#define LONELY_X_(name, text) \
    case name:                \
        return #name;
        LONELY_ERROR_MAP(LONELY_X_)
#undef LONELY_X_
    }
    return "unknown";
}
