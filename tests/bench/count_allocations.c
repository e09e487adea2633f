/*
 * To be preloaded: counts what a program allocates, and says so when it ends. Of glibc; a program with
 * AddressSanitizer has an allocator of its own, which tells of each allocation.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);

/* Part of sanitized programs only. */
extern int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *ptr,
                                                                       size_t size),
                                                     void (*on_free)(const volatile void *ptr))
    __attribute__((weak));

static atomic_ulong allocations;

__attribute__((visibility("default"))) void *malloc(size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(size);
}

__attribute__((visibility("default"))) void *calloc(size_t n, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(n, size);
}

__attribute__((visibility("default"))) void *realloc(void *old, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(old, size);
}

static void on_malloc(const volatile void *ptr, size_t size)
{
    (void)ptr;
    (void)size;
    atomic_fetch_add(&allocations, 1);
}

static void on_free(const volatile void *ptr)
{
    (void)ptr;
}

__attribute__((constructor)) static void listen_to_sanitizer(void)
{
    if (__sanitizer_install_malloc_and_free_hooks != NULL)
        __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
}

__attribute__((destructor)) static void tell(void)
{
    fprintf(stderr, "allocations %lu\n", atomic_load(&allocations));
}
