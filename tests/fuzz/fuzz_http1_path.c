/*
 * http1 paths: what passes a strict port has one reading, the same on every port; of what a port
 * lets through the second reading has nothing left that could be resolved, cut or merged. The first
 * byte says what is let through.
 */
#include <postern/http1.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Holds in every build: a property that fails ends the run. */
#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { MAX = 4096 };

static void check_text(struct str s, size_t max)
{
    MUST(s.n > 0 && s.n <= max && s.p[0] == '/');
    for (size_t i = 0; i < s.n; i++) {
        MUST((uint8_t)s.p[i] >= 0x20 && s.p[i] != 0x7f);
    }
}

static void check_resolved(struct str s)
{
    size_t start = 1;
    for (size_t i = 1; i <= s.n; i++) {
        if (i == s.n || s.p[i] == '/') {
            struct str segment = {s.p + start, i - start};
            MUST(segment.n > 0 || i == s.n);
            MUST(!str_eq(segment, STR_LIT(".")) && !str_eq(segment, STR_LIT("..")));
            MUST(segment.n == 0 || memchr(segment.p, ';', segment.n) == NULL);
            start = i + 1;
        }
    }
}

/* What http1_path_read may be asked. */
static bool is_asked(struct str path)
{
    for (size_t i = 0; i < path.n; i++) {
        if (path.p[i] == '%' &&
            (path.n - i < 3 || strchr("0123456789abcdefABCDEF", path.p[i + 1]) == NULL ||
             strchr("0123456789abcdefABCDEF", path.p[i + 2]) == NULL || path.p[i + 1] == '\0' ||
             path.p[i + 2] == '\0')) {
            return false;
        }
    }
    return path.n > 0 && path.p[0] == '/';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char judged[3][MAX];
    static char other[3][MAX];
    struct http1_path p[3];
    const char *at = NULL;
    if (size < 2 || size > MAX) {
        return 0;
    }
    struct str path = {(const char *)data + 1, size - 1};
    if (!is_asked(path)) {
        return 0;
    }
    const uint32_t allow[3] = {0, data[0], HTTP1_PATH_ALL};
    bool passes[3];
    for (unsigned i = 0; i < 3; i++) {
        passes[i] = http1_path_read(path, allow[i], judged[i], other[i], &p[i], &at) == HTTP1_NONE;
        if (!passes[i]) {
            MUST(at >= path.p && at < path.p + path.n);
            continue;
        }
        check_text(p[i].judged, path.n);
        if (p[i].other.n > 0) {
            check_text(p[i].other, path.n);
            check_resolved(p[i].other);
            MUST(!str_eq(p[i].judged, p[i].other));
        }
    }
    /* Who lets more through lets through what others do, and reads it alike. */
    for (unsigned i = 0; i < 2; i++) {
        MUST(!passes[i] || (passes[i + 1] && str_eq(p[i].judged, p[i + 1].judged) &&
                            str_eq(p[i].other, p[i + 1].other)));
    }
    if (passes[0]) {
        MUST(p[0].other.n == 0);
        check_resolved(p[0].judged);
    }
    return 0;
}
