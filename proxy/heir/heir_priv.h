/* Between a data plane and postern-heir: fixed sizes, one question at a time. */
#ifndef POSTERN_HEIR_PRIV_H
#define POSTERN_HEIR_PRIV_H

#include <postern/heir_check.h>
#include <stdbool.h>
#include <stdint.h>

enum { HEIR_VERSION = 1, HEIR_FD_ASKER = 3 };

/* A file, by what does not change with its name. */
struct heir_file {
    uint64_t dev, ino;
};
/* The first message: what the asker itself runs, and from where it was started. */
struct heir_own {
    uint32_t version;
    uint32_t uid;
    struct heir_file file;
    char path[HEIR_PATH_MAX]; /* terminated; "": it has no name any more */
};
/* With a pidfd where the kernel gives one. */
struct heir_question {
    uint32_t version;
    int32_t pid;
    uint64_t id;
};
struct heir_answer {
    uint32_t version, verdict; /* enum heir_verdict */
    uint64_t id;
    char path[HEIR_PATH_MAX]; /* terminated */
};

/* --- heir_judge.c: pure --- */
bool heir_own_ok(const struct heir_own *o, size_t len);
bool heir_question_ok(const struct heir_question *q, size_t len);
/* place: what stands there now; NULL: nothing does. */
enum heir_verdict heir_judge(const struct heir_file *own, const struct heir_file *place,
                             const struct heir_file *asker);
/* A link to an executable as the kernel shows it: false if that file has no name any more. */
bool heir_path_has_name(const char *shown);

/* --- heir_look.c --- */
/* What process `pid` runs, if that is the process of the pidfd (-1: one is made). */
enum heir_verdict heir_look(const struct heir_own *own, pid_t pid, int pidfd,
                            char ret_path[HEIR_PATH_MAX]);
/* Its executable; path may be NULL. */
bool heir_exe(pid_t pid, struct heir_file *ret, char *ret_path);

/* --- heir_privs.c --- */
int heir_confine(struct err *err);

#endif
