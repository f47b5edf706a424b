/*
 * The rotate role's own state, shared by its wiring (role_rotate.c), what it may do
 * (rotate_privs.c), what it tells (rotate_report.c), what is on disk (rotate_status.c) and what is
 * done after a change (rotate_actions.c). One thread.
 */
#ifndef POSTERN_ROTATE_ROLE_PRIV_H
#define POSTERN_ROTATE_ROLE_PRIV_H

#include "report_priv.h"

#include <jansson.h>
#include <postern/actions.h>
#include <postern/admin.h>
#include <postern/hardening.h>
#include <postern/log.h>
#include <postern/rotate.h>
#include <postern/service_manager.h>

struct rotate {
    char *path; /* of the configuration; owned */
    struct conf_rotate *conf;
    struct loop *loop;
    struct log *log;
    struct rotate_output **outputs; /* one for each of the configuration's, in its order */
    size_t n_outputs;
    struct actions *actions;          /* NULL: nothing is to be done after a change */
    const char *const *child_argv;    /* of -- CMD ARGS; NULL: none */
    int child_pid;                    /* 0: it does not run */
    struct loop_deferred start_child; /* after what this turn's changes have asked for */
    struct admin *admin;
    struct service_manager manager;
    struct loop_timer watchdog, timeout;
    struct hardening *hardening;
    struct report_reload reload;
    bool once, told_ready, stopping;
    uint64_t timeout_s; /* of --once; 0: none */
    int64_t started_s;
    int exit_status;
};

/* The last step of the set-up: capabilities, limits, file system, system calls. */
int rotate_confine(struct rotate *r, struct err *err);
/* Whether it can do, confined as it is, what another configuration needs. */
bool rotate_covers(const struct rotate *r, const struct conf_rotate *want, struct err *err);
/* Every set is there, and none has ended. */
bool rotate_is_ready(const struct rotate *r);

/* After each change, and each end of what follows from it: the end of --once. */
void rotate_look_for_end(struct rotate *r);

/* --- after a change (rotate_actions.c) ---------------------------------------------------------
 */
/* Before the sandbox. Nothing to be done is fine. */
int rotate_actions_start(struct rotate *r, struct err *err);
/* Before r->conf is exchanged for conf; on failure all stays. */
int rotate_actions_reload(struct rotate *r, const struct conf_rotate *conf, struct err *err);
void rotate_actions_change(struct rotate *r, const struct rotate_output *out,
                           const struct rotate_change *change);
/* Every set is there: the child may start. */
void rotate_actions_ready(struct rotate *r);
/* Whether nothing is under way; *ret_well: nothing has failed, and what was to be served is. */
bool rotate_actions_over(const struct rotate *r, bool *ret_well);
/* Whether there is a child, which then gets the signal. */
bool rotate_actions_forward(struct rotate *r, int signo);
/* Into the output's object of the status document, and the metrics. */
void rotate_actions_report(const struct rotate *r, size_t output, json_t *o);
bool rotate_actions_metrics(const struct rotate *r, struct buf *out);
/* The status document of the daemon that runs with the configuration; NULL: none does, or it does
 * not tell us. Then an output of it, which may be NULL as well: whether it says what became of what
 * `o` has to be done, whether all is well there, and for people. */
json_t *rotate_actions_ask(const struct conf_rotate *conf);
json_t *rotate_actions_find(json_t *doc, const char *output);
bool rotate_actions_known(const struct conf_rotate_output *o, const json_t *output);
bool rotate_actions_well(const json_t *output);
void rotate_actions_print(const json_t *output, void (*put)(const char *text));

/* Documents of the admin socket. */
bool rotate_report_status(void *arg, struct buf *out);
bool rotate_report_metrics(void *arg, struct buf *out);
bool rotate_report_ready(void *arg, struct buf *out);
/* A set as JSON: shared by the status document and `--status`. */
void rotate_report_set(json_t *o, const struct rotate_set *set, enum rotate_freshness freshness,
                       int64_t now_s);

/* `postern rotate --status`: tells, and returns the exit status. */
int rotate_status(const char *path, bool json);
/* `postern rotate --from-spiffe-helper`: likewise. */
int rotate_import(int argc, char **argv);
/* How that is called: a line of the role's usage and of its own. */
#define ROTATE_IMPORT_USE                                                                          \
    "rotate --from-spiffe-helper FILE [--executable PATH] [--spiffe-id ID] [--key-mode MODE]"

#endif
