/*
 * heir_check: whether whoever wants this process's listening sockets runs the same executable. A
 * sandboxed process cannot look at others; a helper of its own (postern-heir), which it starts
 * before, can: it looks, answers, and does nothing else. docs/restart.md says what counts as the
 * same, and what that is worth.
 *
 * Thread: one. Asking waits for the answer, HEIR_CHECK_MS at most.
 */
#ifndef POSTERN_HEIR_CHECK_H
#define POSTERN_HEIR_CHECK_H

#include <postern/err.h>
#include <sys/types.h>

enum { HEIR_CHECK_MS = 1000, HEIR_PATH_MAX = 1024 };

enum heir_verdict {
    HEIR_SAME_FILE,  /* the very file that this process runs */
    HEIR_SAME_PLACE, /* the file that stands now where this process was started from */
    HEIR_OTHER,
    HEIR_GONE,    /* the process has ended */
    HEIR_UNKNOWN, /* the kernel does not show it, or the helper did not answer */
};
/* "file", "place", "other", "gone", "unknown": for log lines. */
const char *heir_verdict_name(enum heir_verdict v);

struct heir_check;
/* Remembers what this process runs, and starts the helper: before the sandbox. */
struct heir_check *heir_check_start(struct err *err);
struct heir_check *heir_check_free(struct heir_check *h);
/* About the process at the other end of a Unix connection, as it was at connect(). ret_path: what
 * it runs, for people; may be empty. */
enum heir_verdict heir_check_ask(struct heir_check *h, int connection,
                                 char ret_path[HEIR_PATH_MAX]);

#endif
