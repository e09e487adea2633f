/*
 * Resolves a name beside the loop (lookup.h). opening.c calls it.
 */
#include "lookup.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <tinyproto/address.h>

#include "mem.h"

struct lookup {
    uv_poll_t poll;
    int fd;             /* an eventfd: the thread has written what follows it here */
    atomic_uint n_uses; /* by the loop and by the thread; the last one frees it */
    int status;
    struct addrinfo *list;
    char host[TINYPROTO_HOST_MAX], port[8];
    lookup_fn *done;
    void *arg;
};

static void drop(struct lookup *l)
{
    if (atomic_fetch_sub(&l->n_uses, 1) > 1)
        return;
    if (l->list != NULL)
        freeaddrinfo(l->list);
    close(l->fd);
    mem_free(l);
}

static void *resolve(void *arg)
{
    const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
                                    .ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG };
    struct lookup *l = arg;
    const uint64_t one = 1;
    ssize_t n;

    l->status = getaddrinfo(l->host, l->port, &hints, &l->list);
    if (l->status != 0)
        l->list = NULL;
    n = write(l->fd, &one, sizeof(one)); /* there is room for one */
    (void)n;
    drop(l);
    return NULL;
}

/* Signals are for the program's threads. */
static bool start_thread(struct lookup *l)
{
    sigset_t all, kept;
    pthread_t thread;
    bool started;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &kept);
    started = pthread_create(&thread, NULL, resolve, l) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &kept, NULL);
    if (started)
        (void)pthread_detach(thread);
    return started;
}

static void on_closed(uv_handle_t *handle)
{
    drop(handle->data);
}

void lookup_cancel(struct lookup *l)
{
    uv_close((uv_handle_t *)&l->poll, on_closed);
}

static void on_resolved(uv_poll_t *poll, int status, int events)
{
    struct lookup *l = poll->data;
    struct addrinfo *list;
    uint64_t count;
    ssize_t n = read(l->fd, &count, sizeof(count));

    (void)n;
    (void)status;
    (void)events;
    list = l->list;
    l->list = NULL;
    lookup_cancel(l);
    l->done(l->arg, l->status, list);
}

struct lookup *lookup_start(uv_loop_t *loop, const char *host, const char *port, lookup_fn *done,
                            void *arg)
{
    struct lookup *l = mem_try_calloc(1, sizeof(*l));

    if (l == NULL)
        return NULL;
    atomic_init(&l->n_uses, 2);
    l->done = done;
    l->arg = arg;
    snprintf(l->host, sizeof(l->host), "%s", host);
    snprintf(l->port, sizeof(l->port), "%s", port);
    l->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->fd < 0 || uv_poll_init(loop, &l->poll, l->fd) != 0) {
        if (l->fd >= 0)
            close(l->fd);
        mem_free(l);
        return NULL;
    }
    l->poll.data = l;
    (void)uv_poll_start(&l->poll, UV_READABLE, on_resolved);
    if (start_thread(l))
        return l;
    drop(l); /* the thread's use */
    lookup_cancel(l);
    return NULL;
}
