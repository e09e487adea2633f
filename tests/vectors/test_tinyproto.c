/*
 * Transcripts of tinyproto (tests/vectors/tinyproto/): a plain socket plays one side, our server or
 * client is the other, with each way to cut the scripted side into segments.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tiny_peer.h"
#include "vectors.h"

#define SCRIPT_MAX 8

enum cut { CUT_ELEMENTS, CUT_BYTES, CUT_TURNS };

/* What each file is good for, and how it goes on where the reference is wrong. */
static const struct script {
    const char *file;
    enum { BOTH, AS_SERVER, AS_CLIENT } ours;
    size_t elements;          /* of the transcript to be played; 0: all */
    bool closes;              /* our side ends first */
    enum tinyproto_error end; /* that our client sees */
} scripts[] = {
    { "connect", BOTH, 0, false, TINYPROTO_OK },
    { "echo-hello", BOTH, 0, false, TINYPROTO_OK },
    { "echo-0-byte", BOTH, 0, false, TINYPROTO_OK },
    { "echo-1-byte", BOTH, 0, false, TINYPROTO_OK },
    { "echo-70000-bytes", BOTH, 0, false, TINYPROTO_OK },
    { "three-rounds", BOTH, 0, false, TINYPROTO_OK },
    { "server-first", BOTH, 0, false, TINYPROTO_OK },
    { "plugins", BOTH, 0, false, TINYPROTO_OK },
    { "pipelined-client", AS_SERVER, 0, false, TINYPROTO_OK },
    { "expected-crossing", AS_SERVER, 0, false, TINYPROTO_OK },
    { "expected-bad-handshake", AS_SERVER, 0, true, TINYPROTO_OK },
    { "expected-disconnect-mid-message", AS_SERVER, 0, false, TINYPROTO_OK },
    { "expected-disconnect-mid-size", AS_SERVER, 0, false, TINYPROTO_OK },
    { "expected-oversize", AS_SERVER, 0, true, TINYPROTO_OK },
    { "expected-refused", AS_SERVER, 0, true, TINYPROTO_OK },
    { "expected-refused-zero", AS_SERVER, 0, true, TINYPROTO_OK },
    { "expected-connection-limit", AS_CLIENT, 0, false, TINYPROTO_E_LIMIT },
    /* What the reference does after these elements, ours does not. */
    { "largest-announcement", AS_SERVER, 4, false, TINYPROTO_OK },
    { "disconnect-mid-message", AS_SERVER, 5, false, TINYPROTO_OK },
    { "disconnect-mid-size", AS_SERVER, 3, false, TINYPROTO_OK },
    { "bad-handshake", AS_SERVER, 0, true, TINYPROTO_OK },
    { "oversize-f1000000", AS_SERVER, 0, true, TINYPROTO_OK },
    { "oversize-ffffffff", AS_SERVER, 0, true, TINYPROTO_OK },
    { "conflict", AS_SERVER, 0, false, TINYPROTO_OK },
    { "connection-limit.v2.0.1", AS_CLIENT, 0, false, TINYPROTO_E_REFUSED },
    { "connection-limit.v3.0", AS_CLIENT, 0, false, TINYPROTO_E_CLOSED_HANDSHAKE },
};

static const struct script *script_of(const char *file)
{
    for (size_t i = 0; i < TABLE_LEN(scripts); i++)
        if (strcmp(scripts[i].file, file) == 0)
            return &scripts[i];
    return NULL;
}

/* ---- Our side: the messages of the transcript, each after those that came before it ---- */

struct part {
    struct {
        struct vec_bytes bytes; /* after plugins: what is on the wire */
        size_t after;           /* so many messages of the peer */
    } messages[SCRIPT_MAX];
    size_t n, next;
    size_t received;
    bool is_plugins;
    bool is_echo; /* the transcript does not part its elements */
    enum tinyproto_error end;
    struct hook_log log;
};

static void say_due(struct tinyproto_conn *conn, struct part *part)
{
    while (part->next < part->n && part->messages[part->next].after <= part->received) {
        const struct vec_bytes *b = &part->messages[part->next++].bytes;

        assert_int_equal(tinyproto_transmit(conn, b->ptr, b->len), TINYPROTO_OK);
    }
}

static void on_ready(struct tinyproto_conn *conn)
{
    struct part *part = tinyproto_conn_arg(conn);

    if (part->is_plugins)
        (void)tinyproto_transmit(conn, "m", 1);
    else
        say_due(conn, part);
}

