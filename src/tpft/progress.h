/*
 * How far a transfer is: the reference's text on standard output where -p asks for it, a bar on
 * standard error where that is a terminal, else nothing.
 */
#ifndef TPFT_PROGRESS_H
#define TPFT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#define PROGRESS_MS 100 /* between two updates */

enum progress_kind { PROGRESS_NONE, PROGRESS_TEXT, PROGRESS_BAR };

struct progress {
    enum progress_kind kind;
    const char *name; /* for people */
    uint64_t total, first, done;
    uint64_t began_ms;
    bool is_running;
};

enum progress_kind progress_choose(bool is_asked_for);
/* `first` bytes were there before. */
void progress_begin(struct progress *p, const char *name, uint64_t total, uint64_t first,
                    uint64_t now_ms);
void progress_show(struct progress *p, uint64_t done, uint64_t now_ms);
/* Ends the line; a complete transfer has shown 100 %. Not running: nothing. */
void progress_end(struct progress *p, bool is_complete, uint64_t now_ms);

#endif
