/*
 * What the workers share, opened and closed in order. main.c is its first user.
 */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "admin.h"
#include "broadcaster.h"
#include "compression.h"
#include "forwarding.h"
#include "mem.h"
#include "mount_port.h"
#include "own_urls.h"
#include "session.h"
#include "store_meter.h"
#include "worker.h"

#define BACKLOG 1024

/* Descriptors kept for listeners, admin connections, the store, spool files and the C library. */
#define RESERVED_DESCRIPTORS 256

/* Used macs that are remembered: 34,000 a second for their two minutes, in 130 MB. */
#define REPLAY_MAX ((size_t)1 << 22)

static size_t count_workers(const struct conf *conf)
{
    long cores;

    if (conf->broadcaster.workers > 0)
        return (size_t)conf->broadcaster.workers;
    cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores > 0 ? (size_t)cores : 1;
}

/* How many connections of each kind, HTTP and raw TCP, the limit of descriptors leaves room for. */
static uint64_t connection_limit(const struct broadcaster *b)
{
    uint64_t wanted = b->conf->limits.max_connections;
    uint64_t reserved = RESERVED_DESCRIPTORS + 3 * b->conf->webhook.max_in_flight;
    struct rlimit limit;
    uint64_t kinds = b->conf->tcp.listen.count + b->conf->tcp.tls_listen.count > 0 ? 2 : 1;
    uint64_t possible;

    if (b->conf->compression.compression_allowed && b->conf->compression.allow_training)
        reserved += SESSIONS_TRAINERS_MAX * b->worker_count;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return wanted;
    possible = limit.rlim_cur > 2 * reserved ? limit.rlim_cur - reserved : limit.rlim_cur / 2;
    possible /= kinds;
    if (possible < wanted)
        log_info(b->log, "max_connections_capped", LOG_U64("descriptors", limit.rlim_cur),
                 LOG_U64("connections", possible), LOG_END);
    return possible < wanted ? possible : wanted;
}

static struct tls_files tls_files(const struct conf *conf)
{
    const char *client = conf->tls.client_certificate;

    return (struct tls_files){
        .certificate = conf->tls.certificate,
        .key = conf->tls.key,
        .client_ca = conf->tls.client_ca,
        .client_certificate = strcmp(client, "required") == 0   ? TLS_CLIENT_REQUIRED
                              : strcmp(client, "optional") == 0 ? TLS_CLIENT_OPTIONAL
                                                                : TLS_CLIENT_NONE,
    };
}

static bool uses_tls(const struct conf *conf)
{
    return conf->broadcaster.tls_listen.count + conf->tcp.tls_listen.count > 0;
}

static bool open_tls(struct broadcaster *b, char error[256])
{
    const struct tls_files files = tls_files(b->conf);

    if (!uses_tls(b->conf))
        return true;
    if (files.client_ca != NULL && files.client_certificate == TLS_CLIENT_NONE)
        log_warn(b->log, "tls_client_ca_unused", LOG_STR("tls.client_certificate", "none"),
                 LOG_END);
    b->tls = tls_server_create(&files, error);
    return b->tls != NULL;
}

bool broadcaster_check_tls(const struct conf *conf, char error[256])
{
    const struct tls_files files = tls_files(conf);
    struct tls_server *tls;

    if (!uses_tls(conf))
        return true;
    tls = tls_server_create(&files, error);
    tls_server_destroy(tls);
    return tls != NULL;
}

bool broadcaster_reload_tls(struct broadcaster *b, const struct conf *conf, char error[256])
{
    const struct tls_files files = tls_files(conf);

    if (b->tls == NULL)
        return true;
    if (files.certificate == NULL || files.key == NULL) {
        snprintf(error, 256, "tls.certificate or tls.key is not given any more");
        return false;
    }
    return tls_server_reload(b->tls, &files, error);
}

static bool open_addresses(struct broadcaster *b, const struct conf_list *addresses, bool tcp,
                           bool tls, char error[256])
{
    for (size_t i = 0; i < addresses->count; i++) {
        struct broadcaster_listener *l = &b->listeners[b->listener_count];

        l->tls = tls;
        l->tcp = tcp;
        l->fds = mem_calloc(b->worker_count, sizeof(*l->fds));
        if (!listener_open(addresses->items[i], BACKLOG, b->worker_count, l->fds, l->bound,
                           error)) {
            mem_free(l->fds);
            return false;
        }
        b->listener_count++;
    }
    return true;
}

