/*
 * os: clocks, randomness, descriptors and small facts of the machine. Thread: any.
 * Descriptors from here are close-on-exec from birth.
 */
#ifndef POSTERN_OS_H
#define POSTERN_OS_H

#include <postern/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Milliseconds of CLOCK_BOOTTIME: goes on in suspend, never jumps. For every timer and age. */
uint64_t os_now_ms(void);
/* Seconds since the epoch, for certificates and log lines only. */
int64_t os_wall_s(void);
/* The same in milliseconds. */
uint64_t os_wall_ms(void);
/* "2026-01-02T03:04:05.678Z"; size at least 25. */
void os_wall_text(char *ret_text, size_t size);
/* As above for given seconds ("2026-01-02T03:04:05Z"); size at least 21. */
void os_time_text(int64_t wall_s, char *ret_text, size_t size);

/* Kernel randomness; panics if there is none. */
void os_random(void *p, size_t n);
/* Uniform in [0, bound); 0 if bound is 0. */
uint64_t os_random_below(uint64_t bound);

void os_fd_cleanup(int *fd);
#define os_autofd __attribute__((cleanup(os_fd_cleanup)))
int os_set_nonblock(int fd);
/* write(2) until all is written; -1 with errno. For files and pipes outside the data path. */
int os_write_all(int fd, const void *p, size_t n);

/* Reads a whole regular file of at most max bytes; a NUL is put after the last byte and not
 * counted. *ret_data is the caller's to free(). The file is opened O_NOFOLLOW only if `nofollow`.
 */
int os_read_file(const char *path, size_t max, bool nofollow, char **ret_data, size_t *ret_len,
                 struct err *err);
/* Writes a file as a whole: temporary beside it, fsync, rename, fsync of the directory. */
int os_write_file_atomic(const char *path, const void *data, size_t len, mode_t mode,
                         struct err *err);

/* CPUs that this process may use: the affinity mask capped by the cgroup's CPU quota, at least 1.
 */
unsigned os_cpu_count(void);
/* The directory that a path's last part stands in ("." if there is no slash); false if it does not
 * fit. */
bool os_parent_dir(const char *path, char *ret_dir, size_t size);
/* The directory of this executable, for finding helpers beside it: see proc_helper_path. */
int os_self_dir(char *ret_path, size_t size, struct err *err);

#endif
