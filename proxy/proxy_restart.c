/* The beginning of a proxy's life: sockets that there are already, when it serves, and what the
 * service manager is told. */
#include "proxy_priv.h"
#include "roles_priv.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

enum {
    ASK_MS = 10000,           /* for the process of before to hand over */
    FINISH_MS = 2000,         /* and to stop accepting */
    SERVE_MS = 60000,         /* to be ready in its place */
    SIGNS_A_PERIOD = 4,       /* of life: the last one that is missed still leaves time */
    READY_ANYWAY_MIN_MS = 10, /* identity.wait may be 0 */
};

int proxy_restart_begin(struct proxy *p, bool take_over, struct err *err)
{
    const char *admin = p->files->conf->admin.socket;
    if (service_manager_init(&p->manager, err) == -1 ||
        service_sockets_take(&p->inherited, err) == -1) {
        return -1;
    }
    if (!take_over) {
        return 0;
    }
    if (admin == NULL) {
        err_set(err, ERR_USAGE, "--take-over needs an admin socket: there it is asked for");
        err_where(err, "%s", p->path);
        return err_advise(err, "name one under `admin:`, the same in both files");
    }
    int r = handover_ask(admin, ASK_MS, &p->before, err);
    if (r == 1) {
        log_msg(p->log, LOG_INFO, "take_over",
                "nobody answers on the admin socket: this is an "
                "ordinary start");
        return 0;
    }
    if (r == -1) {
        return err_prefix(err, "taking over");
    }
    struct log_line l;
    log_begin(&l, p->log, LOG_INFO, "take_over");
    log_int(&l, "pid", p->before.pid);
    log_str(&l, "build", p->before.build[0] != '\0' ? p->before.build : NULL);
    log_uint(&l, "sockets", p->before.sockets.n);
    log_str(&l, "message", "has the sockets; the other process serves until this one is ready");
    log_end(&l);
    service_sockets_join(&p->inherited, &p->before.sockets);
    return 0;
}

/* --- ready ------------------------------------------------------------------------------------ */

/* Whether connections would be carried and not wait. */
static bool has_all(const struct proxy *p)
{
    return proxy_has_identity(p) && proxy_state_ready(p) && proxy_claims_ready(p);
}

static void tell_ready(struct proxy *p)
{
    p->told_ready = true;
    service_manager_ready(&p->manager,
                          has_all(p) ? "Serving" : "Accepting, without an identity yet");
    if (p->manager.watchdog_ms > 0) {
        loop_timer_arm(&p->alive_timer, 0);
    }
}

/* A reload before readiness does not make ready. */
void proxy_restart_reloading(struct proxy *p)
{
    if (p->told_ready) {
        service_manager_reloading(&p->manager);
    }
}

void proxy_restart_reloaded(struct proxy *p)
{
    if (p->told_ready) {
        service_manager_ready(&p->manager, p->reload.last_failed ? "Serving; the last reload failed"
                                                                 : "Serving");
    }
}

static int start_workers(struct proxy *p, struct err *err)
{
    p->serving = true;
    if (proxy_audit_start(p, err) == -1) {
        return -1;
    }
    for (unsigned i = 0; i < p->n_workers; i++) {
        if (conn_worker_start(p->workers[i], err) == -1) {
            return -1;
        }
    }
    admin_start(p->admin);
    proxy_targets_serve(p);
    proxy_canary_serve(p);
    proxy_names_tell(p);
    return 0;
}

static void failed(struct proxy *p, const struct err *err)
{
    log_failure(p->log, LOG_ERROR, "start_failed", err);
    p->exit_status = 1;
    loop_stop(p->loop);
}

/* In the place of the process of before, which stops accepting: in this order, so that at any time
 * one of the two does, and what comes between waits in the queue. */
