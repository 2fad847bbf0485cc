/* Counts, records and fails the calls with which a program changes or reads files below a folder. It is loaded before the C
 * library (LD_PRELOAD). The environment:
 *   CALLS_ROOT     absolute path of the folder; other files are left alone
 *   CALLS_JOURNAL  file that gets a record of each call, in the order of the calls (storage_calls.rs reads it); none: no records
 *   CALLS_FAIL     number of the call that fails, from 0; none: no call fails
 *   CALLS_ERRNO    the error of that call
 *   CALLS_EVER     1: all later calls fail, too
 *   CALLS_CUT      number of the call before which the file system of the folder is shut down without writing what was not
 *                  synced, as by a power loss (ext4, XFS; for the superuser)
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define DESCRIPTORS 4096
#define LONGEST 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char names[DESCRIPTORS][256]; /* path below the root of each open descriptor; empty: not below it */
static long counted;
static int journal = -2;

static const char *root(void) {
    const char *root = getenv("CALLS_ROOT");
    return root ? root : "/nowhere";
}

/* The path below the root, or none. */
static const char *below(int folder, const char *path, char *space) {
    if (!path) return NULL;
    if (path[0] != '/') {
        char link[64];
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        long length = syscall(SYS_readlinkat, AT_FDCWD, link, space, LONGEST / 2);
        if (length < 0) return NULL;
        snprintf(space + length, LONGEST - length, "/%s", path);
        path = space;
    }
    size_t length = strlen(root());
    if (strncmp(path, root(), length) || (path[length] && path[length] != '/')) return NULL;
    path += length;
    while (*path == '/') path++;
    return *path ? path : ".";
}

static void put(const void *bytes, size_t length) {
    const char *at = bytes;
    while (length) {
        long written = syscall(SYS_write, journal, at, length);
        if (written <= 0) _exit(97);
        at += written;
        length -= written;
    }
}

/* A record: call, number, path, second path or none, offset, length of the data, data. */
static void record(char call, const char *path, const char *other, int64_t offset, const void *data, uint64_t length) {
    if (journal == -2) {
        const char *file = getenv("CALLS_JOURNAL");
        journal = file ? syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    }
    if (journal < 0) return;
    uint32_t lengths[2] = {strlen(path), other ? strlen(other) : 0};
    int64_t numbers[3] = {counted, offset, (int64_t)length};
    put(&call, 1);
    put(numbers, sizeof numbers);
    put(lengths, sizeof lengths);
    put(path, lengths[0]);
    if (other) put(other, lengths[1]);
    if (data) put(data, length);
}

/* XFS_IOC_GOINGDOWN, which ext4 has as EXT4_IOC_SHUTDOWN, and its option not to write the journal. */
#define SHUT_DOWN _IOR('X', 125, uint32_t)
#define NO_JOURNAL 2

static void cut_power(void) {
    uint32_t how = NO_JOURNAL;
    int folder = syscall(SYS_openat, AT_FDCWD, root(), O_RDONLY | O_DIRECTORY);
    if (folder < 0 || ioctl(folder, SHUT_DOWN, &how)) _exit(98);
    syscall(SYS_close, folder);
}

