/*
 * A command's line: a table of its options, from which it is read, mistakes are told and the usage
 * is printed, so that the three agree. The manual pages are held against the usage by a test.
 *
 * Values go into the command's own struct of options, by member; an option's row says which and
 * the compiler checks that member's type. Texts are lent from argv. Values follow their option as
 * the next word, or behind a `=`.
 */
#ifndef POSTERN_ROLE_OPTIONS_H
#define POSTERN_ROLE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum role_option_kind { ROLE_KIND_FLAG, ROLE_KIND_TEXT, ROLE_KIND_NUMBER, ROLE_KIND_TAKE };

struct role_option {
    const char *name;  /* "--config", or "-f" */
    const char *value; /* what the usage calls its value: "FILE"; NULL: a flag */
    const char *what;  /* for the usage; '\n' begins another line */
    enum role_option_kind kind;
    size_t at;                                     /* FLAG, TEXT, NUMBER: the member's offset */
    uint64_t max;                                  /* NUMBER: the largest */
    bool (*take)(void *options, const char *text); /* TAKE: false: it is no such value */
};

#define ROLE_MEMBER(type, member, of)                                                              \
    (offsetof(type, member) +                                                                      \
     0 * sizeof(char[__builtin_types_compatible_p(__typeof__(((type *)0)->member), of) ? 1 : -1]))
#define ROLE_FLAG(name, type, member, what)                                                        \
    {name, NULL, what, ROLE_KIND_FLAG, ROLE_MEMBER(type, member, bool), 0, NULL}
#define ROLE_TEXT(name, value, type, member, what)                                                 \
    {name, value, what, ROLE_KIND_TEXT, ROLE_MEMBER(type, member, const char *), 0, NULL}
#define ROLE_NUMBER(name, value, type, member, max, what)                                          \
    {name, value, what, ROLE_KIND_NUMBER, ROLE_MEMBER(type, member, uint64_t), max, NULL}
/* Of every command that asks an agent. */
#define ROLE_SOCKET(type, member)                                                                  \
    ROLE_TEXT("--socket", "ADDRESS", type, member,                                                 \
              "the agent, as unix:/path (default $SPIFFE_ENDPOINT_SOCKET)")
/* A value that is more than a text: `take` keeps it, and may be called once for each time. */
#define ROLE_TAKE(name, value, take, what) {name, value, what, ROLE_KIND_TAKE, 0, 0, take}

struct role_use {
    const char *command;     /* "status": how mistakes are signed */
    const char *const *uses; /* each way to call it, without "postern"; NULL ends them */
    const char *about;       /* between those and the options, with its line's end; NULL: nothing */
    const struct role_option *options;
    size_t n_options;
    const char *notes; /* behind the options; NULL: nothing */
    int max_words;     /* words that are no options: a verb, a file, ... */
};
#define ROLE_USES(...) ((const char *const[]){__VA_ARGS__, NULL})
#define ROLE_OPTIONS(table) .options = (table), .n_options = sizeof(table) / sizeof((table)[0])

/* Reads argv[1] to its end into the struct; then argv[1] to argv[*argc - 1] are the words alone, in
 * their order ("-" is a word). False: the process is to end with *ret_status, after the usage was
 * asked for, or a mistake told. */
bool role_options(const struct role_use *use, int *argc, char **argv, void *options,
                  int *ret_status);
/* "90s", "30m", "2h", "7d"; nothing else, and no nought of them. */
bool role_take_time(const char *text, uint64_t *ret_s);
/* The usage, to standard error; 2. */
int role_usage(const struct role_use *use);
/* What is wrong with the line, then the usage; 2. */
int role_misuse(const struct role_use *use, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
