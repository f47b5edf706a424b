/*
 * err: how a failure is told.
 *
 * Failures of set-up, of files and of requests to the control plane fill a `struct err`, passed
 * last. It is a plain value: no allocation, no ownership, may live on the stack, may be copied.
 * A function that takes one returns 0 on success and -1 on failure (or NULL where it returns a
 * pointer); on success the err is untouched, and outputs are untouched on failure. A NULL err is
 * allowed everywhere and means "I only want to know that it failed".
 *
 * Outcomes of hot operations (want read, closed, refused) are enums of their own modules and never
 * a struct err; bugs are POSTERN_ASSERT, which stays on in release builds.
 *
 * Thread: any. Text in an err may name configuration, files and peers, never key material.
 */
#ifndef POSTERN_ERR_H
#define POSTERN_ERR_H

#include <stddef.h>

enum err_code {
    ERR_NONE = 0,
    ERR_USAGE,       /* the command line or a call is wrong: exit status 2 */
    ERR_CONFIG,      /* a file's content is wrong: exit status 2 */
    ERR_SYSTEM,      /* a system call failed; sys_errno says how */
    ERR_CRYPTO,      /* OpenSSL refused; what holds its reason */
    ERR_PROTOCOL,    /* a peer broke its protocol */
    ERR_DENIED,      /* not allowed by policy, entitlement or permission */
    ERR_UNAVAILABLE, /* not now; worth another try with backoff */
    ERR_LIMIT,       /* a bound of ours was reached */
    ERR_UNSUPPORTED, /* this build, kernel or peer cannot do it */
};

struct err {
    enum err_code code;
    int sys_errno;      /* errno at the failing call, 0 if none */
    char where[200];    /* "file:line:column", a path or a peer; may be empty */
    char what[400];     /* what happened */
    char expected[200]; /* what would have been right; may be empty */
    char advice[240];   /* what to do about it; may be empty */
};

#define ERR_INIT {.code = ERR_NONE}

/* Each of these returns -1, so that `return err_set(...)` reads well. They replace what was there.
 */
int err_set(struct err *err, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* As err_set with ERR_SYSTEM; captures errno first and appends its text. */
int err_sys(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Add to an err that is already set; return -1 as well. */
int err_where(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int err_expected(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int err_advise(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Puts "prefix: " before `what`: the caller says what it was doing. */
int err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* One line for people: "where: what, expected X; advice". Always terminated; returns ret_text. */
const char *err_text(const struct err *err, char *ret_text, size_t size);
const char *err_code_name(enum err_code code);

/* A broken invariant of ours: prints the state it was given and aborts, in every build. */
__attribute__((noreturn, format(printf, 4, 5))) void
err_panic(const char *file, int line, const char *cond, const char *fmt, ...);
#define POSTERN_ASSERT(cond)                                                                       \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0)) {                                                        \
            err_panic(__FILE__, __LINE__, #cond, " ");                                             \
        }                                                                                          \
    } while (0)

#endif
