/*
 * The life of a client: its loop, what callers ask of it, its status. The topics are wants.c's, the
 * connection the link's.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link.h"
#include "mem.h"
#include "trace_file.h"

const char *lonely_client_error_str(enum lonely_client_error err)
{
    switch (err) {
#define LONELY_X_(name, text) \
    case name:                \
        return text;
        LONELY_CLIENT_ERROR_MAP(LONELY_X_)
#undef LONELY_X_
    }
    return "unknown error";
}

/* ---- Commands ---- */

void *command_create(struct lonely_client *c, size_t size, void (*run)(struct command *cmd))
{
    struct command *cmd = mem_try_calloc(1, size);

    if (cmd == NULL)
        return NULL;
    cmd->client = c;
    cmd->run = run;
    atomic_init(&cmd->refs, 1);
    list_init(&cmd->node);
    return cmd;
}

void command_ref(struct command *cmd)
{
    atomic_fetch_add(&cmd->refs, 1);
}

void command_unref(struct command *cmd)
{
    if (atomic_fetch_sub(&cmd->refs, 1) != 1)
        return;
    if (cmd->free != NULL)
        cmd->free(cmd);
    mem_free(cmd);
}

/* The loop's reference goes with it. */
void command_done(struct command *cmd, enum lonely_client_error err)
{
    struct lonely_client *c = cmd->client;

    uv_mutex_lock(&c->lock);
    cmd->err = err;
    cmd->done = true;
    uv_cond_broadcast(&c->changed);
    uv_mutex_unlock(&c->lock);
    command_unref(cmd);
}

/* Until caller_leaves the memory of the client stays, whoever closes it. */
static void caller_enters(struct lonely_client *c)
{
    uv_mutex_lock(&c->lock);
    c->callers++;
    uv_mutex_unlock(&c->lock);
}

static void caller_leaves(struct lonely_client *c)
{
    uv_mutex_lock(&c->lock);
    c->callers--;
    uv_cond_broadcast(&c->changed);
    uv_mutex_unlock(&c->lock);
}

bool client_on_loop(const struct lonely_client *c)
{
    uv_thread_t self = uv_thread_self();

    return !c->own_thread || uv_thread_equal(&self, &c->loop_thread) != 0;
}

static void run_commands(struct lonely_client *c)
{
    struct list due;
    struct list *node;

    list_init(&due);
    uv_mutex_lock(&c->lock);
    list_move_all(&due, &c->commands);
    uv_mutex_unlock(&c->lock);
    while ((node = list_pop_front(&due)) != NULL) {
        struct command *cmd = list_entry(node, struct command, node);

        cmd->run(cmd);
    }
}

/* ---- Waiting ---- */

/* Waits for `changed` until then at most. false: the time is over. Under lock. */
static bool wait_changed(struct lonely_client *c, uint64_t until_ms)
{
    uint64_t now_ms = uv_hrtime() / 1000000;

    if (until_ms == UINT64_MAX) {
        uv_cond_wait(&c->changed, &c->lock);
        return true;
    }
    if (now_ms >= until_ms)
        return false;
    uv_cond_timedwait(&c->changed, &c->lock, (until_ms - now_ms) * 1000000);
    return true;
}

static void on_deadline(uv_timer_t *timer)
{
    struct lonely_client *c = timer->data;

    c->deadline_passed = true;
}

static void work(struct lonely_client *c, uv_run_mode mode)
{
    c->working = true;
    uv_run(&c->loop, mode);
    c->working = false;
}

/* "io" = "caller": does the client's work meanwhile. */
static bool work_until(struct lonely_client *c, bool (*ready)(void *arg), void *arg,
                       int64_t timeout_ms)
{
    bool is_ready;

    c->deadline_passed = false;
    uv_update_time(&c->loop);
    if (timeout_ms > 0)
        uv_timer_start(&c->deadline, on_deadline, (uint64_t)timeout_ms, 0);
    do {
        work(c, timeout_ms == 0 ? UV_RUN_NOWAIT : UV_RUN_ONCE);
        uv_mutex_lock(&c->lock);
        is_ready = ready(arg);
        uv_mutex_unlock(&c->lock);
    } while (!is_ready && timeout_ms != 0 && !c->deadline_passed);
    uv_timer_stop(&c->deadline);
    return is_ready;
}

static bool may_wait(const struct lonely_client *c)
{
    return c->own_thread ? !client_on_loop(c) : !c->working;
}

