/* A quota that is spent: while the file that FLEETBUS_TEST_QUOTA names is there, and the store's reserve beside data/ takes its room, no
   write to the store's files succeeds. SQLite makes no full disk of EDQUOT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_spent(int fd) {
    const char *flag = getenv("FLEETBUS_TEST_QUOTA");
    char link[64], path[4096], reserve[4200];
    if (flag == NULL || access(flag, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    char *name = strstr(path, "/store.");
    if (name == NULL) return 0;
    *name = 0;
    snprintf(reserve, sizeof reserve, "%s/store.reserve", path);
    return access(reserve, F_OK) == 0;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (is_spent(fd)) { errno = EDQUOT; return -1; }
    return ((ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write"))(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    if (is_spent(fd)) { errno = EDQUOT; return -1; }
    return ((ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite"))(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    if (is_spent(fd)) { errno = EDQUOT; return -1; }
    return ((ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64"))(fd, bytes, count, at);
}
