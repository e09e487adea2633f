/*
 * The broadcaster under test (scenario.h): on a SQLite file of its own, with the clock of the vectors.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "forwarding.h"
#include "scenario.h"
#include "tables.h"
#include "worker.h"

struct server server;

static int64_t wall_ns(void *arg)
{
    (void)arg;
    return (int64_t)(server.now_s * 1e9);
}

static uint64_t mono_ms(void *arg)
{
    (void)arg;
    return clock_mono_ms(&clock_system);
}

static uint64_t mono_ns(void *arg)
{
    (void)arg;
    return clock_mono_ns(&clock_system);
}

static const struct clock fixed_clock = { wall_ns, mono_ms, mono_ns, NULL };

static void set_option(const char *option, const char *folder, const char *value)
{
    char assignment[512];
    struct conf_error error;

    snprintf(assignment, sizeof(assignment), "%s=%s%s", option, folder, value);
    if (!conf_set(&server.conf, assignment, &error))
        fail_msg("%s", error.text);
}

/* `unavailable` is not a scheme: none, and the check is made unavailable. */
static void add_direction(json_t *file, const json_t *auth, const char *from, const char *to,
                          bool *unavailable)
{
    json_t *direction = vec_get(auth, from);

    *unavailable = strcmp(vec_str(direction, "type"), "unavailable") == 0;
    if (!*unavailable)
        json_object_set(file, to, direction);
}

static void write_secrets(const json_t *auth)
{
    json_t *file = json_pack("{s:s}", "version", "2");
    struct secrets_error error;

    add_direction(file, auth, "to_broadcaster", "to-broadcaster",
                  &script.unavailable_to_broadcaster);
    add_direction(file, auth, "to_subscriber", "to-subscriber", &script.unavailable_to_subscriber);
    assert_int_equal(json_dump_file(file, server.secrets, 0), 0);
    json_decref(file);
    if (!secrets_load(server.secrets, SECRETS_BROADCASTER, &server.keys, &error))
        fail_msg("%s", error.text);
}

static void configure(const json_t *line)
{
    const json_t *websockets = json_object_get(line, "websockets");

    conf_init(&server.conf);
    set_option("broadcaster.listen", "", "127.0.0.1:0");
    set_option("broadcaster.spool_dir", server.dir, "/spool");
    set_option("database.path", server.database, "");
    set_option("auth.secrets", server.secrets, "");
    set_option("missed.sweep_missed_interval", "", script.missed != NULL ? "10ms" : "1h");
    if (websockets != NULL) {
        set_option("broadcaster.receiver_url", "", vec_str(websockets, "receiver_url"));
        set_option("broadcaster.missed_url", "", vec_str(websockets, "missed_url"));
    }
}

static bool on_message(struct receiver *r, struct outgoing *m)
{
    (void)m;
    atomic_fetch_add(&((struct server_client *)r)->messages, 1);
    return true;
}

static bool on_missed(struct receiver *r, struct lonely_span topic)
{
    (void)topic;
    atomic_fetch_add(&((struct server_client *)r)->messages, 1);
    return true;
}

static void on_subscribed(void *arg, enum store_status status)
{
    (void)arg;
    if (status == STORE_OK)
        uv_sem_post(&server.subscribed);
}

/* Before the thread runs, so that the calls may be made here. How many answers are to come. */
static size_t subscribe_clients(const json_t *websockets)
{
    static const struct receiver_ops ops = { on_message, on_missed };
    struct worker *w = server.b->workers[0];
    size_t wanted = 0, i;
    json_t *value;

    server.n_clients = websockets != NULL ? vec_u64(websockets, "clients") : 0;
    assert_true(server.n_clients <= SERVER_CLIENTS_MAX);
    for (size_t n = 0; n < server.n_clients; n++) {
        struct receiver *r = &server.clients[n].r;

        r->ops = &ops;
        receivers_join(w->receivers, r);
        json_array_foreach(vec_get(websockets, "exact_hex"), i, value)
        {
            struct vec_bytes topic = vec_bytes(value);

            forwarding_add(server.b->forwarding, w, STORE_EXACT, vec_span(&topic), on_subscribed,
                           NULL);
            receivers_subscribe(w->receivers, r, STORE_EXACT, vec_span(&topic));
            vec_bytes_free(&topic);
            wanted++;
        }
        json_array_foreach(vec_get(websockets, "globs"), i, value)
        {
            struct lonely_span glob = { (const uint8_t *)json_string_value(value),
                                        json_string_length(value) };

            forwarding_add(server.b->forwarding, w, STORE_GLOB, glob, on_subscribed, NULL);
            receivers_subscribe(w->receivers, r, STORE_GLOB, glob);
            wanted++;
        }
    }
    return wanted;
}

static void take_store_down(void)
{
    server.down = *server.b->store_ops;
    script_take_store_down(&server.down);
    server.b->store_ops = &server.down;
}

void server_create(const json_t *line)
{
    struct keys_error keys_error;
    struct keys *keys;
    char error[256];

    server.now_s = json_number_value(vec_get(line, "now"));
    strcpy(server.dir, "/tmp/scenario-XXXXXX");
    assert_non_null(mkdtemp(server.dir));
    snprintf(server.database, sizeof(server.database), "%s/db", server.dir);
    snprintf(server.secrets, sizeof(server.secrets), "%s/secrets", server.dir);
    write_secrets(vec_get(line, "auth"));
    configure(line);
    log_init(&server.log, 2, LOG_LEVEL_ERROR, LOG_FORMAT_TEXT, &clock_system);
    keys = keys_load(&server.conf, &server.log, &keys_error);
    assert_non_null(keys);
    if (!broadcaster_create(&server.conf, keys, &fixed_clock, &server.log, &server.b, error))
        fail_msg("%s", error);
    keys_unref(keys);
    script.loop = &server.b->workers[0]->loop;
    assert_int_equal(sqlite3_open(server.database, &server.db), SQLITE_OK);
    sqlite3_busy_timeout(server.db, 5000);
    server.updated = json_object();
    uv_sem_init(&server.subscribed, 0);
}

void server_start(const json_t *line)
{
    size_t wanted = subscribe_clients(json_object_get(line, "websockets"));
    char error[256];

    if (vec_has(line, "store"))
        take_store_down();
    if (!broadcaster_start(server.b, error))
        fail_msg("%s", error);
    for (; wanted > 0; wanted--)
        uv_sem_wait(&server.subscribed);
}

void server_end(void)
{
    char command[128];

    broadcaster_stop(server.b);
    broadcaster_join(server.b);
    for (size_t n = 0; n < server.n_clients; n++)
        receivers_leave(server.b->workers[0]->receivers, &server.clients[n].r);
    broadcaster_destroy(server.b);
    sqlite3_close(server.db);
    secrets_fini(&server.keys);
    conf_fini(&server.conf);
    log_fini(&server.log);
    json_decref(server.updated);
    uv_sem_destroy(&server.subscribed);
    snprintf(command, sizeof(command), "rm -r '%s'", server.dir);
    assert_int_equal(system(command), 0);
    memset(&server, 0, sizeof(server));
}