static void create_forwarding(struct broadcaster *b)
{
    const char *bound = b->conf->broadcaster.listen.count > 0 ? b->listeners[0].bound : NULL;
    char *receiver, *missed;

    if (own_urls_make(b->conf, bound, &receiver, &missed))
        b->forwarding = forwarding_create(receiver, missed);
    else
        log_warn(b->log, "receiver_url_unknown", LOG_STR("listen", bound != NULL ? bound : "none"),
                 LOG_STR("consequence", "no websocket clients are served until "
                                        "broadcaster.receiver_url is given"),
                 LOG_END);
    mem_free(receiver);
    mem_free(missed);
}

static bool open_listeners(struct broadcaster *b, char error[256])
{
    const struct conf_list *http = &b->conf->broadcaster.listen;
    const struct conf_list *https = &b->conf->broadcaster.tls_listen;
    const struct conf_list *tcp = &b->conf->tcp.listen, *tcps = &b->conf->tcp.tls_listen;

    b->listeners =
        mem_calloc(http->count + https->count + tcp->count + tcps->count, sizeof(*b->listeners));
    if (!open_addresses(b, http, false, false, error) ||
        !open_addresses(b, https, false, true, error) ||
        !open_addresses(b, tcp, true, false, error) || !open_addresses(b, tcps, true, true, error))
        return false;
    create_forwarding(b);
    return true;
}

/* store_macs.add: what others used, or we before we were started. */
static void on_used_mac(void *arg, const struct store_mac *mac)
{
    struct broadcaster *b = arg;
    double now = clock_wall_s(b->clock);

    if ((double)mac->keep_until_s > now)
        (void)replay_take(b->replay, mac, now);
}

/* store_macs.lost */
static void on_macs_lost(void *arg)
{
    struct broadcaster *b = arg;

    log_warn(b->log, "unclean_stop",
             LOG_STR("consequence", "what was signed before this start is refused"), LOG_END);
    replay_forget_past(b->replay, clock_wall_s(b->clock));
}

static void create_replay(struct broadcaster *b)
{
    if (strcmp(b->conf->auth.replay_store, "none") != 0)
        b->replay = replay_create(REPLAY_MAX);
}

static struct store_conf store_conf(const struct conf *conf)
{
    return (struct store_conf){
        .path = conf->database.path,
        .urls = conf->database.url.items,
        .n_urls = conf->database.url.count,
        .password_file = conf->database.password_file,
        .rqlite_weak = strcmp(conf->database.rqlite_read, "weak") == 0,
        .timeout_ms = conf->database.timeout_ms,
        .missed_lock_time_s = conf->database.missed_lock_time_s,
        .max_queued = 65536,
    };
}

static const struct store_ops *find_backend(const struct conf *conf, char error[256])
{
    const struct store_ops *backend = store_find(conf->database.type);

    if (backend == NULL)
        snprintf(error, 256, "this program was built without database.type = %s",
                 conf->database.type);
    return backend;
}

bool broadcaster_check_store(const struct conf *conf, char error[256])
{
    const struct store_conf store = store_conf(conf);
    const struct store_ops *backend = find_backend(conf, error);

    return backend != NULL && (backend->conf_check == NULL || backend->conf_check(&store, error));
}

static bool open_store(struct broadcaster *b, char error[256])
{
    bool keeps_macs = strcmp(b->conf->auth.replay_store, "database") == 0;
    const struct store_feed index = index_feed(b->index);
    const struct store_feed feed =
        b->forwarding != NULL ? forwarding_feed(b->forwarding, &index) : index;
    struct store_conf store = store_conf(b->conf);

    store.log = b->log;
    store.macs = (struct store_macs){ keeps_macs ? on_used_mac : NULL, on_macs_lost, b };
    b->store_ops = &store_meter_ops;
    b->backend = find_backend(b->conf, error);
    return b->backend != NULL && b->backend->open(&store, &feed, &b->store, error);
}

static bool open_bodies(struct broadcaster *b, char error[256])
{
    const struct bodies_conf bodies = {
        .spool_dir = b->conf->broadcaster.spool_dir,
        .spool_size = b->conf->limits.message_body_spool_size,
        .max_memory = b->conf->limits.max_body_memory,
    };

    b->bodies = bodies_create(&bodies, error);
    return b->bodies != NULL;
}

static bool open_compression(struct broadcaster *b, char error[256])
{
    if (!b->conf->compression.compression_allowed)
        return true;
    b->compression = compression_create(b->conf, error);
    return b->compression != NULL;
}

bool broadcaster_check_compression(const struct conf *conf, char error[256])
{
    struct compression *compression;

    if (!conf->compression.compression_allowed)
        return true;
    compression = compression_create(conf, error);
    compression_destroy(compression);
    return compression != NULL;
}

