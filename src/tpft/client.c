/*
 * tpft as a client: files one after the other over one connection.
 *                                                      (doc/protocol/tinyproto.md, 14.3 and 14.4)
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "peer.h"
#include "program.h"
#include "serve.h"
#include "show.h"

#define TARGET_MAX (2 * PATH_BYTES_MAX)

struct client {
    const struct options *o;
    mode_t mode;
    struct peer peer;

    /* The transfer under way. */
    const char *label; /* the file, for messages */
    bool is_checked;   /* both ends keep a sum */
    struct source source;
    struct sink sink;
    struct sum *sum; /* of the source */
    uint64_t begin;  /* where it begins */
    struct letter heard;

    /* Of peer_work(). */
    const char *path;
    struct fault fault;
};

enum outcome {
    DONE,
    FAILED, /* this file; the connection is fit for the next, or closed by us */
    LOST    /* the connection */
};

/* ---- Telling ---- */

static void note(const struct client *c, const char *what, uint64_t bytes)
{
    if (c->o->is_verbose)
        show_line("%s: %s (%" PRIu64 " bytes)", c->label, what, bytes);
}

static enum outcome fail(struct client *c, const char *why)
{
    char shown[SHOW_MAX];

    progress_end(&c->peer.progress, false, peer_now_ms(&c->peer));
    show_line("%s: %s", show_text(c->label, strlen(c->label), shown), why);
    return FAILED;
}

static enum outcome fail_with(struct client *c, struct fault fault)
{
    char text[FAULT_TEXT_MAX];

    return fail(c, fault_text(fault, text, sizeof(text)));
}

static enum outcome fail_as_told(struct client *c)
{
    char line[SHOW_MAX + 32], shown[SHOW_MAX];
    const struct json_text reason = c->heard.reason;

    (void)snprintf(line, sizeof(line), "rejected: %s",
                   (c->heard.given & LETTER_REASON) != 0 ? show_text(reason.ptr, reason.len, shown)
                                                         : "no reason given");
    return fail(c, line);
}

/* The connection ended; whoever ended it, this file was not transferred. */
static enum outcome lost(struct client *c)
{
    char text[TINYPROTO_CAUSE_MAX];

    (void)fail(c, atomic_load(&c->peer.is_stopped)
                      ? "stopped"
                      : tinyproto_cause_print(&c->peer.cause, text, sizeof(text)));
    return LOST;
}

/* Ends the connection for a reason of our own. */
static enum outcome break_off(struct client *c, struct fault fault)
{
    peer_abort(&c->peer);
    return fail_with(c, fault);
}

/* ---- Letters ---- */

/* DONE: a letter of this type, in `heard`. */
static enum outcome hear(struct client *c, enum letter_type type, uint64_t bytes)
{
    if (!peer_hear(&c->peer, &c->heard, bytes))
        return lost(c);
    if (c->heard.type == LETTER_REJECTED)
        return fail_as_told(c);
    if (c->heard.type == type)
        return DONE;
    return break_off(c, fault_of(FAULT_UNEXPECTED));
}

static enum outcome say_confirmed(struct client *c, unsigned given, const uint8_t *sum)
{
    struct letter letter = { .type = LETTER_CONFIRMED, .given = given, .offset = c->begin };

    if (sum != NULL)
        memcpy(letter.sum, sum, SUM_BYTES);
    return peer_say(&c->peer, &letter) ? DONE : lost(c);
}

static enum outcome reject(struct client *c, struct fault fault)
{
    char text[FAULT_TEXT_MAX];
    struct letter letter = { .type = LETTER_REJECTED, .given = LETTER_REASON };

    letter.reason.ptr = fault_text(fault, text, sizeof(text));
    letter.reason.len = strlen(text);
    return peer_say(&c->peer, &letter) ? fail_with(c, fault) : lost(c);
}

/* The next request, over the connection that there is, or a new one. */
static enum outcome request(struct client *c, const struct letter *letter)
{
    if (atomic_load(&c->peer.is_stopped))
        return lost(c);
    if (c->peer.conn == NULL && !peer_connect(&c->peer, c->o->server.host, c->o->server.port))
        return lost(c);
    return peer_say(&c->peer, letter) ? DONE : lost(c);
}

