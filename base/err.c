#include <postern/err.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void format_into(char *out, size_t size, const char *fmt, va_list ap)
{
    if (vsnprintf(out, size, fmt, ap) < 0) {
        out[0] = '\0';
    }
}

int err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
    if (err == NULL) {
        return -1;
    }
    /* Built apart: an argument may point into the err that is replaced. */
    struct err fresh = {.code = code};
    va_list ap;
    va_start(ap, fmt);
    format_into(fresh.what, sizeof(fresh.what), fmt, ap);
    va_end(ap);
    *err = fresh;
    return -1;
}

int err_sys(struct err *err, const char *fmt, ...)
{
    int saved = errno;
    if (err == NULL) {
        return -1;
    }
    struct err fresh = {.code = ERR_SYSTEM, .sys_errno = saved};
    va_list ap;
    va_start(ap, fmt);
    format_into(fresh.what, sizeof(fresh.what), fmt, ap);
    va_end(ap);
    size_t used = strlen(fresh.what);
    char text[128];
    snprintf(fresh.what + used, sizeof(fresh.what) - used, ": %s",
             strerror_r(saved, text, sizeof(text)));
    *err = fresh;
    errno = saved;
    return -1;
}

int err_where(struct err *err, const char *fmt, ...)
{
    if (err != NULL) {
        va_list ap;
        va_start(ap, fmt);
        format_into(err->where, sizeof(err->where), fmt, ap);
        va_end(ap);
    }
    return -1;
}

int err_expected(struct err *err, const char *fmt, ...)
{
    if (err != NULL) {
        va_list ap;
        va_start(ap, fmt);
        format_into(err->expected, sizeof(err->expected), fmt, ap);
        va_end(ap);
    }
    return -1;
}

int err_advise(struct err *err, const char *fmt, ...)
{
    if (err != NULL) {
        va_list ap;
        va_start(ap, fmt);
        format_into(err->advice, sizeof(err->advice), fmt, ap);
        va_end(ap);
    }
    return -1;
}

int err_prefix(struct err *err, const char *fmt, ...)
{
    if (err == NULL) {
        return -1;
    }
    char prefix[sizeof(err->what)];
    va_list ap;
    va_start(ap, fmt);
    format_into(prefix, sizeof(prefix), fmt, ap);
    va_end(ap);
    size_t n = strlen(prefix);
    size_t room = sizeof(err->what) - 1;
    char rest[sizeof(err->what)];
    memcpy(rest, err->what, sizeof(rest));
    if (n + 2 < room) {
        memcpy(err->what, prefix, n);
        memcpy(err->what + n, ": ", 2);
        size_t left = room - n - 2;
        size_t m = strnlen(rest, left);
        memcpy(err->what + n + 2, rest, m);
        err->what[n + 2 + m] = '\0';
    }
    return -1;
}

const char *err_text(const struct err *err, char *ret_text, size_t size)
{
    snprintf(ret_text, size, "%s%s%s%s%s%s%s", err->where, err->where[0] != '\0' ? ": " : "",
             err->what[0] != '\0' ? err->what : err_code_name(err->code),
             err->expected[0] != '\0' ? ", expected " : "", err->expected,
             err->advice[0] != '\0' ? "; " : "", err->advice);
    return ret_text;
}

const char *err_code_name(enum err_code code)
{
    switch (code) {
    case ERR_NONE:
        return "none";
    case ERR_USAGE:
        return "usage";
    case ERR_CONFIG:
        return "config";
    case ERR_SYSTEM:
        return "system";
    case ERR_CRYPTO:
        return "crypto";
    case ERR_PROTOCOL:
        return "protocol";
    case ERR_DENIED:
        return "denied";
    case ERR_UNAVAILABLE:
        return "unavailable";
    case ERR_LIMIT:
        return "limit";
    case ERR_UNSUPPORTED:
        return "unsupported";
    }
    return "unknown";
}

void err_panic(const char *file, int line, const char *cond, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    format_into(text, sizeof(text), fmt, ap);
    va_end(ap);
    fprintf(stderr, "postern: bug at %s:%d: %s does not hold: %s\n", file, line, cond, text);
    abort();
}