static void on_message(struct tinyproto_conn *conn, struct tinyproto_message *message)
{
    struct part *part = tinyproto_conn_arg(conn);

    part->received++;
    if (part->is_echo)
        (void)tinyproto_transmit(conn, message->ptr, message->len);
    else if (!part->is_plugins)
        say_due(conn, part);
    else if (part->received == 1) /* what the plugins made of it, once more through them */
        (void)tinyproto_transmit(conn, message->ptr, message->len);
}

static void on_end(struct tinyproto_conn *conn, const struct tinyproto_cause *why)
{
    struct part *part = tinyproto_conn_arg(conn);

    part->end = why->err;
    hook_log(&part->log, "end");
}

static bool is_element(const json_t *e, const char *from, const char *what)
{
    return strcmp(vec_str(e, "from"), from) == 0 && strcmp(vec_str(e, "what"), what) == 0;
}

/* The payload that belongs to the size at `at`; zeros if it was never sent. */
static struct vec_bytes payload_of(const json_t *transcript, const char *side, size_t at)
{
    struct vec_bytes size = vec_get_bytes(json_array_get(transcript, at), "hex"), payload;
    size_t len;

    table_require(size.len == 4, "a size of 4 bytes");
    len = (size_t)size.ptr[1] << 16 | (size_t)size.ptr[2] << 8 | size.ptr[3];
    vec_bytes_free(&size);
    for (size_t i = at + 1; len > 0 && i < json_array_size(transcript); i++)
        if (is_element(json_array_get(transcript, i), side, "payload"))
            return vec_get_bytes(json_array_get(transcript, i), "hex");
    payload = (struct vec_bytes){ .ptr = calloc(1, len + 1), .len = len };
    table_require(payload.ptr != NULL, "memory");
    return payload;
}

static struct part part_of(const json_t *transcript, const char *side, size_t elements)
{
    const char *other = strcmp(side, "client") == 0 ? "server" : "client";
    struct part part = { .log = HOOK_LOG_INIT };
    size_t others = 0;

    for (size_t i = 0; i < elements; i++) {
        const json_t *e = json_array_get(transcript, i);

        if (is_element(e, other, "size"))
            others++;
        if (!is_element(e, side, "size"))
            continue;
        table_require(part.n < SCRIPT_MAX, "a short transcript");
        part.messages[part.n].bytes = payload_of(transcript, side, i);
        part.messages[part.n++].after = others;
    }
    return part;
}

static void part_free(struct part *part)
{
    for (size_t i = 0; i < part->n; i++)
        vec_bytes_free(&part->messages[i].bytes);
}

/* ---- The plugins of the vector ---- */

static bool append(uint8_t **ptr, size_t *len, const char *tail)
{
    uint8_t *grown = realloc(*ptr, *len + 2);

    if (grown == NULL)
        return false;
    memcpy(grown + *len, tail, 2);
    *ptr = grown;
    *len += 2;
    return true;
}

static bool append_out(void *state, uint8_t **ptr, size_t *len)
{
    return append(ptr, len, *(const char *)state == 'a' ? "-A" : "-B");
}

static bool append_in(void *state, uint8_t **ptr, size_t *len)
{
    return append(ptr, len, *(const char *)state == 'a' ? "+a" : "+b");
}

static void add_plugins(struct tinyproto_client *client)
{
    static char names[] = "ab";

    for (int i = 0; i < 2; i++) {
        const struct tinyproto_plugin plugin = { .transmit = append_out,
                                                 .receive = append_in,
                                                 .arg = &names[i] };

        assert_int_equal(tinyproto_client_add_plugin(client, &plugin), TINYPROTO_OK);
    }
}

/* ---- The scripted side ---- */

static void send_cut(int fd, const struct vec_bytes *b, enum cut cut)
{
    size_t piece = cut == CUT_BYTES && b->len < 1024 ? 1 : b->len;

    for (size_t at = 0; at < b->len; at += piece)
        peer_write(fd, b->ptr + at, piece);
}

static void expect_bytes(int fd, const struct vec_bytes *b)
{
    uint8_t *got = malloc(b->len + 1);

    table_require(got != NULL, "memory");
    assert_int_equal(peer_read(fd, got, b->len), b->len);
    assert_memory_equal(got, b->ptr, b->len);
    free(got);
}

/* Collects elements of the scripted side in a row, to be sent as one. */
static void flush(int fd, struct vec_bytes *pending)
{
    if (pending->len > 0)
        peer_write(fd, pending->ptr, pending->len);
    pending->len = 0;
}

