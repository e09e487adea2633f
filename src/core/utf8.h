/* Strict UTF-8: shortest form, no surrogates, nothing above U+10FFFF, no sequence cut short. */
#ifndef CORE_UTF8_H
#define CORE_UTF8_H

#include <stdbool.h>

#include <lonely/span.h>

/* True for the empty span too. Eight bytes a step while they are ASCII. */
bool utf8_is_valid(struct lonely_span s);

#endif
