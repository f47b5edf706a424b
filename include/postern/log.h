/*
 * log: JSON lines, one object an event.
 *
 * A `struct log` is a line writer that belongs to one thread. Below it is either a descriptor
 * (written at once: main thread, agent, commands) or a ring that the main thread drains (workers:
 * a full ring drops the line and counts it, so the data path never blocks on a log).
 *
 * Every line has "ts", "level", "event" and what the caller adds; keys are constants of ours in
 * snake_case, values are escaped (control bytes, quotes, invalid UTF-8 as \u00XX) and cut at 1024
 * bytes with "..." at the end. A line holds at most 8 kB; a field that no longer fits is left out
 * and "truncated":true is added. No secrets, ever.
 *
 *   struct log_line l;
 *   log_begin(&l, log, LOG_WARN, "handshake_failed");
 *   log_str(&l, "peer", "10.0.0.1:4431");
 *   log_end(&l);
 */
#ifndef POSTERN_LOG_H
#define POSTERN_LOG_H

#include <postern/err.h>
#include <postern/str.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log;

/* Writes to fd (borrowed, not closed). `role` goes into every line as "role". */
struct log *log_new_fd(int fd, enum log_level level, const char *role);
/* Writes into a ring of its own of `ring_bytes` (a power of two). wake_fd (an eventfd, borrowed)
 * is signalled when the ring stops being empty. */
struct log *log_new_ring(size_t ring_bytes, int wake_fd, enum log_level level, const char *role);
struct log *log_free(struct log *log);
/* Called by the draining thread, and only by it: copies whole lines from ring to fd; returns how
 * many lines were lost since the last call. */
uint64_t log_drain(struct log *ring, int fd);
void log_set_level(struct log *log, enum log_level level);
bool log_enabled(const struct log *log, enum log_level level);
/* "error", "warn", "info", "debug"; false if none of them. */
bool log_level_parse(struct str s, enum log_level *ret);

enum { LOG_LINE_MAX = 8192 };
struct log_line {
    struct log *log; /* NULL: below the level, every call is a no-op */
    size_t len;
    bool truncated;
    char text[LOG_LINE_MAX];
};

void log_begin(struct log_line *l, struct log *log, enum log_level level, const char *event);
void log_str(struct log_line *l, const char *key, const char *value); /* NULL: left out */
void log_strn(struct log_line *l, const char *key, struct str value); /* empty: left out */
void log_fmt(struct log_line *l, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void log_int(struct log_line *l, const char *key, int64_t value);
void log_uint(struct log_line *l, const char *key, uint64_t value);
void log_bool(struct log_line *l, const char *key, bool value);
/* "error", "where", "expected", "advice", "errno" as far as they are set. */
void log_errinfo(struct log_line *l, const struct err *err);
void log_end(struct log_line *l);

/* For the common case: one event with one text under "message". */
void log_msg(struct log *log, enum log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void log_failure(struct log *log, enum log_level level, const char *event, const struct err *err);

/* Escapes s as the inside of a JSON string into out (not terminated), cut to size; returns bytes.
 */
size_t log_json_escape(struct str s, char *out, size_t size);

#endif
