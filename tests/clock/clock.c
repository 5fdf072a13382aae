/* Gives a program a clock that is off: preloaded, it adds CLOCK_OFF_MS milliseconds to the time of day, and leaves the monotonic
 * clock alone. libfaketime does more, but it allocates while the first call of the clock is answered, and an allocator that asks
 * for the time as it starts (jemalloc) then waits for itself. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long off_ms(void) {
    const char *text = getenv("CLOCK_OFF_MS");
    return text ? strtoll(text, NULL, 10) : 0;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int failed = (int)syscall(SYS_clock_gettime, id, at);
    if (failed == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        long long nanos = at->tv_nsec + off_ms() % 1000 * 1000000;
        at->tv_sec += off_ms() / 1000 + (nanos >= 1000000000) - (nanos < 0);
        at->tv_nsec = (nanos + 1000000000) % 1000000000;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    (void)zone;
    if (failed == 0) {
        at->tv_sec = now.tv_sec;
        at->tv_usec = now.tv_nsec / 1000;
    }
    return failed;
}

time_t time(time_t *at) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) return (time_t)-1;
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
