/*
 * Allocation. Small sizes that our own code decides go through mem_alloc and its kin, which never
 * return NULL: without memory for them the program writes one line and aborts. Sizes that a peer
 * decides go through mem_try_*, whose NULL is handled like any other refusal.
 *
 * Any thread. Memory of either kind is freed with mem_free.
 */
#ifndef MEM_H
#define MEM_H

#include <stddef.h>

#define MEM_RESULT     __attribute__((warn_unused_result))
#define MEM_NEVER_NULL __attribute__((warn_unused_result, returns_nonnull))

/* A size of 0 gives a pointer too, good only for mem_free. */
MEM_NEVER_NULL void *mem_alloc(size_t size);
MEM_NEVER_NULL void *mem_calloc(size_t n, size_t size); /* zeroed; aborts when n * size wraps */
MEM_NEVER_NULL void *mem_realloc(void *p, size_t size); /* p may be NULL */
MEM_NEVER_NULL char *mem_strdup(const char *s);
MEM_NEVER_NULL void *mem_dup(const void *ptr, size_t len); /* ptr may be NULL when len is 0 */

MEM_RESULT void *mem_try_alloc(size_t size);            /* NULL: no memory */
MEM_RESULT void *mem_try_calloc(size_t n, size_t size); /* NULL: no memory, or n * size wraps */
MEM_RESULT void *mem_try_realloc(void *p, size_t size); /* NULL: no memory, and p is untouched */

void mem_free(void *p); /* NULL is allowed */

#endif
