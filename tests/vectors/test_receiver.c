/*
 * Every subscriber scenario of http.jsonl against the client's own receiver, with their clock and randomness;
 * where http.md asks for another reply than the reference's, that. (tests/vectors/README.md)
 */
#include "client_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

enum { STEPS = 29 };

static size_t steps_run;

void __wrap_client_random(struct lonely_client *c, uint8_t *to, size_t len);
void __wrap_client_random(struct lonely_client *c, uint8_t *to, size_t len)
{
    uint32_t nonce = htonl(atomic_load(&cf.nonce));

    if (len == sizeof(nonce))
        memcpy(to, &nonce, len);
    else
        __real_client_random(c, to, len);
}

/* ---- One step ---- */

struct answer {
    char bytes[65536];
    size_t len;
};

static int connect_to_receiver(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    const char *bound = lonely_client_bound(cf.client);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)strtoul(strrchr(bound, ':') + 1, NULL, 10));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

/* The body goes byte by byte when `dripping`. */
static void ask(const json_t *request, bool dripping, struct answer *a)
{
    struct vec_bytes body = vec_get_bytes(request, "body_hex");
    int fd = connect_to_receiver(), at;
    char head[4096];
    const char *name;
    json_t *value;
    ssize_t n;

    at = snprintf(head, sizeof(head),
                  "%s %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %zu\r\n",
                  vec_str(request, "method"), vec_str(request, "path"), body.len);
    json_object_foreach(vec_get(request, "headers"), name, value) at += snprintf(
        head + at, sizeof(head) - (size_t)at, "%s: %s\r\n", name, json_string_value(value));
    at += snprintf(head + at, sizeof(head) - (size_t)at, "\r\n");
    assert_int_equal(send(fd, head, (size_t)at, MSG_NOSIGNAL), at);
    for (size_t i = 0; i < body.len; i += dripping ? 1 : body.len)
        if (send(fd, body.ptr + i, dripping ? 1 : body.len, MSG_NOSIGNAL) <= 0)
            break; /* refused before it was read whole */
    vec_bytes_free(&body);
    for (a->len = 0; (n = recv(fd, a->bytes + a->len, sizeof(a->bytes) - 1 - a->len, 0)) > 0;)
        a->len += (size_t)n;
    a->bytes[a->len] = '\0';
    close(fd);
}

/* A refusal is no wish to unsubscribe (http.md, Q29): what is left of the reference's reply is its status. */
static bool is_refusal(const json_t *step, const char *note)
{
    return json_object_get(step, "quirk") != NULL || strstr(note, "missing") != NULL ||
           strstr(note, "wrong") != NULL || strstr(note, "again") != NULL;
}

static void check(const json_t *step, const struct answer *a)
{
    const json_t *response = vec_get(step, "response");
    struct vec_bytes expected = vec_get_bytes(response, "body_hex");
    const char *note = vec_str(step, "note");
    const char *body = strstr(a->bytes, "\r\n\r\n");
    int status = (int)vec_u64(response, "status"), got = 0;
    size_t len;

    assert_non_null(body);
    assert_int_equal(sscanf(a->bytes, "HTTP/1.1 %d", &got), 1);
    body += 4;
    len = a->len - (size_t)(body - a->bytes);
    if (status == 500) /* a cut body (http.md, Q18) */
        status = 400;
    if (got != status)
        fail_msg("%s: status %d, expected %d", note, got, status);
    if (status != 200 && is_refusal(step, note)) {
        assert_int_equal(len, 0);
    } else if (len != expected.len || memcmp(body, expected.ptr, len) != 0) {
        fail_msg("%s: another body", note);
    }
    vec_bytes_free(&expected);
}

/* ---- Scenarios ---- */

struct set_clock {
    struct command cmd;
};

static void run_set_clock(struct command *cmd)
{
    cmd->client->clock = &cf_clock;
    command_done(cmd, LONELY_CLIENT_OK);
}

static void run_scenario(const json_t *line, bool dripping)
{
    static const char *const options[] = {
        "broadcaster", "http://127.0.0.1:1",    "bind", "127.0.0.1:0",
        "host",        "http://192.0.2.0:3002", NULL,
    };
    static struct answer a;
    struct set_clock *set;
    json_t *step;
    size_t i;

    cf_open(vec_get(line, "auth"), json_number_value(vec_get(line, "now")), options);
    set = command_create(cf.client, sizeof(*set), run_set_clock);
    client_submit(&set->cmd, -1);
    json_array_foreach(vec_get(line, "steps"), i, step)
    {
        struct vec_bytes reply = vec_get_bytes(vec_get(step, "response"), "body_hex");

        cf_expect_hmac(vec_span(&reply));
        atomic_store(&cf.now_ns, (int64_t)(json_number_value(vec_get(line, "now")) * 1e9));
        vec_bytes_free(&reply);
        ask(vec_get(step, "request"), dripping, &a);
        check(step, &a);
        steps_run++;
    }
    cf_close();
}

/* Whole, and byte by byte. */
static void test_scenario(void **state)
{
    run_scenario(*state, false);
    run_scenario(*state, true);
}

int main(void)
{
    json_t *lines = vec_load_lines("http.jsonl"), *chosen = json_array(), *line;
    int failed;
    size_t i;

    json_array_foreach(lines, i, line)
    {
        if (json_object_get(line, "server") != NULL &&
            strcmp(vec_str(line, "server"), "subscriber") == 0)
            json_array_append(chosen, line);
    }
    failed = vec_run("receiver", chosen, "id", test_scenario, NULL, NULL);
    table_require(failed != 0 || steps_run == 2 * STEPS, "all steps");
    json_decref(chosen);
    json_decref(lines);
    return failed;
}
