/* Fails the nth call of one kind on a file below a folder, as a bad disk does; the others pass.
 *
 * FAULT_CALL is open, read, write, fsync or rename, FAULT_BELOW the folder, FAULT_NTH counts from 1
 * in each process, and FAULT_ERRNO is the error.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int calls;

static int fails(const char *call, const char *path) {
    const char *wanted = getenv("FAULT_CALL"), *below = getenv("FAULT_BELOW");
    const char *nth = getenv("FAULT_NTH"), *error = getenv("FAULT_ERRNO");
    if (!wanted || !below || !nth || !error || strcmp(wanted, call)) return 0;
    if (strncmp(path, below, strlen(below))) return 0;
    if (__sync_add_and_fetch(&calls, 1) != atoi(nth)) return 0;
    errno = atoi(error);
    return 1;
}

static int fails_on(const char *call, int descriptor) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return fails(call, path);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t read(int d, void *data, size_t n) {
    return fails_on("read", d) ? -1 : NEXT(read)(d, data, n);
}
ssize_t write(int d, const void *data, size_t n) {
    return fails_on("write", d) ? -1 : NEXT(write)(d, data, n);
}
int fsync(int d) { return fails_on("fsync", d) ? -1 : NEXT(fsync)(d); }
int rename(const char *from, const char *to) {
    return fails("rename", to) ? -1 : NEXT(rename)(from, to);
}

#define OPEN(name)                                  \
    int name(const char *path, int flags, ...) {    \
        va_list more;                               \
        va_start(more, flags);                      \
        int mode = va_arg(more, int);               \
        va_end(more);                               \
        return fails("open", path) ? -1 : NEXT(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
