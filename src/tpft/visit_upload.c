/*
 * Uploads (visit_private.h): what comes is gathered in one buffer while a job writes the other. When
 * both are full the connection waits.                        (doc/protocol/tinyproto.md, 14.3, 14.4)
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "show.h"
#include "visit_private.h"

#define WRITE_BYTES (256u * 1024) /* a write is at least so long, or the last */

/* ---- The request ---- */

static void job_open(struct visit *v)
{
    const char *name;
    int folder;

    v->fault = root_enter(&v->shop->root, v->path, &folder, &name);
    if (!is_fault(v->fault))
        v->fault = sink_open(&v->sink, folder, name, &v->wish);
}

static void start(struct visit *v);

static void opened(struct visit *v)
{
    struct letter letter = { .type = LETTER_CONFIRMED };

    if (is_fault(v->fault)) {
        visit_reject(v, v->fault);
        return;
    }
    if (v->wish.checksum)
        letter.given |= LETTER_CHECKSUM;
    if (v->sink.got == 0) {
        visit_say(v, &letter);
        start(v);
        return;
    }
    letter.given |= LETTER_OFFSET | LETTER_SUM;
    letter.offset = v->sink.got;
    sum_read(v->sink.sum, letter.sum);
    v->phase = VISIT_AWAIT_OFFSET;
    visit_say(v, &letter);
    visit_resume(v);
    visit_be_patient(v, v->sink.got); /* the peer reads as much to compare */
}

void upload_request(struct visit *v, const struct letter *letter)
{
    const unsigned needed = LETTER_FILE_SIZE | LETTER_DESTINATION;
    struct fault fault = fault_of(FAULT_NONE);
    char shown[SHOW_MAX];

    visit_note(v, "upload of %" PRIu64 " bytes to %s", letter->file_size,
               show_text(letter->destination.ptr, letter->destination.len, shown));
    if (v->shop->is_read_only)
        fault = fault_of(FAULT_READ_ONLY);
    else if ((letter->given & needed) != needed)
        fault = fault_of(FAULT_MEMBER);
    else
        fault = root_below(&v->shop->root, letter->destination, v->path);
    if (is_fault(fault)) {
        visit_reject(v, fault);
        return;
    }
    v->wish = (struct sink_wish){ .size = letter->file_size,
                                  .mode = v->shop->mode,
                                  .stop = &v->shop->is_stopping,
                                  .checksum = (letter->given & LETTER_CHECKSUM) != 0,
                                  .resume = (letter->given & LETTER_RESUME) != 0 };
    v->trouble = fault_of(FAULT_NONE);
    v->wish.checksum = v->wish.checksum || v->wish.resume;
    visit_work_alone(v, job_open, opened);
}

static void job_drop(struct visit *v)
{
    sink_drop(&v->sink);
}

static void job_restart(struct visit *v)
{
    v->fault = sink_restart(&v->sink);
}

static void restarted(struct visit *v)
{
    v->trouble = v->fault; /* the chunks are under way already */
    start(v);
}

static void gave_up(struct visit *v)
{
    v->phase = VISIT_IDLE;
    visit_resume(v);
}

void upload_offset(struct visit *v, const struct letter *letter)
{
    if (letter->type == LETTER_REJECTED)
        visit_work_alone(v, job_drop, gave_up);
    else if (letter->type != LETTER_CONFIRMED || (letter->given & LETTER_OFFSET) == 0 ||
             (letter->offset != 0 && letter->offset != v->sink.got))
        visit_reject_and_close(v, fault_of(FAULT_UNEXPECTED));
    else if (letter->offset == 0)
        visit_work_alone(v, job_restart, restarted);
    else
        start(v);
}

/* ---- The end ---- */

static void job_commit(struct visit *v)
{
    v->fault = v->trouble;
    if (is_fault(v->trouble))
        sink_drop(&v->sink);
    else
        v->fault = sink_commit(&v->sink, v->wish.checksum ? v->peer_sum : NULL);
}

