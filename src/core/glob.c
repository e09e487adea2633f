/*
 * Glob patterns with SQLite's verdicts (doc/protocol/http.md, 8). Called by the broadcaster's index
 * and SQLite store and by the client's filter. Which patterns are worth trying on a topic is the
 * index's business.
 *
 * Bytes are compared where that gives the verdict of comparing code points: always in valid UTF-8,
 * but for U+FFFD, U+FFFE and U+FFFF, which are one character here. Those start with the byte 0xEF,
 * so everything below stops and decodes there.
 */
#include <string.h>

#include <lonely/glob.h>

#include "utf8.h"

#define EF_LEAD 0xEF /* starts U+F000 to U+FFFF */

static struct lonely_span until_nul(struct lonely_span s)
{
    const uint8_t *nul = s.len > 0 ? memchr(s.ptr, 0, s.len) : NULL;

    if (nul != NULL)
        s.len = (size_t)(nul - s.ptr);
    return s;
}

/* Bytes of the code point that starts with `lead`; the text is valid UTF-8. */
static uint32_t code_point_len(uint8_t lead)
{
    if (lead < 0x80)
        return 1;
    return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* Decodes the code point at `*at` of valid UTF-8, as GLOB sees it, and steps over it. */
static uint32_t code_point(const uint8_t *text, uint32_t *at)
{
    static const uint8_t lead_bits[] = { 0, 0x7F, 0x1F, 0x0F, 0x07 };
    uint32_t len = code_point_len(text[*at]);
    uint32_t c = text[*at] & lead_bits[len];

    for (uint32_t i = 1; i < len; i++)
        c = c << 6 | (text[*at + i] & 0x3F);
    *at += len;
    return c == 0xFFFE || c == 0xFFFF ? 0xFFFD : c;
}

static bool is_ambiguous(const uint8_t *text, uint32_t at)
{
    return text[at] == EF_LEAD && code_point(text, &at) == 0xFFFD;
}

/*
 * Reads the set whose `[` is at `at`: `*hit` tells whether `c` is in it. Returns the offset behind
 * its `]`, or 0 when there is none.
 */
static uint32_t set_scan(struct lonely_span pattern, uint32_t at, uint32_t c, bool *hit)
{
    const uint8_t *p = pattern.ptr;
    uint32_t end = (uint32_t)pattern.len;
    uint32_t previous = 0; /* 0: none; NUL cannot occur */
    bool inverted, in = false;

    at++;
    inverted = at < end && p[at] == '^';
    at += inverted;
    if (at < end && p[at] == ']') { /* a member, because it is the first */
        in = c == ']';
        at++;
    }
    while (at < end && p[at] != ']') {
        uint32_t member = code_point(p, &at);

        if (member == '-' && previous != 0 && at < end && p[at] != ']') {
            member = code_point(p, &at);
            in = in || (previous <= c && c <= member);
            previous = 0;
        } else {
            in = in || c == member;
            previous = member;
        }
    }
    *hit = in != inverted;
    return at < end ? at + 1 : 0;
}

enum element { LITERAL, AMBIGUOUS, STAR, ONE, SET, UNCLOSED };

/* What stands at `*at`; steps over it. A literal is one code point. */
static enum element next_element(struct lonely_span pattern, uint32_t *at)
{
    bool hit;
    uint32_t end;

    switch (pattern.ptr[*at]) {
    case '*':
        ++*at;
        return STAR;
    case '?':
        ++*at;
        return ONE;
    case '[':
        end = set_scan(pattern, *at, 0, &hit);
        *at = end != 0 ? end : (uint32_t)pattern.len;
        return end != 0 ? SET : UNCLOSED;
    default:
        if (is_ambiguous(pattern.ptr, *at)) {
            *at += 3;
            return AMBIGUOUS;
        }
        *at += code_point_len(pattern.ptr[*at]);
        return LITERAL;
    }
}

enum lonely_error lonely_glob_compile(struct lonely_span pattern, struct lonely_glob *out)
{
    struct lonely_glob g = { .literal = true, .plain = true };
    uint32_t suffix_at = 0;

    if (pattern.len > LONELY_GLOB_MAX_BYTES)
        return LONELY_E_FIELD_SIZE;
    if (!utf8_is_valid(pattern))
        return LONELY_E_UTF8;
    g.pattern = until_nul(pattern);
    g.prefix = g.pattern;
    for (uint32_t at = 0; at < g.pattern.len;) {
        uint32_t start = at;
        enum element e = next_element(g.pattern, &at);

        if (e == LITERAL || e == AMBIGUOUS)
            g.min_len += at - start;
        else if (e == ONE || e == SET)
            g.min_len += 1;
        if (e == LITERAL)
            continue;
        if (g.literal)
            g.prefix.len = start;
        g.literal = false;
        g.plain = g.plain && e == STAR;
        g.never = g.never || e == UNCLOSED;
        suffix_at = at;
    }
    if (!g.literal)
        g.suffix = (struct lonely_span){ g.pattern.ptr + suffix_at, g.pattern.len - suffix_at };
    *out = g;
    return LONELY_OK;
}

bool lonely_glob_topic_init(struct lonely_span topic, struct lonely_glob_topic *out)
{
    if (!utf8_is_valid(topic))
        return false;
    out->text = until_nul(topic);
    return true;
}

bool lonely_glob_next_literal(const struct lonely_glob *glob, size_t *at, struct lonely_span *run)
{
    uint32_t next = (uint32_t)*at;
    size_t start = *at;

    while (!glob->never && next < glob->pattern.len) {
        uint32_t before = next;

        if (next_element(glob->pattern, &next) == LITERAL)
            continue;
        *at = next;
        if (before > start) {
            *run = (struct lonely_span){ glob->pattern.ptr + start, before - start };
            return true;
        }
        start = next;
    }
    *at = glob->pattern.len;
    if (glob->never || start == glob->pattern.len)
        return false;
    *run = (struct lonely_span){ glob->pattern.ptr + start, glob->pattern.len - start };
    return true;
}

static bool starts_with(struct lonely_span s, struct lonely_span prefix)
{
    return prefix.len <= s.len && (prefix.len == 0 || memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

static bool ends_with(struct lonely_span s, struct lonely_span suffix)
{
    return suffix.len <= s.len &&
           (suffix.len == 0 || memcmp(s.ptr + s.len - suffix.len, suffix.ptr, suffix.len) == 0);
}

/* What is left to match between prefix and suffix, and how far that has come. */
struct match {
    struct lonely_span pattern, text;
    struct lonely_glob_state at;
    uint64_t steps;
};

static void spend(struct match *m, uint64_t steps)
{
    m->steps -= steps < m->steps ? steps : m->steps;
}

/* Pattern of `*` and literals only, starting and ending with `*`: each literal is taken where it
 * comes first, which leaves most to those behind it. */
static enum lonely_glob_verdict match_plain(struct match *m)
{
    struct lonely_span p = { m->pattern.ptr + m->at.pattern_at, m->pattern.len - m->at.pattern_at };
    struct lonely_span t = { m->text.ptr + m->at.topic_at, m->text.len - m->at.topic_at };

    while (p.len > 1) {
        const uint8_t *star = memchr(p.ptr + 1, '*', p.len - 1);
        size_t len = (size_t)(star - p.ptr) - 1;
        const uint8_t *found = t.len >= len ? memmem(t.ptr, t.len, p.ptr + 1, len) : NULL;
        size_t taken = found != NULL ? (size_t)(found - t.ptr) + len : t.len;

        spend(m, 1 + len + taken);
        if (found == NULL)
            return LONELY_GLOB_NO_MATCH;
        t = (struct lonely_span){ t.ptr + taken, t.len - taken };
        p = (struct lonely_span){ star, p.len - len - 1 };
    }
    return LONELY_GLOB_MATCH;
}

/* Behind a `*` that is followed by a literal: skips what cannot be its start. False: there is none,
 * so nothing matches. */
static bool seek(struct match *m)
{
    uint8_t first = m->pattern.ptr[m->at.pattern_at];
    size_t left = m->text.len - m->at.topic_at;
    const uint8_t *found;

    if (first == '?' || first == '[' || first == EF_LEAD)
        return true;
    found = left > 0 ? memchr(m->text.ptr + m->at.topic_at, first, left) : NULL;
    spend(m, (found != NULL ? (size_t)(found - m->text.ptr) - m->at.topic_at : left) / 16);
    if (found == NULL)
        return false;
    m->at.topic_at = (uint32_t)(found - m->text.ptr);
    m->at.star_topic_at = m->at.topic_at;
    return true;
}

/* Takes the `*`s at the cursor; remembers where they are. */
static enum lonely_glob_verdict take_star(struct match *m)
{
    while (m->at.pattern_at < m->pattern.len && m->pattern.ptr[m->at.pattern_at] == '*')
        m->at.pattern_at++;
    if (m->at.pattern_at == m->pattern.len)
        return LONELY_GLOB_MATCH;
    m->at.star_at = m->at.pattern_at;
    m->at.star_topic_at = m->at.topic_at;
    return seek(m) ? LONELY_GLOB_MORE : LONELY_GLOB_NO_MATCH;
}

/* Lets the last `*` take one code point more. An earlier one need not: it would only leave less. */
static enum lonely_glob_verdict retry_star(struct match *m)
{
    if (m->at.star_at == 0 || m->at.star_topic_at == m->text.len)
        return LONELY_GLOB_NO_MATCH;
    m->at.star_topic_at += code_point_len(m->text.ptr[m->at.star_topic_at]);
    m->at.topic_at = m->at.star_topic_at;
    m->at.pattern_at = m->at.star_at;
    return seek(m) ? LONELY_GLOB_MORE : LONELY_GLOB_NO_MATCH;
}

/* Takes literal bytes for as long as they are equal; false if the first is not. */
static bool take_literals(struct match *m)
{
    static const bool ends[256] = { ['*'] = true, ['?'] = true, ['['] = true, [EF_LEAD] = true };
    const uint8_t *p = m->pattern.ptr + m->at.pattern_at;
    const uint8_t *t = m->text.ptr + m->at.topic_at;
    size_t p_left = m->pattern.len - m->at.pattern_at, t_left = m->text.len - m->at.topic_at;
    uint32_t most = (uint32_t)(p_left < t_left ? p_left : t_left), n = 0;

    while (n < most && p[n] == t[n] && !ends[p[n]])
        n++;
    m->at.pattern_at += n;
    m->at.topic_at += n;
    spend(m, n);
    return n > 0;
}

/* Takes what stands at both cursors, which is no `*`; false if it does not match. */
static bool take_one(struct match *m)
{
    uint32_t *p = &m->at.pattern_at, *t = &m->at.topic_at;
    uint32_t start = *p;
    bool hit;

    switch (m->pattern.ptr[*p]) {
    case '?':
        ++*p;
        *t += code_point_len(m->text.ptr[*t]);
        return true;
    case '[':
        *p = set_scan(m->pattern, *p, code_point(m->text.ptr, t), &hit);
        spend(m, *p - start);
        return hit;
    case EF_LEAD:
        return m->text.ptr[*t] == EF_LEAD &&
               code_point(m->pattern.ptr, p) == code_point(m->text.ptr, t);
    default:
        return take_literals(m);
    }
}

static enum lonely_glob_verdict match_step(struct match *m)
{
    bool pattern_ends = m->at.pattern_at == m->pattern.len;

    spend(m, 1);
    if (!pattern_ends && m->pattern.ptr[m->at.pattern_at] == '*')
        return take_star(m);
    if (m->at.topic_at == m->text.len) /* taking more with a `*` would not help */
        return pattern_ends ? LONELY_GLOB_MATCH : LONELY_GLOB_NO_MATCH;
    if (!pattern_ends && take_one(m))
        return LONELY_GLOB_MORE;
    return retry_star(m);
}

/* What can be told without looking at the middle. */
static enum lonely_glob_verdict match_ends(const struct lonely_glob *g, struct lonely_span text)
{
    if (g->never || text.len < g->min_len || (g->literal && text.len != g->prefix.len))
        return LONELY_GLOB_NO_MATCH;
    if (!starts_with(text, g->prefix) || !ends_with(text, g->suffix))
        return LONELY_GLOB_NO_MATCH;
    return g->literal ? LONELY_GLOB_MATCH : LONELY_GLOB_MORE;
}

static enum lonely_glob_verdict match_start(const struct lonely_glob *g, struct match *m)
{
    spend(m, 1 + (g->prefix.len + g->suffix.len) / 16);
    m->at.pattern_at = m->at.topic_at = (uint32_t)g->prefix.len;
    m->at.started = true;
    return match_ends(g, m->text);
}

static enum lonely_glob_verdict match_middle(const struct lonely_glob *g, struct match *m)
{
    enum lonely_glob_verdict v = LONELY_GLOB_MORE;

    m->pattern.len -= g->suffix.len;
    m->text.len -= g->suffix.len;
    if (g->plain)
        return match_plain(m);
    while (v == LONELY_GLOB_MORE && m->steps > 0)
        v = match_step(m);
    return v;
}

enum lonely_glob_verdict lonely_glob_match(const struct lonely_glob *glob,
                                           const struct lonely_glob_topic *topic,
                                           struct lonely_glob_state *state, uint64_t *steps)
{
    struct match m = { .pattern = glob->pattern, .text = topic->text, .steps = UINT64_MAX };
    enum lonely_glob_verdict v = LONELY_GLOB_MORE;

    if (steps != NULL && *steps == 0)
        return LONELY_GLOB_MORE;
    if (steps != NULL)
        m.steps = *steps;
    if (state != NULL)
        m.at = *state;
    if (!m.at.started)
        v = match_start(glob, &m);
    if (v == LONELY_GLOB_MORE)
        v = match_middle(glob, &m);
    if (state != NULL)
        *state = v == LONELY_GLOB_MORE ? m.at : (struct lonely_glob_state){ 0 };
    if (steps != NULL)
        *steps = m.steps;
    return v;
}

bool lonely_glob_matches(struct lonely_span pattern, struct lonely_span topic)
{
    struct lonely_glob g;
    struct lonely_glob_topic t;

    return lonely_glob_compile(pattern, &g) == LONELY_OK && lonely_glob_topic_init(topic, &t) &&
           lonely_glob_match(&g, &t, NULL, NULL) == LONELY_GLOB_MATCH;
}