static unsigned wishes(const struct client *c)
{
    return c->o->wants_checksum || c->o->wants_resume ? LETTER_CHECKSUM : 0;
}

static enum outcome complete(struct client *c, const char *what, uint64_t bytes)
{
    progress_end(&c->peer.progress, true, peer_now_ms(&c->peer));
    note(c, what, bytes);
    if (!c->o->wants_checksum || c->is_checked)
        return DONE;
    return fail(c, "transferred, but the server keeps no checksums: not verified");
}

/* ---- Upload ---- */

/* What the server has already: is it the same? */
static void job_compare(void *arg)
{
    struct client *c = arg;
    uint8_t sum[SUM_BYTES];

    c->fault = fault_of(FAULT_NONE);
    if (c->begin > c->source.size) {
        c->begin = 0;
        return;
    }
    c->fault = sum_add_file(c->sum, c->source.fd, 0, c->begin);
    sum_read(c->sum, sum);
    if (is_fault(c->fault) || memcmp(sum, c->heard.sum, SUM_BYTES) == 0)
        return;
    sum_reset(c->sum);
    c->begin = 0;
}

static enum outcome agree_on_begin(struct client *c)
{
    const unsigned offer = LETTER_OFFSET | LETTER_SUM;

    c->is_checked = wishes(c) != 0 && (c->heard.given & LETTER_CHECKSUM) != 0;
    if (!c->is_checked || !c->o->wants_resume || (c->heard.given & offer) != offer)
        return DONE;
    c->begin = c->heard.offset;
    peer_work(&c->peer, job_compare, c);
    if (is_fault(c->fault))
        return break_off(c, c->fault);
    note(c, "resumed", c->begin);
    return say_confirmed(c, LETTER_OFFSET, NULL);
}

static void job_add_chunk(void *arg)
{
    struct client *c = arg;
    uint64_t left = c->source.size - c->begin;
    uint64_t len = left < c->o->chunk_bytes ? left : c->o->chunk_bytes;

    c->fault = sum_add_file(c->sum, c->source.fd, c->begin, c->begin + len);
}

static enum outcome send_chunk(struct client *c, uint64_t len)
{
    struct fault fault = fault_of(FAULT_NONE);

    if (c->begin + len == c->source.size)
        fault = source_check(&c->source);
    if (!is_fault(fault) && c->is_checked) {
        peer_work(&c->peer, job_add_chunk, c);
        fault = c->fault;
    }
    if (is_fault(fault))
        return break_off(c, fault); /* a size was promised */
    if (!peer_send(&c->peer, &c->source, c->begin, len))
        return c->peer.cause.err == TINYPROTO_E_SOURCE ? fail_with(c, fault_of(FAULT_CHANGED))
                                                       : lost(c);
    c->begin += len;
    return DONE;
}

static enum outcome send_chunks(struct client *c)
{
    enum outcome outcome = DONE;

    while (outcome == DONE && c->begin < c->source.size) {
        uint64_t left = c->source.size - c->begin;

        outcome = send_chunk(c, left < c->o->chunk_bytes ? left : c->o->chunk_bytes);
        if (outcome == DONE && c->peer.n_kept > 0 && c->begin < c->source.size) {
            outcome = hear(c, LETTER_UNKNOWN, 0); /* nothing is to be heard yet but a rejection */
            peer_abort(&c->peer);
        }
    }
    return outcome;
}

static enum outcome send_file(struct client *c)
{
    uint64_t size = c->source.size;
    uint8_t sum[SUM_BYTES];
    enum outcome outcome = hear(c, LETTER_CONFIRMED, c->o->wants_resume ? size : 0);

    if (outcome == DONE)
        outcome = agree_on_begin(c);
    if (outcome != DONE)
        return outcome;
    progress_begin(&c->peer.progress, c->label, size, c->begin, peer_now_ms(&c->peer));
    outcome = send_chunks(c);
    if (outcome == DONE && c->is_checked) {
        sum_read(c->sum, sum);
        outcome = say_confirmed(c, LETTER_SUM, sum);
    }
    if (outcome == DONE)
        outcome = hear(c, LETTER_CONFIRMED, size); /* it puts it on its disk now */
    if (outcome == DONE && c->is_checked && (c->heard.given & LETTER_SUM) == 0)
        c->is_checked = false;
    if (outcome == DONE && c->is_checked && memcmp(c->heard.sum, sum, SUM_BYTES) != 0)
        return fail_with(c, fault_of(FAULT_CHECKSUM));
    return outcome == DONE ? complete(c, "uploaded", size) : outcome;
}

