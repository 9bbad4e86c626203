/* Faults at chosen system calls below one folder, in every process that shares a state file.

   Loaded with LD_PRELOAD. The environment's CHAOS_STATE names the file, whose layout is `struct state` and, in Python,
   library.State. Whoever writes `root` into it arms the library, also in processes that run or fork later; until then
   every call goes straight on. Calls inside the C library itself (a FILE's own writes) are not seen. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { OPEN_READ, OPEN_WRITE, READ, WRITE, SYNC, CLOSE, RENAME, UNLINK, MKDIR, KINDS };
enum action { COUNT, KILL, KILL_AFTER, FAIL, SHORT, REPLACE, OVERWRITE };

struct state {
    char root[1024];       /* paths that begin with it count; empty: disarmed */
    char from[1024];       /* REPLACE renames it to the next, OVERWRITE copies it over that file's content */
    char to[1024];
    char where[1024];      /* the path of the first fault */
    int64_t counts[KINDS]; /* calls of every kind */
    int64_t seen;          /* calls of the chosen kinds */
    int64_t fired;         /* faults */
    int64_t first, last;   /* which of the calls seen are faulty, from 1 */
    int64_t clock_calls, clock_from, clock_jump; /* from that call on, clocks are so many seconds off */
    int32_t kinds;         /* a bit for every chosen kind */
    int32_t action, error, where_kind;
};

static struct state *state;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("CHAOS_STATE");
    int file = name ? syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *memory = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    if (memory != MAP_FAILED)
        state = memory;
}

/* The real function behind the one of the same name. */
#define REAL(name) ({ static __typeof__(&name) real; real ? real : (real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)); })
#define ADD(counter) __atomic_add_fetch(&state->counter, 1, __ATOMIC_SEQ_CST)

static const char *of_file(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    path[size < 0 ? 0 : size] = 0;
    return path;
}

static const char *absolute(int folder, const char *name, char *path) {
    if (!name || name[0] == '/')
        return name;
    if (folder == AT_FDCWD ? !getcwd(path, PATH_MAX) : !of_file(folder, path)[0])
        return NULL;
    size_t size = strlen(path);
    snprintf(path + size, PATH_MAX - size, "/%s", name);
    return path;
}

static void overwrite(void) {
    char data[4096];
    int from = syscall(SYS_openat, AT_FDCWD, state->from, O_RDONLY), to = syscall(SYS_openat, AT_FDCWD, state->to, O_WRONLY | O_TRUNC);
    ssize_t size;
    while (from >= 0 && to >= 0 && (size = syscall(SYS_read, from, data, sizeof data)) > 0 && syscall(SYS_write, to, data, size) > 0)
        ;
    syscall(SYS_close, from);
    syscall(SYS_close, to);
}

/* Whether this call is to be faulty. Ends the process here if it is to end before the call. */
static int due(enum kind kind, const char *path) {
    if (!path || strncmp(path, state->root, strlen(state->root)) || strstr(path, "/__pycache__/"))
        return 0;
    ADD(counts[kind]);
    if (!(state->kinds & (1 << kind)))
        return 0;
    int64_t number = ADD(seen);
    if (number < state->first || number > state->last || state->action == COUNT)
        return 0;
    if (ADD(fired) == 1) {
        strncpy(state->where, path, sizeof state->where - 1);
        state->where_kind = kind;
    }
    if (state->action == KILL)
        kill(getpid(), SIGKILL);
    if (state->action == REPLACE)
        syscall(SYS_rename, state->from, state->to);
    if (state->action == OVERWRITE)
        overwrite();
    return 1;
}

#define ARMED (state && state->root[0])

/* Runs a call, or what is to happen instead of it. `partly`: the call, of half its data, before a death or if short. */
#define CALL(kind, path, whole, partly) ({                              \
        __typeof__(whole) result;                                       \
        if (!due(kind, path))                                           \
            result = whole;                                             \
        else if (state->action == FAIL) {                               \
            errno = state->error;                                       \
            result = (__typeof__(whole))-1;                             \
        } else {                                                        \
            result = state->action >= REPLACE ? whole : partly;         \
            if (state->action == KILL_AFTER)                            \
                kill(getpid(), SIGKILL);                                \
        }                                                               \
        result; })

/* --- files by number ----------------------------------------------------------------------------------------- */

#define BY_FILE(type, name, kind, parameters, whole, partly)            \
    type name parameters {                                              \
        __typeof__(&name) real = REAL(name);                            \
        if (!ARMED)                                                     \
            return whole;                                               \
        char memory[PATH_MAX];                                          \
        return CALL(kind, of_file(file, memory), whole, partly);        \
    }

static size_t half(size_t size) { return size > 1 ? size / 2 : size; }

BY_FILE(ssize_t, write, WRITE, (int file, const void *data, size_t size),
        real(file, data, size), real(file, data, half(size)))
BY_FILE(ssize_t, pwrite, WRITE, (int file, const void *data, size_t size, off_t at),
        real(file, data, size, at), real(file, data, half(size), at))
BY_FILE(ssize_t, pwrite64, WRITE, (int file, const void *data, size_t size, off64_t at),
        real(file, data, size, at), real(file, data, half(size), at))