bool client_wait(struct lonely_client *c, bool (*ready)(void *arg), void *arg, int64_t timeout_ms)
{
    uint64_t until_ms = timeout_ms < 0 ? UINT64_MAX : uv_hrtime() / 1000000 + (uint64_t)timeout_ms;
    bool is_ready;

    uv_mutex_lock(&c->lock);
    is_ready = ready(arg);
    if (is_ready || !may_wait(c)) {
        uv_mutex_unlock(&c->lock);
        return is_ready;
    }
    if (!c->own_thread) {
        uv_mutex_unlock(&c->lock);
        return work_until(c, ready, arg, timeout_ms);
    }
    while (wait_changed(c, until_ms) && !(is_ready = ready(arg)))
        ;
    uv_mutex_unlock(&c->lock);
    return is_ready;
}

static bool command_is_done(void *arg)
{
    const struct command *cmd = arg;

    return cmd->done;
}

enum lonely_client_error client_submit(struct command *cmd, int64_t timeout_ms)
{
    struct lonely_client *c = cmd->client;
    bool waits = timeout_ms != 0 && may_wait(c);
    enum lonely_client_error err;

    command_ref(cmd); /* the loop's */
    caller_enters(c);
    if (client_on_loop(c)) {
        cmd->run(cmd);
    } else {
        uv_mutex_lock(&c->lock);
        list_push_back(&c->commands, &cmd->node);
        uv_mutex_unlock(&c->lock);
        uv_async_send(&c->wakeup);
    }
    if (client_wait(c, command_is_done, cmd, timeout_ms))
        err = cmd->err;
    else
        err = waits ? LONELY_CLIENT_TIMED_OUT : LONELY_CLIENT_OK;
    caller_leaves(c);
    command_unref(cmd);
    return err;
}

/* ---- Status ---- */

static void signal_all(struct lonely_client *c)
{
    list_foreach (&c->subscriptions, node, next)
        subscription_signal(list_entry(node, struct lonely_subscription, node));
    uv_cond_broadcast(&c->changed);
}

void client_update_status(struct lonely_client *c)
{
    enum lonely_client_status status = LONELY_CLIENT_LOST, before;

    if (c->dead)
        status = LONELY_CLIENT_DEAD;
    else if (c->link_up && c->unsettled == 0)
        status = LONELY_CLIENT_CONNECTED;
    uv_mutex_lock(&c->lock);
    before = c->status;
    c->status = status;
    c->standing = c->link_up;
    signal_all(c);
    uv_mutex_unlock(&c->lock);
    if (status != before)
        handlers_tell_status(c, status, (struct lonely_span){ 0 });
}

void client_tell(struct lonely_client *c, enum lonely_client_error err, const char *why)
{
    uv_mutex_lock(&c->lock);
    c->last_error = err;
    snprintf(c->why.text, sizeof(c->why.text), "%s", why);
    uv_mutex_unlock(&c->lock);
}

void client_link_up(struct lonely_client *c)
{
    c->link_up = true;
    client_tell(c, LONELY_CLIENT_OK, "");
    client_update_status(c);
}

/* What comes while there is no connection is missed by everybody. */
static void note_gaps(struct lonely_client *c)
{
    uv_mutex_lock(&c->lock);
    list_foreach (&c->subscriptions, node, next)
        list_entry(node, struct lonely_subscription, node)->gap = true;
    uv_mutex_unlock(&c->lock);
}

void client_gap(struct lonely_client *c)
{
    note_gaps(c);
    if (c->status == LONELY_CLIENT_CONNECTED) {
        handlers_tell_status(c, LONELY_CLIENT_LOST, (struct lonely_span){ 0 });
        handlers_tell_status(c, LONELY_CLIENT_CONNECTED, (struct lonely_span){ 0 });
    }
    client_update_status(c);
}

void client_link_down(struct lonely_client *c, enum lonely_client_error err, const char *why)
{
    c->link_up = false;
    client_tell(c, err, why);
    note_gaps(c);
    wants_reset(c);
    client_update_status(c);
}

void client_link_dead(struct lonely_client *c, enum lonely_client_error err, const char *why)
{
    c->link_up = false;
    c->dead = true;
    client_tell(c, err, why);
    uv_mutex_lock(&c->lock);
    c->final_error = err;
    uv_mutex_unlock(&c->lock);
    wants_abandon(c, LONELY_CLIENT_ABANDONED);
    client_update_status(c);
}

/* What was asked before it is begun, so the status tells of it. */
static void run_nothing(struct command *cmd)
{
    command_done(cmd, LONELY_CLIENT_OK);
}

