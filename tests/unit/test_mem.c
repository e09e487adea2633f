/* Allocation: src/base/mem.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mem.h"
#include "tables.h"

/* More than any machine has; volatile, so that no compiler complains beforehand. */
static volatile size_t too_much = SIZE_MAX / 4;

static void gives_memory(void **state)
{
    char *p = mem_alloc(3), *zeros = mem_calloc(3, 5), *s, *copy;

    (void)state;
    memcpy(p, "ab", 3);
    p = mem_realloc(p, 1000);
    assert_string_equal(p, "ab");
    for (int i = 0; i < 15; i++)
        assert_int_equal(zeros[i], 0);
    s = mem_strdup("text");
    assert_string_equal(s, "text");
    copy = mem_dup("a\0b", 3);
    assert_memory_equal(copy, "a\0b", 3);
    mem_free(p);
    mem_free(zeros);
    mem_free(s);
    mem_free(copy);
    mem_free(NULL);
}

static void size_zero_is_no_failure(void **state)
{
    void *all[] = { mem_alloc(0),         mem_calloc(0, 8),        mem_calloc(8, 0),
                    mem_realloc(NULL, 0), mem_dup(NULL, 0),        mem_try_alloc(0),
                    mem_try_calloc(0, 0), mem_try_realloc(NULL, 0) };

    (void)state;
    for (size_t i = 0; i < TABLE_LEN(all); i++) {
        assert_non_null(all[i]);
        mem_free(all[i]);
    }
}

static void trying_may_fail(void **state)
{
    char *p = mem_strdup("kept");

    (void)state;
    assert_null(mem_try_alloc(too_much));
    assert_null(mem_try_calloc(too_much, 8)); /* the product wraps */
    assert_null(mem_try_realloc(p, too_much));
    assert_string_equal(p, "kept");
    mem_free(p);
}

static void try_alloc(void)
{
    mem_free(mem_alloc(too_much));
}

static void try_calloc(void)
{
    mem_free(mem_calloc(too_much, 8));
}

static void try_realloc(void)
{
    mem_free(mem_realloc(NULL, too_much));
}

static const struct abort_case {
    void (*run)(void);
    size_t bytes;
} abort_cases[] = {
    { try_alloc, SIZE_MAX / 4 },
    { try_calloc, SIZE_MAX },
    { try_realloc, SIZE_MAX / 4 },
};

static void read_to_end(int fd, char *text, size_t size)
{
    size_t len = 0;
    ssize_t n;

    while ((n = read(fd, text + len, size - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
}

static void out_of_memory_is_one_line_and_the_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < TABLE_LEN(abort_cases); i++) {
        char text[8192], expected[64];
        int ends[2], status;
        pid_t child;

        assert_int_equal(pipe(ends), 0);
        child = fork();
        if (child == 0) {
            signal(SIGABRT, SIG_DFL);
            setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
            dup2(ends[1], STDERR_FILENO);
            abort_cases[i].run();
            _exit(0);
        }
        close(ends[1]);
        assert_int_equal(waitpid(child, &status, 0), child);
        read_to_end(ends[0], text, sizeof text);
        close(ends[0]);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        snprintf(expected, sizeof expected, "out_of_memory bytes=%zu\n", abort_cases[i].bytes);
        assert_non_null(strstr(text, expected)); /* a sanitizer puts its own warning before it */
    }
}

/* Lets the sanitizer's allocator refuse, as the system's does. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_memory),
        cmocka_unit_test(size_zero_is_no_failure),
        cmocka_unit_test(trying_may_fail),
        cmocka_unit_test(out_of_memory_is_one_line_and_the_end),
    };

    return cmocka_run_group_tests_name("mem", tests, NULL, NULL);
}