BY_FILE(ssize_t, writev, WRITE, (int file, const struct iovec *parts, int count),
        real(file, parts, count), real(file, parts, count > 1 ? count / 2 : count))
BY_FILE(int, ftruncate, WRITE, (int file, off_t size), real(file, size), real(file, size))
BY_FILE(int, ftruncate64, WRITE, (int file, off64_t size), real(file, size), real(file, size))
BY_FILE(ssize_t, read, READ, (int file, void *data, size_t size),
        real(file, data, size), real(file, data, half(size)))
BY_FILE(ssize_t, pread, READ, (int file, void *data, size_t size, off_t at),
        real(file, data, size, at), real(file, data, half(size), at))
BY_FILE(ssize_t, pread64, READ, (int file, void *data, size_t size, off64_t at),
        real(file, data, size, at), real(file, data, half(size), at))
BY_FILE(ssize_t, preadv, READ, (int file, const struct iovec *parts, int count, off_t at),
        real(file, parts, count, at), real(file, parts, count > 1 ? count / 2 : count, at))
BY_FILE(ssize_t, preadv64, READ, (int file, const struct iovec *parts, int count, off64_t at),
        real(file, parts, count, at), real(file, parts, count > 1 ? count / 2 : count, at))
BY_FILE(int, fsync, SYNC, (int file), real(file), real(file))
BY_FILE(int, fdatasync, SYNC, (int file), real(file), real(file))

/* As on NFS, where a full disk may show only here. The file is closed in any case. */
int close(int file) {
    __typeof__(&close) real = REAL(close);
    int flags = ARMED ? fcntl(file, F_GETFL) : -1;
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
        return real(file);
    char memory[PATH_MAX];
    const char *path = of_file(file, memory);
    int closed = real(file);
    return CALL(CLOSE, path, closed, closed);
}

/* --- files by name ------------------------------------------------------------------------------------------- */

static mode_t mode_of(int flags, va_list more) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; }

#define OPENS(name, folder, parameters, ...)                            \
    int name parameters {                                               \
        va_list more;                                                   \
        va_start(more, flags);                                          \
        mode_t mode = mode_of(flags, more);                             \
        va_end(more);                                                   \
        __typeof__(&name) real = REAL(name);                            \
        if (!ARMED)                                                     \
            return real(__VA_ARGS__, flags, mode);                      \
        char memory[PATH_MAX];                                          \
        enum kind kind = flags & (O_CREAT | O_ACCMODE) ? OPEN_WRITE : OPEN_READ; \
        return CALL(kind, absolute(folder, path, memory), real(__VA_ARGS__, flags, mode), real(__VA_ARGS__, flags, mode)); \
    }

OPENS(open, AT_FDCWD, (const char *path, int flags, ...), path)
OPENS(open64, AT_FDCWD, (const char *path, int flags, ...), path)
OPENS(openat, folder, (int folder, const char *path, int flags, ...), folder, path)
OPENS(openat64, folder, (int folder, const char *path, int flags, ...), folder, path)

#define FOPENS(name)                                                    \
    FILE *name(const char *path, const char *mode) {                    \
        __typeof__(&name) real = REAL(name);                            \
        if (!ARMED)                                                     \
            return real(path, mode);                                    \
        char memory[PATH_MAX];                                          \
        enum kind kind = strpbrk(mode, "wa+") ? OPEN_WRITE : OPEN_READ; \
        FILE *file = CALL(kind, absolute(AT_FDCWD, path, memory), real(path, mode), real(path, mode)); \
        return file == (FILE *)-1 ? NULL : file;                        \
    }

FOPENS(fopen)
FOPENS(fopen64)

#define BY_NAME(name, kind, folder, parameters, whole)                  \
    int name parameters {                                               \
        __typeof__(&name) real = REAL(name);                            \
        if (!ARMED)                                                     \
            return whole;                                               \
        char memory[PATH_MAX];                                          \
        return CALL(kind, absolute(folder, path, memory), whole, whole); \
    }

BY_NAME(mkdir, MKDIR, AT_FDCWD, (const char *path, mode_t mode), real(path, mode))
BY_NAME(mkdirat, MKDIR, folder, (int folder, const char *path, mode_t mode), real(folder, path, mode))
BY_NAME(unlink, UNLINK, AT_FDCWD, (const char *path), real(path))
BY_NAME(rmdir, UNLINK, AT_FDCWD, (const char *path), real(path))
BY_NAME(unlinkat, UNLINK, folder, (int folder, const char *path, int flags), real(folder, path, flags))
BY_NAME(rename, RENAME, AT_FDCWD, (const char *old, const char *path), real(old, path))
BY_NAME(renameat, RENAME, folder, (int from, const char *old, int folder, const char *path),
        real(from, old, folder, path))

/* --- clocks -------------------------------------------------------------------------------------------------- */

static time_t jump(void) { return ARMED && state->clock_jump && ADD(clock_calls) >= state->clock_from ? state->clock_jump : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += jump();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = REAL(gettimeofday)(now, zone);
    if (!result)
        now->tv_sec += jump();
    return result;
}

time_t time(time_t *now) {
    time_t result = REAL(time)(NULL) + jump();
    if (now)
        *now = result;
    return result;
}