static void play(int fd, const json_t *transcript, size_t elements, const char *side, enum cut cut)
{
    struct vec_bytes pending = { .ptr = malloc(1 << 20) };

    table_require(pending.ptr != NULL, "memory");
    for (size_t i = 0; i < elements; i++) {
        const json_t *e = json_array_get(transcript, i);
        struct vec_bytes b = vec_get_bytes(e, "hex");

        if (strcmp(vec_str(e, "from"), side) != 0) {
            flush(fd, &pending);
            expect_bytes(fd, &b);
        } else if (cut == CUT_TURNS) {
            memcpy(pending.ptr + pending.len, b.ptr, b.len);
            pending.len += b.len;
        } else {
            send_cut(fd, &b, cut);
        }
        vec_bytes_free(&b);
    }
    flush(fd, &pending);
    free(pending.ptr);
}

/* ---- Both ways round ---- */

static void ours_as_server(const struct script *s, const json_t *transcript, size_t elements,
                           enum cut cut)
{
    struct part part = part_of(transcript, "server", elements);
    struct tinyproto_handler handler = { .arg = &part,
                                         .pre_loop = on_ready,
                                         .transmission_received = on_message,
                                         .failed = on_end,
                                         .post_loop = on_end };
    struct tinyproto_options options;
    struct served served;
    int fd;

    part.is_echo = strcmp(s->file, "pipelined-client") == 0;
    tinyproto_server_options(&options);
    options.grace_ms = 100;
    options.linger_ms = 10000;
    served_start(&served, NULL, &handler, &options);
    served_run(&served);
    fd = peer_connect(served.address);
    play(fd, transcript, elements, "client", cut);
    if (strcmp(s->file, "conflict") == 0)
        peer_expect(fd, "ff"); /* section 4: it is admitted */
    if (!s->closes)
        (void)shutdown(fd, SHUT_WR);
    peer_expect_end(fd);
    hook_log_wait(&part.log, "end");
    served_stop(&served);
    part_free(&part);
}

static void on_client_shutdown(struct tinyproto_client *client, struct tinyproto_conn *conn,
                               const struct tinyproto_cause *why)
{
    (void)conn;
    (void)why;
    tinyproto_client_stop(client);
}

static void *client_main(void *arg)
{
    (void)tinyproto_client_run(arg);
    return NULL;
}

static void ours_as_client(const struct script *s, const json_t *transcript, size_t elements,
                           enum cut cut)
{
    struct part part = part_of(transcript, "client", elements);
    const struct tinyproto_client_hooks hooks = { .conn_shutdown = on_client_shutdown };
    struct tinyproto_handler handler = { .arg = &part,
                                         .pre_loop = on_ready,
                                         .transmission_received = on_message,
                                         .failed = on_end,
                                         .post_loop = on_end };
    struct tinyproto_client *client;
    pthread_t thread;
    int port, listener = peer_listen(&port), fd;

    part.is_plugins = strcmp(s->file, "plugins") == 0;
    table_require(tinyproto_client_new(&hooks, NULL, NULL, &client) == TINYPROTO_OK, "client");
    tinyproto_client_set_handler(client, &handler);
    if (part.is_plugins)
        add_plugins(client);
    assert_non_null(tinyproto_client_connect(client, "127.0.0.1", port));
    table_require(pthread_create(&thread, NULL, client_main, client) == 0, "thread");
    fd = peer_accept(listener);
    play(fd, transcript, elements, "server", cut);
    (void)shutdown(fd, SHUT_WR);
    if (s->end == TINYPROTO_OK)
        peer_expect_end(fd);
    else
        close(fd);
    (void)pthread_join(thread, NULL);
    assert_int_equal(part.end, s->end);
    tinyproto_client_free(client);
    close(listener);
    part_free(&part);
}

static void replays(void **state)
{
    const json_t *file = *state, *transcript = vec_get(file, "transcript");
    const struct script *s = script_of(vec_str(file, "name"));
    size_t elements;

    if (s == NULL)
        abort(); /* main made the list */
    elements = s->elements > 0 ? s->elements : json_array_size(transcript);
    for (enum cut cut = CUT_ELEMENTS; cut <= CUT_TURNS; cut++) {
        if (s->ours != AS_CLIENT)
            ours_as_server(s, transcript, elements, cut);
        /* Who is refused closes at the first byte: the others would come too late. */
        if (s->ours != AS_SERVER && (s->end == TINYPROTO_OK || cut != CUT_BYTES))
            ours_as_client(s, transcript, elements, cut);
    }
}

int main(void)
{
    json_t *cases = json_array();
    char name[128];
    int failed;

    for (size_t i = 0; i < TABLE_LEN(scripts); i++) {
        json_t *file;

        snprintf(name, sizeof(name), "tinyproto/%s.json", scripts[i].file);
        file = vec_load_json(name);
        json_object_set_new(file, "name", json_string(scripts[i].file));
        json_array_append_new(cases, file);
    }
    failed = vec_run("tinyproto", cases, "name", replays, NULL, NULL);
    json_decref(cases);
    return failed;
}
