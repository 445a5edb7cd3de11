/* A wall clock that steps at command, for a server under test.
 *
 * The offset, in seconds, is a double in the file that $PENSTOCK_CLOCK names; it is mapped, so a
 * step is one write of the test's. Only the wall clock steps: CLOCK_MONOTONIC is left alone.
 * The kernel is asked directly, for the C library's own functions would come back to us.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile double *offset;

__attribute__((constructor)) static void open_offset(void) {
    const char *path = getenv("PENSTOCK_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return;
    void *mapped = mmap(0, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) offset = mapped;
    close(file);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    long result = syscall(SYS_clock_gettime, which, now);
    if (result == 0 && offset && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) {
        double step = *offset;
        long long whole = (long long)step;
        now->tv_sec += whole;
        now->tv_nsec += (long)((step - whole) * 1e9);
        if (now->tv_nsec < 0) { now->tv_nsec += 1000000000L; now->tv_sec--; }
        if (now->tv_nsec >= 1000000000L) { now->tv_nsec -= 1000000000L; now->tv_sec++; }
    }
    return (int)result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return result;
}

time_t time(time_t *out) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out) *out = exact.tv_sec;
    return exact.tv_sec;
}
