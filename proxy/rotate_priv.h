/*
 * The rotate role's own state, shared by its wiring (role_rotate.c), what it may do
 * (rotate_privs.c), what it tells (rotate_report.c) and what is on disk (rotate_status.c). One
 * thread.
 */
#ifndef POSTERN_ROTATE_ROLE_PRIV_H
#define POSTERN_ROTATE_ROLE_PRIV_H

#include <jansson.h>
#include <postern/admin.h>
#include <postern/log.h>
#include <postern/rotate.h>
#include <postern/sandbox.h>
#include <postern/service_manager.h>

struct rotate_reload_result {
    uint64_t ok, failed;
    int64_t at_s; /* of the last one; 0: none yet */
    bool last_failed;
    char error[600]; /* of the last one */
};

struct rotate {
    char *path; /* of the configuration; owned */
    struct conf_rotate *conf;
    struct loop *loop;
    struct log *log;
    struct rotate_output **outputs; /* one for each of the configuration's, in its order */
    size_t n_outputs;
    struct admin *admin;
    struct service_manager manager;
    struct loop_timer watchdog, timeout;
    struct sandbox_plan *plan; /* what it is confined to */
    struct sandbox_landlock landlock;
    int status_fd; /* of sandbox_status_open */
    struct rotate_reload_result reload;
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

/* Documents of the admin socket. */
bool rotate_report_status(void *arg, struct buf *out);
bool rotate_report_metrics(void *arg, struct buf *out);
bool rotate_report_ready(void *arg, struct buf *out);
/* A set as JSON: shared by the status document and `--status`. */
void rotate_report_set(json_t *o, const struct rotate_set *set, enum rotate_freshness freshness,
                       int64_t now_s);

/* `postern rotate --status`: tells, and returns the exit status. */
int rotate_status(const char *path, bool json);

#endif
