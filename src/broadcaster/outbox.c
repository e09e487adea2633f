/*
 * Queues of outgoing POSTs with their bounds. Called by delivery.c and missed.c; the HTTP itself is
 * http_client.c's.
 *
 * A target is one URL, an origin one scheme, host and port. Both exist while they have posts. A target is
 * in its origin's list of ready ones when it has something waiting and may run more; an origin is in the
 * outbox's list on the same terms. pump() takes from the front and puts back at the end: round robin.
 */
#include <string.h>

#include "map.h"
#include "mem.h"
#include "outbox.h"

struct outbox_origin {
    struct map_node node; /* in outbox.origins */
    struct list ready;    /* targets that may start a post; node: target.ready_node */
    struct list ready_node;
    size_t running;
    size_t targets;
    size_t name_len;
    char name[];
};

struct outbox_target {
    struct map_node node; /* in outbox.targets */
    struct outbox_origin *origin;
    struct list waiting; /* posts */
    struct list ready_node;
    size_t running;
    size_t url_len;
    char url[];
};

struct outbox {
    struct outbox_limits limits;
    struct http_client *client;
    struct map origins, targets;
    struct list ready;   /* origins that may start a post */
    struct list running; /* posts */
    size_t running_count;
    atomic_size_t *all_queued; /* the waiting ones of all workers */
    bool pumping, closed;
};

struct outbox *outbox_create(const struct outbox_limits *limits, struct http_client *client,
                             atomic_size_t *all_queued)
{
    struct outbox *o = mem_calloc(1, sizeof(*o));

    o->limits = *limits;
    o->client = client;
    o->all_queued = all_queued;
    map_init(&o->origins);
    map_init(&o->targets);
    list_init(&o->ready);
    list_init(&o->running);
    return o;
}

void outbox_destroy(struct outbox *o)
{
    if (o == NULL)
        return;
    map_fini(&o->targets);
    map_fini(&o->origins);
    mem_free(o);
}

bool outbox_has_room(const struct outbox *o, size_t count)
{
    size_t idle =
        o->limits.max_in_flight > o->running_count ? o->limits.max_in_flight - o->running_count : 0;

    return atomic_load_explicit(o->all_queued, memory_order_relaxed) + count <=
           o->limits.max_queued + idle;
}

size_t outbox_running(const struct outbox *o)
{
    return o->running_count;
}

size_t outbox_queued(const struct outbox *o)
{
    return atomic_load_explicit(o->all_queued, memory_order_relaxed);
}

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

static bool ends_with(const char *text, size_t len, const char *end)
{
    size_t n = strlen(end);

    return len >= n && memcmp(text + len - n, end, n) == 0;
}

/*
 * Writes scheme, host and port of a URL to `to`, which has room for all of it, in one spelling: lower case,
 * without user name and without the scheme's own port. A URL without them is its own origin; it fails
 * alone. Returns the length.
 */
static size_t origin_name(const char *url, size_t len, char *to)
{
    const char *authority = memmem(url, len, "://", 3);
    size_t host = 0, n = 0;

    if (authority != NULL)
        host = (size_t)(authority - url) + 3;
    for (size_t i = 0; i < len; i++) {
        if (authority != NULL && i >= host && memchr("/?#", url[i], 3) != NULL)
            break;
        if (authority != NULL && i >= host && url[i] == '@')
            n = host;
        else
            to[n++] = lower(url[i]);
    }
    if (host == strlen("http://") && ends_with(to, n, ":80") && to[0] == 'h')
        n -= strlen(":80");
    else if (host == strlen("https://") && ends_with(to, n, ":443") && to[0] == 'h')
        n -= strlen(":443");
    return n;
}

static struct outbox_origin *origin_get(struct outbox *o, const char *url, size_t url_len)
{
    struct outbox_origin *origin = mem_alloc(sizeof(*origin) + url_len);
    struct map_node *found;

    memset(origin, 0, sizeof(*origin));
    origin->name_len = origin_name(url, url_len, origin->name);
    list_init(&origin->ready);
    list_init(&origin->ready_node);
    found = map_insert(&o->origins, &origin->node, origin->name, origin->name_len);
    if (found != NULL) {
        mem_free(origin);
        origin = map_entry(found, struct outbox_origin, node);
    }
    origin->targets++;
    return origin;
}

static struct outbox_target *target_get(struct outbox *o, const char *url, size_t url_len)
{
    struct map_node *found = map_find(&o->targets, url, url_len);
    struct outbox_target *target;

    if (found != NULL)
        return map_entry(found, struct outbox_target, node);
    target = mem_alloc(sizeof(*target) + url_len);
    *target = (struct outbox_target){ .url_len = url_len };
    memcpy(target->url, url, url_len);
    list_init(&target->waiting);
    list_init(&target->ready_node);
    target->origin = origin_get(o, url, url_len);
    map_insert(&o->targets, &target->node, target->url, url_len);
    return target;
}