static enum outcome upload(struct client *c, const char *local, const char *remote)
{
    struct letter letter = { .type = LETTER_UPLOAD_REQUEST,
                             .given = LETTER_FILE_SIZE | LETTER_DESTINATION | wishes(c),
                             .destination = { remote, strlen(remote) } };
    struct fault fault = source_open(&c->source, AT_FDCWD, local, true);

    if (!is_fault(fault) && wishes(c) != 0) {
        c->sum = sum_create(&c->peer.is_stopped);
        if (c->sum == NULL)
            fault = fault_of(FAULT_MEMORY);
    }
    if (is_fault(fault))
        return fail_with(c, fault);
    letter.file_size = c->source.size;
    if (c->o->wants_resume)
        letter.given |= LETTER_RESUME;
    note(c, "uploading", c->source.size);
    return request(c, &letter) == DONE ? send_file(c) : LOST;
}

/* ---- Download ---- */

/* The folder of a local path, for the *at() calls. */
static int open_folder(const char *path)
{
    const char *name = path_name(path);
    char folder[TARGET_MAX];

    (void)snprintf(folder, sizeof(folder), "%.*s", (int)(name - path), path);
    return open(name == path ? "." : folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static void job_open_sink(void *arg)
{
    struct client *c = arg;
    const struct sink_wish wish = { .size = SINK_SIZE_UNKNOWN,
                                    .mode = c->mode,
                                    .stop = &c->peer.is_stopped,
                                    .checksum = wishes(c) != 0,
                                    .resume = c->o->wants_resume };
    int folder = open_folder(c->path);

    c->fault = folder < 0 ? fault_errno() : sink_open(&c->sink, folder, path_name(c->path), &wish);
}

static enum outcome receive_chunks(struct client *c)
{
    progress_begin(&c->peer.progress, c->label, c->sink.size, c->sink.got, peer_now_ms(&c->peer));
    if (peer_receive(&c->peer, &c->sink))
        return DONE;
    return is_fault(c->peer.sink_fault) ? fail_with(c, c->peer.sink_fault) : lost(c);
}

static void job_commit(void *arg)
{
    struct client *c = arg;

    c->fault = sink_commit(&c->sink, c->is_checked ? c->heard.sum : NULL);
}

static enum outcome keep_file(struct client *c, uint64_t size)
{
    peer_work(&c->peer, job_commit, c);
    if (is_fault(c->fault))
        return reject(c, c->fault);
    c->begin = 0;
    if (say_confirmed(c, 0, NULL) != DONE)
        return LOST; /* said; the file is there all the same, but the server cannot know */
    return complete(c, "downloaded", size);
}

/* The answer is in `heard`: what is there already is gone on with, or forgotten. */
static enum outcome accept_file(struct client *c)
{
    bool goes_on =
        c->is_checked && (c->heard.given & LETTER_OFFSET) != 0 && c->heard.offset == c->sink.got;
    struct fault fault = fault_of(FAULT_NONE);

    if (c->sink.got > 0 && !goes_on)
        fault = sink_restart(&c->sink);
    if (!is_fault(fault))
        fault = sink_set_size(&c->sink, c->heard.file_size);
    if (is_fault(fault))
        return reject(c, fault);
    if (c->sink.got > 0)
        note(c, "resumed", c->sink.got);
    c->begin = 0;
    return say_confirmed(c, 0, NULL);
}

static enum outcome receive_file(struct client *c)
{
    enum outcome outcome = hear(c, LETTER_DOWNLOAD_CONFIRMATION, c->sink.got);
    uint64_t size = c->heard.file_size;

    if (outcome == DONE && (c->heard.given & LETTER_FILE_SIZE) == 0)
        outcome = break_off(c, fault_of(FAULT_MEMBER));
    if (outcome != DONE)
        return outcome;
    c->is_checked = wishes(c) != 0 && (c->heard.given & LETTER_CHECKSUM) != 0;
    outcome = accept_file(c);
    if (outcome == DONE)
        outcome = receive_chunks(c);
    if (outcome == DONE && c->is_checked)
        outcome = hear(c, LETTER_CONFIRMED, 0);
    if (outcome == DONE && c->is_checked && (c->heard.given & LETTER_SUM) == 0)
        outcome = break_off(c, fault_of(FAULT_MEMBER));
    return outcome == DONE ? keep_file(c, size) : outcome;
}

static enum outcome download(struct client *c, const char *remote, const char *local)
{
    struct letter letter = { .type = LETTER_DOWNLOAD_REQUEST,
                             .given = LETTER_DOWNLOAD | wishes(c),
                             .download = { remote, strlen(remote) } };

    c->path = local;
    /* Before the request, and where there is no connection yet before that: to read again what an
     * earlier transfer left takes longer than a server waits. */
    peer_work(&c->peer, job_open_sink, c);
    if (is_fault(c->fault))
        return fail_with(c, c->fault);
    if (c->sink.got > 0) {
        letter.given |= LETTER_OFFSET | LETTER_SUM;
        letter.offset = c->sink.got;
        sum_read(c->sink.sum, letter.sum);
    }
    if (c->o->is_verbose)
        show_line("%s: downloading", c->label);
    return request(c, &letter) == DONE ? receive_file(c) : LOST;
}

/* ---- Files, one after the other ---- */

/* Where the `i`th file goes: the destination, or a name of its own in it. false: too long. */
static bool target_of(const struct client *c, const char *name, char *out)
{
    const char *destination = c->o->is_upload ? c->o->server.path : c->o->paths[c->o->n_sources];
    size_t len = strlen(destination);
    bool ends_in_slash = destination[len - 1] == '/';
    bool is_folder = c->o->n_sources > 1 || ends_in_slash;
    struct stat st;

    if (!c->o->is_upload && stat(destination, &st) == 0 && S_ISDIR(st.st_mode))
        is_folder = true;
    return snprintf(out, TARGET_MAX, "%s%s%s", destination, is_folder && !ends_in_slash ? "/" : "",
                    is_folder ? name : "") < TARGET_MAX;
}

static enum outcome transfer_one(struct client *c, const char *argument)
{
    struct path_remote remote = { .path = argument };
    char target[TARGET_MAX];
    enum outcome outcome;

    c->label = argument;
    c->begin = 0;
    c->is_checked = false;
    if (!c->o->is_upload)
        (void)path_parse_remote(argument, &remote); /* it was good before */
    if (!target_of(c, path_name(remote.path), target))
        return fail_with(c, fault_of(FAULT_PATH_LONG));
    outcome = c->o->is_upload ? upload(c, argument, target) : download(c, remote.path, target);
    source_close(&c->source);
    sum_destroy(c->sum);
    c->sum = NULL;
    sink_drop(&c->sink);
    return outcome;
}

static int transfer_all(struct client *c)
{
    int code = EXIT_GOOD;

    for (size_t i = 0; i < c->o->n_sources; i++) {
        enum outcome outcome = transfer_one(c, c->o->paths[i]);

        if (atomic_load(&c->peer.is_stopped))
            return EXIT_FAILED;
        if (outcome == LOST)
            return program_exit_of(c->peer.cause.err);
        if (outcome == FAILED)
            code = EXIT_FAILED;
    }
    peer_leave(&c->peer);
    return code;
}

int transfer(const struct options *o, mode_t mode)
{
    struct client *c = calloc(1, sizeof(*c));
    int code = EXIT_FAILED;

    if (c == NULL) {
        show_line("out of memory");
        return EXIT_FAILED;
    }
    c->o = o;
    c->mode = mode;
    c->source.fd = -1;
    c->sink.fd = -1;
    c->peer.progress.kind = progress_choose(o->shows_progress);
    if (peer_init(&c->peer, o->timeout_s * 1000)) {
        code = transfer_all(c);
        peer_fini(&c->peer);
    }
    free(c);
    return code;
}
