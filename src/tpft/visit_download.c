/*
 * Downloads (visit_private.h): chunk after chunk from the descriptor.
 *                                                            (doc/protocol/tinyproto.md, 14.3, 14.4)
 */
#include <string.h>
#include <unistd.h>

#include "show.h"
#include "visit_private.h"

/* ---- The request ---- */

/* Has the peer what we have, up to where it says? Then the sum goes on from there, else from 0. */
static void compare(struct visit *v)
{
    uint8_t sum[SUM_BYTES];

    if (v->sent == 0 || v->sent > v->source.size) {
        v->sent = 0;
        return;
    }
    v->fault = sum_add_file(v->sum, v->source.fd, 0, v->sent);
    sum_read(v->sum, sum);
    if (is_fault(v->fault) || memcmp(sum, v->peer_sum, SUM_BYTES) == 0)
        return;
    v->sent = 0;
    sum_reset(v->sum);
}

static void job_open(struct visit *v)
{
    const char *name;
    int folder;

    v->fault = root_enter(&v->shop->root, v->path, &folder, &name);
    if (is_fault(v->fault))
        return;
    v->fault = source_open(&v->source, folder, name, false);
    (void)close(folder);
    if (!is_fault(v->fault) && v->sum != NULL)
        compare(v);
}

static void end(struct visit *v)
{
    source_close(&v->source);
    sum_destroy(v->sum);
    v->sum = NULL;
}

static void opened(struct visit *v)
{
    struct letter letter = { .type = LETTER_DOWNLOAD_CONFIRMATION,
                             .given = LETTER_FILE_SIZE,
                             .file_size = v->source.size,
                             .offset = v->sent };

    if (is_fault(v->fault)) {
        end(v);
        visit_reject(v, v->fault);
        return;
    }
    if (v->sum != NULL)
        letter.given |= LETTER_CHECKSUM | LETTER_OFFSET;
    v->phase = VISIT_AWAIT_ACCEPT;
    visit_say(v, &letter);
    visit_resume(v);
}

void download_request(struct visit *v, const struct letter *letter)
{
    struct fault fault = fault_of(FAULT_MEMBER);
    char shown[SHOW_MAX];

    visit_note(v, "download of %s", show_text(letter->download.ptr, letter->download.len, shown));
    if ((letter->given & LETTER_DOWNLOAD) != 0)
        fault = root_below(&v->shop->root, letter->download, v->path);
    v->sent = 0;
    if (!is_fault(fault) && (letter->given & LETTER_CHECKSUM) != 0) {
        v->sum = sum_create(&v->shop->is_stopping);
        if (v->sum == NULL)
            fault = fault_of(FAULT_MEMORY);
        if ((letter->given & LETTER_OFFSET) != 0 && (letter->given & LETTER_SUM) != 0)
            v->sent = letter->offset;
        memcpy(v->peer_sum, letter->sum, SUM_BYTES);
    }
    if (is_fault(fault))
        visit_reject(v, fault);
    else
        visit_work_alone(v, job_open, opened);
}

/* ---- Chunks ---- */

static void send_next(struct visit *v);

static void on_sent(void *arg, struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    struct visit *v = arg;

    (void)conn;
    if (why->err != TINYPROTO_OK)
        return; /* visit_end() follows */
    v->sent += v->chunk;
    send_next(v);
}

static void job_prepare(struct visit *v)
{
    if (v->sent + v->chunk == v->source.size)
        v->fault = source_check(&v->source);
    if (!is_fault(v->fault) && v->sum != NULL)
        v->fault = sum_add_file(v->sum, v->source.fd, v->sent, v->sent + v->chunk);
}

static void prepared(struct visit *v)
{
    char text[FAULT_TEXT_MAX];

    if (is_fault(v->fault)) {
        visit_note(v, "aborted: %s", fault_text(v->fault, text, sizeof(text)));
        tinyproto_abort(v->conn); /* a size was promised, and there is no letter to take it back */
    } else if (tinyproto_transmit_fd(v->conn, v->source.fd, (int64_t)v->sent, v->chunk, on_sent,
                                     v) != TINYPROTO_OK) {
        tinyproto_abort(v->conn);
    }
}

static void say_sum(struct visit *v)
{
    struct letter letter = { .type = LETTER_CONFIRMED, .given = LETTER_SUM };

    sum_read(v->sum, letter.sum);
    visit_say(v, &letter);
}

static void send_next(struct visit *v)
{
    uint64_t left = v->source.size - v->sent;

    if (left == 0) {
        if (v->sum != NULL)
            say_sum(v);
        v->phase = VISIT_AWAIT_VERDICT;
        visit_be_patient(v, v->source.size); /* the peer puts it on its disk */
        return;
    }
    v->chunk = left < v->shop->chunk_bytes ? left : v->shop->chunk_bytes;
    visit_work(v, job_prepare, prepared);
}

void download_accepted(struct visit *v, const struct letter *letter)
{
    if (letter->type == LETTER_CONFIRMED || letter->type == LETTER_DOWNLOAD_CONFIRMATION) {
        v->phase = VISIT_SENDING;
        send_next(v);
    } else if (letter->type == LETTER_REJECTED) {
        end(v);
        v->phase = VISIT_IDLE;
    } else {
        visit_reject_and_close(v, fault_of(FAULT_UNEXPECTED));
    }
}

void download_verdict(struct visit *v, const struct letter *letter)
{
    if (letter->type != LETTER_CONFIRMED && letter->type != LETTER_REJECTED) {
        visit_reject_and_close(v, fault_of(FAULT_UNEXPECTED));
        return;
    }
    visit_note(v, letter->type == LETTER_CONFIRMED ? "downloaded" : "the peer could not keep it");
    end(v);
    v->phase = VISIT_IDLE;
    visit_be_patient(v, 0);
}
