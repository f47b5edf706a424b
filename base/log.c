#include <postern/log.h>

#include <postern/mem.h>
#include <postern/os.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A ring has one writer (its worker) and one reader (the main thread). Positions only grow; the
 * difference is what is in it. Lines are whole: the writer publishes a line by one store to head.
 */
struct log_ring {
    uint8_t *data;
    size_t size;         /* power of two */
    _Atomic size_t head; /* written by the worker */
    _Atomic size_t tail; /* written by the drainer */
    _Atomic uint64_t lost;
    int wake_fd;
};

struct log {
    int fd; /* -1: there is a ring */
    _Atomic int level;
    char role[32];
    struct log_ring ring;
};

enum { LOG_VALUE_MAX = 1024, LOG_TAIL_ROOM = 24 /* ,"truncated":true}\n */ };

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static struct log *log_new(int fd, enum log_level level, const char *role)
{
    struct log *log = mem_must_new(struct log);
    log->fd = fd;
    atomic_init(&log->level, (int)level);
    snprintf(log->role, sizeof(log->role), "%s", role);
    return log;
}

struct log *log_new_fd(int fd, enum log_level level, const char *role)
{
    return log_new(fd, level, role);
}

struct log *log_new_ring(size_t ring_bytes, int wake_fd, enum log_level level, const char *role)
{
    POSTERN_ASSERT(ring_bytes >= LOG_LINE_MAX && (ring_bytes & (ring_bytes - 1)) == 0);
    struct log *log = log_new(-1, level, role);
    log->ring.data = mem_must_calloc(ring_bytes, 1);
    log->ring.size = ring_bytes;
    log->ring.wake_fd = wake_fd;
    return log;
}

struct log *log_free(struct log *log)
{
    if (log != NULL) {
        free(log->ring.data);
        free(log);
    }
    return NULL;
}

void log_set_level(struct log *log, enum log_level level)
{
    atomic_store_explicit(&log->level, (int)level, memory_order_relaxed);
}

bool log_enabled(const struct log *log, enum log_level level)
{
    return log != NULL && (int)level <= atomic_load_explicit(&log->level, memory_order_relaxed);
}

bool log_level_parse(struct str s, enum log_level *ret)
{
    for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
        if (str_eq(s, str_of(level_names[i]))) {
            *ret = (enum log_level)i;
            return true;
        }
    }
    return false;
}

/* --- ring ------------------------------------------------------------------------------------- */
static void ring_put(struct log_ring *r, const char *line, size_t n)
{
    size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    size_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
    if (n > r->size - (head - tail)) {
        atomic_fetch_add_explicit(&r->lost, 1, memory_order_relaxed);
        return;
    }
    size_t at = head & (r->size - 1);
    size_t first = n < r->size - at ? n : r->size - at;
    memcpy(r->data + at, line, first);
    memcpy(r->data, line + first, n - first);
    atomic_store_explicit(&r->head, head + n, memory_order_seq_cst);
    if (atomic_load_explicit(&r->tail, memory_order_seq_cst) == head) {
        /* It was empty, as far as the drainer may know: wake it. A full eventfd wakes it as well.
         */
        uint64_t one = 1;
        ssize_t ignored = write(r->wake_fd, &one, sizeof(one));
        (void)ignored;
    }
}

uint64_t log_drain(struct log *log, int fd)
{
    struct log_ring *r = &log->ring;
    for (;;) {
        size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
        size_t head = atomic_load_explicit(&r->head, memory_order_seq_cst);
        if (head == tail) {
            break;
        }
        size_t at = tail & (r->size - 1);
        size_t n = head - tail < r->size - at ? head - tail : r->size - at;
        if (os_write_all(fd, r->data + at, n) != 0) {
            /* Nobody takes our lines: they are gone, but what writes them must not stop. */
            atomic_fetch_add_explicit(&r->lost, 1, memory_order_relaxed);
        }
        atomic_store_explicit(&r->tail, tail + n, memory_order_seq_cst);
    }
    return atomic_exchange_explicit(&r->lost, 0, memory_order_relaxed);
}

/* --- lines ------------------------------------------------------------------------------------ */
/* Length of the well-formed UTF-8 sequence at p, 0 if there is none (RFC 3629), or if it is one of
 * the control characters U+0080 to U+009F: a terminal may take U+009B for an escape sequence. */
static size_t utf8_len(const uint8_t *p, size_t n)
{
    if (p[0] >= 0xc2 && p[0] <= 0xdf && n >= 2 && (p[1] & 0xc0) == 0x80) {
        return p[0] == 0xc2 && p[1] < 0xa0 ? 0 : 2;
    }
    if (p[0] >= 0xe0 && p[0] <= 0xef && n >= 3 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80) {
        bool overlong = p[0] == 0xe0 && p[1] < 0xa0;
        bool surrogate = p[0] == 0xed && p[1] > 0x9f;
        return overlong || surrogate ? 0 : 3;
    }
    if (p[0] >= 0xf0 && p[0] <= 0xf4 && n >= 4 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80 &&
        (p[3] & 0xc0) == 0x80) {
        bool outside = (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f);
        return outside ? 0 : 4;
    }
    return 0;
}