static bool is_connected_or_dead(void *arg)
{
    const struct lonely_client *c = arg;

    return c->status != LONELY_CLIENT_LOST;
}

enum lonely_client_error lonely_client_wait_connected(struct lonely_client *c, int64_t timeout_ms)
{
    enum lonely_client_error err = LONELY_CLIENT_TIMED_OUT;
    struct command *cmd = command_create(c, sizeof(*cmd), run_nothing);

    if (cmd == NULL)
        return LONELY_CLIENT_NO_MEMORY;
    caller_enters(c);
    client_submit(cmd, -1);
    client_wait(c, is_connected_or_dead, c, timeout_ms);
    uv_mutex_lock(&c->lock);
    if (c->status == LONELY_CLIENT_CONNECTED)
        err = LONELY_CLIENT_OK;
    else if (c->status == LONELY_CLIENT_DEAD)
        err = c->final_error != LONELY_CLIENT_OK ? c->final_error : LONELY_CLIENT_ABANDONED;
    uv_mutex_unlock(&c->lock);
    caller_leaves(c);
    return err;
}

enum lonely_client_status lonely_client_status(struct lonely_client *c)
{
    enum lonely_client_status status;

    uv_mutex_lock(&c->lock);
    status = c->status;
    uv_mutex_unlock(&c->lock);
    return status;
}

enum lonely_client_error lonely_client_last_error(struct lonely_client *c,
                                                  struct lonely_client_why *why)
{
    enum lonely_client_error err;

    uv_mutex_lock(&c->lock);
    err = c->last_error;
    if (why != NULL)
        *why = c->why;
    uv_mutex_unlock(&c->lock);
    return err;
}

const char *lonely_client_bound(struct lonely_client *c)
{
    return c->link->ops == &link_http ? link_http_bound(c->link) : NULL;
}

struct lonely_mount *lonely_client_mount(struct lonely_client *c)
{
    return c->link->ops == &link_http ? link_http_mount(c->link) : NULL;
}

const char *lonely_client_url(struct lonely_client *c)
{
    return c->link->ops == &link_http ? link_http_url(c->link) : NULL;
}

/* ---- The caller's loop ---- */

int lonely_client_fd(struct lonely_client *c)
{
    return c->own_thread ? -1 : uv_backend_fd(&c->loop);
}

int lonely_client_timeout_ms(struct lonely_client *c)
{
    if (c->own_thread)
        return -1;
    uv_update_time(&c->loop);
    return uv_backend_timeout(&c->loop);
}

void lonely_client_process(struct lonely_client *c)
{
    if (!c->own_thread && !c->working)
        work(c, UV_RUN_NOWAIT);
}

/* ---- Random numbers ---- */

void client_random(struct lonely_client *c, uint8_t *to, size_t len)
{
    if (c->random_left < len) {
        if (uv_random(NULL, NULL, c->random, sizeof(c->random), 0, NULL) != 0)
            abort(); /* identifiers that repeat would be worse */
        c->random_left = sizeof(c->random);
    }
    c->random_left -= len;
    memcpy(to, c->random + c->random_left, len);
}

/* ---- Life ---- */

static void on_wakeup(uv_async_t *wakeup)
{
    run_commands(wakeup->data);
}

