/*
 * Progress (progress.h).
 */
#include "progress.h"

#include <stdio.h>
#include <unistd.h>

#define BAR_WIDTH 30

enum progress_kind progress_choose(bool is_asked_for)
{
    if (is_asked_for)
        return PROGRESS_TEXT;
    return isatty(STDERR_FILENO) ? PROGRESS_BAR : PROGRESS_NONE;
}

static unsigned percent_of(const struct progress *p)
{
    return p->total == 0 ? 100 : (unsigned)((double)p->done / (double)p->total * 100);
}

static void show_bar(const struct progress *p, uint64_t now_ms)
{
    static const char full[] = "##############################",
                      none[] = "                              ";
    unsigned percent = percent_of(p);
    int width = (int)(percent * BAR_WIDTH / 100);
    double seconds = (double)(now_ms - p->began_ms) / 1000;
    double rate = seconds > 0 ? (double)(p->done - p->first) / seconds / (1 << 20) : 0;

    (void)fprintf(stderr, "\r%-24.24s %3u%% [%.*s%.*s] %8.1f MiB/s", p->name, percent, width, full,
                  BAR_WIDTH - width, none, rate);
}

static void show(const struct progress *p, uint64_t now_ms)
{
    if (p->kind == PROGRESS_BAR) {
        show_bar(p, now_ms);
    } else if (p->kind == PROGRESS_TEXT) {
        (void)printf("\rProgress: %u%%", percent_of(p));
        (void)fflush(stdout);
    }
}

void progress_begin(struct progress *p, const char *name, uint64_t total, uint64_t first,
                    uint64_t now_ms)
{
    p->name = name;
    p->total = total;
    p->first = first;
    p->done = first;
    p->began_ms = now_ms;
    p->is_running = true;
    show(p, now_ms);
}

void progress_show(struct progress *p, uint64_t done, uint64_t now_ms)
{
    /* 100 % is said when the other end has confirmed it. */
    if (done >= p->total)
        done = p->total - (p->total > 0);
    if (done > p->done) /* never back: what is acknowledged may belong to the chunk before */
        p->done = done;
    if (p->is_running)
        show(p, now_ms);
}

void progress_end(struct progress *p, bool is_complete, uint64_t now_ms)
{
    if (!p->is_running)
        return;
    p->is_running = false;
    if (is_complete) {
        p->done = p->total;
        show(p, now_ms);
    }
    if (p->kind == PROGRESS_BAR)
        (void)fputc('\n', stderr);
    else if (p->kind == PROGRESS_TEXT)
        (void)puts("");
}
