/* Gives a program a wrong clock. When preloaded, it adds CLOCK_OFF_MS milliseconds to the time of day, and does not change the
 * monotonic clock. Waits until a time of day are moved back, because the kernel knows only the right time: otherwise a program whose
 * clock is behind would not wait at all. libfaketime does more, but it allocates while it answers the first call of the clock. An
 * allocator that asks for the time when it starts (jemalloc) then waits for itself. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static long long off_ms(void) {
    const char *text = getenv("CLOCK_OFF_MS");
    return text ? strtoll(text, NULL, 10) : 0;
}

static void move(struct timespec *at, long long ms) {
    long long nanos = at->tv_nsec + ms % 1000 * 1000000;
    at->tv_sec += ms / 1000 + (nanos >= 1000000000) - (nanos < 0);
    at->tv_nsec = (nanos + 1000000000) % 1000000000;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int failed = (int)syscall(SYS_clock_gettime, id, at);
    if (failed == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) move(at, off_ms());
    return failed;
}

/* A time of the monotonic clock counts from the machine's start, so it is far smaller than a time of day. */
static struct timespec as_the_kernel_has_it(const struct timespec *until) {
    struct timespec at = *until;
    if (at.tv_sec > 1000000000) move(&at, -off_ms());
    return at;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec at = as_the_kernel_has_it(until);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    return real(condition, mutex, &at);
}

/* librdkafka waits with the functions of C11. */
int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
    static int (*real)(cnd_t *, mtx_t *, const struct timespec *);
    struct timespec at = as_the_kernel_has_it(until);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "cnd_timedwait");
    return real(condition, mutex, &at);
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
