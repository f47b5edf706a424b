/*
 * target_check: whether a gateway's targets can be reached, asked on an interval by the main thread
 * beside the traffic, and never by a worker.
 *
 * One check is one connection: made (tcp), shaken hands on as the listener's connections are (tls),
 * asked GET of a path (http). It has failed when that is not done in its time. The first one of
 * each target runs at once, the others at the interval, spread so that they do not all run
 * together. A name is tried at the address that a connection would begin with.
 *
 * What a check does not do: authenticate anybody to the target, or spend anything of the limits.
 * Thread: the loop's. Units: ms.
 */
#ifndef POSTERN_TARGET_CHECK_H
#define POSTERN_TARGET_CHECK_H

#include <postern/err.h>
#include <postern/loop.h>
#include <postern/snapshot.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct target_checks;

enum target_state { TARGET_UNKNOWN, TARGET_UP, TARGET_DOWN };
const char *target_state_name(enum target_state s);

struct target_status {
    const char *listener; /* lent */
    char target[300];     /* as the file says it */
    enum conf_check kind;
    enum target_state state;
    uint64_t since_ms; /* of os_now_ms: when that state began */
    uint64_t checks, failures;
    uint32_t took_ms; /* the last check */
    char error[300];  /* why it is down */
};

struct target_events {
    /* A target came up or went down. */
    void (*on_change)(void *arg, const struct target_status *now);
};

struct target_checks *target_checks_new(struct loop *loop, const struct target_events *events,
                                        void *arg);
/* Takes NULL. */
struct target_checks *target_checks_free(struct target_checks *t);
/* What is checked, and by what; takes a reference. Called with every new snapshot: a target that
 * was checked before goes on as it was. */
int target_checks_use(struct target_checks *t, struct snapshot *snapshot, struct err *err);
size_t target_checks_count(const struct target_checks *t);
void target_checks_get(const struct target_checks *t, size_t i, struct target_status *ret);
/* Whether every target that is checked is up. */
bool target_checks_all_up(const struct target_checks *t);

#endif
