/*
 * Globs and topics from peers. Properties: the verdict is that of the plain matcher below, in one
 * go and in portions; the number of steps is bounded; prefix, suffix, least length and literal runs
 * are true of every topic that matches.
 *
 * Input: one byte of the length of the pattern, one byte of the steps a portion, pattern, topic.
 */
#include <stdlib.h>
#include <string.h>

#include <lonely/glob.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

/* ---- the plain matcher: rules 3 to 8 of http.md, 8, on arrays of code points ---- */

#define TEXT_MAX 512

struct text {
    uint32_t c[TEXT_MAX];
    size_t len;
};

static struct text decode(struct lonely_span s)
{
    struct text t = { .len = 0 };

    for (size_t i = 0; i < s.len && s.ptr[i] != 0; t.len++) {
        uint8_t lead = s.ptr[i++];
        uint32_t c = lead < 0x80   ? lead
                     : lead < 0xe0 ? lead & 31
                     : lead < 0xf0 ? lead & 15
                                   : lead & 7;

        while (i < s.len && (s.ptr[i] & 0xc0) == 0x80)
            c = c << 6 | (s.ptr[i++] & 0x3f);
        t.c[t.len] = c == 0xfffe || c == 0xffff ? 0xfffd : c;
    }
    return t;
}

/* Index behind the `]` of the set at `at`, or 0. */
static size_t plain_set(const struct text *p, size_t at, uint32_t c, bool *in)
{
    bool invert = at + 1 < p->len && p->c[at + 1] == '^', first = true, has_previous = false;

    *in = false;
    for (at += 1 + invert; at < p->len; at++, first = false) {
        if (p->c[at] == ']' && !first) {
            *in ^= invert;
            return at + 1;
        }
        if (p->c[at] == '-' && has_previous && at + 1 < p->len && p->c[at + 1] != ']') {
            *in |= p->c[at - 1] <= c && c <= p->c[at + 1];
            at++;
            has_previous = false;
        } else {
            *in |= p->c[at] == c;
            has_previous = !(first && p->c[at] == ']');
        }
    }
    return 0;
}

/* One column of the table "does the pattern's rest match the topic's rest" after the other, from
 * the end of the pattern: quadratic at worst, with no cleverness that could be wrong. */
static bool plain_match(const struct text *p, const struct text *t)
{
    static bool row[TEXT_MAX + 1][TEXT_MAX + 1]; /* by pattern, topic */

    memset(row, 0, sizeof row);
    row[p->len][t->len] = true;
    for (size_t i = p->len; i-- > 0;) {
        for (size_t k = t->len + 1; k-- > 0;) {
            uint32_t c = k < t->len ? t->c[k] : 0;
            bool in = false;
            size_t next;

            if (p->c[i] == '*') {
                row[i][k] = row[i + 1][k] || (k < t->len && row[i][k + 1]);
            } else if (p->c[i] == '?') {
                row[i][k] = k < t->len && row[i + 1][k + 1];
            } else if (p->c[i] == '[') {
                next = plain_set(p, i, c, &in);
                row[i][k] = next != 0 && k < t->len && in && row[next][k + 1];
            } else {
                row[i][k] = k < t->len && p->c[i] == c && row[i + 1][k + 1];
            }
        }
    }
    return row[0][0];
}

/* ---- ours ---- */

static bool in_portions(const struct lonely_glob *g, const struct lonely_glob_topic *t,
                        uint64_t portion)
{
    uint64_t most = (g->pattern.len + 2) * (t->text.len + 2) * (g->pattern.len + 2), spent = 0;
    struct lonely_glob_state at = { 0 };
    enum lonely_glob_verdict v = LONELY_GLOB_MORE;

    while (v == LONELY_GLOB_MORE) {
        uint64_t steps = portion;

        v = lonely_glob_match(g, t, &at, &steps);
        require(steps < portion && v <= LONELY_GLOB_MORE);
        spent += portion - steps;
        require(spent <= most);
    }
    return v == LONELY_GLOB_MATCH;
}

static void check_analysis(const struct lonely_glob *g, struct lonely_span text)
{
    struct lonely_span run, rest = text;
    size_t at = 0;

    require(text.len >= g->min_len && text.len >= g->prefix.len + g->suffix.len && !g->never);
    require(g->prefix.len == 0 || memcmp(text.ptr, g->prefix.ptr, g->prefix.len) == 0);
    require(g->suffix.len == 0 ||
            memcmp(text.ptr + text.len - g->suffix.len, g->suffix.ptr, g->suffix.len) == 0);
    require(!g->literal || text.len == g->prefix.len);
    while (lonely_glob_next_literal(g, &at, &run)) {
        const uint8_t *found = rest.len > 0 ? memmem(rest.ptr, rest.len, run.ptr, run.len) : NULL;
        size_t taken;

        require(run.len > 0 && found != NULL);
        taken = (size_t)(found - rest.ptr) + run.len;
        rest = (struct lonely_span){ rest.ptr + taken, rest.len - taken };
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lonely_span pattern, topic;
    struct lonely_glob_topic t;
    struct lonely_glob g;
    struct text p, c;
    bool match;

    if (size < 2 || size > TEXT_MAX || data[0] > size - 2)
        return 0;
    pattern = (struct lonely_span){ data + 2, data[0] };
    topic = (struct lonely_span){ data + 2 + data[0], size - 2 - data[0] };
    if (lonely_glob_compile(pattern, &g) != LONELY_OK || !lonely_glob_topic_init(topic, &t)) {
        require(!lonely_glob_matches(pattern, topic));
        return 0;
    }
    p = decode(pattern);
    c = decode(topic);
    match = plain_match(&p, &c);
    require(lonely_glob_matches(pattern, topic) == match);
    require(in_portions(&g, &t, data[1] + 1U) == match);
    if (match)
        check_analysis(&g, t.text);
    return 0;
}