/* Puts a target and its origin into, or takes them out of, the lists of those that may start. */
static void update_ready(struct outbox *o, struct outbox_target *target)
{
    struct outbox_origin *origin = target->origin;

    if (list_is_empty(&target->waiting) || target->running >= o->limits.max_per_url)
        list_remove(&target->ready_node);
    else if (!list_is_linked(&target->ready_node))
        list_push_back(&origin->ready, &target->ready_node);

    if (list_is_empty(&origin->ready) || origin->running >= o->limits.max_per_origin)
        list_remove(&origin->ready_node);
    else if (!list_is_linked(&origin->ready_node))
        list_push_back(&o->ready, &origin->ready_node);
}

static void target_release_if_idle(struct outbox *o, struct outbox_target *target)
{
    struct outbox_origin *origin = target->origin;

    if (target->running > 0 || !list_is_empty(&target->waiting))
        return;
    map_remove(&o->targets, &target->node);
    mem_free(target);
    if (--origin->targets == 0) {
        map_remove(&o->origins, &origin->node);
        mem_free(origin);
    }
}

static void pump(struct outbox *o);

static void on_reply(void *arg, const struct http_reply *reply)
{
    struct outbox_post *post = arg;
    struct outbox *o = post->outbox;
    struct outbox_target *target = post->target;

    list_remove(&post->node);
    o->running_count--;
    target->running--;
    target->origin->running--;
    update_ready(o, target);
    target_release_if_idle(o, target);
    post->call = NULL;
    post->ops->done(post, reply);
    pump(o);
}

/* Ends a post that never became a call. */
static void post_end(struct outbox_post *post, enum http_call_status status, const char *detail)
{
    post->ops->done(post, &(struct http_reply){ .status = status, .detail = detail });
}

/* Takes the next post of the first ready origin out of its queue. Something is ready. */
static struct outbox_post *take_next(struct outbox *o)
{
    struct outbox_origin *origin = list_entry(o->ready.next, struct outbox_origin, ready_node);
    struct outbox_target *target = list_entry(origin->ready.next, struct outbox_target, ready_node);
    struct outbox_post *post = list_entry(target->waiting.next, struct outbox_post, node);

    list_remove(&origin->ready_node);
    list_remove(&target->ready_node);
    list_remove(&post->node);
    atomic_fetch_sub_explicit(o->all_queued, 1, memory_order_relaxed);
    return post;
}

static void start_next(struct outbox *o)
{
    struct outbox_post *post = take_next(o);
    struct outbox_target *target = post->target;
    struct http_call_request request = { .url = post->url };
    bool usable = memchr(post->url, 0, post->url_len) == NULL && post->ops->start(post, &request);

    if (usable) {
        o->running_count++;
        target->running++;
        target->origin->running++;
        list_push_back(&o->running, &post->node);
    }
    update_ready(o, target);
    if (usable) {
        post->call = http_client_post(o->client, &request, on_reply, post);
        return;
    }
    target_release_if_idle(o, target);
    post_end(post, HTTP_CALL_URL, "the URL cannot be used");
}

static void pump(struct outbox *o)
{
    if (o->pumping) /* a done callback of start_next may add posts: the loop below sees them */
        return;
    o->pumping = true;
    while (!list_is_empty(&o->ready) && o->running_count < o->limits.max_in_flight)
        start_next(o);
    o->pumping = false;
}

void outbox_add(struct outbox *o, struct outbox_post *post)
{
    post->outbox = o;
    post->call = NULL;
    list_init(&post->node);
    if (o->closed) {
        post_end(post, HTTP_CALL_CANCELLED, "shutting down");
        return;
    }
    post->target = target_get(o, post->url, post->url_len);
    list_push_back(&post->target->waiting, &post->node);
    atomic_fetch_add_explicit(o->all_queued, 1, memory_order_relaxed);
    update_ready(o, post->target);
    pump(o);
}

void outbox_resume(struct outbox_post *post)
{
    if (post->call != NULL)
        http_call_resume(post->call);
}

/* The target is gone with its last post. */
static void cancel_target(struct outbox *o, struct outbox_target *target)
{
    bool last = false;

    while (!last) {
        struct list *first = list_pop_front(&target->waiting);
        struct outbox_post *post = list_entry(first, struct outbox_post, node);

        atomic_fetch_sub_explicit(o->all_queued, 1, memory_order_relaxed);
        last = list_is_empty(&target->waiting);
        if (last) {
            update_ready(o, target);
            target_release_if_idle(o, target);
        }
        post_end(post, HTTP_CALL_CANCELLED, "shutting down");
    }
}

/* Nothing runs any more, so every target has something waiting; and what the callbacks add ends at once,
 * without a target. */
static void cancel_waiting(struct outbox *o)
{
    for (struct map_node *n = map_first(&o->targets), *next; n != NULL; n = next) {
        next = map_next(&o->targets, n);
        cancel_target(o, map_entry(n, struct outbox_target, node));
    }
}

void outbox_close(struct outbox *o)
{
    if (o->closed)
        return;
    o->closed = true;
    o->pumping = true; /* nothing starts any more */
    while (!list_is_empty(&o->running)) {
        struct outbox_post *post = list_entry(o->running.next, struct outbox_post, node);

        http_call_cancel(post->call);
    }
    cancel_waiting(o);
}