/* A peer that is gone is an error of a write, whatever the program does with the signal. */
static void block_sigpipe(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void run_loop(void *arg)
{
    struct lonely_client *c = arg;

    block_sigpipe();
    uv_mutex_lock(&c->lock);
    c->loop_thread = uv_thread_self();
    c->running = true;
    uv_cond_broadcast(&c->changed);
    uv_mutex_unlock(&c->lock);
    c->link->ops->start(c->link);
    uv_run(&c->loop, UV_RUN_DEFAULT);
}

static void on_link_closed(struct lonely_client *c)
{
    c->link = NULL;
    uv_close((uv_handle_t *)&c->wakeup, NULL);
    uv_close((uv_handle_t *)&c->deadline, NULL);
}

static void close_link(struct lonely_client *c)
{
    c->closing = true;
    atomic_store(&c->ending, true);
    c->link->ops->close(c->link, on_link_closed);
    c->link_up = false;
    if (!c->dead) {
        c->dead = true;
        client_update_status(c);
    }
}

static void run_close(struct command *cmd)
{
    close_link(cmd->client);
    command_done(cmd, LONELY_CLIENT_OK);
}

static void client_free(struct lonely_client *c)
{
    uv_loop_close(&c->loop);
    handlers_fini(c);
    wants_fini(c);
    delivery_pool_fini(c);
    guard_fini(c);
    trace_file_close(c->trace_file);
    client_conf_fini(&c->conf);
    uv_cond_destroy(&c->changed);
    uv_mutex_destroy(&c->lock);
    mem_free(c);
}

enum lonely_client_error lonely_client_close(struct lonely_client *c)
{
    enum lonely_client_error err;
    struct command *cmd;

    if (c == NULL)
        return LONELY_CLIENT_OK;
    if (c->own_thread) {
        do /* what cannot be told cannot be ended: memory comes back */
            cmd = command_create(c, sizeof(*cmd), run_close);
        while (cmd == NULL);
        client_submit(cmd, 0);
        uv_thread_join(&c->thread);
        c->own_thread = false;
        run_commands(c); /* which came when nobody looked any more */
    } else {
        close_link(c);
        work(c, UV_RUN_DEFAULT);
    }
    err = c->final_error;
    uv_mutex_lock(&c->lock);
    while (c->callers > 0)
        uv_cond_wait(&c->changed, &c->lock);
    uv_mutex_unlock(&c->lock);
    client_free(c);
    return err;
}

/* Everything that can fail without a trace but memory. */
static struct lonely_client *client_alloc(void)
{
    struct lonely_client *c = mem_try_calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    if (uv_loop_init(&c->loop) != 0) {
        mem_free(c);
        return NULL;
    }
    uv_mutex_init(&c->lock);
    uv_cond_init(&c->changed);
    uv_async_init(&c->loop, &c->wakeup, on_wakeup);
    c->wakeup.data = c;
    uv_timer_init(&c->loop, &c->deadline);
    c->deadline.data = c;
    c->clock = &clock_system;
    atomic_init(&c->next_id, 0);
    atomic_init(&c->ending, false);
    list_init(&c->commands);
    list_init(&c->exacts);
    list_init(&c->globs);
    list_init(&c->dirty);
    list_init(&c->subscriptions);
    list_init(&c->handlers);
    map_init(&c->wants);
    return c;
}

static bool start_tracing(struct lonely_client *c, struct lonely_client_why *why)
{
    if (c->conf.tracing == NULL)
        return true;
    c->trace_file = trace_file_open(c->conf.tracing, c->clock, why);
    if (c->trace_file != NULL)
        trace_file_tracer(c->trace_file, &c->conf.tracer);
    return c->trace_file != NULL;
}

static enum lonely_client_error start(struct lonely_client *c, struct lonely_client_why *why)
{
    enum client_scheme scheme = c->conf.broadcasters[0].scheme;
    const struct link_ops *ops = client_scheme_is_http(scheme) ? &link_http : &link_stateful;
    enum lonely_client_error err = guard_init(c, why);

    if (err == LONELY_CLIENT_OK && !start_tracing(c, why))
        err = LONELY_CLIENT_ARGUMENT;
    if (err == LONELY_CLIENT_OK)
        err = ops->open(c, &c->link, why);
    if (err != LONELY_CLIENT_OK)
        return err;
    c->own_thread = strcmp(c->conf.io, "thread") == 0;
    if (!c->own_thread) {
        c->link->ops->start(c->link);
        return LONELY_CLIENT_OK;
    }
    if (uv_thread_create(&c->thread, run_loop, c) == 0) {
        uv_mutex_lock(&c->lock);
        while (!c->running) /* whose thread is whose is asked from now on */
            uv_cond_wait(&c->changed, &c->lock);
        uv_mutex_unlock(&c->lock);
        return LONELY_CLIENT_OK;
    }
    snprintf(why->text, sizeof(why->text), "cannot start a thread");
    c->own_thread = false;
    return LONELY_CLIENT_NO_MEMORY;
}

enum lonely_client_error lonely_client_open(const struct lonely_client_options *o,
                                            struct lonely_client **out,
                                            struct lonely_client_why *why)
{
    struct lonely_client_why ignored;
    struct lonely_client *c = client_alloc();
    enum lonely_client_error err = LONELY_CLIENT_ARGUMENT;

    *out = NULL;
    if (why == NULL)
        why = &ignored;
    why->text[0] = '\0';
    if (c == NULL)
        return LONELY_CLIENT_NO_MEMORY;
    if (client_conf_finish(o, &c->conf, why))
        err = start(c, why);
    if (err == LONELY_CLIENT_OK) {
        *out = c;
        return err;
    }
    if (c->link != NULL)
        close_link(c);
    else
        on_link_closed(c);
    uv_run(&c->loop, UV_RUN_DEFAULT);
    client_free(c);
    return err;
}