size_t log_json_escape(struct str s, char *out, size_t size)
{
    static const char hex[] = "0123456789abcdef";
    size_t o = 0;
    size_t i = 0;
    while (i < s.n) {
        const uint8_t *p = (const uint8_t *)s.p + i;
        size_t take = 1;
        char piece[6];
        size_t n;
        if (*p == '"' || *p == '\\') {
            piece[0] = '\\';
            piece[1] = (char)*p;
            n = 2;
        } else if (*p >= 0x20 && *p < 0x7f) {
            piece[0] = (char)*p;
            n = 1;
        } else if (*p >= 0x80 && (take = utf8_len(p, s.n - i)) > 0) {
            memcpy(piece, p, take);
            n = take;
        } else {
            take = 1;
            memcpy(piece, "\\u00", 4);
            piece[4] = hex[*p >> 4];
            piece[5] = hex[*p & 15];
            n = 6;
        }
        if (n > size - o) {
            break;
        }
        memcpy(out + o, piece, n);
        o += n;
        i += take;
    }
    return o;
}

/* Room that a field may use: the line must always have space for its end. */
static size_t room(const struct log_line *l)
{
    size_t limit = LOG_LINE_MAX - LOG_TAIL_ROOM;
    return l->len < limit ? limit - l->len : 0;
}

static bool put_raw(struct log_line *l, const char *p, size_t n)
{
    if (n > room(l)) {
        l->truncated = true;
        return false;
    }
    memcpy(l->text + l->len, p, n);
    l->len += n;
    return true;
}

/* ,"key":VALUE  -- whole or not at all. */
static void put_field(struct log_line *l, const char *key, const char *value, size_t n)
{
    size_t start = l->len;
    bool first = l->len == 1;
    if (!((first || put_raw(l, ",", 1)) && put_raw(l, "\"", 1) && put_raw(l, key, strlen(key)) &&
          put_raw(l, "\":", 2) && put_raw(l, value, n))) {
        l->len = start;
    }
}

void log_strn(struct log_line *l, const char *key, struct str value)
{
    if (l->log == NULL || value.n == 0) {
        return;
    }
    char quoted[LOG_VALUE_MAX * 6 + 8];
    bool cut = value.n > LOG_VALUE_MAX;
    value.n = cut ? LOG_VALUE_MAX : value.n;
    quoted[0] = '"';
    size_t n = 1 + log_json_escape(value, quoted + 1, sizeof(quoted) - 8);
    if (cut) {
        memcpy(quoted + n, "...", 3);
        n += 3;
    }
    quoted[n++] = '"';
    put_field(l, key, quoted, n);
}

void log_str(struct log_line *l, const char *key, const char *value)
{
    log_strn(l, key, str_of(value));
}

void log_fmt(struct log_line *l, const char *key, const char *fmt, ...)
{
    if (l->log == NULL) {
        return;
    }
    char text[LOG_VALUE_MAX + 2];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n > 0) {
        log_strn(l, key,
                 (struct str){text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1});
    }
}

void log_int(struct log_line *l, const char *key, int64_t value)
{
    if (l->log != NULL) {
        char text[32];
        int n = snprintf(text, sizeof(text), "%lld", (long long)value);
        put_field(l, key, text, (size_t)n);
    }
}

void log_uint(struct log_line *l, const char *key, uint64_t value)
{
    if (l->log != NULL) {
        char text[32];
        int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
        put_field(l, key, text, (size_t)n);
    }
}

void log_bool(struct log_line *l, const char *key, bool value)
{
    if (l->log != NULL) {
        put_field(l, key, value ? "true" : "false", value ? 4 : 5);
    }
}

void log_errinfo(struct log_line *l, const struct err *err)
{
    log_str(l, "error", err->what[0] != '\0' ? err->what : err_code_name(err->code));
    log_str(l, "where", err->where);
    log_str(l, "expected", err->expected);
    log_str(l, "advice", err->advice);
    if (err->sys_errno != 0) {
        log_int(l, "errno", err->sys_errno);
    }
}

void log_begin(struct log_line *l, struct log *log, enum log_level level, const char *event)
{
    l->log = log_enabled(log, level) ? log : NULL;
    l->truncated = false;
    l->len = 1;
    l->text[0] = '{';
    if (l->log == NULL) {
        return;
    }
    char ts[32];
    os_wall_text(ts, sizeof(ts));
    log_str(l, "ts", ts);
    log_str(l, "level", level_names[level]);
    log_str(l, "role", log->role);
    log_str(l, "event", event);
}

void log_end(struct log_line *l)
{
    static const char cut[] = ",\"truncated\":true";
    if (l->log == NULL) {
        return;
    }
    if (l->truncated) {
        memcpy(l->text + l->len, cut, sizeof(cut) - 1);
        l->len += sizeof(cut) - 1;
    }
    memcpy(l->text + l->len, "}\n", 2);
    l->len += 2;
    if (l->log->fd != -1) {
        /* There is nobody to tell if this fails. */
        ssize_t ignored = write(l->log->fd, l->text, l->len);
        (void)ignored;
    } else {
        ring_put(&l->log->ring, l->text, l->len);
    }
}

void log_msg(struct log *log, enum log_level level, const char *event, const char *fmt, ...)
{
    struct log_line l;
    log_begin(&l, log, level, event);
    char text[LOG_VALUE_MAX + 2];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_str(&l, "message", text);
    log_end(&l);
}

void log_failure(struct log *log, enum log_level level, const char *event, const struct err *err)
{
    struct log_line l;
    log_begin(&l, log, level, event);
    log_errinfo(&l, err);
    log_end(&l);
}
