/*
 * What the request parser makes of some bytes, as text, however they are cut: shared by its table
 * (unit/test_request_parser.c) and its fuzz target. Header only.
 *
 *     "POST /a?b 5 {Host=a}{X=} close<hello>. GET / 0 {Host=a}. !400"
 *
 * A head is method, target, announced length ("chunked"), headers and, where they hold, ` close`,
 * ` 1.0`, ` continue`, ` HEAD`; a body stands in `<>`; `.` is its end, `!` a refusal. What was
 * left unused at the end follows as `~N`.
 */
#ifndef TESTS_REQUEST_TRANSCRIPT_H
#define TESTS_REQUEST_TRANSCRIPT_H

#include <stdbool.h>

#include "request_parser.h"
#include "tables.h"

struct transcript {
    char *text;
    size_t len, cap;
    bool in_body;
};

static inline void transcript_add(struct transcript *t, const void *bytes, size_t len)
{
    if (t->cap - t->len < len + 1) {
        t->cap = 2 * (t->cap + len + 1);
        t->text = (char *)realloc(t->text, t->cap);
        table_require(t->text != NULL, "memory of a transcript");
    }
    if (len > 0)
        memcpy(t->text + t->len, bytes, len);
    t->len += len;
    t->text[t->len] = '\0';
}

static inline void transcript_text(struct transcript *t, const char *s)
{
    transcript_add(t, s, strlen(s));
}

static inline void transcript_span(struct transcript *t, struct lonely_span s)
{
    transcript_add(t, s.ptr, s.len);
}

static inline void transcript_head(struct transcript *t, const struct request_parser *p,
                                   const struct http_head *h)
{
    char number[32];

    snprintf(number, sizeof(number), " %llu ", (unsigned long long)h->content_length);
    transcript_text(t, t->len > 0 ? " " : "");
    transcript_span(t, h->method);
    transcript_text(t, " ");
    transcript_span(t, h->target);
    transcript_text(t, h->content_length == HTTP_LENGTH_UNKNOWN ? " chunked " : number);
    for (size_t i = 0; i < h->header_count; i++) {
        transcript_text(t, "{");
        transcript_span(t, h->headers[i].name);
        transcript_text(t, "=");
        transcript_span(t, h->headers[i].value);
        transcript_text(t, "}");
    }
    transcript_text(t, p->keep_alive ? "" : " close");
    transcript_text(t, p->version_1_0 ? " 1.0" : "");
    transcript_text(t, p->expect_continue ? " continue" : "");
    transcript_text(t, p->no_reply_body ? " HEAD" : "");
}

/* One step's event; false: the parser wants more, or refuses. */
static inline bool transcript_step(struct transcript *t, const struct request_parser *p,
                                   const struct request_step *step, const struct http_head *head)
{
    char number[16];

    if (step->event == REQUEST_MORE)
        return false;
    if (step->event == REQUEST_PIECE) {
        table_require(step->piece.len > 0, "a piece has a byte");
        transcript_text(t, t->in_body ? "" : "<");
        t->in_body = true;
        transcript_span(t, step->piece);
        return true;
    }
    transcript_text(t, t->in_body ? ">" : "");
    t->in_body = false;
    if (step->event == REQUEST_HEAD)
        transcript_head(t, p, head);
    else if (step->event == REQUEST_END)
        transcript_text(t, ".");
    if (step->event != REQUEST_BAD)
        return true;
    snprintf(number, sizeof(number), "%s!%d", t->len > 0 ? " " : "", step->status);
    transcript_text(t, number);
    return false;
}

/*
 * The transcript of `in`, given to a parser in pieces of the sizes that `next_size` names (at least
 * 1; NULL: all at once). Each call sees its bytes against the unreadable page of `g`. To be freed.
 */
static inline char *transcript_of(const struct guard *g, struct lonely_span in,
                                  uint32_t max_head_bytes, size_t (*next_size)(void *arg),
                                  void *arg)
{
    struct transcript t = { 0 };
    struct request_pool pool;
    struct request_parser p;
    struct http_head head;
    size_t used = 0, given = 0;
    bool refused = false;

    request_pool_init(&pool);
    request_parser_init(&p, &pool, max_head_bytes);
    transcript_add(&t, NULL, 0);
    while (given < in.len && !refused) {
        size_t n = next_size == NULL ? in.len : next_size(arg);
        struct request_step step;

        given = n < in.len - given ? given + n : in.len;
        do {
            step = request_parser_next(
                &p, guard_lay(g, (struct lonely_span){ in.ptr + used, given - used }), &head);
            table_require(step.used <= given - used, "used within the input");
            used += step.used;
        } while (transcript_step(&t, &p, &step, &head));
        refused = step.event == REQUEST_BAD;
    }
    if (!refused && used < in.len) {
        char number[32];

        snprintf(number, sizeof(number), "~%zu", in.len - used);
        transcript_text(&t, number);
    }
    request_parser_fini(&p);
    request_pool_fini(&pool);
    return t.text;
}

#endif