static void committed(struct visit *v)
{
    struct letter letter = { .type = LETTER_CONFIRMED };

    if (is_fault(v->fault)) {
        visit_reject(v, v->fault);
        return;
    }
    if (v->wish.checksum) {
        letter.given = LETTER_SUM;
        memcpy(letter.sum, v->peer_sum, SUM_BYTES);
    }
    visit_note(v, "uploaded");
    v->phase = VISIT_IDLE;
    visit_say(v, &letter);
    visit_resume(v);
}

void upload_sum(struct visit *v, const struct letter *letter)
{
    if (letter->type == LETTER_REJECTED) { /* the file changed meanwhile */
        v->sink.is_kept = false;
        visit_work_alone(v, job_drop, gave_up);
    } else if (letter->type == LETTER_CONFIRMED && (letter->given & LETTER_SUM) != 0) {
        memcpy(v->peer_sum, letter->sum, SUM_BYTES);
        visit_work_alone(v, job_commit, committed);
    } else {
        visit_reject_and_close(v, fault_of(FAULT_UNEXPECTED));
    }
}

/* ---- Chunks ---- */

static void job_write(struct visit *v)
{
    v->fault = sink_write(&v->sink, v->writing.ptr, v->writing.len);
}

static void pump(struct visit *v);

static void wrote(struct visit *v)
{
    v->writing.len = 0;
    if (is_fault(v->fault)) {
        v->trouble = v->fault;
        v->filling.len = 0;
        visit_note(v, "cannot write; dropping what comes");
    }
    visit_resume(v);
    pump(v);
}

static void all_there(struct visit *v)
{
    v->phase = VISIT_AWAIT_SUM;
    if (!v->wish.checksum)
        visit_work_alone(v, job_commit, committed);
}

/* Does whatever is possible now. Paused, with all that was owed, or with too much of it unwritten. */
static void pump(struct visit *v)
{
    const struct visit_buffer full = v->filling;
    bool is_last = v->received == v->wish.size;

    if (is_last && full.len == 0 && !v->is_working) {
        all_there(v);
        return;
    }
    if (!v->is_working && full.len > 0 && (is_last || full.len >= WRITE_BYTES)) {
        v->filling = v->writing;
        v->writing = full;
        visit_work(v, job_write, wrote);
    }
    if (v->is_working && (is_last || v->filling.len >= WRITE_BYTES))
        visit_pause(v);
}

static void start(struct visit *v)
{
    v->received = v->sink.got;
    v->phase = VISIT_RECEIVING;
    visit_be_patient(v, 0);
    visit_resume(v);
    pump(v);
}

/* A chunk is not empty, and not longer than what is owed. */
enum tinyproto_delivery upload_begin(struct visit *v, size_t size)
{
    if (size > 0 && size <= v->wish.size - v->received)
        return TINYPROTO_PIECES;
    visit_note(v, "a chunk of %zu bytes while %" PRIu64 " are owed", size,
               v->wish.size - v->received);
    return TINYPROTO_REFUSE;
}

/* Grows with what comes, to little more than WRITE_BYTES and one piece. */
static bool append(struct visit_buffer *b, const uint8_t *ptr, size_t len)
{
    if (len > b->cap - b->len) {
        size_t cap = b->len + len;
        uint8_t *grown = realloc(b->ptr, cap);

        if (grown == NULL)
            return false;
        b->ptr = grown;
        b->cap = cap;
    }
    memcpy(b->ptr + b->len, ptr, len);
    b->len += len;
    return true;
}

void upload_data(struct visit *v, const uint8_t *ptr, size_t len)
{
    v->received += len;
    if (!is_fault(v->trouble) && !append(&v->filling, ptr, len)) {
        v->trouble = fault_of(FAULT_MEMORY);
        v->filling.len = 0;
    }
    pump(v);
}