static void serve(struct proxy *p)
{
    struct err err = ERR_INIT;
    pid_t pid = p->before.pid;
    loop_timer_disarm(&p->serve_timer);
    if (handover_finish(&p->before, version_text(), FINISH_MS, &err) == -1) {
        log_failure(p->log, LOG_WARN, "take_over", &err);
    }
    err = (struct err)ERR_INIT;
    if (start_workers(p, &err) == -1) {
        failed(p, &err);
        return;
    }
    struct log_line l;
    log_begin(&l, p->log, LOG_INFO, "took_over");
    log_int(&l, "pid", pid);
    log_end(&l);
}

void proxy_restart_check(struct proxy *p)
{
    if (p->draining || !has_all(p)) {
        return;
    }
    if (!p->serving && p->before.fd != -1) {
        serve(p);
    }
    if (p->serving && !p->told_ready) {
        loop_timer_disarm(&p->serve_timer);
        tell_ready(p);
    }
}

/* Not ready in time. Somebody who takes over leaves the field to the process of before, if that is
 * still there; everybody else serves as well as can be: connections wait, then are reset. */
static void on_serve_timer(void *arg)
{
    struct proxy *p = (struct proxy *)arg;
    char byte;
    if (p->serving) {
        tell_ready(p);
        return;
    }
    if (recv(p->before.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
        serve(p);
        return;
    }
    struct err err = ERR_INIT;
    err_set(&err, ERR_UNAVAILABLE,
            "no identity, no state or no keys of tokens within %d s: the process of before "
            "goes on",
            SERVE_MS / 1000);
    err_advise(&err, "`postern svid fetch` under this uid shows what the agent says");
    failed(p, &err);
}

/* --- signs of life ---------------------------------------------------------------------------- */

/* Only when every worker has turned since the last one. */
static void on_alive_timer(void *arg)
{
    struct proxy *p = (struct proxy *)arg;
    bool all = true;
    for (unsigned i = 0; i < p->n_workers; i++) {
        all = all && conn_worker_alive(p->workers[i]);
    }
    if (all) {
        service_manager_alive(&p->manager);
        for (unsigned i = 0; i < p->n_workers; i++) {
            conn_worker_post_ask(p->workers[i]);
        }
    }
    loop_timer_arm(&p->alive_timer, p->manager.watchdog_ms / SIGNS_A_PERIOD);
}

/* --- life ------------------------------------------------------------------------------------- */

int proxy_restart_set_up(struct proxy *p, struct err *err)
{
    const struct service_socket *unused = service_sockets_unused(&p->inherited);
    if (unused != NULL) {
        err_set(err, ERR_CONFIG,
                "the service manager opened a socket that nothing here takes: "
                "'%s'",
                unused->name);
        return err_advise(err, "name it in a listener (`address: systemd:NAME`), or remove it from "
                               "the .socket unit");
    }
    service_sockets_deinit(&p->inherited);
    loop_timer_init(&p->serve_timer, p->loop, on_serve_timer, p);
    loop_timer_init(&p->alive_timer, p->loop, on_alive_timer, p);
    proxy_take_over_init(p);
    if (p->before.fd != -1) {
        loop_timer_arm(&p->serve_timer, SERVE_MS);
        proxy_restart_check(p); /* a gateway may have all from the start */
        return 0;
    }
    uint32_t wait_ms = p->files->conf->identity.wait_ms;
    loop_timer_arm(&p->serve_timer, wait_ms > READY_ANYWAY_MIN_MS ? wait_ms : READY_ANYWAY_MIN_MS);
    if (start_workers(p, err) == -1) {
        return -1;
    }
    proxy_restart_check(p);
    return 0;
}

void proxy_restart_deinit(struct proxy *p)
{
    if (p->loop != NULL && p->serve_timer.loop != NULL) {
        loop_timer_disarm(&p->serve_timer);
        loop_timer_disarm(&p->alive_timer);
        proxy_take_over_deinit(p);
    }
    handover_deinit(&p->before);
    service_sockets_deinit(&p->inherited);
    service_manager_deinit(&p->manager);
}
