/* Tests of the set of used macs (replay.h). */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "replay.h"
#include "tables.h"

#define NOW      1000000.0
#define NOW_KEEP UINT64_C(1000121) /* of what is stamped now */

static struct store_mac mac_of(uint64_t n, uint64_t keep_until_s)
{
    struct store_mac mac = { .keep_until_s = keep_until_s };
    uint64_t parts[2];

    n++;
    parts[0] = n * UINT64_C(0x9e3779b97f4a7c15);
    parts[1] = (n ^ parts[0] >> 31) * UINT64_C(0xbf58476d1ce4e5b9);
    memcpy(mac.code, parts, sizeof mac.code);
    return mac;
}

static enum replay_verdict take(struct replay *r, uint64_t n, uint64_t keep, double now)
{
    struct store_mac mac = mac_of(n, keep);

    return replay_take(r, &mac, now);
}

static void each_is_good_once(void **state)
{
    struct replay *r = replay_create(100000);

    (void)state;
    for (int round = 0; round < 2; round++)
        for (uint64_t n = 0; n < 50000; n++)
            assert_int_equal(take(r, n, NOW_KEEP + n % 240, NOW),
                             round == 0 ? REPLAY_NEW : REPLAY_USED);
    assert_int_equal(replay_count(r), 50000);
    replay_destroy(r);
}

static void a_mac_of_zeros_is_a_mac(void **state)
{
    struct replay *r = replay_create(100);
    struct store_mac zeros = { .keep_until_s = NOW_KEEP };

    (void)state;
    assert_int_equal(replay_take(r, &zeros, NOW), REPLAY_NEW);
    assert_int_equal(replay_take(r, &zeros, NOW), REPLAY_USED);
    replay_destroy(r);
}

/* As long as its timestamp is acceptable a mac is known: 120 s before and after now. */
static void kept_for_the_whole_window(void **state)
{
    struct replay *r = replay_create(100000);
    uint64_t n = 0;

    (void)state;
    for (uint64_t s = 0; s < 1000; s++) {
        double now = NOW + (double)s;

        for (uint64_t stamp = 0; stamp <= 240; stamp += 40, n++) {
            uint64_t keep = 1000000 + s - 120 + stamp + 121;

            assert_int_equal(take(r, n, keep, now), REPLAY_NEW);
            assert_int_equal(take(r, n, keep, (double)keep - 1), REPLAY_USED);
            assert_int_equal(take(r, n, keep, now), REPLAY_USED);
        }
    }
    replay_destroy(r);
}

static void what_expired_makes_room(void **state)
{
    struct replay *r = replay_create(16000);
    size_t most = 0;

    (void)state;
    for (uint64_t s = 0; s < 5000; s++) {
        for (uint64_t n = 0; n < 20; n++)
            assert_int_equal(take(r, s * 20 + n, NOW_KEEP + s, NOW + (double)s), REPLAY_NEW);
        if (replay_count(r) > most)
            most = replay_count(r);
    }
    assert_in_range(most, 20 * 121, 20 * 200);
    replay_destroy(r);
}

static void the_bound_holds(void **state)
{
    struct replay *r = replay_create(1600);
    size_t refused = 0;

    (void)state;
    for (uint64_t n = 0; n < 10000; n++)
        refused += take(r, n, NOW_KEEP, NOW) == REPLAY_NOT_KNOWN;
    assert_in_range(replay_count(r), 1600, 1616);
    assert_int_equal(refused, 10000 - replay_count(r));
    assert_int_equal(take(r, 20000, NOW_KEEP + 300, NOW + 300),
                     REPLAY_NEW); /* the others expired */
    assert_in_range(replay_count(r), 1, 1616);
    replay_destroy(r);
}

/* What was forgotten under a clock that ran ahead may have been used: it is not taken again. */
static void the_clock_goes_back(void **state)
{
    struct replay *r = replay_create(100000);

    (void)state;
    for (uint64_t n = 0; n < 64; n++)
        assert_int_equal(take(r, n, NOW_KEEP, NOW), REPLAY_NEW);
    for (uint64_t n = 0; n < 64; n++)
        assert_int_equal(take(r, 1000 + n, NOW_KEEP + 3600, NOW + 3600), REPLAY_NEW);
    for (uint64_t n = 0; n < 64; n++)
        assert_int_equal(take(r, n, NOW_KEEP, NOW), REPLAY_USED);
    for (uint64_t s = 300; s < 3400; s += 50) /* then it works as before */
        assert_int_equal(take(r, 5000 + s, NOW_KEEP + s, NOW + (double)s), REPLAY_NEW);
    for (uint64_t n = 0; n < 64; n++)
        assert_int_equal(take(r, 1000 + n, NOW_KEEP + 3600, NOW + 3600), REPLAY_USED);
    replay_destroy(r);
}

static void an_unknown_past(void **state)
{
    struct replay *r = replay_create(1000);

    (void)state;
    replay_forget_past(r, NOW + 0.5);
    assert_int_equal(take(r, 1, NOW_KEEP - 1, NOW + 1), REPLAY_USED);
    assert_int_equal(take(r, 2, NOW_KEEP, NOW + 1), REPLAY_NOT_KNOWN); /* before or after it? */
    assert_int_equal(take(r, 2, NOW_KEEP, NOW + 1), REPLAY_USED);
    assert_int_equal(take(r, 3, NOW_KEEP + 1, NOW + 1), REPLAY_NEW);
    replay_destroy(r);
}

static void absurd_times(void **state)
{
    static const uint64_t times[] = { 0, 1, 121, UINT64_MAX, UINT64_MAX - 16, UINT64_MAX / 2 };
    struct replay *r = replay_create(1000);

    (void)state;
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        assert_int_not_equal(take(r, i, times[i], NOW), 99);
        assert_int_not_equal(take(r, i, times[i], NOW), REPLAY_NEW);
    }
    replay_destroy(r);
    replay_destroy(NULL);
}

enum { THREADS = 4, MACS = 20000 };

struct race {
    struct replay *replay;
    atomic_int wins[MACS];
};

static void *take_all(void *arg)
{
    struct race *race = arg;

    for (uint64_t n = 0; n < MACS; n++)
        if (take(race->replay, n, NOW_KEEP + n / 100, NOW + (double)n / 100) == REPLAY_NEW)
            atomic_fetch_add(&race->wins[n], 1);
    return NULL;
}

static void one_thread_wins(void **state)
{
    static struct race race;
    pthread_t threads[THREADS];

    (void)state;
    race.replay = replay_create(MACS * 2);
    for (int i = 0; i < THREADS; i++)
        table_require(pthread_create(&threads[i], NULL, take_all, &race) == 0, "thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    /* Threads run apart by less than the time that a mac is kept, as clocks do not. A mac that a slow
     * one takes after its time is refused, never taken twice. */
    for (int n = 0; n < MACS; n++)
        assert_int_equal(atomic_load(&race.wins[n]), 1);
    replay_destroy(race.replay);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_good_once),         cmocka_unit_test(a_mac_of_zeros_is_a_mac),
        cmocka_unit_test(kept_for_the_whole_window), cmocka_unit_test(what_expired_makes_room),
        cmocka_unit_test(the_bound_holds),           cmocka_unit_test(the_clock_goes_back),
        cmocka_unit_test(an_unknown_past),           cmocka_unit_test(absurd_times),
        cmocka_unit_test(one_thread_wins),
    };

    return cmocka_run_group_tests_name("replay", tests, NULL, NULL);
}
