/*
 * Doubly linked list whose nodes live in the elements, so that linking never allocates and never
 * fails. One thread at a time.
 */
#ifndef LIST_H
#define LIST_H

#include <stdbool.h>
#include <stddef.h>

/* A head and a node are the same thing. A node that is in no list points at itself. */
struct list {
    struct list *next, *prev;
};

#define LIST_INIT(name)  \
    {                    \
        &(name), &(name) \
    }

/* The element that holds `node` as its `member`. */
#define list_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

/* `next_` is read first, so the body may unlink and free the element of `node_` (but not the one
 * after it). */
#define list_foreach(head, node_, next_)                                           \
    for (struct list *node_ = (head)->next, *next_ = node_->next; node_ != (head); \
         node_ = next_, next_ = node_->next)

/* For a head, and for a node before the first list_remove or list_is_linked. */
static inline void list_init(struct list *l)
{
    l->next = l;
    l->prev = l;
}

static inline bool list_is_empty(const struct list *head)
{
    return head->next == head;
}

static inline bool list_is_linked(const struct list *node)
{
    return node->next != node;
}

/* Links `node`, which is in no list, in front of `at`. */
static inline void list_insert_before(struct list *at, struct list *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}

static inline void list_push_back(struct list *head, struct list *node)
{
    list_insert_before(head, node);
}

static inline void list_push_front(struct list *head, struct list *node)
{
    list_insert_before(head->next, node);
}

/* Nothing happens to a node that is in no list. */
static inline void list_remove(struct list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

static inline struct list *list_first(const struct list *head) /* NULL: empty */
{
    return list_is_empty(head) ? NULL : head->next;
}

static inline struct list *list_last(const struct list *head) /* NULL: empty */
{
    return list_is_empty(head) ? NULL : head->prev;
}

static inline struct list *list_pop_front(struct list *head) /* NULL: empty */
{
    struct list *node = list_first(head);

    if (node != NULL)
        list_remove(node);
    return node;
}

/* Moves all nodes of `from` to the end of `to`; `from` is empty afterwards. */
static inline void list_move_all(struct list *to, struct list *from)
{
    if (list_is_empty(from))
        return;
    from->next->prev = to->prev;
    from->prev->next = to;
    to->prev->next = from->next;
    to->prev = from->prev;
    list_init(from);
}

#endif
