/* The intrusive list of src/base/list.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "list.h"

struct item {
    int value;
    struct list node;
};

/* The values in order, as the digits of a number; both directions must agree. */
static int digits(struct list *head)
{
    int forward = 0, backward = 0, place = 1;

    list_foreach (head, n, next)
        forward = forward * 10 + list_entry(n, struct item, node)->value;
    for (struct list *n = head->prev; n != head; n = n->prev, place *= 10)
        backward += list_entry(n, struct item, node)->value * place;
    assert_int_equal(forward, backward);
    return forward;
}

static void links_and_unlinks(void **state)
{
    struct list head = LIST_INIT(head);
    struct item a = { .value = 1 }, b = { .value = 2 }, c = { .value = 3 };

    (void)state;
    assert_true(list_is_empty(&head));
    assert_null(list_first(&head));
    assert_null(list_last(&head));
    assert_null(list_pop_front(&head));
    list_push_back(&head, &b.node);
    list_push_back(&head, &c.node);
    list_push_front(&head, &a.node);
    assert_int_equal(digits(&head), 123);
    assert_ptr_equal(list_first(&head), &a.node);
    assert_ptr_equal(list_last(&head), &c.node);
    assert_true(list_is_linked(&b.node));
    list_remove(&b.node);
    assert_false(list_is_linked(&b.node));
    list_remove(&b.node); /* again: nothing happens */
    assert_int_equal(digits(&head), 13);
    list_insert_before(&c.node, &b.node);
    assert_int_equal(digits(&head), 123);
    assert_ptr_equal(list_pop_front(&head), &a.node);
    assert_false(list_is_linked(&a.node));
    assert_int_equal(digits(&head), 23);
}

static void elements_may_leave_during_a_walk(void **state)
{
    struct list head = LIST_INIT(head);
    struct item items[5];

    (void)state;
    for (int i = 0; i < 5; i++) {
        items[i].value = i + 1;
        list_push_back(&head, &items[i].node);
    }
    list_foreach (&head, n, next)
        if (list_entry(n, struct item, node)->value % 2 == 1)
            list_remove(n);
    assert_int_equal(digits(&head), 24);
    list_foreach (&head, n, next)
        list_remove(n);
    assert_true(list_is_empty(&head));
}

static void all_nodes_move_to_another_list(void **state)
{
    struct list to = LIST_INIT(to), from = LIST_INIT(from);
    struct item items[4];

    (void)state;
    list_move_all(&to, &from);
    assert_true(list_is_empty(&to));
    for (int i = 0; i < 4; i++) {
        items[i].value = i + 1;
        list_push_back(i < 2 ? &to : &from, &items[i].node);
    }
    list_move_all(&to, &from);
    assert_int_equal(digits(&to), 1234);
    assert_true(list_is_empty(&from));
    list_move_all(&from, &to);
    assert_int_equal(digits(&from), 1234);
    assert_true(list_is_empty(&to));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(links_and_unlinks),
        cmocka_unit_test(elements_may_leave_during_a_walk),
        cmocka_unit_test(all_nodes_move_to_another_list),
    };

    return cmocka_run_group_tests_name("list", tests, NULL, NULL);
}
