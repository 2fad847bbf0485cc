/* Fails large allocations by their number. It is loaded before the C library (LD_PRELOAD). The environment:
 *   ALLOCATIONS_FROM   bytes from which an allocation counts
 *   ALLOCATIONS_FAIL   number of the allocation that fails, from 0; none: no allocation fails
 *   ALLOCATIONS_EVER   1: all later ones fail, too
 *   ALLOCATIONS_FIRED  file that is created before an allocation fails
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static long counted;

static long number(const char *name, long otherwise) {
    const char *value = getenv(name);
    return value ? atol(value) : otherwise;
}

static int fails(size_t bytes) {
    static long from = -1, fail, ever;
    if (from < 0) {
        fail = number("ALLOCATIONS_FAIL", -1);
        ever = number("ALLOCATIONS_EVER", 0);
        from = number("ALLOCATIONS_FROM", 65536);
    }
    if (fail < 0 || bytes < (size_t)from) return 0;
    long call = __sync_fetch_and_add(&counted, 1);
    if (call < fail || (call > fail && !ever)) return 0;
    const char *fired = getenv("ALLOCATIONS_FIRED");
    if (fired) {
        long file = syscall(SYS_openat, AT_FDCWD, fired, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (file >= 0) syscall(SYS_close, file);
    }
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t bytes) { return fails(bytes) ? NULL : __libc_malloc(bytes); }

void *calloc(size_t count, size_t bytes) {
    size_t all;
    if (__builtin_mul_overflow(count, bytes, &all)) all = (size_t)-1;
    return fails(all) ? NULL : __libc_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes) { return fails(bytes) ? NULL : __libc_realloc(old, bytes); }

void *aligned_alloc(size_t alignment, size_t bytes) { return fails(bytes) ? NULL : __libc_memalign(alignment, bytes); }

void *memalign(size_t alignment, size_t bytes) { return aligned_alloc(alignment, bytes); }

int posix_memalign(void **found, size_t alignment, size_t bytes) {
    void *made = aligned_alloc(alignment, bytes);
    if (!made) return ENOMEM;
    *found = made;
    return 0;
}
