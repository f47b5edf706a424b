/*
 * hardening: a role with an event loop enters its sandbox, and says what is in force: one line at
 * the start, a line for calls that are refused later, numbers, a section of the status document.
 * Main thread only. docs/hardening.md.
 */
#ifndef POSTERN_HARDENING_H
#define POSTERN_HARDENING_H

#include <postern/log.h>
#include <postern/loop.h>
#include <postern/sandbox.h>

struct hardening;

/* Opens what is asked for later, so it comes before the sandbox. Both are borrowed. */
struct hardening *hardening_new(struct loop *loop, struct log *log, struct err *err);
struct hardening *hardening_free(struct hardening *h);

/* sandbox_enter, with these capabilities left (bit mask of CAP_*). Takes the plan, also on failure.
 * Logs what is in force ("confined"), and loudly what is not ("hardening_degraded"). */
int hardening_enter(struct hardening *h, struct sandbox_plan *plan,
                    const struct sandbox_filter *filter, uint64_t keep_caps, struct err *err);
bool hardening_entered(const struct hardening *h);
/* Whether what is in force lets `want` (taken) work: asked before a new configuration is. -1: err
 * says what it would need, `path` is the file that wants it. */
int hardening_covers(const struct hardening *h, struct sandbox_plan *want, const char *path,
                     struct err *err);
/* A weakness that the sandbox does not know of (memory that could not be locked): logged likewise,
 * kept for the status. `what` is a constant. */
void hardening_degraded(struct hardening *h, const char *what, const char *advice);

/* The inside of a JSON object, without braces; OpenMetrics text. */
bool hardening_write_status(const struct hardening *h, struct buf *out);
bool hardening_write_metrics(const struct hardening *h, struct buf *out);

#endif