static void create_mount(struct broadcaster *b)
{
    struct mount_port **ports = mem_calloc(b->worker_count, sizeof(struct mount_port *));

    for (size_t i = 0; i < b->worker_count; i++)
        ports[i] = b->workers[i]->mount;
    b->mount = mount_create(b->conf->mount, ports, b->worker_count);
    mem_free(ports);
}

static bool create_workers(struct broadcaster *b, char error[256])
{
    b->workers = mem_calloc(b->worker_count, sizeof(struct worker *));
    for (size_t i = 0; i < b->worker_count; i++) {
        if (!worker_create(b, i, &b->workers[i], error))
            return false;
    }
    if (b->conf->mount != NULL)
        create_mount(b);
    return true;
}

bool broadcaster_create(const struct conf *conf, struct keys *keys, const struct clock *clock,
                        struct log *log, struct broadcaster **out, char error[256])
{
    struct broadcaster *b = mem_calloc(1, sizeof(*b));

    *out = NULL;
    b->conf = conf;
    b->clock = clock;
    b->log = log;
    b->worker_count = count_workers(conf);
    b->max_connections = connection_limit(b);
    b->index = index_create();
    b->policy = policy_create(&conf->webhook.allow, &conf->webhook.deny);
    b->started_s = clock_wall_s(clock);
    atomic_init(&b->log_access, conf->log.access);
    keys_ref(keys);
    key_ring_init(&b->keys, keys);
    create_replay(b);
    if (conf->limits.max_connections_per_address != CONF_NONE)
        b->peers = peer_limit_create(conf->limits.max_connections_per_address);
    if (!open_tls(b, error) || !open_listeners(b, error) || !open_bodies(b, error) ||
        !open_compression(b, error) || !open_store(b, error) || !create_workers(b, error) ||
        (conf->broadcaster.admin_listen != NULL && !admin_create(b, &b->admin, error))) {
        broadcaster_destroy(b);
        return false;
    }
    *out = b;
    return true;
}

void broadcaster_set_keys(struct broadcaster *b, struct keys *keys)
{
    key_ring_set(&b->keys, keys);
}

bool broadcaster_start(struct broadcaster *b, char error[256])
{
    for (; b->started < b->worker_count; b->started++) {
        if (!worker_start(b->workers[b->started], error)) {
            broadcaster_stop(b);
            broadcaster_join(b);
            return false;
        }
    }
    if (b->admin != NULL && !admin_start(b->admin, error)) {
        broadcaster_stop(b);
        broadcaster_join(b);
        return false;
    }
    return true;
}

/* All, also those that are not started yet: they will find it. */
static void command_all(struct broadcaster *b, enum worker_state to)
{
    atomic_store(&b->draining, true);
    for (size_t i = 0; i < b->worker_count; i++)
        worker_command(b->workers[i], to);
}

void broadcaster_drain(struct broadcaster *b)
{
    command_all(b, WORKER_DRAINING);
}

void broadcaster_stop(struct broadcaster *b)
{
    command_all(b, WORKER_STOPPING);
}

bool broadcaster_is_running(struct broadcaster *b)
{
    return atomic_load(&b->running) > 0;
}

void broadcaster_join(struct broadcaster *b)
{
    for (size_t i = 0; i < b->started; i++)
        worker_join(b->workers[i]);
    admin_join(b->admin); /* the last to go: it tells that the others are draining */
}

void broadcaster_destroy(struct broadcaster *b)
{
    if (b == NULL)
        return;
    admin_destroy(b->admin);
    mount_destroy(b->mount);
    for (size_t i = 0; b->workers != NULL && i < b->worker_count; i++)
        worker_destroy(b->workers[i]);
    mem_free(b->workers);
    if (b->store != NULL)
        b->backend->close(b->store);
    peer_limit_destroy(b->peers);
    bodies_destroy(b->bodies);
    compression_destroy(b->compression);
    forwarding_destroy(b->forwarding);
    index_destroy(b->index);
    policy_destroy(b->policy);
    replay_destroy(b->replay);
    key_ring_fini(&b->keys);
    for (size_t i = 0; i < b->listener_count; i++) {
        for (size_t j = 0; j < b->worker_count; j++) {
            if (b->listeners[i].fds[j] >= 0)
                close(b->listeners[i].fds[j]);
        }
        mem_free(b->listeners[i].fds);
    }
    mem_free(b->listeners);
    tls_server_destroy(b->tls);
    mem_free(b);
}