/* Whether this call, the next one, fails. Called with the lock held. */
static int fails(void) {
    const char *at = getenv("CALLS_FAIL"), *ever = getenv("CALLS_EVER"), *error = getenv("CALLS_ERRNO");
    const char *cut = getenv("CALLS_CUT");
    long number = counted++;
    if (cut && number == atol(cut)) cut_power();
    if (!at) return 0;
    long wanted = atol(at);
    if (number != wanted && !(ever && number > wanted)) return 0;
    errno = error ? atoi(error) : EIO;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* What a call does below the root: counted, recorded where it succeeds, failed where it shall. */
#define GUARDED(path, call, other, offset, data, length, type, work)                      \
    if (!(path)) return work;                                                             \
    pthread_mutex_lock(&lock);                                                            \
    type result = -1;                                                                     \
    if (!fails()) {                                                                       \
        result = work;                                                                    \
        int error = errno;                                                                \
        if (result >= 0) record(call, path, other, offset, data, length);                 \
        errno = error;                                                                    \
    }                                                                                     \
    pthread_mutex_unlock(&lock);                                                          \
    return result;

static const char *opened(int descriptor) {
    return descriptor >= 0 && descriptor < DESCRIPTORS && names[descriptor][0] ? names[descriptor] : NULL;
}

static int open_file(int folder, const char *path, int flags, int mode) {
    char space[LONGEST];
    const char *name = below(folder, path, space);
    if (!name) return syscall(SYS_openat, folder, path, flags, mode);
    pthread_mutex_lock(&lock);
    int descriptor = -1;
    if (!fails()) {
        struct stat before;
        int existed = !fstatat(folder, path, &before, 0);
        descriptor = syscall(SYS_openat, folder, path, flags, mode);
        int error = errno;
        if (descriptor >= 0 && descriptor < DESCRIPTORS) snprintf(names[descriptor], 256, "%s", name);
        if (descriptor >= 0) record(!existed ? 'c' : (flags & O_TRUNC) ? 't' : 'o', name, NULL, 0, NULL, 0);
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return descriptor;
}

static int mode_of(int flags, va_list rest) { return (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, int) : 0; }

#define OPEN(name)                                       \
    int name(const char *path, int flags, ...) {         \
        va_list rest;                                    \
        va_start(rest, flags);                           \
        int mode = mode_of(flags, rest);                 \
        va_end(rest);                                    \
        return open_file(AT_FDCWD, path, flags, mode);   \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                              \
    int name(int folder, const char *path, int flags, ...) {      \
        va_list rest;                                             \
        va_start(rest, flags);                                    \
        int mode = mode_of(flags, rest);                          \
        va_end(rest);                                             \
        return open_file(folder, path, flags, mode);              \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int descriptor) {
    if (descriptor >= 0 && descriptor < DESCRIPTORS) names[descriptor][0] = 0;
    return syscall(SYS_close, descriptor);
}

ssize_t write(int descriptor, const void *bytes, size_t length) {
    const char *name = opened(descriptor);
    int64_t at = name ? syscall(SYS_lseek, descriptor, 0, SEEK_CUR) : 0;
    GUARDED(name, 'w', NULL, at, bytes, result, ssize_t, syscall(SYS_write, descriptor, bytes, length))
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off64_t at) {
    const char *name = opened(descriptor);
    GUARDED(name, 'w', NULL, at, bytes, result, ssize_t, syscall(SYS_pwrite64, descriptor, bytes, length, at))
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    if (!opened(descriptor)) return syscall(SYS_writev, descriptor, parts, count);
    for (int part = 0; part < count; part++) /* a short write is a write */
        if (parts[part].iov_len) return write(descriptor, parts[part].iov_base, parts[part].iov_len);
    return 0;
}

ssize_t read(int descriptor, void *bytes, size_t length) {
    const char *name = opened(descriptor);
    GUARDED(name, 'r', NULL, 0, NULL, 0, ssize_t, syscall(SYS_read, descriptor, bytes, length))
}

ssize_t pread64(int descriptor, void *bytes, size_t length, off64_t at) {
    const char *name = opened(descriptor);
    GUARDED(name, 'r', NULL, 0, NULL, 0, ssize_t, syscall(SYS_pread64, descriptor, bytes, length, at))
}

/* The bytes that a call copied, read again from their source, since the target may be open for writing only. Called with the
 * lock held. */
static const void *copied(int source, int64_t at, size_t length) {
    static char *bytes;
    free(bytes);
    bytes = malloc(length + 1);
    for (size_t have = 0; have < length;) {
        long more = bytes ? syscall(SYS_pread64, source, bytes + have, length - have, at + have) : -1;
        if (more <= 0) _exit(97);
        have += more;
    }
    return bytes;
}

static int64_t position(int descriptor, const off64_t *given) {
    return given ? *given : syscall(SYS_lseek, descriptor, 0, SEEK_CUR);
}

/* Copies between files: a write of its target, or a read where only the source is below the root. */
ssize_t copy_file_range(int source, off64_t *source_at, int target, off64_t *target_at, size_t length, unsigned flags) {
    const char *written = opened(target), *name = written ? written : opened(source);
    int64_t from = name ? position(source, source_at) : 0, at = written ? position(target, target_at) : 0;
    GUARDED(name, written ? 'w' : 'r', NULL, at, written ? copied(source, from, result) : NULL, written ? result : 0,
            ssize_t, syscall(SYS_copy_file_range, source, source_at, target, target_at, length, flags))
}

ssize_t sendfile64(int target, int source, off64_t *source_at, size_t length) {
    const char *written = opened(target), *name = written ? written : opened(source);
    int64_t from = name ? position(source, source_at) : 0, at = written ? position(target, NULL) : 0;
    GUARDED(name, written ? 'w' : 'r', NULL, at, written ? copied(source, from, result) : NULL, written ? result : 0,
            ssize_t, syscall(SYS_sendfile, target, source, source_at, length))
}

ssize_t sendfile(int target, int source, off_t *source_at, size_t length) {
    return sendfile64(target, source, source_at, length);
}

int ftruncate64(int descriptor, off64_t length) {
    const char *name = opened(descriptor);
    GUARDED(name, 'l', NULL, length, NULL, 0, int, syscall(SYS_ftruncate, descriptor, length))
}

int fsync(int descriptor) {
    const char *name = opened(descriptor);
    GUARDED(name, 's', NULL, 0, NULL, 0, int, syscall(SYS_fsync, descriptor))
}

int fdatasync(int descriptor) {
    const char *name = opened(descriptor);
    GUARDED(name, 's', NULL, 0, NULL, 0, int, syscall(SYS_fdatasync, descriptor))
}

int rename(const char *from, const char *to) {
    char space[LONGEST], more[LONGEST];
    const char *name = below(AT_FDCWD, from, space), *other = below(AT_FDCWD, to, more);
    GUARDED(name && other ? name : NULL, 'm', other, 0, NULL, 0, int,
            syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0))
}

int link(const char *from, const char *to) {
    char space[LONGEST], more[LONGEST];
    const char *name = below(AT_FDCWD, from, space), *other = below(AT_FDCWD, to, more);
    GUARDED(name && other ? name : NULL, 'h', other, 0, NULL, 0, int, syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0))
}

int symlink(const char *target, const char *path) {
    char space[LONGEST];
    const char *name = below(AT_FDCWD, path, space);
    GUARDED(name, 'y', target, 0, NULL, 0, int, syscall(SYS_symlinkat, target, AT_FDCWD, path))
}

int unlink(const char *path) {
    char space[LONGEST];
    const char *name = below(AT_FDCWD, path, space);
    GUARDED(name, 'u', NULL, 0, NULL, 0, int, syscall(SYS_unlinkat, AT_FDCWD, path, 0))
}

int unlinkat(int folder, const char *path, int flags) {
    char space[LONGEST];
    const char *name = below(folder, path, space);
    GUARDED(name, 'u', NULL, 0, NULL, 0, int, syscall(SYS_unlinkat, folder, path, flags))
}

int rmdir(const char *path) {
    char space[LONGEST];
    const char *name = below(AT_FDCWD, path, space);
    GUARDED(name, 'u', NULL, 0, NULL, 0, int, syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR))
}

int mkdir(const char *path, mode_t mode) {
    char space[LONGEST];
    const char *name = below(AT_FDCWD, path, space);
    GUARDED(name, 'd', NULL, 0, NULL, 0, int, syscall(SYS_mkdirat, AT_FDCWD, path, mode))
}

DIR *opendir(const char *path) {
    char space[LONGEST];
    const char *name = below(AT_FDCWD, path, space);
    if (name) {
        pthread_mutex_lock(&lock);
        int failed = fails();
        if (!failed) record('r', name, NULL, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
        if (failed) return NULL;
    }
    return REAL(opendir)(path);
}
